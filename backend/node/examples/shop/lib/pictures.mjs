/** Pictures that were made, kept here for an hour: fal's own URLs expire, and the page needs no other host than this. */

import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';

const KEEP_MS = 60 * 60 * 1000;
const MAX_PRODUCTS = 200;
const TYPES = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.webp': 'image/webp',
  '.gif': 'image/gif',
  '.avif': 'image/avif',
};

/** The pictures of every product of the last hour, by the product's random id. The worker saves them into its folder. */
export class Gallery {
  #products = new Map();
  #folder;

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
    // The worker may be saving a last picture.
    await rm(product.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  /** `{path, type}` of a file that is kept, or undefined. */
  find(id, name) {
    return this.#products.get(id)?.files.get(name);
  }

  /** What callers are told of a document of the worker's: `url` and `bytes` in place of a picture's path. */
  told(product, value) {
    if (Array.isArray(value)) return value.map((item) => this.told(product, item));
    if (value === null || typeof value !== 'object') return value;
    const { path, ...others } = value;
    const rest = Object.fromEntries(Object.entries(others).map(([key, item]) => [key, this.told(product, item)]));
    return path === undefined ? rest : { ...rest, url: this.#urlOf(product, path), bytes: rest.file_size ?? null };
  }

  async close() {
    await Promise.all([...this.#products.values()].map((product) => this.remove(product)));
  }

  #urlOf(product, path) {
    const type = TYPES[extname(path).toLowerCase()];
    if (dirname(path) !== product.folder || type === undefined) return null;
    product.files.set(basename(path), { path, type });
    return `/files/${product.id}/${encodeURIComponent(basename(path))}`;
  }
}
