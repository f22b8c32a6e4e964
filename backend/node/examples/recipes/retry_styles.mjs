// Make the pictures of the styles that failed, and only those.
//
//     node node/examples/recipes/retry_styles.mjs out/*/product.json
//
// product.json is what `workflow` printed. Failures that fal may have billed, and those that come again however often
// one asks, are not `retryable`: they stay listed under `errors`. Each product is cut out once more.

import { readFile, rename, writeFile } from 'node:fs/promises';

import { FalWorker } from 'fal-worker';

/** What was asked for, by name. One of your own: `Beach: { name: 'Beach', description: 'White sand, noon' }`. */
const STYLES = { Studio: 'Studio', Lifestyle: 'Lifestyle', Premium: 'Premium' };

const worker = await FalWorker.start();
const complete = await Promise.all(process.argv.slice(2).map(retry));
await worker.close();
process.exitCode = complete.every(Boolean) ? 0 : 1;

/** Whether every style of this product has its picture now. */
async function retry(listing) {
  try {
    const product = JSON.parse(await readFile(listing, 'utf8'));
    const again = stylesToRetry(product);
    if (again.length) {
      const made = await worker.call('generate-multiple-bg', {
        image_url: product.image_url,
        categories: product.categories,
        styles: again.map((name) => STYLES[name]),
      });
      product.errors = [...product.errors.filter(({ style }) => !again.includes(style)), ...(made.errors ?? [])];
      if (!product.errors.length) product.errors = null;
      product.images.push(...made.images);
      product.total_generated = product.images.length;
      await writeFile(`${listing}.unfinished`, JSON.stringify(product, null, 2));
      await rename(`${listing}.unfinished`, listing);
    }
    console.log(`${listing}: ${product.total_generated} of ${product.total_requested} pictures`);
    return product.total_generated === product.total_requested;
  } catch (error) {
    console.error(`${listing}: ${error.message}`);
    return false;
  }
}

/** The names of the styles that have no picture, and may have one when they are asked for again. */
function stylesToRetry({ images, errors }) {
  // A style whose prompt failed is listed too, and has its picture all the same, from a plain prompt.
  const made = new Set(images.map((image) => image.style_name));
  const missing = (errors ?? []).filter(({ style }) => style !== null && !made.has(style));
  const final = new Set(missing.filter(({ retryable, stage }) => !retryable && stage !== 'prompt').map(({ style }) => style));
  return [...new Set(missing.map(({ style }) => style))].filter((style) => !final.has(style));
}
