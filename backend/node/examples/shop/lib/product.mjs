/** POST /v1/products: the whole workflow, told as it goes on. A failure before its first event is a plain answer. */

import { Refused, failureOf, inTheirWords, logFailure } from './failures.mjs';
import { EventStream } from './events.mjs';
import { checkFields, receivePhoto } from './photos.mjs';
import { fileName } from './pictures.mjs';
import * as schemas from './schemas.mjs';

export const LANGUAGE = 'Turkish';
const SANDBOX = ['sandbox', 'sandbox_remarks'];
const TOLD = ['step', 'status', 'style', 'seconds', 'image_url', 'categories', 'prompt', 'description', ...SANDBOX];
const TOLD_FAILURE = ['error', 'error_type', 'retryable', 'request_id', 'hint'];

export async function makeProduct(shop, request, reply, signal) {
  const photo = await receivePhoto(request, shop.folder);
  const stream = new EventStream(shop.heartbeatMs);
  const work = run(shop, request, photo, stream, signal).finally(photo.remove);
  await Promise.race([work, stream.begun]).catch((error) => {
    stream.body.destroy();
    throw error;
  });
  work.then(
    (document) => stream.end('done', document),
    (error) => {
      const failure = failureOf(error, shop.folder);
      logFailure(request, error, failure);
      stream.end('error', { ...failure.body, status: failure.status });
    },
  );
  reply.type('text/event-stream; charset=utf-8');
  return reply.headers({ 'cache-control': 'no-store', 'x-accel-buffering': 'no' }).send(stream.body);
}

async function run({ worker, gallery, folder }, request, photo, stream, signal) {
  const options = optionsOf(request, photo.fields);
  const product = await gallery.add();
  const kept = new Map();
  const keeping = [];

  /** A picture is told of when it can be had here. */
  async function keep(event) {
    const { image } = event;
    const name = `${keeping.length + 1}-${fileName(event.style)}`;
    const file = await gallery.keep(product, name, image.image_url, signal).catch((error) => {
      const why = error.cause?.message ?? error.message;
      if (!signal.aborted) request.log.warn({ picture: image.image_url }, `A picture was not kept: ${why}`);
      return { url: null, bytes: image.file_size ?? null };
    });
    kept.set(image.image_url, file);
    stream.send('progress', { ...picked(event, TOLD), image: { ...image, ...file } });
  }

  function onProgress(event) {
    // A job's place in fal's queue is no step.
    if (event.status === undefined) return;
    if (event.step === 'picture' && event.status === 'done') keeping.push(keep(event));
    else stream.send('progress', inTheirWords(picked(event, [...TOLD, ...TOLD_FAILURE]), folder));
  }

  try {
    const params = { image: photo.path, language: LANGUAGE, ...options };
    const made = await worker.call('workflow', params, { signal, onProgress });
    await Promise.all(keeping);
    return {
      id: product.id,
      image_url: made.image_url,
      categories: made.categories,
      description: made.description,
      language: params.language,
      images: made.images.map((image) => ({ ...image, ...kept.get(image.image_url) })),
      total_generated: made.total_generated,
      total_requested: made.total_requested,
      errors: inTheirWords(made.errors, folder),
      timings: made.timings,
      ...picked(made, SANDBOX),
    };
  } catch (error) {
    await Promise.all(keeping);
    // What was made by then is on the page already, and stays there.
    if (kept.size === 0) await gallery.remove(product);
    throw error;
  }
}

/** The form's fields as the workflow's options. */
function optionsOf(request, { styles, ...fields }) {
  const options = { ...fields, ...(styles === undefined ? {} : { styles: parsed(styles) }) };
  checkFields(request, schemas.product, options);
  return options;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused('styles is not JSON. Send a list, such as ["Studio", "Premium"].');
  }
}

function picked(event, keys) {
  return Object.fromEntries(keys.filter((key) => key in event).map((key) => [key, event[key]]));
}
