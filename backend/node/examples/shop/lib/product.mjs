/** POST /v1/products: the whole workflow, told as it goes on. A failure before its first event is a plain answer. */

import { Refused, failureOf, inTheirWords, logFailure } from './failures.mjs';
import { EventStream } from './events.mjs';
import { checkFields, receivePhoto } from './photos.mjs';
import * as schemas from './schemas.mjs';

export const LANGUAGE = 'Turkish';
const SANDBOX = ['sandbox', 'sandbox_remarks'];
const TOLD = ['step', 'status', 'style', 'seconds', 'image_url', 'categories', 'prompt', 'description', ...SANDBOX];
const TOLD_STEP = [...TOLD, 'error', 'error_type', 'retryable', 'request_id', 'hint'];
/** What callers get of the workflow's document. */
const DONE = [
  'image_url',
  'categories',
  'description',
  'cutout',
  'images',
  'packshots',
  'listing',
  'total_generated',
  'total_requested',
  'timings',
  'cost_usd',
  'costs',
  ...SANDBOX,
];

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
  /** Pictures that are made and not yet on file, by their URL at fal. */
  const made = new Map();
  /** Pictures that are on file, also cut-outs. */
  let saved = 0;

  /** A picture is told of when it can be had here. */
  function show(event, image) {
    made.delete(image.image_url);
    stream.send('progress', { ...picked(event, TOLD), image: shownHere(gallery.told(product, image)) });
  }

  function onProgress(event) {
    // A job's place in fal's queue is no step.
    if (event.status === undefined) return;
    if (event.step === 'download' && event.status === 'done') saved += 1;
    if (event.step === 'picture' && !event.style) return; // made in place of one that failed: told with the others
    if (event.step === 'picture' && event.status === 'done') made.set(event.image.image_url, event);
    else if (event.step !== 'download') stream.send('progress', inTheirWords(picked(event, TOLD_STEP), folder));
    else if (made.has(event.image?.image_url)) show(made.get(event.image.image_url), event.image);
  }

  try {
    const params = { image: photo.path, language: LANGUAGE, ...options, save_dir: product.folder };
    const document = await worker.call('workflow', params, { signal, onProgress });
    for (const event of made.values()) show(event, event.image);
    const told = gallery.told(product, picked(document, DONE));
    const images = told.images.map(shownHere);
    const errors = inTheirWords(document.errors, folder);
    return { id: product.id, language: params.language, ...told, images, errors };
  } catch (error) {
    // What was made by then is paid for and may be on the page already: it stays.
    if (saved === 0) await gallery.remove(product);
    throw error;
  }
}

/** A picture that could not be saved has no URL here. */
function shownHere(image) {
  return { url: null, bytes: image.file_size ?? null, ...image };
}

/** The form's fields as the workflow's options. */
export function optionsOf(request, { styles, places, packshot, listing, ...fields }) {
  const texts = { ...fields, ...(places === undefined ? {} : { places: places.split(',') }) };
  const flags = Object.fromEntries(
    Object.entries({ packshot, listing }).filter(([, value]) => value !== undefined).map(([key, value]) => [key, flag(key, value)]),
  );
  const options = { ...texts, ...flags, ...(styles === undefined ? {} : { styles: parsed(styles) }) };
  checkFields(request, schemas.product, options);
  return workflowOptions(options);
}

/** What the shop's callers ask for, as the worker's options. */
export function workflowOptions({ places, ...options }) {
  return places === undefined ? options : { ...options, for: places.join(','), check: true };
}

function flag(name, text) {
  if (text === 'true' || text === 'false') return text === 'true';
  throw new Refused(`${name} must be "true" or "false".`);
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
