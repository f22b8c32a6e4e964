/** What was found out about a picture or a text: against the rules of a place, and against the product's photo. */

import { element, plural } from './elements.js';
import { placeName } from './places.js';

const VERDICTS = {
  pass: ['✓', 'Passes'],
  warn: ['!', 'Passes with a warning'],
  fail: ['✕', 'Fails'],
  not_checked: ['–', 'Not checked'],
};
const LOCKED = 'The product’s original pixels were put back.';
const FACTS = 'Facts and claims';
const RULES = { rgb: 'RGB', dpi: 'DPI', seo_title: 'SEO title', seo_description: 'SEO description' };
/** IPTC's words for where a picture comes from, in plain ones. */
const ORIGINS = {
  trainedAlgorithmicMedia: 'made by a model',
  compositeWithTrainedAlgorithmicMedia: 'composite with a part made by a model',
  compositeSynthetic: 'composite with a synthetic part',
  algorithmicMedia: 'made by an algorithm',
};
/** What is worth reading first. */
const ORDER = ['fail', 'warn', 'not_checked', 'pass'];

/** One line per place, which opens to its rules. */
export function checksOf(checks) {
  return (checks ?? []).map(({ place, date, verdict, rules }) => {
    const count = rules.filter((rule) => rule.verdict === verdict).length;
    const told = verdict === 'fail' || verdict === 'warn' ? ` (${plural(count, 'rule')})` : '';
    const sorted = rules.toSorted((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict));
    return element(
      'details',
      { className: 'check' },
      headline('summary', verdict, place === 'facts' ? FACTS : placeName(place), told),
      element('ul', { className: 'rules' }, ...sorted.map(ruleRow)),
      date ? element('p', { className: 'about' }, `Rules of ${date}`) : '',
    );
  });
}

/** Whether the product in a picture is that of the photo; nothing when nobody looked. */
export function fidelityOf({ fidelity, verdict, locked, attempts }) {
  const found = fidelity?.verdict ?? verdict;
  if (!found) return '';
  const score = typeof fidelity?.score === 'number' ? `score ${fidelity.score.toFixed(2)} of 1` : '';
  const paid = attempts > 1 ? `${attempts} pictures were paid for` : '';
  const about = [score, paid].filter(Boolean).join(' · ');
  const said = locked ? LOCKED : (fidelity?.reason ?? '');
  return element(
    'div',
    { className: 'check' },
    headline('p', found, 'True to the product'),
    said ? element('p', { dir: 'auto' }, said) : '',
    about ? element('p', { className: 'about' }, about) : '',
  );
}

/** What the file itself says of how it was made. */
export function originOf({ digital_source_type: word }) {
  return word ? `The file says: ${ORIGINS[word] ?? word}` : '';
}

function headline(name, verdict, subject, more = '') {
  const [mark, words] = VERDICTS[verdict] ?? ['?', verdict];
  const sign = element('span', { className: 'mark', ariaHidden: 'true' }, mark);
  const strong = element('strong', {}, words);
  return element(name, { className: 'verdict', dataset: { verdict } }, sign, ` ${subject} `, strong, more);
}

function ruleRow({ field, rule, verdict, reason, measured, limit, unit, source }) {
  const [mark, words] = VERDICTS[verdict] ?? ['?', verdict];
  const sign = element('span', { className: 'mark', role: 'img', ariaLabel: words }, mark);
  const value = valueOf(measured);
  const asked = limitOf(limit);
  const about = [
    value && `measured ${value}${unit ? ` ${unit.replaceAll('_', ' ')}` : ''}`,
    asked && `asked ${asked}`,
    source?.replace(/https?:\/\/([^/\s]+)\S*/g, '$1'),
  ];
  const facts = about.filter(Boolean).join(' · ');
  const name = [field, rule].filter(Boolean).map(wordsOf).join(' ');
  return element(
    'li',
    { dataset: { verdict } },
    sign,
    element(
      'div',
      {},
      element('p', {}, element('strong', {}, `${name}:`), ' ', element('span', { dir: 'auto' }, reason ?? '')),
      facts ? element('p', { className: 'about' }, facts) : '',
    ),
  );
}

function limitOf(limit) {
  if (!Array.isArray(limit)) return valueOf(limit);
  const [least, most] = limit;
  if (limit.length !== 2 || typeof (least ?? most) === 'string') return limit.map(valueOf).join(' or ');
  if (least === most) return least === null ? '' : `exactly ${valueOf(least)}`;
  if (most === null) return `at least ${valueOf(least)}`;
  return least === null ? `at most ${valueOf(most)}` : `${valueOf(least)} to ${valueOf(most)}`;
}

/** A measured value as it is read; empty for what says nothing by itself. */
function valueOf(value) {
  if (Array.isArray(value)) return value.map(valueOf).filter(Boolean).join(', ');
  if (typeof value === 'number') return value.toLocaleString('en', { maximumFractionDigits: 4 });
  return typeof value === 'string' ? value : '';
}

function wordsOf(key) {
  const words = key.replaceAll('_', ' ');
  return RULES[key] ?? words[0].toUpperCase() + words.slice(1);
}
