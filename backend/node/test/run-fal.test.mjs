// runFal: one command in a process of its own.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { FalError, runFal } from '../fal-worker.mjs';
import { FOREVER_S, box, failure, stub } from './helpers.mjs';

beforeEach(() => box.reset());

test('gives the document that the command prints', async () => {
  await box.say('Şık kupa ✓');
  const document = await runFal('any-llm-complete', { prompt: '- madde', temperature: 0.2 });
  assert.equal(document.output, 'Şık kupa ✓');
  assert.equal(document.error, null);
  const [job] = (await box.ledger()).jobs;
  assert.deepEqual([job.input.prompt, job.input.temperature], ['- madde', 0.2]);
});

test('has no limit for what goes in and comes out', async () => {
  const prompt = `sandbox:echo ${'ürün '.repeat(1_000_000)}`;
  const document = await runFal('any-llm-complete', { prompt });
  assert.equal(document.output.length, prompt.length);
});

test('rejects with what the document says', async () => {
  await box.fault('submit', { status: 429, retry_after: '3600', times: null });
  const error = await failure(runFal('any-llm-complete', { prompt: 'x' }));
  assert.ok(error instanceof FalError && error instanceof Error);
  assert.deepEqual([error.name, error.errorType], ['FalError', 'rate_limited']);
  assert.deepEqual([error.retryable, error.statusCode], [true, 429]);
  assert.equal(error.message, error.data.error);
  assert.equal(error.data.output, '');
  assert.ok('requestId' in error && 'hint' in error);
});

test('rejects wrong options as the worker does', async () => {
  const error = await failure(runFal('any-llm-complete', { prompt: 'x', promt: 'y' }));
  assert.equal(error.errorType, 'invalid_input');
  assert.match(error.message, /promt/);
});

for (const options of [[], 'x', null, { prompt: 1n }]) {
  test(`rejects options that are no JSON object: ${String(options)}`, async () => {
    assert.equal((await failure(runFal('doctor', options))).errorType, 'invalid_input');
  });
}

for (const timeoutMs of [0, -1, NaN, '5']) {
  test(`rejects timeoutMs ${timeoutMs}`, async () => {
    assert.equal((await failure(runFal('doctor', {}, { timeoutMs }))).errorType, 'invalid_input');
  });
}

for (const signal of [new AbortController(), 'stop', 5, { aborted: false, addEventListener() {} }]) {
  test(`rejects the signal ${String(signal)} and starts nothing`, async () => {
    const error = await failure(runFal('doctor', {}, { python: '/no/such/python', signal }));
    assert.equal(error.errorType, 'invalid_input');
    assert.match(error.message, /AbortSignal/);
  });
}

test('gives the events of a stream as they come, and the last one as the result', async () => {
  await box.say('Kupa. Sıcak tutar.');
  const events = [];
  const last = await runFal('any-llm-stream', { prompt: 'x' }, { onDelta: (event) => events.push(event) });
  assert.equal(events.map((event) => event.delta).join(''), 'Kupa. Sıcak tutar.');
  assert.deepEqual(events.at(-1), last);
  assert.equal(last.partial, false);
});

test('a stream that breaks off rejects with the text so far', async () => {
  await box.fault('stream', { cut: 3 });
  const events = [];
  const error = await failure(runFal('any-llm-stream', { prompt: 'x' }, { onDelta: (event) => events.push(event) }));
  assert.equal(error.errorType, 'stream_truncated');
  assert.equal(events.length, 3);
  assert.equal(error.data.output, events[2].output);
});

test('a time-out ends the process and cancels the job at fal', async () => {
  await box.configure({ latency: FOREVER_S });
  const error = await failure(runFal('any-llm-complete', { prompt: 'x' }, { timeoutMs: 5000 }));
  assert.deepEqual([error.errorType, error.retryable], ['timeout', true]);
  assert.match(error.message, /5000 ms/);
  // On a very busy machine the time may pass before there is a job.
  for (const job of (await box.ledger()).jobs) {
    assert.deepEqual([job.outcome, job.request_id], ['cancelled', error.requestId]);
  }
});

test('a time-out while nobody knows whether fal took the job says so', async () => {
  await box.fault('submit', { silent: FOREVER_S, accept: true });
  const error = await failure(runFal('any-llm-complete', { prompt: 'x' }, { timeoutMs: 5000 }));
  assert.deepEqual([error.errorType, error.retryable], ['ambiguous_submit', false]);
});

test("a time-out longer than the worker's own moves that one too", async () => {
  await box.configure({ latency: 2.2 });
  const env = { FAL_TIMEOUT_S: '2' };
  assert.equal((await failure(runFal('any-llm-complete', { prompt: 'x' }, { env }))).errorType, 'timeout');
  assert.ok(await runFal('any-llm-complete', { prompt: 'x' }, { env, timeoutMs: 60_000 }));
});

test('an abort ends the process and cancels the job at fal', async () => {
  await box.configure({ latency: FOREVER_S });
  const stop = new AbortController();
  const running = failure(runFal('any-llm-complete', { prompt: 'x' }, { signal: stop.signal }));
  await box.waitFor((ledger) => ledger.running === 1);
  stop.abort(new Error('the customer left'));
  const error = await running;
  assert.deepEqual([error.errorType, error.retryable, error.cause.message], ['cancelled', false, 'the customer left']);
  assert.equal((await box.ledger()).cancelled, 1);
});

test('an abort before the start starts nothing', async () => {
  const python = '/no/such/python';
  const error = await failure(runFal('doctor', {}, { python, signal: AbortSignal.abort() }));
  assert.equal(error.errorType, 'cancelled');
  assert.match(error.message, /Nothing was sent/);
});

test('an abort after the answer changes nothing', async () => {
  const stop = new AbortController();
  const document = await runFal('schema', { name: 'doctor' }, { signal: stop.signal });
  stop.abort();
  assert.ok(document.commands.doctor);
});

test('a process that does not end is killed', async () => {
  const python = stub("trap '' TERM; exec sleep 600");
  const began = Date.now();
  const error = await failure(runFal('doctor', {}, { python, timeoutMs: 100 }));
  assert.deepEqual([error.errorType, error.retryable, error.data.signal], ['timeout', false, 'SIGKILL']);
  assert.ok(Date.now() - began < 10_000);
});

test('an answer without an end is not kept', async () => {
  const error = await failure(runFal('doctor', {}, { python: stub('head -c 270000000 /dev/zero; exec sleep 600') }));
  assert.equal(error.errorType, 'bad_output');
  assert.match(error.message, /256 MiB/);
});

test('what holds the pipes of a process that has ended is not waited for', async () => {
  const python = stub('sleep 15 & echo \'{"fine": true}\'');
  const began = Date.now();
  assert.deepEqual(await runFal('doctor', {}, { python }), { fine: true });
  assert.ok(Date.now() - began < 10_000);
});

test('the environment is added to, and taken from', async () => {
  const error = await failure(runFal('any-llm-complete', { prompt: 'x' }, { env: { FAL_KEY: undefined } }));
  assert.equal(error.errorType, 'missing_key');
  const { settings } = await runFal('doctor', {}, { env: { FAL_MAX_CONCURRENCY: '3' } });
  assert.equal(settings.max_concurrency, 3);
});

const WRONG = {
  'prints garbage': ['echo hello', 'bad_output', /hello/],
  'prints half a document': [`printf '{"error": nu'`, 'bad_output', /nu/],
  'prints nothing': ['exit 0', 'start_failed', /exit code 0/],
  'says why on stderr': ['echo "SyntaxError: invalid syntax" >&2; exit 1', 'start_failed', /SyntaxError/],
  'is killed': ['kill -9 $$', 'worker_died', /SIGKILL/],
};
for (const [what, [script, errorType, message]] of Object.entries(WRONG)) {
  test(`a Python that ${what}`, async () => {
    const options = { prompt: 'x'.repeat(1_000_000) };
    const error = await failure(runFal('any-llm-complete', options, { python: stub(script) }));
    assert.equal(error.errorType, errorType);
    assert.match(error.message, message);
    assert.equal(typeof error.data.stderr, 'string');
  });
}

test('a Python that is not there is told with every place that is looked at', async () => {
  for (const settings of [{ python: '/no/such/python' }, { env: { FAL_PYTHON: '/no/such/python' } }]) {
    const error = await failure(runFal('doctor', {}, settings));
    assert.equal(error.errorType, 'start_failed');
    assert.match(error.message, /\/no\/such\/python/);
    for (const place of ['`python`', 'FAL_PYTHON', '.venv', 'python3']) assert.ok(error.hint.includes(place), place);
  }
});

test('a folder or a script that is not there is told by its name', async () => {
  for (const settings of [{ cwd: '/no/such' }, { worker: '/no/such' }, { env: { FAL_WORKER: '/no/such' } }]) {
    const error = await failure(runFal('doctor', {}, settings));
    assert.equal(error.errorType, 'start_failed');
    assert.match(error.message, /\/no\/such/);
  }
});

test('a Python without the packages is told at once', async () => {
  const python = stub(`exec "${process.env.FAL_PYTHON}" -S "$@"`);
  const error = await failure(runFal('any-llm-complete', { prompt: 'x' }, { python }));
  assert.equal(error.errorType, 'internal');
  assert.match(error.message, /No module named/);
});
