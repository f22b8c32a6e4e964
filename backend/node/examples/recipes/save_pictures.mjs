// Make pictures and save them: with `save_dir` the worker saves each one as it comes.
//
//     node node/examples/recipes/save_pictures.mjs examples/coffee.jpg out

import { resolve } from 'node:path';

import { runFal } from 'fal-worker';

const [photo, folder] = process.argv.slice(2);
const product = await runFal('workflow', { image: resolve(photo), save_dir: resolve(folder) });
for (const image of product.images) console.log(image.path ?? image.image_url);
// What failed on the way: a style (stage "picture"), or the saving of a picture (stage "download"), which keeps its URL.
for (const failure of product.errors ?? []) console.error(`${failure.style}, ${failure.stage}: ${failure.error}`);
