/** One card for each picture: its frame, its size, what was found out about it, and its download. */

import { element, fileSize, seconds } from './elements.js';
import { placeName } from './places.js';
import { checksOf, fidelityOf, originOf } from './verdicts.js';

const DOING = { waiting: 'Waiting for the categories', prompt: 'Writing the prompt', picture: 'Making the picture' };

/** One scene: an empty frame, then its picture. */
export class Card {
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
    this.took = took;
    this.product = product;
    this.row.dataset.status = 'done';
    this.#tell(image);
    const words = element('p', { dir: 'auto' }, image.prompt);
    const prompt = element('details', {}, element('summary', {}, 'Prompt'), words);
    if (image.url === null) {
      const why = 'It was made, but could not be fetched from fal. ';
      this.frame.replaceChildren(element('p', {}, why, openAtFal(image)));
      this.row.append(prompt);
      return;
    }
    this.more = element('div', { className: 'more' }, prompt);
    this.row.append(this.more);
    this.#show(image);
  }

  /** The picture as it can be published, which may be another than the one that the model made, with its verdicts. */
  judged(image) {
    if (!this.isDone || !image.url) return;
    this.#tell(image);
    if (image.url !== this.url) this.#show(image);
    const { generated } = image;
    const before = generated?.url && generated.url !== image.url ? generatedLink(generated.url) : '';
    this.more.prepend(...[fidelityOf(image), before, ...checksOf(image.checks)].filter(Boolean));
  }

  #tell(image) {
    this.about.replaceChildren(
      image.width && image.height ? `${image.width} × ${image.height} px` : 'Made',
      image.bytes ? element('span', { className: 'size' }, ` · ${fileSize(image.bytes)}`) : '',
      this.took === undefined ? '' : ` · ${seconds(this.took)}`,
      originOf(image) ? element('span', { className: 'origin' }, originOf(image)) : '',
    );
  }

  #show(image) {
    this.url = image.url;
    const name = `${this.product} ${this.style}`.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-');
    const alt = `${this.product}, ${this.style}: ${image.style_description}`;
    fill(this.frame, image.url, alt);
    this.download ??= downloadLink(this.style);
    Object.assign(this.download, { href: image.url, download: `${name}.${image.url.split('.').pop()}` });
    if (!this.download.isConnected) this.more.before(this.download);
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

function generatedLink(href) {
  const link = element('a', { href, target: '_blank', rel: 'noopener' }, 'The picture as the model made it');
  return element('p', { className: 'remark' }, link);
}

/** The product on white, as one place asks for it. */
export function packshotCard(shot, product) {
  const name = shot.place ? placeName(shot.place) : 'Packshot';
  const frame = element('div', { className: 'frame' });
  const file = shot.url ? decodeURIComponent(shot.url.split('/').pop()) : '';
  const known = [
    `${shot.width} × ${shot.height} px`,
    shot.bytes && fileSize(shot.bytes),
    `fill\u00a0${Math.round(shot.fill * 100)}\u00a0%`,
    shot.enlarged && 'enlarged',
    originOf(shot),
  ];
  const about = element('p', { className: 'about' }, known.filter(Boolean).join(' · '));
  const more = element('div', { className: 'more' }, ...checksOf(shot.checks));
  const title = element('h3', { dir: 'auto' }, name);
  const row = element('li', { dataset: { status: 'done' } }, title, about, frame);
  if (shot.url) {
    fill(frame, shot.url, `${product}, packshot for ${name}`);
    row.append(Object.assign(downloadLink(`the packshot for ${name}`), { href: shot.url, download: file }));
  }
  row.append(more);
  return row;
}

/** Shows a picture when it is whole, not line by line. */
function fill(frame, url, alt) {
  const picture = element('img', { src: url, alt });
  frame.dataset.url = url;
  const show = () => {
    // Another picture may have taken its place in the meantime.
    if (frame.dataset.url !== url) return;
    // The link of the picture before stays: it may have the keyboard's focus.
    const before = frame.querySelector('a');
    const link = before ?? element('a', { target: '_blank', rel: 'noopener' });
    link.href = url;
    link.replaceChildren(picture);
    if (!before) frame.replaceChildren(link);
  };
  picture.decode().catch(() => {}).then(show);
}

function downloadLink(what) {
  const link = element('a', { className: 'button download' }, 'Download');
  link.setAttribute('aria-label', `Download ${what}`);
  return link;
}

function openAtFal({ image_url: href }) {
  return element('a', { href, target: '_blank', rel: 'noopener noreferrer' }, 'Open it there');
}
