/** The page: a photo is chosen, sent when the visitor says so, and what comes back is shown as it comes. */

import { byId, dollars, element, fileSize, plural, seconds } from './elements.js';
import { eventsOf } from './events.js';
import { PLACES } from './places.js';
import { Sheet } from './view.js';

const MAX_BYTES = 20_000_000;
const LANDSCAPE = 3 / 2;
/** Photos that can be used, although not every browser can show them. */
const SHOWN_BY_FEW = /^image\/(hei[cf]|avif|tiff)|\.(hei[cf]|avif|tiff?)$/i;
const PAGE_TITLE = 'Product studio';
const CHOOSE = 'Choose what is to be made, then make the pictures.';
const BROKEN_OFF = {
  error: 'The connection to the shop broke off. Look whether it still runs, then try again.',
  error_type: 'connection',
};
const TITLES = {
  missing_key: 'The service is not set up',
  auth: 'The service is not set up',
  balance_exhausted: 'The service cannot work right now',
  rate_limited: 'The service is busy',
  busy: 'The service is busy',
  timeout: 'It took too long',
  unreachable: 'The service cannot be reached',
  fal_unavailable: 'The service cannot be reached',
  connection: 'The shop cannot be reached',
  invalid_input: 'This cannot be used',
  not_found: 'This is not there',
};
const DOING = {
  upload: 'Sending the photo',
  analysis: 'Looking at the product',
  prompt: 'Writing the prompts',
  picture: 'Making the pictures',
  fidelity: 'Comparing with the product',
  packshot: 'Making the packshots',
  listing: 'Writing the texts',
};

let photo = null;
/** What stops the work that is going on. */
let running = null;

const state = (name) => {
  document.body.dataset.state = name;
  document.body.classList.remove('dropping');
  document.title = PAGE_TITLE;
  byId('work').hidden = name === 'empty' || name === 'chosen';
  byId('photo').hidden = name === 'running' || name === 'finished';
  byId('photo').setAttribute('aria-labelledby', name === 'empty' ? 'choose' : 'another');
};

// Choosing a photo

/** The first of the files. */
function choose([file, ...others]) {
  if (running || !file) return;
  hideProblem();
  const error = whyNot(file);
  if (error) return showProblem({ error, error_type: 'invalid_input' });
  photo = file;
  preview(file);
  const alone = others.length ? `One photo is taken at a time: ${file.name}. ` : '';
  announce(alone || `${file.name} is chosen.`);
  askForChoices(alone + CHOOSE);
}

function whyNot({ name, type, size }) {
  if (!type.startsWith('image/') && !SHOWN_BY_FEW.test(name)) return `${name} is not a picture. Choose a photo.`;
  if (size === 0) return `${name} is empty. Choose another photo.`;
  if (size > MAX_BYTES) return `${name} has ${fileSize(size)}. Choose a photo of at most 20 MB.`;
  return null;
}

function askForChoices(summary) {
  byId('title').textContent = 'One photo, three scenes';
  byId('kind').textContent = PAGE_TITLE;
  byId('summary').textContent = summary;
  state('chosen');
  void estimate();
  byId('start').focus();
}

function preview(file) {
  const image = byId('preview-image');
  URL.revokeObjectURL(image.src);
  image.onload = () => shown(true, image.naturalWidth / image.naturalHeight);
  image.onerror = () => shown(false, LANDSCAPE);
  const usable = SHOWN_BY_FEW.test(file.type) || SHOWN_BY_FEW.test(file.name);
  byId('preview-missing').textContent = usable
    ? 'This browser cannot show the photo. It can be used all the same.'
    : 'The photo cannot be shown. It may be damaged: another one is the safer choice.';
  image.alt = `Your photo ${file.name}`;
  image.src = URL.createObjectURL(file);
  byId('preview-about').textContent = `${file.name} · ${fileSize(file.size)}`;
  byId('preview').hidden = false;
}

/** The pictures' frames get the shape of the photo before there is a picture in them. */
function shown(can, ratio) {
  byId('cards').style.setProperty('--ratio', ratio);
  byId('preview-image').hidden = !can;
  byId('preview-missing').hidden = can;
}

async function chooseSample(name) {
  try {
    const response = await fetch(`/samples/${name}`);
    if (!response.ok) throw await response.json();
    choose([new File([await response.blob()], name, { type: 'image/jpeg' })]);
  } catch (problem) {
    showProblem(told(problem), () => chooseSample(name));
  }
}

// The work

async function start() {
  if (running || !photo) return;
  const wanted = choices();
  const { styles, language } = wanted;
  hideProblem();
  byId('announced').replaceChildren();
  byId('start').blur();
  state('running');
  const { lang: code } = byId('language').selectedOptions[0];
  const sheet = new Sheet({ ...wanted, announce, language: { name: language, code } });
  running = new AbortController();
  const clock = startClock();
  byId('cancel').focus();
  announce('The work has begun.');
  const end = (summary) => {
    const hadFocus = document.activeElement === byId('cancel');
    running = null;
    clock.stop(summary);
    // What is known was paid for, and stays to be seen.
    if (sheet.isBlank) askForChoices(summary);
    else state('finished');
    document.title = `${summary} · ${PAGE_TITLE}`;
    if (hadFocus && !sheet.isBlank) byId('again').focus();
  };
  try {
    const made = await send(wanted, running.signal, (event) => {
      if (event.status === 'started') clock.doing(DOING[event.step]);
      sheet.progress(event);
    });
    sheet.finish(made);
    sheet.end(made.errors);
    const all = plural(styles.length, 'picture');
    const pictures = sheet.made === styles.length ? all : `${sheet.made} of ${all}`;
    const spent = made.cost_usd === undefined ? '' : ` · ${spentOf(made.cost_usd)}`;
    end(`${pictures} in ${seconds(made.timings?.total ?? clock.seconds())}${spent}`);
    announce(`Finished: ${byId('summary').textContent}.`);
  } catch (problem) {
    const cancelled = running.signal.aborted;
    const made = sheet.made ? `: ${sheet.made} of ${plural(styles.length, 'picture')}` : '';
    const what = cancelled ? 'Cancelled' : 'Stopped';
    sheet.end(problem.errors, `${what}.`);
    end(`${what} after ${seconds(clock.seconds())}${made}`);
    if (cancelled) announce(byId('summary').textContent);
    else showProblem(problem, problem.error_type === 'invalid_input' ? undefined : start);
  }
}

/** What the visitor wants to have made. */
function choices() {
  const checked = (name) => [...document.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value);
  const extras = checked('extra');
  return {
    styles: checked('style'),
    language: byId('language').value,
    places: checked('place'),
    packshot: extras.includes('packshot'),
    listing: extras.includes('listing'),
    fidelity: extras.includes('lock') ? 'lock' : null,
  };
}

const spentOf = (usd) => (usd === null ? 'cost not known' : dollars(usd));

/** The finished product. Throws the body of a failure. */
async function send({ styles, language, places, ...extras }, signal, onProgress) {
  const form = new FormData();
  form.set('language', language);
  form.set('styles', JSON.stringify(styles));
  if (places.length) form.set('places', places.join(','));
  for (const [name, value] of Object.entries(extras)) if (value) form.set(name, value);
  form.set('photo', photo);
  try {
    const response = await fetch('/v1/products', { method: 'POST', body: form, signal });
    if (!response.ok) throw await response.json();
    for await (const { event, data } of eventsOf(response)) {
      if (event === 'progress') onProgress(data);
      if (event === 'done') return data;
      if (event === 'error') throw data;
    }
  } catch (problem) {
    throw told(problem);
  }
  throw BROKEN_OFF;
}

/** The body of a failure; whatever else was thrown, there was no answer. */
function told(problem) {
  return problem.error_type ? problem : BROKEN_OFF;
}

/** Shows what is being done and for how long. */
function startClock() {
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  let doing = 'Sending the photo';
  const show = () => {
    byId('summary').textContent = `${doing} · ${seconds(passed())}`;
  };
  const timer = setInterval(show, 100);
  show();
  return {
    seconds: passed,
    doing(what) {
      doing = what ?? doing;
    },
    stop(summary) {
      clearInterval(timer);
      byId('summary').textContent = summary;
    },
  };
}

let asking = null;

/** What the choices would cost; nothing is sent to fal's models for it. */
async function estimate() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const { language, places, fidelity, ...wanted } = choices();
  if (places.length) wanted.places = places;
  if (fidelity) wanted.fidelity = fidelity;
  const said = await priceOf(wanted, mine.signal).catch(() => '');
  if (mine === asking) byId('estimate').textContent = said;
}

async function priceOf(wanted, signal) {
  if (!wanted.styles.length) return '';
  const headers = { 'content-type': 'application/json' };
  const response = await fetch('/v1/estimate', { method: 'POST', headers, body: JSON.stringify(wanted), signal });
  if (!response.ok) return '';
  const { cost_usd: usd, about, unknown } = await response.json();
  if (usd === null) return `The cost is not known beforehand. ${unknown ?? ''}`;
  return `This costs ${about ? 'about ' : ''}${dollars(usd)}.`;
}

// Telling

/** For those who listen: short, one after the other. */
function announce(text) {
  const told = byId('announced');
  told.append(element('span', {}, `${text} `));
  while (told.childElementCount > 4) told.firstElementChild.remove();
}

function showProblem({ error, errors, error_type: type, request_id: id, hint, retryable }, again) {
  // Then the cards tell what became of each picture, and the hint is for programs.
  const next = hint && !errors && !error.includes(hint) ? ` ${hint}` : '';
  const code = type === 'invalid_input' || type === 'connection' ? '' : type;
  const unnamed = id && !error.includes(id) ? `request id ${id}` : '';
  const about = [retryable ? 'It may work when tried again' : '', code, unnamed].filter(Boolean).join(' · ');
  const retry = element('button', { type: 'button', className: 'button', id: 'retry', onclick: again }, 'Try again');
  byId('problem').replaceChildren(
    element('h2', {}, TITLES[type] ?? 'The pictures could not be made'),
    element('p', { dir: 'auto' }, error + next),
    about ? element('p', { className: 'about' }, about) : '',
    again ? element('p', {}, retry) : '',
  );
  byId('problem').hidden = false;
  byId('problem').scrollIntoView({ block: 'nearest' });
}

function hideProblem() {
  byId('problem').hidden = true;
  byId('problem').replaceChildren();
}

// What the visitor does

byId('photo').addEventListener('change', ({ target }) => {
  choose(target.files);
  target.value = '';
});
byId('form').addEventListener('submit', (event) => {
  event.preventDefault();
  void start();
});
byId('cancel').addEventListener('click', () => running?.abort());
byId('again').addEventListener('click', () => {
  hideProblem();
  askForChoices(CHOOSE);
});
byId('samples').addEventListener('click', ({ target }) => {
  const name = target.closest('[data-sample]')?.dataset.sample;
  if (name) void chooseSample(name);
});
for (const image of document.querySelectorAll('#samples img')) {
  image.addEventListener('error', () => image.parentElement.remove());
}
document.addEventListener('paste', ({ clipboardData }) => choose(clipboardData.files));
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes('Files')) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = running ? 'none' : 'copy';
    document.body.classList.toggle('dropping', !running);
  });
}
document.addEventListener('dragleave', ({ relatedTarget }) => {
  if (relatedTarget === null) document.body.classList.remove('dropping');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  choose(event.dataTransfer.files);
});
function checkScenes() {
  const boxes = [...document.querySelectorAll('input[name=style]')];
  const count = boxes.filter((box) => box.checked).length;
  boxes[0].setCustomValidity(count ? '' : 'Choose at least one scene.');
  byId('start').textContent = count === 1 ? 'Make the picture' : 'Make the pictures';
}
byId('places').append(
  ...Object.entries(PLACES).map(([value, label]) =>
    element('label', { className: 'chip' }, element('input', { type: 'checkbox', name: 'place', value }), ' ', label),
  ),
);
byId('form').addEventListener('change', () => {
  checkScenes();
  estimate();
});
checkScenes();
