// Every photo of a folder through the product workflow, a few at once.
//
//     node node/examples/recipes/product_folder.mjs photos out 4
//
// Each product has a folder of its own in `out`: its pictures, and product.json. Run it again to go on: a product whose
// product.json is there is skipped. Ctrl-C cancels what runs, also at fal.

import { access, mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { extname, join, resolve } from 'node:path';

import { FalWorker } from 'fal-worker';

const PHOTOS = ['.jpg', '.jpeg', '.png', '.webp'];

const [photos, out, atOnce = '4'] = process.argv.slice(2);
// All calls are made at once; the worker runs so many of them, and the others wait in it without a deadline.
const worker = await FalWorker.start({ concurrency: Number(atOnce), maxPending: 10_000 });
const names = (await readdir(photos)).filter((name) => PHOTOS.includes(extname(name).toLowerCase()));
const complete = await Promise.all(names.map(make));
await worker.close();
console.log(`${complete.filter(Boolean).length} of ${names.length} products are complete in ${out}`);
process.exitCode = complete.every(Boolean) ? 0 : 1;

/** Whether the product has all of its pictures. */
async function make(name) {
  const folder = resolve(out, name);
  const listing = join(folder, 'product.json');
  if (await exists(listing)) return true;
  try {
    const product = await worker.call('workflow', { image: resolve(photos, name), save_dir: folder });
    // Under its name when it is whole, whenever this program is ended.
    await mkdir(folder, { recursive: true });
    await writeFile(`${listing}.unfinished`, JSON.stringify(product, null, 2));
    await rename(`${listing}.unfinished`, listing);
    for (const failure of product.errors ?? []) {
      console.error(`${name}: ${failure.style ?? failure.stage}: ${failure.error}`);
    }
    return product.images.filter((image) => image.path).length === product.total_requested;
  } catch (error) {
    console.error(`${name}: ${error.message}`);
    return false;
  }
}

async function exists(path) {
  return access(path).then(() => true, () => false);
}
