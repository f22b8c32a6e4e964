// What the tests share: the sandbox's own prefix, stubs in Python's place, and processes of the tests' own.

import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const MODULE = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fal-worker.mjs');
/** For what comes at once, but on a busy machine a little later. */
export const WITHIN_MS = 30_000;
export const FOREVER_S = 60;

const headers = { 'Content-Type': 'application/json' };
const post = async (path, body) => {
  const answer = await fetch(`${process.env.SANDBOX_URL}/_sandbox/${path}`, { method: 'POST', headers, body });
  if (!answer.ok) throw new Error(await answer.text());
};

export const box = {
  reset: () => post('reset', '{}'),
  configure: (what) => post('config', JSON.stringify(what)),
  say: (text) => post('say', JSON.stringify({ text })),
  fault: (stage, what) => post('faults', JSON.stringify({ stage, ...what })),
  ledger: async () => (await fetch(`${process.env.SANDBOX_URL}/_sandbox/ledger`)).json(),
  waitFor: (condition) => until(async () => condition(await box.ledger())),
};

/** Resolves as soon as `condition` holds. */
export async function until(condition) {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${WITHIN_MS} ms: ${condition}`);
    await new Promise((resume) => setTimeout(resume, 10));
  }
}

/** The error that a promise rejects with. */
export async function failure(promise) {
  const value = await promise.then((value) => ({ value }), (error) => ({ error }));
  if (!value.error) throw new Error(`it did not reject: ${JSON.stringify(value).slice(0, 300)}`);
  return value.error;
}

const STUBS = mkdtempSync(join(tmpdir(), 'fal-stub-'));
process.once('exit', () => rmSync(STUBS, { recursive: true, force: true }));
let stubs = 0;

/** A shell script that stands in for Python. */
export function stub(script) {
  const path = join(STUBS, `${++stubs}`, 'python');
  mkdirSync(dirname(path));
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** Whether a process has ended; nobody may have fetched its exit code yet. */
export function isGone(pid) {
  try {
    process.kill(pid, 0);
    return /\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}

/** Node running these lines; `line()` is the next one it prints. */
export function nodeRunning(lines, settings = {}) {
  const code = `import { FalWorker, runFal } from ${JSON.stringify(MODULE)};\n${lines}`;
  const stdio = ['ignore', 'pipe', 'inherit'];
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio, ...settings });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => (text += chunk));
  const exited = new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal, text })));
  const line = async () => {
    await until(() => text.includes('\n'));
    const [first, ...rest] = text.split('\n');
    text = rest.join('\n');
    return first;
  };
  return { child, line, exited };
}
