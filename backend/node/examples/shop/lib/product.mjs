/** POST /v1/products: the whole workflow, told as it goes on. A failure before its first event is a plain answer. */

import { Refused, failureOf, withoutPaths } from './failures.mjs';
import { EventStream } from './events.mjs';
import { receivePhoto } from './photos.mjs';
import { fileName } from './pictures.mjs';
import * as schemas from './schemas.mjs';

const LANGUAGE = 'Turkish';
const TOLD = ['step', 'status', 'style', 'seconds', 'image_url', 'categories', 'prompt', 'description'];
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
      const { status, body } = failureOf(error, shop.folder);
      if (status >= 500 && !signal.aborted) request.log.error({ status, error_type: body.error_type, err: error });
      stream.end('error', { ...body, status });
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
      request.log.warn({ err: error }, 'a picture was not kept');
      return { url: null, bytes: image.file_size ?? null };
    });
    kept.set(image.image_url, file);
    stream.send('progress', { ...picked(event, TOLD), image: { ...image, ...file } });
  }

  function onProgress(event) {
    // A job's place in fal's queue is no step.
    if (event.status === undefined) return;
    if (event.step === 'picture' && event.status === 'done') keeping.push(keep(event));
    else stream.send('progress', withoutPaths(picked(event, [...TOLD, ...TOLD_FAILURE]), folder));
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
      errors: withoutPaths(made.errors, folder),
      timings: made.timings,
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
  const validate = request.compileValidationSchema(schemas.product);
  if (!validate(options)) throw new Refused(schemas.problemOf(validate.errors, 'form'));
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
