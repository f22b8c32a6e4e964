/** The shop's texts, each with a button that copies it, and what the rules of the places say of them. */

import { copyButton, element } from './elements.js';
import { checksOf } from './verdicts.js';

const TEXTS = {
  title: 'Title',
  bullets: 'Bullet points',
  description: 'Description',
  seo_title: 'SEO title',
  seo_description: 'SEO description',
  tags: 'Tags',
  hashtags: 'Hashtags',
  captions: 'Captions',
  alt_text: 'Alternative text',
  slug: 'Slug',
};
/** Lists whose items are sentences, and what is put between the items of the others. */
const SENTENCES = new Set(['bullets', 'captions']);
const BETWEEN = { tags: ', ', hashtags: ' ' };

/** `code` is that of the listing's language. */
export function listingOf(listing, code, announce) {
  const rows = Object.entries(TEXTS).filter(([key]) => listing[key]?.length);
  return [
    element('dl', { className: 'texts' }, ...rows.map(([key, label]) => row(key, label, listing[key], code, announce))),
    element('div', { className: 'checks' }, ...checksOf(listing.checks)),
  ];
}

function row(key, label, value, code, announce) {
  const text = SENTENCES.has(key) ? value.join('\n') : Array.isArray(value) ? value.join(BETWEEN[key] ?? ', ') : value;
  const shown = element('dd', { lang: code, dir: 'auto' });
  if (SENTENCES.has(key)) shown.append(element('ul', {}, ...value.map((item) => element('li', {}, item))));
  else shown.append(text);
  const copy = copyButton(text, label.toLowerCase(), shown, announce);
  return element('div', {}, element('dt', {}, label, ' · ', copy), shown);
}
