// How the worker's process is started and kept: its folder, its process group, and time that counts once a call begins.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, beforeEach, test } from 'node:test';

import { FalWorker, runFal } from '../fal-worker.mjs';
import { FOREVER_S, MODULE, box, failure, isGone, nodeRunning, stub, until } from './helpers.mjs';

const FOLDER = realpathSync(mkdtempSync(join(tmpdir(), 'fal-process-')));
after(() => rmSync(FOLDER, { recursive: true, force: true }));
beforeEach(() => box.reset());

const BACKEND = join(dirname(MODULE), '..');
const WORKER = join(BACKEND, 'src', 'services', 'fal_worker.py');
const READY = `echo '{"jsonrpc": "2.0", "method": "ready", "params": {"version": "0", "pid": 1, "commands": []}}'`;

// Folders

const DELETED = `
  const { mkdtempSync, rmdirSync } = await import('node:fs');
  const folder = mkdtempSync(${JSON.stringify(join(FOLDER, 'release-'))});
  process.chdir(folder);
  if (REMEMBERED) process.cwd();
  rmdirSync(folder);
  const said = (error) => ({ type: error.errorType, message: error.message, hint: error.hint, output: error.output });
`;

// Node remembers the name of its folder once it was asked for; a deleted one is then seen only when it is looked at.
for (const remembered of [false, true]) {
  test(`a working folder that was deleted is named as the cause, ${remembered ? 'also when' : 'unless'} its name is known`, async () => {
    const parent = nodeRunning(`${DELETED.replace('REMEMBERED', remembered)}
      const errors = [];
      for (const settings of [{}, { worker: 'fal_worker.py' }]) {
        errors.push(await runFal('doctor', {}, settings).catch(said), await FalWorker.start(settings).catch(said));
      }
      console.log(JSON.stringify(errors));
    `);
    const { text } = await parent.exited;
    for (const { type, message, hint } of JSON.parse(text)) {
      assert.equal(type, 'start_failed');
      assert.match(message, /not exist|no .*fal_worker\.py/);
      assert.match(message, /Nothing was sent/);
      assert.doesNotMatch(message, /ENOENT|uv_cwd/);
      assert.match(hint, /`cwd`|`worker`/);
    }
  });
}

test('a working folder that was deleted is no hindrance when another one is named', async () => {
  const parent = nodeRunning(`${DELETED.replace('REMEMBERED', 'false')}
    const document = await runFal('any-llm-complete', { prompt: 'x' }, { cwd: '/' }).catch(said);
    console.log(JSON.stringify(document));
  `);
  assert.ok(JSON.parse((await parent.exited).text).output);
});

test('a folder that is no folder, or may not be entered, is named as the cause', async () => {
  const file = join(FOLDER, 'a-file');
  writeFileSync(file, '');
  assert.match((await failure(runFal('doctor', {}, { cwd: file }))).message, /a-file is not a folder/);
  if (process.getuid() === 0) return; // root may enter any
  const locked = mkdtempSync(join(FOLDER, 'locked-'));
  execFileSync('chmod', ['0', locked]);
  assert.match((await failure(runFal('doctor', {}, { cwd: locked }))).message, /may not be entered/);
});

// A copy of the module that stands alone

test('without a worker beside it the Python package is run, also in a folder with services of its own', async () => {
  const place = mkdtempSync(join(FOLDER, 'app-'));
  execFileSync('mkdir', ['-p', join(place, 'lib'), join(place, 'services')]);
  writeFileSync(join(place, 'services', '__init__.py'), 'raise SystemExit("the app\'s own")\n');
  execFileSync('cp', [MODULE, join(place, 'lib')]);
  const { FalWorker, runFal } = await import(join(place, 'lib', 'fal-worker.mjs'));
  const settings = { cwd: place, env: { PYTHONPATH: join(BACKEND, 'src') } };
  const safe = execFileSync(process.env.FAL_PYTHON, ['-c', 'import sys; print(sys.version_info >= (3, 11))']);
  if (String(safe).trim() === 'False') settings.cwd = FOLDER; // an older Python looks into its folder first
  assert.equal((await runFal('any-llm-complete', { prompt: 'sandbox:echo once' }, settings)).output, 'sandbox:echo once');
  const worker = await FalWorker.start(settings);
  assert.equal((await worker.call('any-llm-complete', { prompt: 'sandbox:echo kept' })).output, 'sandbox:echo kept');
  await worker.close();
  const python = process.env.BARE_PYTHON;
  for (const start of [() => runFal('doctor', {}, { python }), () => FalWorker.start({ python, onStderr: () => {} })]) {
    const error = await failure(start());
    assert.equal(error.errorType, 'start_failed');
    assert.match(error.message, /has no services\.fal_worker\. Nothing was sent/);
    for (const remedy of ['pip install', 'FAL_PYTHON', 'FAL_WORKER', '`worker`']) assert.ok(error.hint.includes(remedy));
  }
});

// Signals

const DRAINS = (settings) => `
  const worker = await FalWorker.start(${settings});
  const call = worker.call('any-llm-complete', { prompt: 'x' });
  process.once('SIGINT', async () => {
    console.log(await call.then(() => 'answered', (error) => error.errorType));
    await worker.close();
  });
  console.log(worker.pid);
`;

/** A Node app in a process group of its own, as a terminal starts it; ended with the test. */
async function inGroup(t, lines) {
  const app = nodeRunning(lines, { detached: true });
  t.after(() => app.child.exitCode ?? app.child.signalCode ?? process.kill(-app.child.pid, 'SIGKILL'));
  const pid = Number(await app.line());
  await box.waitFor((ledger) => ledger.accepted === 1);
  return { ...app, pid };
}

for (const [settings, latency, answer, outcome] of [
  ['{ ownProcessGroup: true }', 2, 'answered', 'ok'],
  ['{}', FOREVER_S, 'cancelled', 'cancelled'],
]) {
  test(`Ctrl-C in a terminal, with ${settings}: what runs is ${answer}`, async (t) => {
    await box.configure({ latency });
    const app = await inGroup(t, DRAINS(settings));
    process.kill(-app.child.pid, 'SIGINT');
    const { code, text } = await app.exited;
    assert.deepEqual([code, text.trim()], [0, answer]);
    assert.ok(isGone(app.pid));
    assert.equal((await box.ledger()).jobs[0].outcome, outcome);
  });
}

for (const [signal, from] of [['SIGINT', 'the terminal'], ['SIGHUP', 'a terminal that closes'], ['SIGKILL', 'anywhere']]) {
  test(`an app that ${signal} from ${from} ends takes the worker in its own group along`, async (t) => {
    await box.configure({ latency: FOREVER_S });
    const app = await inGroup(t, `
      const worker = await FalWorker.start({ ownProcessGroup: true });
      worker.call('any-llm-complete', { prompt: 'x' }).catch(() => {});
      console.log(worker.pid);
    `);
    process.kill(-app.child.pid, signal);
    assert.equal((await app.exited).signal, signal);
    await until(() => isGone(app.pid));
    assert.equal((await box.ledger()).cancelled, 1);
  });
}

// Time

test("a call's time counts from when the worker begins it, not while it waits for a place", async () => {
  const asked = join(FOLDER, 'asked');
  // A worker with one place: it answers each call a second after it has answered the one before.
  const python = stub(`${READY}
    while read -r line; do
      echo "$line" >> ${asked}
      id=$(echo "$line" | sed 's/.*"id":\\([0-9]*\\).*/\\1/')
      sleep 0.4
      echo "{\\"jsonrpc\\": \\"2.0\\", \\"id\\": $id, \\"result\\": {\\"error\\": null}}"
    done`);
  const worker = await FalWorker.start({ python });
  const calls = [1, 2, 3, 4].map(() => worker.call('any-llm-complete', { prompt: 'x' }, { timeoutMs: 700 }));
  assert.equal((await Promise.all(calls)).length, 4);
  for (const [options, timeout] of [[{ timeout: 5 }, 0.7], [{ timeout: 0.2 }, 0.2]]) {
    await worker.call('any-llm-complete', { prompt: 'x', ...options }, { timeoutMs: 700 });
    assert.equal(JSON.parse(readFileSync(asked, 'utf8').trim().split('\n').pop()).params.timeout, timeout);
  }
  await worker.close();
});

test('a worker that does not start is no reason to wait longer than timeoutMs', async () => {
  const worker = new FalWorker({ python: stub('exec sleep 600') });
  const error = await failure(worker.call('any-llm-complete', { prompt: 'x' }, { timeoutMs: 200 }));
  assert.deepEqual([error.errorType, error.retryable], ['timeout', true]);
  assert.match(error.message, /Nothing was sent/);
  await worker.close();
});

test('queueTimeout is handed on when it is given, and only then', async () => {
  for (const [settings, wanted] of [
    [{ queueTimeout: 2.5, concurrency: 3 }, 'serve --concurrency=3 --queue_timeout=2.5'],
    [{}, 'serve'],
    [{ queueTimeout: null }, 'serve'],
  ]) {
    const said = join(FOLDER, 'arguments');
    const worker = await FalWorker.start({ ...settings, python: stub(`shift; echo "$*" > ${said}; ${READY}; read line`) });
    await worker.close();
    assert.equal(readFileSync(said, 'utf8').trim(), wanted);
  }
});

const HELP = execFileSync(process.env.FAL_PYTHON, [WORKER, 'serve', '--help'], { encoding: 'utf8' });
const skip = !HELP.includes('--queue_timeout') && 'this worker has no --queue_timeout';

test('a call that waits longer than queueTimeout for a place sends nothing to fal', { skip }, async () => {
  await box.configure({ latency: FOREVER_S });
  const worker = await FalWorker.start({ concurrency: 1, queueTimeout: 0.5 });
  const running = failure(worker.call('any-llm-complete', { prompt: 'x' }));
  await box.waitFor((ledger) => ledger.running === 1);
  const error = await failure(worker.call('any-llm-complete', { prompt: 'x' }));
  assert.equal(error.retryable, true);
  assert.equal((await box.ledger()).accepted, 1);
  await worker.close();
  assert.equal((await running).errorType, 'cancelled');
});
