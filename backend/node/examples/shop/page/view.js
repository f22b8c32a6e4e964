/** What a product's work looks like: its steps, categories, description and pictures, each shown when it is known. */

const STEPS = {
  upload: 'Upload',
  analysis: 'Categories',
  cutout: 'Cut-out',
  prompt: 'Prompts',
  picture: 'Pictures',
  description: 'Description',
};
const LABELS = {
  main_product_type: 'Product type',
  subcategory: 'Subcategory',
  target_audience: 'Target audience',
  price_range: 'Price range',
  use_case: 'Use case',
  style_design: 'Style and design',
  season_occasion: 'Season and occasion',
  industrial_type: 'Industry',
  vibe: 'Vibe',
};
const SANDBOX = 'Sandbox: no model was asked. Texts follow a script, pictures are cut and painted by plain code.';
const DOING = { waiting: 'Waiting for the categories', prompt: 'Writing the prompt', picture: 'Making the picture' };
const UNKNOWN = 'Unknown';

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; texts are texts, never HTML. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { dataset = {}, ...others } = properties;
  Object.assign(made, others);
  Object.assign(made.dataset, dataset);
  made.append(...children.filter((child) => child !== null && child !== ''));
  return made;
}

export const seconds = (value, digits = 1) => `${value.toFixed(digits)} s`;
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;
export const fileSize = (bytes) =>
  bytes < 999_500 ? `${Math.max(1, Math.round(bytes / 1000))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

/** The sheet of one product, from its first event to its last. */
export class Sheet {
  /** `announce` tells those who listen. */
  constructor({ styles, language, announce }) {
    this.language = language;
    this.announce = announce;
    /** Nothing is known of the product yet. */
    this.isBlank = true;
    /** Pictures that can be seen. */
    this.made = 0;
    this.product = 'Product';
    this.steps = Object.fromEntries(Object.entries(STEPS).map(([key, label]) => [key, new Step(label)]));
    this.cards = new Map(styles.map((style) => [style, new Card(style)]));
    this.remarks = new Set();
    byId('sandbox').hidden = true;
    this.steps.prompt.total = this.steps.picture.total = styles.length;
    byId('steps').replaceChildren(...Object.values(this.steps).map((step) => step.row));
    byId('cards').replaceChildren(...[...this.cards.values()].map((card) => card.row));
    byId('cards').dataset.count = styles.length;
    byId('description').replaceChildren(element('p', { className: 'blank two' }));
    showCategories({});
  }

  progress(event) {
    this.steps[event.step]?.progress(event);
    const card = this.cards.get(event.style);
    if (event.status === 'started') card?.doing(event.step);
    if (event.status === 'failed' && event.step === 'picture') card?.failed(event);
    if (event.status === 'failed' && event.step === 'description') this.#noDescription(event);
    if (event.status !== 'done') return;
    if (event.sandbox) this.#sandbox(event.sandbox_remarks ?? []);
    if (event.step === 'analysis') this.#categories(event.categories);
    if (event.step === 'description') this.#description(event.description);
    if (event.step === 'picture') this.#picture(card, event);
  }

  /** No more will come. Of the `errors` only what no event has told yet is new. */
  end(errors, why = '') {
    for (const error of errors ?? []) {
      const card = this.cards.get(error.style);
      if (card?.isDone && error.stage === 'prompt') card.note('Its prompt could not be written; a plain one was used.');
      if (card && !card.isDone && error.stage !== 'prompt') card.failed(error);
      if (error.stage === 'description') this.#noDescription(error);
    }
    for (const step of Object.values(this.steps)) step.stop();
    for (const card of this.cards.values()) if (!card.isDone) card.stop(why);
    for (const blank of document.querySelectorAll('.facts .blank')) blank.replaceWith(note('There is none.'));
  }

  /** Nobody shall take the sandbox's answers for a model's. */
  #sandbox(remarks) {
    for (const remark of remarks) this.remarks.add(remark);
    const lines = [SANDBOX, ...this.remarks].map((text) => element('p', {}, text));
    byId('sandbox').replaceChildren(...lines);
    byId('sandbox').hidden = false;
  }

  #categories(categories) {
    const named = [categories.subcategory, categories.main_product_type].filter((name) => name && name !== UNKNOWN);
    this.isBlank = false;
    this.product = named[0] ?? 'Product';
    byId('title').textContent = this.product;
    byId('kind').textContent = named[1] ?? 'Product';
    showCategories(categories);
    this.announce(`Categories are known: ${named.join(', ')}.`);
  }

  #description(text) {
    const { name, code } = this.language;
    const copy = element('button', { type: 'button', className: 'link' }, 'Copy');
    const quote = element('blockquote', { lang: code, dir: 'auto' }, element('p', {}, text));
    copy.addEventListener('click', () => this.#copy(text, copy, quote));
    byId('description').replaceChildren(quote, element('p', { className: 'about' }, name, ' · ', copy));
    this.announce('The description is written.');
  }

  async #copy(text, button, quote) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
      this.announce('The description is copied.');
    } catch {
      // Browsers allow it on safe sites only, and not when the visitor has refused it.
      getSelection().selectAllChildren(quote);
      button.textContent = 'Selected: copy it from there';
      this.announce('The browser does not let the page copy. The description is selected instead.');
    }
  }

  #noDescription(error) {
    byId('description').replaceChildren(note(`No description was written. ${error.error}`));
  }

  #picture(card, event) {
    card?.done(event, this.product);
    if (event.image.url === null) return this.announce(`${event.style} was made, but cannot be shown here.`);
    this.made += 1;
    this.announce(`Picture ${this.made} of ${this.cards.size} is ready: ${event.style}.`);
  }
}

/** One part of the work; with several styles it is over when it is over for each. */
class Step {
  total = 1;
  #ended = 0;
  #failed = 0;
  #longest = 0;

  constructor(label) {
    this.figure = element('span', { className: 'figure' });
    this.row = element('li', { dataset: { status: 'waiting' } }, element('span', {}, label), this.figure);
  }

  progress({ status, seconds: took }) {
    this.#ended += status === 'started' ? 0 : 1;
    this.#failed += status === 'failed' ? 1 : 0;
    this.#longest = Math.max(this.#longest, took ?? 0);
    const over = this.#ended >= this.total;
    this.row.dataset.status = !over ? 'running' : this.#failed ? 'failed' : 'done';
    const count = `${this.#ended - this.#failed} of ${this.total}`;
    if (over && !this.#failed) this.figure.textContent = seconds(this.#longest, 2);
    else this.figure.textContent = this.total > 1 ? count : this.row.dataset.status;
  }

  stop() {
    if (this.row.dataset.status === 'running') this.row.dataset.status = 'waiting';
    if (this.row.dataset.status === 'waiting') this.figure.textContent = 'not done';
  }
}

/** One scene: an empty frame, then its picture. */
class Card {
  isDone = false;

  constructor(style) {
    this.style = style;
    this.frame = element('div', { className: 'frame' });
    this.about = element('p', { className: 'about' }, DOING.waiting);
    const title = element('h3', { dir: 'auto' }, style);
    this.row = element('li', { dataset: { status: 'waiting' } }, title, this.about, this.frame);
  }

  doing(step) {
    if (!(step in DOING)) return;
    this.row.dataset.status = 'running';
    this.about.textContent = DOING[step];
  }

  done({ image, seconds: took }, product) {
    this.isDone = true;
    this.row.dataset.status = 'done';
    this.about.replaceChildren(
      image.width && image.height ? `${image.width} × ${image.height} px` : 'Made',
      image.bytes ? element('span', { className: 'size' }, ` · ${fileSize(image.bytes)}`) : '',
      took === undefined ? '' : ` · ${seconds(took)}`,
    );
    const words = element('p', { dir: 'auto' }, image.prompt);
    const prompt = element('details', {}, element('summary', {}, 'Prompt'), words);
    if (image.url === null) {
      const why = 'It was made, but could not be fetched from fal. ';
      this.frame.replaceChildren(element('p', {}, why, openAtFal(image)));
      this.row.append(prompt);
      return;
    }
    const alt = `${product}, ${this.style}: ${image.style_description}`;
    const picture = element('img', { src: image.url, alt });
    const name = `${product} ${this.style}`.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
    const link = element('a', { href: image.url, target: '_blank', rel: 'noopener' }, picture);
    // Shown when it is whole, not line by line.
    picture.decode().catch(() => {}).then(() => this.frame.replaceChildren(link));
    const file = `${name}.${image.url.split('.').pop()}`;
    const download = element('a', { className: 'button download', href: image.url, download: file }, 'Download');
    download.setAttribute('aria-label', `Download ${this.style}`);
    this.row.append(download, prompt);
  }

  failed({ error }) {
    this.row.dataset.status = 'failed';
    this.about.textContent = 'Not made';
    this.frame.replaceChildren(element('p', { dir: 'auto' }, error));
  }

  note(text) {
    this.row.append(element('p', { className: 'remark' }, text));
  }

  stop(why) {
    if (this.row.dataset.status === 'failed') return;
    this.row.dataset.status = 'stopped';
    this.about.textContent = 'Not made';
    this.frame.replaceChildren(element('p', {}, why));
  }
}

function showCategories(categories) {
  const rows = Object.entries(LABELS).map(([key, label]) => {
    const value = categories[key] ?? '';
    const className = value === '' ? 'blank' : value === UNKNOWN ? 'note' : '';
    return element('div', {}, element('dt', {}, label), element('dd', { className, dir: 'auto' }, value));
  });
  byId('categories').replaceChildren(...rows);
}

function note(text) {
  return element('p', { className: 'note' }, text);
}

function openAtFal({ image_url: href }) {
  return element('a', { href, target: '_blank', rel: 'noopener noreferrer' }, 'Open it there');
}
