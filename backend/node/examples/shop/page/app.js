/** The page: a photo is chosen, sent when the visitor says so, and what comes back is shown as it comes. */

import { eventsOf } from './events.js';
import { Sheet, byId, element, fileSize, plural, seconds } from './view.js';

const MAX_BYTES = 20_000_000;
const LANDSCAPE = 3 / 2;
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
};
const DOING = {
  upload: 'Sending the photo',
  analysis: 'Looking at the product',
  prompt: 'Writing the prompts',
  picture: 'Making the pictures',
};

let photo = null;
/** What stops the work that is going on. */
let running = null;

const state = (name) => {
  document.body.dataset.state = name;
  byId('work').hidden = name === 'empty' || name === 'chosen';
  byId('photo').hidden = name === 'running' || name === 'finished';
  byId('photo').setAttribute('aria-labelledby', name === 'empty' ? 'choose' : 'another');
};

// Choosing a photo

function choose(file) {
  if (running || !file) return;
  hideProblem();
  if (!file.type.startsWith('image/') && !/\.(hei[cf]|avif)$/i.test(file.name)) {
    return showProblem({ error: `${file.name} is not a picture. Choose a photo.`, error_type: 'invalid_input' });
  }
  if (file.size > MAX_BYTES) {
    const error = `${file.name} has ${fileSize(file.size)}. Choose a photo of at most 20 MB.`;
    return showProblem({ error, error_type: 'invalid_input' });
  }
  photo = file;
  preview(file);
  document.title = 'Product studio';
  announce(`${file.name} is chosen.`);
  askForChoices('Choose the scenes and the language, then make the pictures.');
}

function askForChoices(summary) {
  byId('title').textContent = 'One photo, three scenes';
  byId('kind').textContent = 'Product studio';
  byId('summary').textContent = summary;
  state('chosen');
  byId('start').focus();
}

function preview(file) {
  const image = byId('preview-image');
  URL.revokeObjectURL(image.src);
  image.onload = () => shown(true, image.naturalWidth / image.naturalHeight);
  image.onerror = () => shown(false, LANDSCAPE);
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
  const response = await fetch(`/samples/${name}`);
  choose(new File([await response.blob()], name, { type: 'image/jpeg' }));
}

// The work

async function start() {
  if (running || !photo) return;
  const styles = [...document.querySelectorAll('input[name=style]:checked')].map((box) => box.value);
  const { value: language, selectedOptions } = byId('language');
  hideProblem();
  byId('start').blur();
  state('running');
  const sheet = new Sheet({ styles, announce, language: { name: language, code: selectedOptions[0].lang } });
  running = new AbortController();
  const clock = startClock();
  byId('cancel').focus();
  announce('The work has begun.');
  const end = (summary, why) => {
    const hadFocus = document.activeElement === byId('cancel');
    running = null;
    clock.stop(summary);
    document.title = `${summary} · Product studio`;
    if (why !== undefined) sheet.stop(why);
    if (why !== undefined && sheet.made === 0) return askForChoices(summary);
    state('finished');
    if (hadFocus) byId('again').focus();
  };
  try {
    const made = await send({ styles, language }, running.signal, (event) => {
      if (event.status === 'started') clock.doing(DOING[event.step]);
      sheet.progress(event);
    });
    sheet.done(made);
    const count = made.total_generated;
    const all = plural(styles.length, 'picture');
    const pictures = count === styles.length ? all : `${count} of ${all}`;
    end(`${pictures} in ${seconds(made.timings?.total ?? clock.seconds())}`);
    announce(`Finished: ${byId('summary').textContent}.`);
  } catch (problem) {
    const cancelled = running.signal.aborted;
    const made = sheet.made ? `: ${sheet.made} of ${plural(styles.length, 'picture')}` : '';
    const what = cancelled ? 'Cancelled' : 'Stopped';
    end(`${what} after ${seconds(clock.seconds())}${made}`, `${what}.`);
    if (cancelled) announce(byId('summary').textContent);
    else showProblem(problem, start);
  }
}

/** The finished product. Throws the body of a failure. */
async function send({ styles, language }, signal, onProgress) {
  const form = new FormData();
  form.set('language', language);
  form.set('styles', JSON.stringify(styles));
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
    if (problem.error_type) throw problem;
  }
  const error = 'The connection to the shop broke off. Look whether it still runs, then try again.';
  throw { error, error_type: 'connection', retryable: true };
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

// Telling

/** For those who listen: short, one after the other. */
function announce(text) {
  const told = byId('announced');
  told.append(element('span', {}, `${text} `));
  while (told.childElementCount > 4) told.firstElementChild.remove();
}

function showProblem({ error, error_type: type, request_id: id, hint, retryable }, again) {
  const unnamed = id && !error.includes(id) ? `request id ${id}` : '';
  const about = [type, retryable ? 'may work when tried again' : '', unnamed];
  const retry = element('button', { type: 'button', className: 'button', id: 'retry', onclick: again }, 'Try again');
  byId('problem').replaceChildren(
    element('h2', {}, TITLES[type] ?? 'The pictures could not be made'),
    element('p', { dir: 'auto' }, hint && !error.includes(hint) ? `${error} ${hint}` : error),
    element('p', { className: 'about' }, about.filter(Boolean).join(' · ')),
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
  choose(target.files[0]);
  target.value = '';
});
byId('form').addEventListener('submit', (event) => {
  event.preventDefault();
  void start();
});
byId('cancel').addEventListener('click', () => running?.abort());
byId('again').addEventListener('click', () => {
  hideProblem();
  askForChoices('Choose the scenes and the language, then make the pictures.');
});
byId('samples').addEventListener('click', ({ target }) => {
  const name = target.closest('[data-sample]')?.dataset.sample;
  if (name) void chooseSample(name);
});
for (const image of document.querySelectorAll('#samples img')) {
  image.addEventListener('error', () => image.parentElement.remove());
}
document.addEventListener('paste', ({ clipboardData }) => choose(clipboardData.files[0]));
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
  choose(event.dataTransfer.files[0]);
});
function checkScenes() {
  const boxes = [...document.querySelectorAll('input[name=style]')];
  const count = boxes.filter((box) => box.checked).length;
  boxes[0].setCustomValidity(count ? '' : 'Choose at least one scene.');
  byId('start').textContent = count === 1 ? 'Make the picture' : 'Make the pictures';
}
for (const box of document.querySelectorAll('input[name=style]')) box.addEventListener('change', checkScenes);
checkScenes();
