/** What a failure looks like to a caller: one body for all, and the HTTP status of each `error_type`. */

import { FalError } from '../../../fal-worker.mjs';

const STATUS = {
  invalid_input: 400,
  model_rejected: 422,
  rate_limited: 429,
  internal: 500,
  // The shop itself cannot work until its operator does something.
  missing_key: 503,
  auth: 503,
  balance_exhausted: 503,
  start_failed: 503,
  busy: 503,
  cancelled: 503,
  worker_closed: 503,
  timeout: 504,
};
/** Everything else is an answer of fal's, or none, that the shop cannot go on with. */
const ELSE = 502;
const RETRY_AFTER_S = { rate_limited: 10, busy: 2, cancelled: 5, worker_closed: 5 };
/** Their messages name files and programs of this machine: they are for its log only. */
const INWARD = {
  start_failed: 'The worker cannot be started.',
  worker_died: 'The worker ended before it answered.',
  internal: 'The shop has a defect.',
};
const LOG = 'The shop’s log tells more.';
/** Plainer words for some of Fastify's errors. */
const WORDS = {
  FST_REQ_FILE_TOO_LARGE: 'The photo is larger than 20 MB. Send a smaller one.',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'Send application/json, or multipart/form-data where a photo is taken.',
};

/** The caller's mistake, found before the worker is asked. */
export class Refused extends Error {
  constructor(message, statusCode = 400) {
    super(message);
    this.statusCode = statusCode;
  }
}

/** `{status, headers, body}` for any error. */
export function failureOf(error, folder) {
  const { status, ...body } = error instanceof FalError ? ofFal(error) : ofServer(error);
  const wait = body.retryable ? RETRY_AFTER_S[body.error_type] : undefined;
  return { status, headers: wait ? { 'retry-after': String(wait) } : {}, body: withoutPaths(body, folder) };
}

function ofFal({ message, errorType, retryable, requestId, hint }) {
  const status = STATUS[errorType] ?? ELSE;
  const inward = INWARD[errorType];
  const said = inward ? { error: `${inward} ${LOG}`, hint: null } : { error: message, hint };
  return { status, ...said, error_type: errorType, retryable, request_id: requestId };
}

function ofServer(error) {
  const status = error.statusCode ?? 500;
  const known = { retryable: false, request_id: null, hint: null };
  if (status >= 500) return { status, error: `${INWARD.internal} ${LOG}`, error_type: 'internal', ...known };
  const error_type = status === 404 ? 'not_found' : 'invalid_input';
  return { status, error: WORDS[error.code] ?? error.message, error_type, ...known };
}

/** The worker names files by their path; a caller knows them by their name only. */
export function withoutPaths(value, folder) {
  if (typeof value === 'string') {
    return value.split(`${folder}/`).map((part, at) => (at ? part.replace(/^[\w-]+\//, '') : part)).join('');
  }
  if (Array.isArray(value)) return value.map((item) => withoutPaths(item, folder));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withoutPaths(item, folder)]));
}
