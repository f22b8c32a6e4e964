/** What a failure looks like to a caller, one body for all with the HTTP status that fits, and in the shop's log. */

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
/** Somebody went away, or the shop ends: nothing for its operator to look at. */
const ENDED = new Set(['cancelled', 'worker_closed']);
/** Plainer words for Fastify's errors. */
const WORDS = {
  FST_REQ_FILE_TOO_LARGE: 'The photo is larger than 20 MB. Send a smaller one.',
  FST_FILES_LIMIT: 'There is more than one photo. Send one at a time.',
  FST_FIELDS_LIMIT: 'The form has too many fields. Send only those that the route takes.',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'Send application/json, or multipart/form-data where a photo is taken.',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'The body is empty. Send a JSON object.',
  FST_ERR_CTP_INVALID_JSON_BODY: 'The body is not JSON. Send a JSON object.',
  FST_ERR_CTP_BODY_TOO_LARGE: 'The body is larger than 11 MB. Upload the photo first and send its URL.',
  FST_ERR_BAD_URL: 'The address has a % that is not followed by two hexadecimal digits of UTF-8. Write it as %25.',
  FST_ERR_MAX_PARAM_LENGTH: 'The address is too long. Nothing here has such a long name.',
};
/** The worker speaks of its own options and commands, which a caller of the shop does not know. */
const THEIR_WORDS = [
  [/^(?:file_path|image) (?=')/, 'The photo '],
  [' Check the path.', ''],
  ['Upload a local file first (upload_file, or the command upload-file).', 'Upload a photo first: POST /v1/upload.'],
];

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
  const wait = RETRY_AFTER_S[body.error_type];
  return { status, headers: wait ? { 'retry-after': String(wait) } : {}, body: inTheirWords(body, folder) };
}

/** Tells the operator of what is neither a caller's mistake nor an end that was wanted. */
export function logFailure(request, error, { status, body: { error_type, request_id } }) {
  if (status < 500 || ENDED.has(error_type) || request.socket.destroyed) return;
  const hint = error_type in INWARD ? (error.hint ?? undefined) : undefined;
  const trace = error_type === 'internal' ? (error.data?.trace ?? error.stack) : undefined;
  request.log.error({ status, error_type, request_id, hint, trace }, error.message);
}

function ofFal({ message, errorType, retryable, requestId, hint, data: { errors } }) {
  const status = STATUS[errorType] ?? ELSE;
  const inward = INWARD[errorType];
  const said = inward ? { error: `${inward} ${LOG}`, hint: null } : { error: message, hint };
  const known = { error_type: errorType, retryable, request_id: requestId };
  return { status, ...said, ...known, ...(errors?.length && { errors }) };
}

function ofServer(error) {
  const status = error.statusCode ?? 500;
  const known = { retryable: false, request_id: null, hint: null };
  if (status >= 500) return { status, error: `${INWARD.internal} ${LOG}`, error_type: 'internal', ...known };
  const error_type = status === 404 ? 'not_found' : 'invalid_input';
  return { status, error: WORDS[error.code] ?? error.message, error_type, ...known };
}

/** What the worker said, without its own words and without paths: a caller knows files by their name only. */
export function inTheirWords(value, folder) {
  if (typeof value === 'string') {
    const named = value.split(`${folder}/`).map((part, at) => (at ? part.replace(/^[\w-]+\//, '') : part)).join('');
    return THEIR_WORDS.reduce((text, [from, to]) => text.replace(from, to), named);
  }
  if (Array.isArray(value)) return value.map((item) => inTheirWords(item, folder));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inTheirWords(item, folder)]));
}
