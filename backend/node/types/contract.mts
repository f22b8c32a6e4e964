// What the types allow and what they refuse; compiled by tests/test_types.py and never run.
import {
  FalError,
  FalWorker,
  runFal,
  type Categories,
  type Command,
  type ErrorDocument,
  type ErrorType,
  type Failures,
  type Options,
  type ProgressEvent,
  type Results,
  type StreamLine,
} from 'fal-worker';

/** Fails to compile unless the two are the same type. */
function same<A, B>(..._: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? [] : [never]): void {}

// Every command has options, a result and a failure

same<keyof Options, keyof Results>();
same<keyof Options, keyof Failures>();
same<keyof Options, Command>();

// Results

const text = await runFal('any-llm-complete', { prompt: 'Kısa bir cümle.', temperature: 0.7, max_tokens: 200 });
same<typeof text.output, string>();
same<typeof text.error, null>();
same<typeof text.reasoning, string | null>();
same<typeof text.raw, Record<string, unknown>>();
const cost: number | undefined = text.usage?.cost;
// @ts-expect-error a text has no picture
text.image;

const { url } = await runFal('upload-file', { file_path: 'product.jpg' });
same<typeof url, string>();

const analysis = await runFal('analyze-product', { image_url: url });
same<typeof analysis.categories, Categories>();
// @ts-expect-error there are nine categories, and this is none of them
analysis.categories.colour;

const many = await runFal('generate-multiple-bg', {
  image_url: url,
  categories: analysis.categories,
  styles: ['Studio', { name: 'Beach', description: 'Pale sand and sea' }],
  remove_bg: true,
});
for (const image of many.images) same<typeof image.image_url, string>();
for (const failure of many.errors ?? []) same<typeof failure.error_type, ErrorType>();

const { image } = await runFal('background', { image_url: url, prompt: 'oak table' });
same<typeof image.width, number | null>();

const status = await runFal('any-llm-status', { request_id: 'abc123' });
if (status.status === 'COMPLETED') same<typeof status.queue_position, number | null>();
// @ts-expect-error fal has no such status
if (status.status === 'DONE') {
}

const product = await runFal('workflow', { image: 'product.jpg', language: 'German', save_dir: 'out' });
same<typeof product.description, string>();
same<typeof product.original_path, string | null | undefined>();

const about = await runFal('doctor');
same<typeof about.settings.timeout_s, number>();
await runFal('doctor', {}, { timeoutMs: 5_000 });
await runFal('schema', { name: 'workflow' });

// Options

await runFal('generate-bg-prompt', { categories: { main_product_type: 'Footwear' }, style_type: 'marble' });
await runFal('any-llm-enterprise', { prompt: 'Compare.', image_url: [url, url], model: null });
// @ts-expect-error there is no such command
await runFal('any-llm', { prompt: 'x' });
// @ts-expect-error the prompt is missing
await runFal('any-llm-complete', {});
// @ts-expect-error the options are missing
await runFal('any-llm-complete');
// @ts-expect-error there is no such option
await runFal('any-llm-complete', { prompt: 'x', colour: 'red' });
// @ts-expect-error an option of another command
await runFal('any-llm-complete', { prompt: 'x', image_url: url });
// @ts-expect-error a number is no text
await runFal('any-llm-complete', { prompt: 1 });
// @ts-expect-error a required option cannot be null
await runFal('any-llm-complete', { prompt: null });
// @ts-expect-error there are two priorities
await runFal('any-llm-complete', { prompt: 'x', priority: 'fast' });
// @ts-expect-error a style has a description
await runFal('generate-multiple-bg', { image_url: url, categories: analysis.categories, styles: [{ name: 'Beach' }] });
// @ts-expect-error there is no such default style
await runFal('generate-multiple-bg', { image_url: url, categories: analysis.categories, styles: ['Beach'] });
// @ts-expect-error there is no such command to have a schema
await runFal('schema', { name: 'any-llm' });
// @ts-expect-error there is no such setting
await runFal('doctor', {}, { timeout: 5 });
// @ts-expect-error progress is told by a worker that stays
await runFal('doctor', {}, { onProgress: () => {} });

// A worker that stays

const worker = new FalWorker({ concurrency: 8, maxPending: 100, onStderr: (line) => line.trim(), env: { FAL_LOG: null } });
const ready = await worker.ready();
same<typeof ready.commands, Command[]>();
same<typeof worker.pid, number | undefined>();
const controller = new AbortController();
const called = await worker.call(
  'workflow',
  { image: 'product.jpg' },
  {
    signal: controller.signal,
    timeoutMs: 60_000,
    onProgress: (event) => {
      same<typeof event, ProgressEvent>();
      if (event.step === 'queue') same<typeof event.queue_position, number>();
      else if (event.step === 'log') same<typeof event.message, string>();
      else if (event.step === 'batch') same<typeof event.total, number>();
      else if (event.status === 'failed') same<typeof event.error_type, ErrorType>();
      else if (event.status === 'done') same<typeof event.seconds, number>();
    },
  },
);
same<typeof called, Results['workflow']>();
for await (const line of worker.stream('any-llm-stream', { prompt: 'x' })) {
  same<typeof line, StreamLine>();
  process.stdout.write(line.delta);
}
for await (const event of worker.stream('generate-multiple-bg', { image_url: url, categories: { vibe: 'Cozy' } })) {
  if ('images' in event) same<typeof event.total_generated, number>();
  else if (event.step === 'picture' && event.status === 'done') process.stdout.write(event.image?.image_url ?? '');
}
const { running } = await worker.ping();
same<typeof running, number>();
await worker.close();
{
  await using other = await FalWorker.start();
  await other.call('doctor');
}
// @ts-expect-error a worker that stays has no command `serve`
await worker.call('serve');
// @ts-expect-error milliseconds are a number
await worker.call('doctor', {}, { timeoutMs: '5s' });
// @ts-expect-error a worker is told its concurrency as a number
new FalWorker({ concurrency: 'many' });

// Errors

try {
  await runFal('any-llm-complete', { prompt: 'x' });
} catch (error) {
  if (!(error instanceof FalError)) throw error;
  same<typeof error.retryable, boolean>();
  same<typeof error.requestId, string | null>();
  same<typeof error.statusCode, number | null>();
  same<typeof error.hint, string | null>();
  same<typeof error.data.error, string>();
  switch (error.errorType) {
    case 'invalid_input':
    case 'busy':
    case 'start_failed':
      break;
    // @ts-expect-error there is no such error type
    case 'oops':
  }
  // @ts-expect-error errors are not changed
  error.retryable = true;
  if ('images' in error.data) process.stdout.write(String(error.data.images?.length));
}
const document: ErrorDocument = {
  error: 'x',
  error_type: 'timeout',
  retryable: true,
  status_code: null,
  request_id: null,
  hint: null,
  trace: '',
};
const failure: Failures['workflow'] = { ...document, total_generated: 0, images: [], categories: {} };
// @ts-expect-error a failed submit has no endpoint
const submit: Failures['any-llm-submit'] = { ...document, endpoint: 'x' };
export { cost, failure, submit };

// Webhooks

import { verifyFalWebhook, WebhookVerifier, type Webhook } from 'fal-worker';
import type { IncomingMessage } from 'node:http';

const request = {} as IncomingMessage;
const webhook = await verifyFalWebhook(request.headers, Buffer.from('{}'));
same<typeof webhook, Webhook>();
if (!webhook.repeat && webhook.json().status === 'OK') webhook.forget();
const verifier = new WebhookVerifier({ now: () => 0, remembered: 100 });
await verifier.verify(new Headers(), new ArrayBuffer(2));
await verifier.verify([['x-fal-webhook-request-id', 'r-1']], new Uint8Array(2));
// @ts-expect-error a body that was parsed has lost its bytes
await verifyFalWebhook(request.headers, { status: 'OK' });
// @ts-expect-error a text may have lost some
await verifyFalWebhook(request.headers, '{}');
