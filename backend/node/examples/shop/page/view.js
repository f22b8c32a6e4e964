/** What a product's work looks like: its steps, pictures, texts and costs, each shown when it is known. */

import { Card, packshotCard } from './cards.js';
import { byId, copyButton, dollars, element, seconds } from './elements.js';
import { listingOf } from './listing.js';

const STEPS = {
  upload: 'Upload',
  analysis: 'Categories',
  cutout: 'Cut-out',
  prompt: 'Prompts',
  picture: 'Pictures',
  description: 'Description',
  fidelity: 'Comparison',
  packshot: 'Packshots',
  listing: 'Texts',
};
const STEP_NAMES = { upload: 'Upload', cutout: 'Cut-out', analysis: 'Analysis', prompt: 'Prompt', picture: 'Picture', text: 'Text' };
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
const UNKNOWN = 'Unknown';

/** The sheet of one product, from its first event to its last. */
export class Sheet {
  /** `announce` tells those who listen. */
  constructor({ styles, language, packshot, listing, fidelity, announce }) {
    this.language = language;
    this.announce = announce;
    /** Nothing is known of the product yet. */
    this.isBlank = true;
    /** Pictures that can be seen. */
    this.made = 0;
    this.product = 'Product';
    const chosen = { packshot, listing, fidelity };
    const steps = Object.entries(STEPS).filter(([key]) => !(key in chosen) || chosen[key]);
    this.steps = Object.fromEntries(steps.map(([key, label]) => [key, new Step(label)]));
    this.cards = new Map(styles.map((style) => [style, new Card(style)]));
    this.remarks = new Set();
    byId('sandbox').hidden = true;
    this.steps.prompt.total = this.steps.picture.total = styles.length;
    byId('steps').replaceChildren(...Object.values(this.steps).map((step) => step.row));
    byId('cards').replaceChildren(...[...this.cards.values()].map((card) => card.row));
    byId('cards').dataset.count = styles.length;
    byId('description').replaceChildren(element('p', { className: 'blank two' }));
    for (const name of ['packshots', 'listing', 'cost']) byId(`${name}-section`).hidden = true;
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

  /** What is known only when all is done: the final pictures with their verdicts, packshots, texts and costs. */
  finish({ images, packshots, listing, cost_usd: cost, costs }) {
    for (const image of images) this.cards.get(image.style_name)?.judged(image);
    if (packshots) {
      const failed = packshots.length ? '' : note('No packshot was made.');
      byId('packshots').dataset.count = packshots.length;
      byId('packshots').replaceChildren(...packshots.map((shot) => packshotCard(shot, this.product)), failed);
      byId('packshots-section').hidden = false;
    }
    if (listing) {
      const texts = listing.listings.flatMap((one) => listingOf(one, this.language.code, this.announce));
      byId('listing').replaceChildren(...(texts.length ? texts : [note('They could not be written.')]));
      byId('listing-section').hidden = false;
    }
    if (cost !== undefined) {
      byId('cost').replaceChildren(...costRows(cost, costs ?? []));
      byId('cost-section').hidden = false;
    }
  }

  /** No more will come. Of the `errors` only what no event has told yet is new. */
  end(errors, why = '') {
    for (const error of errors ?? []) {
      const card = this.cards.get(error.style);
      if (card?.isDone && error.stage === 'prompt') card.note('Its prompt could not be written; a plain one was used.');
      if (card && !card.isDone && error.stage !== 'prompt') card.failed(error);
      if (error.stage === 'description') this.#noDescription(error);
      if (card?.isDone && error.stage === 'fidelity') card.note(error.error);
      if (error.stage === 'packshot') byId('packshots').append(note(error.error));
      if (error.stage === 'listing') byId('listing').append(note(error.error));
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
    const quote = element('blockquote', { lang: code, dir: 'auto' }, element('p', {}, text));
    const copy = copyButton(text, 'the description', quote, this.announce);
    byId('description').replaceChildren(quote, element('p', { className: 'about' }, name, ' · ', copy));
    this.announce('The description is written.');
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

function costRows(cost, costs) {
  const rows = costs.map(({ step, style, endpoint, cost_usd: usd }) =>
    costRow([STEP_NAMES[step] ?? STEPS[step] ?? step, style].filter(Boolean).join(' '), usd, endpoint),
  );
  return [...rows, costRow('Total', cost)];
}

function costRow(label, usd, endpoint) {
  const name = element('dt', {}, label, endpoint ? element('small', {}, endpoint) : '');
  return element('div', {}, name, element('dd', {}, dollars(usd)));
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
