// FalWorker, when something is broken: a typed error or a result, no hanging, no process left.

import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { FalWorker } from '../fal-worker.mjs';
import { FOREVER_S, box, failure, isGone, nodeRunning, stub, until } from './helpers.mjs';

beforeEach(() => box.reset());

/** Run with a worker of the test's own, which is closed afterwards. */
async function using(settings, action) {
  const worker = new FalWorker({ onStderr: () => {}, ...settings });
  try {
    await action(worker);
  } finally {
    await worker.close();
  }
}
const ask = (worker, settings) => worker.call('any-llm-complete', { prompt: 'x' }, settings);
const READY = `echo '{"jsonrpc": "2.0", "method": "ready", "params": {"version": "0", "pid": 1, "commands": []}}'`;

test('kill -9 in mid-call: the call rejects, and the next one gets a new process', async () => {
  await box.configure({ latency: FOREVER_S });
  await using({}, async (worker) => {
    const jobs = [];
    const call = failure(ask(worker, { onProgress: (event) => jobs.push(event.request_id) }));
    await until(() => jobs.length);
    const { pid } = worker;
    process.kill(pid, 'SIGKILL');
    const error = await call;
    assert.deepEqual([error.errorType, error.retryable, error.data.signal], ['worker_died', false, 'SIGKILL']);
    assert.match(error.message, /bill/);
    assert.equal((await worker.call('any-llm-cancel', { request_id: error.requestId })).status, 'requested');
    await box.configure({ latency: 0 });
    assert.ok((await ask(worker)).output);
    assert.notEqual(worker.pid, pid);
    assert.equal((await box.ledger()).accepted, 2);
  });
});

test('kill -9 while long lines wait: what may be billed is not to be repeated', async () => {
  await box.configure({ latency: FOREVER_S });
  await using({}, async (worker) => {
    await worker.ready();
    const prompt = 'x'.repeat(300_000);
    const calls = Array.from({ length: 60 }, () => failure(worker.call('any-llm-complete', { prompt })));
    await box.waitFor((ledger) => ledger.accepted >= 3);
    process.kill(worker.pid, 'SIGKILL');
    const mayBeBilled = (await Promise.all(calls)).filter((error) => !error.retryable);
    assert.ok(mayBeBilled.length >= (await box.ledger()).accepted);
  });
});

test('kill -9 while a call runs that costs nothing: it may be repeated', async () => {
  await using({ concurrency: 1 }, async (worker) => {
    await box.configure({ latency: FOREVER_S });
    const paid = failure(ask(worker));
    await box.waitFor((ledger) => ledger.running === 1);
    const free = failure(worker.call('any-llm-status', { request_id: 'none' }));
    await worker.ping();
    process.kill(worker.pid, 'SIGKILL');
    assert.deepEqual([(await paid).retryable, (await free).retryable], [false, true]);
  });
});

test('a worker that dies again and again is started more and more slowly', async () => {
  await using({ python: stub(`${READY}; exit 3`) }, async (worker) => {
    const began = Date.now();
    for (let time = 0; time < 4; time++) {
      const error = await failure(ask(worker));
      assert.ok(['worker_died', 'start_failed'].includes(error.errorType), error.errorType);
      await until(() => isGone(worker.pid));
    }
    assert.ok(Date.now() - began > 600);
  });
});

const NO_START = {
  'prints garbage': ['echo hello; exec sleep 600', 'start_failed', /hello/],
  'prints other JSON': [`echo '{"a": 1}'; exec sleep 600`, 'start_failed', /"a"/],
  'prints nothing and ends': ['exit 0', 'start_failed', /exit code 0/],
  'says why on stderr': ['echo "SyntaxError: invalid syntax" >&2; exit 1', 'start_failed', /SyntaxError/],
  'is killed': ['kill -9 $$', 'start_failed', /SIGKILL/],
};
for (const [what, [script, errorType, message]] of Object.entries(NO_START)) {
  test(`a Python that ${what}`, async () => {
    const error = await failure(FalWorker.start({ python: stub(script), onStderr: () => {} }));
    assert.equal(error.errorType, errorType);
    assert.match(error.message, message);
    assert.equal(typeof error.data.stderr, 'string');
    assert.match(error.hint, /FAL_PYTHON/);
  });
}

test('a Python that never gets ready', async () => {
  const error = await failure(FalWorker.start({ python: stub('exec sleep 600'), startTimeoutMs: 300 }));
  assert.deepEqual([error.errorType, error.retryable], ['start_failed', true]);
  assert.match(error.message, /300 ms/);
});

test('a Python without the packages is told at once', async () => {
  const python = stub(`exec "${process.env.FAL_PYTHON}" -S "$@"`);
  const error = await failure(FalWorker.start({ python }));
  assert.equal(error.errorType, 'internal');
  assert.match(error.message, /No module named/);
  assert.match(error.data.trace, /Traceback/);
  assert.equal(error.data.python, python);
  assert.match(error.hint, /requirements.txt/);
});

test('a Python that is not there, for a call as for a start', async () => {
  for (const settings of [{ python: '/no/such/python' }, { env: { FAL_PYTHON: '/no/such/python' } }]) {
    await using(settings, async (worker) => {
      for (const error of [await failure(ask(worker)), await failure(worker.ready())]) {
        assert.equal(error.errorType, 'start_failed');
        for (const place of ['`python`', 'FAL_PYTHON', '.venv', 'python3']) assert.ok(error.hint.includes(place));
      }
    });
  }
});

test('a missing key is told at once', async () => {
  const error = await failure(FalWorker.start({ env: { FAL_KEY: '' } }));
  assert.equal(error.errorType, 'missing_key');
  assert.match(error.message, /^FAL_KEY environment variable is required/);
});

test('garbage after the start ends the process and rejects what is open', async () => {
  const python = stub(`${READY}; read line; echo 'Segmentation fault?'; exec sleep 600`);
  await using({ python }, async (worker) => {
    const error = await failure(ask(worker));
    assert.deepEqual([error.errorType, error.retryable], ['worker_died', false]);
    assert.match(error.message, /Segmentation fault/);
    await until(() => isGone(worker.pid));
  });
});

test('a worker that hangs is ended, and its calls with it', async () => {
  await box.configure({ latency: FOREVER_S });
  await using({ hangTimeoutMs: 1500 }, async (worker) => {
    const call = failure(ask(worker));
    await box.waitFor((ledger) => ledger.running === 1);
    const { pid } = worker;
    process.kill(pid, 'SIGSTOP');
    const error = await call;
    assert.deepEqual([error.errorType, error.retryable], ['worker_died', false]);
    assert.match(error.message, /no sign of life for 1500 ms/);
    await until(() => isGone(pid));
  });
});

test('a call that takes long is no hanging worker', async () => {
  await box.configure({ latency: 4 });
  await using({ hangTimeoutMs: 2500 }, async (worker) => assert.ok((await ask(worker)).output));
});

test('a worker that does not answer a cancel is not waited for', async () => {
  await box.configure({ latency: FOREVER_S });
  await using({}, async (worker) => {
    const stop = new AbortController();
    const call = failure(ask(worker, { signal: stop.signal }));
    await box.waitFor((ledger) => ledger.running === 1);
    process.kill(worker.pid, 'SIGSTOP');
    stop.abort();
    const error = await call;
    assert.deepEqual([error.errorType, error.retryable], ['cancelled', false]);
    assert.match(error.message, /bill/);
    process.kill(worker.pid, 'SIGKILL');
  });
});

test('close ends a worker that hangs', async () => {
  const worker = await FalWorker.start();
  const { pid } = worker;
  process.kill(pid, 'SIGSTOP');
  await worker.close();
  assert.ok(isGone(pid));
});

test('hundreds of calls at once are each answered', async () => {
  await using({}, async (worker) => {
    await worker.ready();
    const { request_id } = await worker.call('any-llm-submit', { prompt: 'x' });
    await box.waitFor((ledger) => ledger.completed === 1);
    const calls = Array.from({ length: 250 }, () => worker.call('any-llm-cancel', { request_id }));
    assert.deepEqual(new Set((await Promise.all(calls)).map((one) => one.status)), new Set(['too_late']));
  });
});

const PARENT = `
const worker = await FalWorker.start();
worker.call('any-llm-complete', { prompt: 'x' }).catch(() => {});
console.log(worker.pid);
`;

test('a parent that is killed leaves no process and no job', async () => {
  await box.configure({ latency: FOREVER_S });
  const parent = nodeRunning(PARENT);
  const pid = Number(await parent.line());
  await box.waitFor((ledger) => ledger.running === 1);
  parent.child.kill('SIGKILL');
  await until(() => isGone(pid));
  assert.equal((await box.ledger()).cancelled, 1);
});

test('a parent that exits in mid-call leaves no process and no job', async () => {
  await box.configure({ latency: FOREVER_S });
  const parent = nodeRunning(`${PARENT} process.stdin.resume(); process.on('SIGUSR2', () => process.exit(7));`);
  const pid = Number(await parent.line());
  await box.waitFor((ledger) => ledger.running === 1);
  parent.child.kill('SIGUSR2');
  assert.equal((await parent.exited).code, 7);
  await until(() => isGone(pid));
  assert.equal((await box.ledger()).cancelled, 1);
});

test('a parent that exits while runFal runs leaves no process and no job', async () => {
  await box.configure({ latency: FOREVER_S });
  const parent = nodeRunning(`
    process.on('SIGUSR2', () => process.exit(7));
    console.log('started');
    await runFal('any-llm-complete', { prompt: 'x' });
  `);
  await parent.line();
  await box.waitFor((ledger) => ledger.running === 1);
  parent.child.kill('SIGUSR2');
  assert.equal((await parent.exited).code, 7);
  await box.waitFor((ledger) => ledger.cancelled === 1);
});

test('a parent that is killed while runFal runs leaves no job', async () => {
  await box.configure({ latency: FOREVER_S });
  const parent = nodeRunning(`await runFal('any-llm-complete', { prompt: 'x' });`);
  await box.waitFor((ledger) => ledger.running === 1);
  parent.child.kill('SIGKILL');
  await box.waitFor((ledger) => ledger.cancelled === 1);
});

test('an idle worker does not keep Node running, an open call does', async () => {
  const parent = nodeRunning(`
    const worker = await FalWorker.start();
    console.log(worker.pid);
    worker.call('any-llm-complete', { prompt: 'x' }).then(({ error }) => console.log('answered', error));
  `);
  const pid = Number(await parent.line());
  const { code, text } = await parent.exited;
  assert.deepEqual([code, text.trim()], [0, 'answered null']);
  await until(() => isGone(pid));
});
