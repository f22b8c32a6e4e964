import { FalWorker } from '../node/fal-worker.mjs';

const worker = await FalWorker.start();
try {
  const product = await worker.call('workflow', { image: 'backend/examples/coffee.jpg', language: 'German' });
  console.log(product.categories.subcategory, '-', product.description);
  for (const image of product.images) console.log(image.style_name, image.image_url);
} catch (error) {
  console.error(error.errorType, error.message, error.hint);
} finally {
  await worker.close();
}
