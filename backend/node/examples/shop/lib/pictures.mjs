/**
 * Pictures that were made, kept here for an hour: fal's own URLs expire, and the page needs no other host than this.
 *
 * Only URLs that fal itself has answered with are fetched, over https and from its file hosts; HTTPS_PROXY is honoured.
 */

import { randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import { EnvHttpProxyAgent, fetch } from 'undici';

const KEEP_MS = 60 * 60 * 1000;
const MAX_PRODUCTS = 200;
const MAX_BYTES = 50_000_000;
const FETCH_MS = 30_000;
const TRIES = 3;
const FILE_HOST = /^(?:(?:.+\.)?(?:fal\.media|fal\.ai|fal\.run|falrun\.com)|storage\.googleapis\.com)$/;
const EXTENSIONS = {
  'image/png': 'png',
  'image/jpeg': 'jpg',
  'image/webp': 'webp',
  'image/gif': 'gif',
  'image/avif': 'avif',
};

/** Why a picture could not be kept. */
class NotKept extends Error {
  constructor(message, again) {
    super(message);
    this.again = again;
  }
}

/** The pictures of every product of the last hour, by the product's random id. */
export class Gallery {
  #products = new Map();
  #folder;
  #proxy = new EnvHttpProxyAgent();

  constructor(folder) {
    this.#folder = folder;
  }

  async add() {
    const id = randomBytes(16).toString('base64url');
    const product = { id, folder: join(this.#folder, id), files: new Map() };
    product.timer = setTimeout(() => void this.remove(product), KEEP_MS).unref();
    await mkdir(product.folder);
    this.#products.set(id, product);
    if (this.#products.size > MAX_PRODUCTS) void this.remove(this.#products.values().next().value);
    return product;
  }

  async remove(product) {
    clearTimeout(product.timer);
    this.#products.delete(product.id);
    await rm(product.folder, { recursive: true, force: true });
  }

  /** `{path, type}` of a file that is kept, or undefined. */
  find(id, name) {
    return this.#products.get(id)?.files.get(name);
  }

  /** Fetch a picture of the product; `{url, bytes}` with the URL that it has here. */
  async keep(product, name, source, signal) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#fetch(product, name, source, signal);
      } catch (error) {
        if (tries === TRIES || signal.aborted || error.again === false) throw error;
        await sleep(200 * tries, undefined, { signal });
      }
    }
  }

  async close() {
    await Promise.all([...this.#products.values()].map((product) => this.remove(product)));
    await this.#proxy.destroy();
  }

  async #fetch(product, name, source, signal) {
    const response = await fetch(checked(source), {
      dispatcher: this.#proxy,
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(FETCH_MS)]),
    });
    const type = (response.headers.get('content-type') ?? '').split(';')[0].trim().toLowerCase();
    const refused = !response.ok || !(type in EXTENSIONS);
    if (refused) {
      await response.body?.cancel();
      throw new NotKept(`fal’s file host answered ${response.status} (${type || 'no type'}).`, response.status >= 500);
    }
    const file = `${name}.${EXTENSIONS[type]}`;
    const path = join(product.folder, file);
    let bytes = 0;
    await pipeline(
      response.body,
      async function* counted(chunks) {
        for await (const chunk of chunks) {
          bytes += chunk.length;
          if (bytes > MAX_BYTES) throw new NotKept('The picture is larger than 50 MB.', false);
          yield chunk;
        }
      },
      createWriteStream(path),
    );
    product.files.set(file, { path, type });
    return { url: `/files/${product.id}/${encodeURIComponent(file)}`, bytes };
  }
}

/** A name for a file, made of a style's words. */
export function fileName(words) {
  const plain = words.normalize('NFC').toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
  return [...plain.replace(/^-+|-+$/g, '')].slice(0, 60).join('') || 'picture';
}

function checked(source) {
  const url = new URL(source);
  if (url.protocol === 'data:') return url;
  if (url.protocol === 'https:' && !url.port && FILE_HOST.test(url.hostname)) return url;
  throw new NotKept(`Pictures are fetched over https from fal’s file hosts only, not from ${url.hostname}.`, false);
}
