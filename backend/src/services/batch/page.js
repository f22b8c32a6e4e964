/* The list of products: what is looked for stands in the address, what is shown is loaded from `index.pages/`. */
'use strict';

const NAMES = { done: 'Done', incomplete: 'Done, with problems', failed: 'Failed', ambiguous: 'Ambiguous' };
const KEPT = 100; /* scripts whose data stays in memory */

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId('facts').textContent);
const number = (value) => value.toLocaleString('en');
const dollars = (value) => `$${value && value.toFixed(value < 1 ? 4 : 2)}`;
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? '' : 's'}`;
const folded = (text) => text.normalize('NFKC').toLowerCase();

/** An element with properties and children; texts are texts, never HTML. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== ''));
  return made;
}

/* What is loaded */

const data = new Map();
const loading = new Map();

/** Called by each script in `index.pages/`. */
function arrived(name, value) {
  data.set(name, value);
  for (const old of [...data.keys()].filter((key) => !key.startsWith('keys')).slice(0, -KEPT)) data.delete(old);
}

function load(name) {
  if (data.has(name)) return Promise.resolve(data.get(name));
  if (!loading.has(name)) {
    const ended = new Promise((resolve, reject) => {
      const src = `index.pages/${name}.js?${facts.written}`;
      const onerror = () => reject(new Error(`index.pages/${name}.js cannot be loaded. Keep the folder "index.pages" beside this page.`));
      document.head.append(element('script', { src, onload: () => resolve(data.get(name)), onerror }));
    });
    loading.set(name, ended.finally(() => loading.delete(name)));
  }
  return loading.get(name);
}

/* What is looked for */

function wanted() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const state = asked.get('state');
  return {
    state: Object.hasOwn(NAMES, state) ? state : '',
    key: asked.get('key') ?? '',
    page: Math.max(1, Math.trunc(Number(asked.get('page'))) || 1),
  };
}

/** Look for something else. While somebody types, the address before is not kept: Back leads to the last search. */
function look(changes, replaces = false) {
  const asked = { ...wanted(), page: 1, ...changes };
  const hash = `#${new URLSearchParams(Object.entries(asked).filter(([, value]) => value && value !== 1))}`;
  if (hash === (location.hash || '#')) return;
  if (replaces) location.replace(hash);
  else location.hash = hash;
}

/** The places of the products that are looked for; null for all of them. */
async function found({ state, key }) {
  if (!state && !key) return null;
  const [letter, part, places] = [facts.letters[state], folded(key), []];
  for (let file = 1, first = 0; file <= facts.keyFiles; file++) {
    const { states, keys } = await load(`keys-${file}`);
    keys.forEach((name, index) => {
      if ((!letter || states[index] === letter) && folded(name).includes(part)) places.push(first + index);
    });
    first += keys.length;
  }
  return places;
}

/* What is shown */

let shows = 0;

async function show() {
  const turn = ++shows;
  const asked = wanted();
  fill(asked);
  try {
    const places = await found(asked);
    const count = places ? places.length : facts.count;
    const last = Math.max(1, Math.ceil(count / facts.perFile));
    const page = Math.min(asked.page, last);
    const first = (page - 1) * facts.perFile;
    const on = Array.from({ length: Math.min(facts.perFile, count - first) }, (_, i) => (places ? places[first + i] : first + i));
    const names = [...new Set(on.map((place) => String(Math.floor(place / facts.perFile) + 1)))];
    const files = new Map(await Promise.all(names.map(async (name) => [name, await load(name)])));
    if (turn !== shows) return;
    const entries = on.map((place) => files.get(String(Math.floor(place / facts.perFile) + 1))[place % facts.perFile]);
    byId('products').replaceChildren(...entries.map(product));
    byId('products').start = first + 1;
    tell(count ? `Products ${number(first + 1)} to ${number(first + on.length)} of ${number(count)}` : nothing(asked));
    pages(page, last);
  } catch (error) {
    if (turn !== shows) return;
    byId('products').replaceChildren();
    byId('nav').hidden = true;
    tell(error.message, true);
  }
}

function nothing({ state, key }) {
  return state || key ? 'No product matches.' : 'No product is finished yet.';
}

function tell(text, wrong = false) {
  byId('told').textContent = text;
  byId('told').className = wrong ? 'wrong' : '';
}

function pages(page, last) {
  byId('nav').hidden = last === 1;
  byId('before').disabled = page === 1;
  byId('next').disabled = page === last;
  byId('number').value = page;
  byId('number').max = last;
  byId('last').textContent = number(last);
}

/** The controls as the address says. */
function fill({ state, key }) {
  if (byId('key') !== document.activeElement) byId('key').value = key;
  document.querySelector(`#states [value="${state}"]`).checked = true;
}

function product(entry) {
  const about = [
    entry.kind,
    entry.cost_usd === null ? 'cost not known' : dollars(entry.cost_usd),
    entry.seconds === null ? '' : `${entry.seconds.toFixed(1)} s`,
    entry.attempts > 1 ? `${entry.attempts} attempts` : '',
    entry.line ? `line ${number(entry.line)}` : '',
  ];
  const head = element(
    'div',
    { className: 'head' },
    element('h2', { dir: 'auto' }, entry.key),
    element('p', { className: 'state' }, NAMES[entry.state]),
  );
  return element(
    'li',
    { className: entry.state },
    head,
    element('p', { className: 'about', dir: 'auto' }, about.filter(Boolean).join(' · ')),
    list('problems', entry.problems.map(problem)),
    list('strip', entry.pictures.map((picture) => thumbnail(picture, entry.key))),
    ...entry.texts.map(words),
    entry.report && element('p', {}, element('a', { href: entry.report }, 'Report of this product')),
  );
}

const list = (className, items) => (items.length ? element('ul', { className }, ...items) : null);

function thumbnail({ src, name, width, height, remarks }, key) {
  const size = width && height ? { width, height } : {};
  const image = element('img', { loading: 'lazy', decoding: 'async', alt: `${key}, ${name}`, ...size });
  const frame = element('a', { href: src }, image);
  image.onerror = () => frame.replaceWith(element('a', { className: 'gone', href: src }, `${name} cannot be shown here.`));
  image.src = src;
  return element('li', {}, frame, element('p', { className: 'name', dir: 'auto' }, name), list('remarks', remarks.map(remark)));
}

const remark = ({ verdict, text }) => element('li', { className: verdict, dir: 'auto' }, `${verdict}: ${text}`);

function problem({ what, error, hint }) {
  return element('li', { dir: 'auto' }, what && element('strong', {}, `${what}: `), `${error} ${hint}`.trim());
}

function words({ name, lang, title, points, body, remarks }) {
  const text = { lang, dir: 'auto' };
  if (!title && !points.length) return element('blockquote', text, body);
  return element(
    'details',
    {},
    element('summary', {}, name),
    element('h3', text, title),
    points.length ? element('ul', { className: 'points', ...text }, ...points.map((point) => element('li', {}, point))) : null,
    body && element('p', text, body),
    list('remarks', remarks.map(remark)),
  );
}

/* The controls */

function offer(state, name, count) {
  const radio = element('input', { type: 'radio', name: 'state', value: state, onchange: () => look({ state }) });
  return element('label', {}, radio, element('b', {}, name), element('span', {}, number(count)));
}

/** Show another page from its top, and say so to those who do not see it. */
function turn(page) {
  look({ page });
  byId('told').focus({ preventScroll: true });
  byId('told').scrollIntoView();
}

const states = Object.keys(NAMES).filter((state) => facts.counts[state]);
byId('states').append(offer('', 'All', facts.count), ...states.map((state) => offer(state, NAMES[state], facts.counts[state])));
for (const state of Object.keys(NAMES).filter((name) => !facts.counts[name])) {
  byId('states').append(Object.assign(offer(state, NAMES[state], 0), { hidden: true }));
}
byId('written').dateTime = new Date(facts.written * 1000).toISOString();
byId('written').textContent = new Date(facts.written * 1000).toLocaleString();
byId('key').oninput = () => look({ key: byId('key').value.trim() }, true);
byId('search').onsubmit = (event) => event.preventDefault();
byId('before').onclick = () => turn(wanted().page - 1);
byId('next').onclick = () => turn(Math.min(wanted().page, Number(byId('number').max)) + 1);
byId('number').onchange = () => turn(Math.trunc(Number(byId('number').value)) || 1);
byId('search').hidden = false;
window.onhashchange = show;
show();
