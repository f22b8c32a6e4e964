// FalWorker: one process for many calls.

import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, before, beforeEach, test } from 'node:test';

import { FalWorker } from '../fal-worker.mjs';
import { FOREVER_S, box, failure, isGone, until } from './helpers.mjs';

let worker;
before(async () => (worker = await FalWorker.start()));
after(() => worker.close());
beforeEach(() => box.reset());

const slow = () => box.configure({ latency: FOREVER_S });
const ask = (settings, options) => worker.call('any-llm-complete', { prompt: 'x', ...options }, settings);
/** For cut-outs and backgrounds that nobody looks at: painting takes its time. */
const output = { image: { url: 'https://v3.fal.media/files/x.png', width: 8, height: 8 } };
const unpainted = async (times = null) => {
  for (const endpoint of ['fal-ai/bria/background/remove', 'bria/replace-background'])
    await box.fault('job', { output, endpoint, times });
};
const PHOTO = { image_url: 'https://example.com/cup.jpg', categories: { vibe: 'calm' } };

test('says what it is when it is ready', async () => {
  const about = await worker.ready();
  assert.equal(about.pid, worker.pid);
  assert.ok(about.commands.includes('workflow'));
  assert.equal((await worker.ping()).pong, true);
});

test('gives the document of a call, in one process for all', async () => {
  await box.say('Şık kupa \u2028 ✓');
  assert.equal((await ask()).output, 'Şık kupa \u2028 ✓');
  const { pid } = worker;
  await Promise.all(Array.from({ length: 20 }, () => worker.call('schema', { name: 'doctor' })));
  assert.equal(worker.pid, pid);
});

test('starts with its first call, once for all that come while it starts', async () => {
  const lazy = new FalWorker({ concurrency: 2 });
  assert.equal(lazy.pid, undefined);
  const first = lazy.ping();
  await until(() => lazy.pid);
  const pongs = await Promise.all([first, lazy.ping(), lazy.ping()]);
  assert.equal(new Set(pongs.map((pong) => pong.pid)).size, 1);
  await lazy.close();
});

test('rejects with what the document says, and goes on', async () => {
  await box.fault('submit', { status: 401 });
  const error = await failure(ask());
  assert.deepEqual([error.name, error.errorType, error.statusCode, error.retryable], ['FalError', 'auth', 401, false]);
  assert.equal(error.data.output, '');
  assert.ok((await ask()).output);
});

for (const [method, options] of [['nothing', {}], ['any-llm-complete', { promt: 'x' }], ['any-llm-complete', []]]) {
  test(`rejects ${method} ${JSON.stringify(options)} as invalid input`, async () => {
    assert.equal((await failure(worker.call(method, options))).errorType, 'invalid_input');
  });
}

test('refuses what no line holds', async () => {
  const error = await failure(ask({}, { prompt: 'x'.repeat(33 * 1024 * 1024) }));
  assert.equal(error.errorType, 'invalid_input');
  assert.match(error.message, /32 MiB/);
});

test('tells each step with its picture', async () => {
  await unpainted();
  const events = [];
  const document = await worker.call('generate-multiple-bg', PHOTO, { onProgress: (event) => events.push(event) });
  const made = events.filter((event) => event.step === 'picture' && event.status === 'done');
  assert.equal(made.length, document.total_generated);
  assert.ok(made.every((event) => event.image.image_url && !('id' in event)));
});

test('tells each event of a stream', async () => {
  await box.say('Kupa. Sıcak tutar.');
  const events = [];
  const last = await worker.call('any-llm-stream', { prompt: 'x' }, { onDelta: (event) => events.push(event) });
  assert.equal(events.map((event) => event.delta).join(''), 'Kupa. Sıcak tutar.');
  assert.deepEqual(events.at(-1), last);
});

test('a listener that fails loses no answer', async () => {
  const warned = new Promise((resolve) => process.once('warning', resolve));
  const onDelta = () => {
    throw new Error('a broken listener');
  };
  assert.equal((await worker.call('any-llm-stream', { prompt: 'x' }, { onDelta })).partial, false);
  assert.match((await warned).message, /a broken listener/);
});

test('a listener that fails later loses no answer', async () => {
  const warned = new Promise((resolve) => process.once('warning', resolve));
  const onDelta = async () => {
    throw Object.assign(Object.create(null), { why: 'broken later' });
  };
  for await (const event of worker.stream('any-llm-stream', { prompt: 'x' }, { onDelta })) assert.ok(event.output);
  assert.equal((await worker.call('any-llm-stream', { prompt: 'x' }, { onDelta })).partial, false);
  assert.match((await warned).message, /broken later/);
});

test('stream gives the events of a text, each once', async () => {
  await box.say('Kupa. Sıcak tutar.');
  const events = [];
  for await (const event of worker.stream('any-llm-stream', { prompt: 'x' })) events.push(event);
  assert.equal(events.map((event) => event.delta).join(''), 'Kupa. Sıcak tutar.');
  assert.deepEqual(events.filter((event) => !event.partial).length, 1);
});

test('stream gives the steps of a command, and its document as the last', async () => {
  await unpainted();
  const events = [];
  for await (const event of worker.stream('generate-multiple-bg', PHOTO)) events.push(event);
  const document = events.pop();
  assert.equal(document.total_generated, 3);
  assert.ok(events.length > 6 && events.every((event) => event.step));
});

test('stream throws what the call rejects with', async () => {
  await box.fault('stream', { cut: 3 });
  const events = [];
  const error = await failure(
    (async () => {
      for await (const event of worker.stream('any-llm-stream', { prompt: 'x' })) events.push(event);
    })(),
  );
  assert.deepEqual([error.errorType, events.length], ['stream_truncated', 3]);
});

test('to leave a stream cancels its call', async () => {
  await box.configure({ latency: 4 });
  for await (const event of worker.stream('any-llm-stream', { prompt: 'x' })) {
    assert.equal(event.partial, true);
    break;
  }
  assert.equal((await worker.ping()).running, 0);
});

test('to leave a stream that waits for its next event cancels its call at once', async () => {
  await slow();
  const events = worker.stream('any-llm-complete', { prompt: 'x' });
  await events.next();
  const waiting = events.next();
  await box.waitFor((ledger) => ledger.running === 1);
  assert.deepEqual(await events.return('left'), { value: 'left', done: true });
  assert.deepEqual(await waiting, { value: undefined, done: true });
  assert.equal((await box.ledger()).cancelled, 1);
});

test('a stream into which an error is thrown throws it, and its call is cancelled', async () => {
  await slow();
  const events = worker.stream('any-llm-complete', { prompt: 'x' });
  await events.next();
  await box.waitFor((ledger) => ledger.running === 1);
  assert.equal((await failure(events.throw(new Error('no more')))).message, 'no more');
  assert.equal((await box.ledger()).cancelled, 1);
});

test('a stream that is piped is cancelled when its reader goes away', async () => {
  await slow();
  const reader = Readable.from(worker.stream('any-llm-complete', { prompt: 'x' })).resume();
  await box.waitFor((ledger) => ledger.running === 1);
  reader.destroy();
  await box.waitFor((ledger) => ledger.cancelled === 1);
});

test('a time-out leaves what was made by then', async () => {
  await unpainted(1);
  await box.fault('job', { delay: FOREVER_S, times: null, endpoint: 'bria/replace-background' });
  const made = await worker.call('generate-multiple-bg', PHOTO, { timeoutMs: 5000 });
  assert.deepEqual([made.total_generated, made.errors.length, made.error], [1, 2, null]);
});

test('a time-out whose job goes on is not to be repeated', async () => {
  await slow();
  await box.fault('cancel', { status: 500, times: null });
  const error = await failure(ask({ timeoutMs: 2500 }));
  assert.deepEqual([error.errorType, error.retryable], ['timeout', false]);
  assert.match(error.hint, /could not be cancelled/);
});

test('many calls may share a signal', async () => {
  const { signal } = new AbortController();
  const warnings = [];
  const warned = (warning) => warnings.push(warning);
  process.on('warning', warned);
  await Promise.all(Array.from({ length: 20 }, () => worker.call('schema', { name: 'doctor' }, { signal })));
  const streams = Array.from({ length: 20 }, () => worker.stream('schema', { name: 'doctor' }, { signal }));
  await Promise.all(streams.map((events) => events.next()));
  await Promise.all(streams.map((events) => events.return()));
  await new Promise(setImmediate);
  process.off('warning', warned);
  assert.deepEqual(warnings, []);
});

test('options that are nested too deeply reject', async () => {
  let nested = 'x';
  for (let depth = 0; depth < 5000; depth += 1) nested = [nested];
  const error = await failure(ask({}, { model: nested }));
  assert.equal(error.errorType, 'invalid_input');
});

test('a time-out cancels the call at fal', async () => {
  await slow();
  const error = await failure(ask({ timeoutMs: 2500 }));
  const [job] = (await box.ledger()).jobs;
  assert.deepEqual([error.errorType, error.retryable, error.requestId], ['timeout', true, job.request_id]);
  assert.equal(job.outcome, 'cancelled');
});

test("the worker's own time-out comes as its document", async () => {
  await slow();
  const error = await failure(ask({ timeoutMs: 60_000 }, { timeout: 2 }));
  assert.deepEqual([error.errorType, error.data.error_type, error.data.output], ['timeout', 'timeout', '']);
  assert.equal(error.message, error.data.error);
});

test('an abort cancels the call at fal', async () => {
  await slow();
  const stop = new AbortController();
  const running = failure(ask({ signal: stop.signal }));
  await box.waitFor((ledger) => ledger.running === 1);
  stop.abort();
  const error = await running;
  const [job] = (await box.ledger()).jobs;
  assert.deepEqual([error.errorType, error.retryable, error.requestId], ['cancelled', false, job.request_id]);
  assert.equal(job.outcome, 'cancelled');
});

test('an abort by AbortSignal.timeout is a time-out', async () => {
  await slow();
  assert.equal((await failure(ask({ signal: AbortSignal.timeout(300) }))).errorType, 'timeout');
});

test('an abort before the call sends nothing', async () => {
  const error = await failure(ask({ signal: AbortSignal.abort() }));
  assert.equal(error.errorType, 'cancelled');
  assert.equal((await box.ledger()).accepted, 0);
});

test('an abort after the answer changes nothing', async () => {
  const stop = new AbortController();
  const document = await ask({ signal: stop.signal });
  stop.abort();
  assert.ok(document.output);
  assert.equal((await worker.ping()).pong, true);
});

test('an abort while the process starts does not wait for it', async () => {
  const lazy = new FalWorker();
  const stop = new AbortController();
  const running = failure(lazy.call('any-llm-complete', { prompt: 'x' }, { signal: stop.signal }));
  stop.abort();
  const error = await running;
  assert.deepEqual([error.errorType, lazy.pid === undefined], ['cancelled', false]);
  assert.equal((await box.ledger()).accepted, 0);
  await lazy.close();
});

test('more calls than may wait are refused as busy, to be repeated', async () => {
  await slow();
  const small = await FalWorker.start({ concurrency: 1, maxPending: 1 });
  const calls = [1, 2, 3].map(() => failure(small.call('any-llm-complete', { prompt: 'x' })));
  const error = await Promise.race(calls);
  assert.deepEqual([error.errorType, error.retryable], ['busy', true]);
  await small.close();
  const kinds = (await Promise.all(calls)).map((one) => one.errorType).sort();
  assert.deepEqual(kinds, ['busy', 'cancelled', 'cancelled']);
});

test('close cancels what runs, answers what is open, and leaves no process', async () => {
  await slow();
  const own = await FalWorker.start({ concurrency: 1 });
  const { pid } = own;
  const calls = [1, 2].map(() => failure(own.call('any-llm-complete', { prompt: 'x' })));
  await box.waitFor((ledger) => ledger.running === 1);
  await own.close();
  assert.ok(isGone(pid));
  const [running, waiting] = await Promise.all(calls);
  assert.deepEqual([running.errorType, waiting.errorType], ['cancelled', 'cancelled']);
  assert.deepEqual([running.retryable, waiting.retryable], [false, true]);
  assert.deepEqual([(await box.ledger()).accepted, (await box.ledger()).cancelled], [1, 1]);
  await own.close();
  assert.equal((await failure(own.ping())).errorType, 'worker_closed');
});

test('a call in the moment of close is not sent', async () => {
  const own = await FalWorker.start();
  const call = failure(own.call('any-llm-complete', { prompt: 'x' }));
  await own.close();
  assert.deepEqual([(await call).errorType, own.pid], ['worker_closed', undefined]);
  assert.equal((await box.ledger()).accepted, 0);
});

test('close while it starts ends the start', async () => {
  const own = new FalWorker();
  const call = failure(own.ping());
  await until(() => own.pid);
  const { pid } = own;
  await own.close();
  assert.equal((await call).errorType, 'worker_closed');
  assert.ok(isGone(pid));
});

test('what it writes to stderr is given to onStderr', async () => {
  let text = '';
  const own = await FalWorker.start({ onStderr: (chunk) => (text += chunk), env: { FAL_LOG: 'debug' } });
  await own.call('any-llm-complete', { prompt: 'x' });
  await own.close();
  assert.match(text, /debug: POST/);
});

test('the settings of a worker are those of serve', async () => {
  await slow();
  const own = await FalWorker.start({ timeout: 2 });
  assert.equal((await failure(own.call('any-llm-complete', { prompt: 'x' }))).errorType, 'timeout');
  await own.close();
  for (const settings of [{ concurrency: 0 }, { startTimeoutMs: 0 }, { hangTimeoutMs: NaN }, { worker: 5 }]) {
    const wrong = await failure(FalWorker.start(settings));
    assert.ok(['invalid_input', 'start_failed'].includes(wrong.errorType), wrong.stack);
  }
  await (await FalWorker.start(null)).close();
  const patient = await FalWorker.start({ startTimeoutMs: Infinity, hangTimeoutMs: Infinity });
  assert.equal((await patient.ping()).pong, true);
  await patient.close();
});
