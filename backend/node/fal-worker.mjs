/**
 * fal_worker.py from Node.js: `runFal` starts it for one command, `FalWorker` keeps it (`serve`) for many.
 *
 * Both take a command's name and its options, as docs/cli.md lists them, both give the document that the command
 * prints, and both reject with a FalError when that document has an `error`. Its `errorType` is the document's
 * `error_type`, or one that only this side knows:
 *
 *     start_failed    Python or fal_worker.py was not found, or did not start; nothing was sent to fal
 *     worker_died     the process ended, or hung, before it answered
 *     worker_closed   the FalWorker was closed before the call
 *     bad_output      what was printed is no answer
 *
 * What the options mean and what is sent to fal is the worker's. No call is ever repeated here: whether that is safe,
 * `retryable` says.
 *
 * `verifyFalWebhook` needs no worker: it tells whether a request to your server comes from fal (`webhook_rejected`).
 */

import { spawn } from 'node:child_process';
import { createHash, createPublicKey, verify as fitsSignature } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect, types } from 'node:util';

/** This file's folder; unknown in a CommonJS bundle, which has no `import.meta`, and where the URL is no file's. */
const HERE = import.meta.url?.startsWith('file:') ? dirname(fileURLToPath(import.meta.url)) : null;
/** The worker as an installed Python package. */
const PYTHON_MODULE = 'services.fal_worker';
const WINDOWS = process.platform === 'win32';
const MAX_LINE_BYTES = 32 * 1024 * 1024;
/** No answer is that long; what is longer is not kept. */
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;
const TOO_LONG = `The worker printed a line of more than ${MAX_ANSWER_BYTES / 1024 ** 2} MiB.`;
const MAX_TIMER_MS = 2 ** 31 - 1;
const MAX_TIMEOUT_S = 86_400;
/** For a process that was told to end, and a call that was cancelled; the worker itself needs at most 2 s. */
const GRACE_MS = 3_000;
/** How much sooner the worker's own deadline comes, so that a call of several steps still gives what it has made. */
const SOONER = 0.2;
const SOONER_MOST_MS = 1_000;
/** For what is left in the pipes of a process that has ended, when another one still holds them open. */
const PIPES_MS = 500;
const START_TIMEOUT_MS = 30_000;
const HANG_TIMEOUT_MS = 30_000;
const BACK_OFF_FIRST_MS = 100;
const BACK_OFF_MAX_MS = 5_000;
const TAIL_LENGTH = 8_000;
/** They cost nothing, so a lost answer is no reason not to ask again. A doctor may be told to spend. */
const FREE = new Set(['ping', 'any-llm-status', 'any-llm-result', 'any-llm-cancel', 'upload-file', 'schema']);
const NOT_SENT = 'Nothing was sent to fal.';
const MAY_BE_BILLED =
  'fal may still run and bill what was sent: look at https://fal.ai/dashboard/requests before you repeat the call.';

/** Every failure of this module. `data` is the worker's document, or what is known when there is none. */
export class FalError extends Error {
  constructor(document, { message = String(document.error), errorType, retryable, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.errorType = errorType ?? document.error_type ?? 'internal';
    this.retryable = retryable ?? document.retryable ?? false;
    this.requestId = document.request_id ?? null;
    this.statusCode = document.status_code ?? null;
    this.hint = document.hint ?? null;
    this.data = document;
  }
}
Object.defineProperty(FalError.prototype, 'name', { value: 'FalError', writable: true, configurable: true });

/** A failure that only this side knows of, with the keys that every failed document has. */
function failed(errorType, error, { retryable = false, hint = null, cause, ...facts } = {}) {
  const known = { error, trace: '', error_type: errorType, retryable, status_code: null, request_id: null, hint };
  return new FalError({ ...known, ...facts }, { cause });
}

// One command in a process of its own

/**
 * Run one command; its document. `onDelta` is called with each line of any-llm-stream as it comes.
 *
 * When `timeoutMs` passes or `signal` aborts, the process is told to end: it cancels its jobs at fal first.
 */
export async function runFal(command, options = {}, settings = {}) {
  settings ??= {};
  const stop = new Stop(settings, settings.timeoutMs != null && options?.timeout == null);
  const input = toJson(withTimeout(options, settings.timeoutMs));
  stop.throwIfStopped();
  const program = new Program([String(command), '--json', '-'], settings);
  let last = '';
  const take = (line) => {
    if (!line.trim()) return;
    last = line;
    const event = settings.onDelta && parsed(line);
    if (typeof event?.delta === 'string' && event.error == null) tell(settings.onDelta, event);
  };
  const flush = eachLine(program.child.stdout, take, () => {
    program.saidTooMuch = true;
    program.end();
  });
  stop.begin(() => program.end());
  program.child.stdin.end(input);
  const over = await program.over;
  stop.end();
  flush();
  return documentOf(program, over, parsed(last), last, stop);
}

function documentOf(program, over, document, printed, stop) {
  const whole = isObject(document) && (over.code === 0 || document.error != null);
  if (whole && document.error == null) return document;
  if (whole) throw stop.failure(document);
  if (stop.kind) throw stop.error(program.facts(over));
  const facts = program.facts(over, { stdout: printed.slice(-TAIL_LENGTH) });
  if (program.saidTooMuch) throw failed('bad_output', `${TOO_LONG} ${MAY_BE_BILLED}`, facts);
  if (over.signal) throw failed('worker_died', `The worker was ended by ${over.signal}. ${MAY_BE_BILLED}`, facts);
  if (printed) throw failed('bad_output', `The worker printed no JSON document: ${shortened(printed)}`, facts);
  throw program.didNotStart(over);
}

// Many commands in one process

/**
 * A worker process that stays. It starts with the first call (or with `FalWorker.start`, which shows at once why it
 * cannot), starts again after it died, and ends with `close`. While no call is open it does not keep Node running.
 */
export class FalWorker {
  #settings;
  #serving = null;
  #starting = null;
  #failures = 0;
  #notBefore = 0;
  #wake = () => {};
  #closed = false;
  #lastId = 0;

  /**
   * `python`, `worker`, `cwd`, `env`: how the process is started; `ownProcessGroup`: a terminal's Ctrl-C does not reach
   * it; `concurrency`, `maxPending`, `queueTimeout` (seconds a call may wait for a place), `timeout` (seconds per call
   * once it has one), `envFile`: its options; `onStderr`: gets what it writes there, in place of this process's stderr;
   * `startTimeoutMs`; `hangTimeoutMs`: after so long without a sign of life, while calls are open, it is ended.
   */
  constructor(settings) {
    this.#settings = settings ?? {};
  }

  /** A worker that is ready for calls. */
  static async start(settings) {
    const worker = new FalWorker(settings);
    await worker.ready();
    return worker;
  }

  /** Start the process if it does not run: what it says of itself, `{version, pid, commands}`. */
  async ready() {
    return (await this.#served()).about;
  }

  /** The process id, while there is a process. */
  get pid() {
    const { alive, program } = this.#serving ?? {};
    return alive && !program.hasEnded ? program.child.pid : undefined;
  }

  /**
   * Call a command; its document. `onProgress` gets its steps, `onDelta` the events of any-llm-stream.
   *
   * When `timeoutMs` passes or `signal` aborts, the call is cancelled, also at fal, and then rejects. `timeoutMs` counts
   * from when the worker begins the call: the wait for a place in it is limited by `queueTimeout` and `signal` only.
   */
  async call(method, params = {}, settings = {}) {
    settings ??= {};
    const stop = new Stop(settings);
    const id = ++this.#lastId;
    const sent = method === 'ping' ? params : withDeadline(params, settings.timeoutMs);
    const line = `${toJson({ jsonrpc: '2.0', id, method: String(method), params: sent })}\n`;
    if (Buffer.byteLength(line) > MAX_LINE_BYTES) {
      throw failed('invalid_input', `The options are longer than 32 MiB. ${NOT_SENT}`);
    }
    stop.throwIfStopped();
    const open = new OpenCall(id, method, settings, stop);
    this.#served().then((serving) => serving.send(open, line), (error) => open.reject(error));
    return open.answer;
  }

  /**
   * The events of a call as they come, and its document as the last: for any-llm-stream the text so far, for other
   * commands their steps. To leave the loop early cancels the call.
   */
  stream(method, params = {}, settings = {}) {
    const leave = new AbortController();
    const events = this.#events(method, params, settings ?? {}, leave);
    const left = (how) => (value) => {
      // At once: a generator takes `return` only when what it waits for has come.
      leave.abort(LEFT);
      return events[how](value);
    };
    const members = { next: () => events.next(), return: left('return'), throw: left('throw') };
    return Object.assign(Object.create(STREAM), members);
  }

  async *#events(method, params, settings, leave) {
    checkSignal(settings.signal);
    const forward = () => leave.abort(settings.signal.reason);
    if (settings.signal?.aborted) forward();
    settings.signal?.addEventListener('abort', forward, { once: true });
    const events = [];
    let over = false;
    let deltas = false;
    let wake = () => {};
    const push = (also) => (event) => {
      events.push(event);
      if (also) tell(also, event);
      wake();
    };
    const onDelta = push((event) => {
      deltas = true;
      return settings.onDelta?.(event);
    });
    const done = { signal: leave.signal, onDelta, onProgress: push(settings.onProgress) };
    const answer = this.call(method, params, { ...settings, ...done });
    const ended = () => {
      over = true;
      wake();
    };
    answer.then(ended, ended);
    try {
      while (events.length || !over) {
        if (events.length) yield events.shift();
        else await new Promise((resume) => (wake = resume));
      }
      const document = await answer.catch((error) => {
        if (leave.signal.reason !== LEFT) throw error;
      });
      if (!deltas && document) yield document;
      return document;
    } finally {
      settings.signal?.removeEventListener('abort', forward);
      leave.abort();
      await answer.catch(() => {});
    }
  }

  /** `{pong, version, pid, running, waiting}`, answered at once however many calls are open. */
  ping(settings = {}) {
    return this.call('ping', {}, settings);
  }

  /** End the process: open calls are cancelled, also at fal, and reject. It is over when this resolves. */
  async close() {
    this.#closed = true;
    this.#wake();
    await this.#serving?.close();
  }

  async #served() {
    if (this.#closed) throw closed();
    if (this.#serving?.about && this.#serving.alive) return this.#serving;
    this.#starting ??= this.#start().finally(() => (this.#starting = null));
    return this.#starting;
  }

  async #start() {
    const pause = this.#notBefore - Date.now();
    if (pause > 0) {
      await new Promise((resume) => {
        const timer = setTimeout(resume, pause);
        this.#wake = () => (clearTimeout(timer), resume());
      });
    }
    if (this.#closed) throw closed();
    const serving = new Serving(this.#settings);
    this.#serving = serving;
    serving.program.over.then(() => {
      this.#failures = serving.answered ? 1 : this.#failures + 1;
      this.#notBefore = Date.now() + Math.min(BACK_OFF_MAX_MS, BACK_OFF_FIRST_MS * 2 ** (this.#failures - 1));
    });
    await serving.ready;
    return serving;
  }
}
if (Symbol.asyncDispose) FalWorker.prototype[Symbol.asyncDispose] = FalWorker.prototype.close;

/** Why a stream's call ends when its loop is left. */
const LEFT = Symbol('left');
const STREAM = {
  [Symbol.asyncIterator]() {
    return this;
  },
};
if (Symbol.asyncDispose) STREAM[Symbol.asyncDispose] = async function dispose() {
  await this.return();
};

/** One process of `serve`, from its start to its end. */
class Serving {
  alive = true;
  answered = false;
  about = null;
  #open = new Map();
  #closing = false;
  #lost = null;
  #silence = 0;
  #heartbeat = null;
  #resolve;
  #reject;

  constructor(settings) {
    this.ready = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    const startTimeoutMs = milliseconds('startTimeoutMs', settings.startTimeoutMs) ?? START_TIMEOUT_MS;
    this.hangTimeoutMs = milliseconds('hangTimeoutMs', settings.hangTimeoutMs) ?? HANG_TIMEOUT_MS;
    this.program = new Program(serveArguments(settings), settings, settings.onStderr ?? toStderr);
    eachLine(this.program.child.stdout, (line) => this.#take(line), () => this.#lose(this.#tooLong()));
    this.program.over.then((over) => this.#over(over));
    this.startTimer = setTimeout(() => {
      const why = `The worker was not ready within ${startTimeoutMs} ms. ${NOT_SENT}`;
      this.#lose(failed('start_failed', why, { retryable: true, ...this.program.facts() }));
    }, Math.min(startTimeoutMs, MAX_TIMER_MS));
  }

  /** Send a call, whose answer `open` then gets; unless it was stopped meanwhile. */
  send(open, line) {
    if (open.settled) return;
    if (this.#closing) return open.reject(closed());
    if (!this.alive) return open.reject(this.#died(open));
    this.#open.set(open.id, open);
    if (this.#open.size === 1) this.#busy();
    open.sent(this, () => {
      this.#open.delete(open.id);
      if (this.#open.size === 0) this.#idle();
    });
    const { stdin } = this.program.child;
    // Lines that wait leave as one write, of which the worker may have read the first when it fails.
    const alone = stdin.writableLength === 0;
    open.written = true;
    stdin.write(line, (error) => (open.written = !(error && alone)));
  }

  cancel(id) {
    this.#write({ method: '$/cancelRequest', params: { id } });
  }

  async close() {
    if (!this.#closing) {
      this.#closing = true;
      this.program.ref();
      if (this.about) {
        this.#write({ method: 'shutdown' });
        this.program.child.stdin.end();
        this.program.killLater();
      } else {
        this.program.end();
      }
    }
    await this.program.over;
  }

  #write(message) {
    if (this.alive) this.program.child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  }

  #take(line) {
    this.#silence = 0;
    const message = parsed(line);
    if (this.about) this.#takeMessage(message, line);
    else if (message?.method === 'ready') this.#begin(message.params);
    else this.#lose(this.#notReady(message, line));
  }

  #begin(about) {
    this.about = about;
    clearTimeout(this.startTimer);
    this.#idle();
    this.#resolve();
  }

  #notReady(message, line) {
    const document = message?.error?.data ?? message;
    const facts = this.program.facts(undefined, { stdout: line.slice(0, TAIL_LENGTH) });
    if (isObject(document) && document.error) {
      const hint = document.hint ?? (document.error_type === 'internal' ? this.program.hint : null);
      return new FalError({ ...facts, ...document, hint });
    }
    return failed('start_failed', `What was started is no fal worker; it printed: ${shortened(line)}`, {
      ...facts,
      hint: this.program.hint,
    });
  }

  #takeMessage(message, line) {
    const open = this.#open.get(message?.params?.id ?? message?.id);
    if (message?.jsonrpc !== '2.0') {
      const why = `The worker printed what is no message: ${shortened(line)}`;
      this.#lose(failed('worker_died', why, this.program.facts(undefined, { stdout: line.slice(0, TAIL_LENGTH) })));
    } else if (message.method) {
      const { id, ...event } = message.params ?? {};
      open?.tell(message.method, event);
    } else if (open) {
      this.answered = true;
      open.reply(message);
    }
  }

  #tooLong() {
    const kind = this.about ? 'worker_died' : 'start_failed';
    return failed(kind, TOO_LONG, { ...this.program.facts(), hint: this.program.hint });
  }

  /** What no answer can be expected of any more is ended; its open calls end with it. */
  #lose(why) {
    this.#lost ??= why;
    this.alive = false;
    this.program.child.kill('SIGKILL');
  }

  #over(over) {
    this.alive = false;
    this.over = over;
    clearTimeout(this.startTimer);
    clearInterval(this.#heartbeat);
    this.#reject(this.#closing ? closed() : this.#lost || this.program.didNotStart(over));
    for (const open of [...this.#open.values()]) open.reject(this.#died(open));
  }

  #died(open) {
    const unsent = !open.written;
    const costs = unsent ? NOT_SENT : FREE.has(open.method) ? '' : MAY_BE_BILLED;
    const why = this.#lost?.message ?? `The worker ended (${this.over.signal ?? `exit code ${this.over.code}`}).`;
    const facts = this.#lost?.data ?? this.program.facts(this.over);
    const { error, error_type, retryable, ...rest } = facts;
    const known = { ...rest, ...open.jobs(), retryable: unsent || FREE.has(open.method) };
    return failed('worker_died', `${why} ${costs}`.trim(), known);
  }

  #busy() {
    this.program.ref();
    this.#silence = 0;
    const beat = () => {
      if (this.#silence++ < 3) return this.#write({ id: 0, method: 'ping' });
      const why = `The worker gave no sign of life for ${this.hangTimeoutMs} ms.`;
      this.#lose(failed('worker_died', why, this.program.facts()));
    };
    this.#heartbeat = setInterval(beat, Math.min(MAX_TIMER_MS, this.hangTimeoutMs / 4)).unref();
  }

  #idle() {
    clearInterval(this.#heartbeat);
    if (!this.#closing) this.program.unref();
  }
}

/** One call, from `call` to its answer. */
class OpenCall {
  settled = false;
  written = false;
  #stop;
  #settings;
  #serving = null;
  #jobIds = new Set();
  #timer = null;
  #forget = () => {};
  #resolve;
  #reject;

  constructor(id, method, settings, stop) {
    this.id = id;
    this.method = method;
    this.#settings = settings;
    this.#stop = stop;
    this.answer = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    stop.begin(() => this.#cancel());
  }

  sent(serving, forget) {
    this.#serving = serving;
    this.#forget = forget;
    // From here on the worker counts, which alone knows when the call gets a place. A worker that counts no more gives
    // no sign of life either.
    if (this.method !== 'ping') this.#stop.endTimer();
  }

  tell(method, event) {
    if (event.step === 'queue') this.#jobIds.add(event.request_id);
    const listener = method === 'delta' ? this.#settings.onDelta : this.#settings.onProgress;
    if (listener) tell(listener, event);
  }

  /** Its jobs at fal, as far as the worker has told them: for a call that ends without a document. */
  jobs() {
    const ids = [...this.#jobIds];
    return { request_id: ids.length === 1 ? ids[0] : null, request_ids: ids };
  }

  reply({ result, error }) {
    if (!error) return this.#settle(() => this.#resolve(result));
    const document = isObject(error.data) ? error.data : { error: error.message };
    this.reject(this.#stop.failure(document));
  }

  reject(error) {
    this.#settle(() => this.#reject(error));
  }

  #cancel() {
    if (!this.#serving) return this.reject(this.#stop.error());
    this.#serving.cancel(this.id);
    const giveUp = () => this.reject(this.#stop.error({ ...this.#serving.program.facts(), ...this.jobs() }));
    this.#timer = setTimeout(giveUp, GRACE_MS);
  }

  #settle(how) {
    if (this.settled) return;
    this.settled = true;
    clearTimeout(this.#timer);
    this.#stop.end();
    this.#forget();
    how();
  }
}

/** What may stop a call from this side: a time, or an AbortSignal; the first of them counts. */
class Stop {
  kind = null;
  #settings;
  #sets;
  #timer;
  #onAbort = () => {};

  /** `sets`: whether the worker's own deadline is `timeoutMs` made a little shorter, and stands for it. */
  constructor(settings, sets = false) {
    milliseconds('timeoutMs', settings.timeoutMs);
    checkSignal(settings.signal);
    this.#settings = settings;
    this.#sets = sets;
  }

  throwIfStopped() {
    this.#look();
    if (this.kind) throw this.error();
  }

  begin(action) {
    const { timeoutMs, signal } = this.#settings;
    const stop = (kind) => {
      this.kind ??= kind;
      this.end();
      action();
    };
    this.#onAbort = () => stop(this.#look());
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (timeoutMs != null) this.#timer = setTimeout(stop, Math.min(timeoutMs, MAX_TIMER_MS), 'timeout');
  }

  endTimer() {
    clearTimeout(this.#timer);
  }

  end() {
    this.endTimer();
    this.#settings.signal?.removeEventListener('abort', this.#onAbort);
  }

  /** The error that a document is. */
  failure(document) {
    if (document.error_type === 'timeout' && this.#sets) this.kind ??= 'timeout';
    return this.kind ? this.error(document) : new FalError(document);
  }

  /** The error of a call that was stopped: before it was sent, or confirmed by a document, or neither. */
  error(known) {
    const { timeoutMs, signal } = this.#settings;
    const timedOut = this.kind === 'timeout';
    const within = timeoutMs == null ? 'in time' : `within ${timeoutMs} ms`;
    const what = timedOut ? `No answer came ${within}.` : 'The call was aborted.';
    const cause = signal?.aborted ? signal.reason : undefined;
    if (known?.error) {
      if (!['cancelled', 'timeout'].includes(known.error_type)) return new FalError(known, { cause });
      return new FalError(known, { message: `${what} ${known.error}`, errorType: this.kind, cause });
    }
    const retryable = timedOut && !known;
    return failed(this.kind, `${what} ${known ? MAY_BE_BILLED : NOT_SENT}`, { retryable, cause, ...known });
  }

  #look() {
    const { signal } = this.#settings;
    if (signal?.aborted) this.kind ??= signal.reason?.name === 'TimeoutError' ? 'timeout' : 'cancelled';
    return this.kind;
  }
}

// Processes

const children = new Set();
function endChildren() {
  // SIGTERM, also here: the worker cancels its jobs at fal, and is gone within 2 s.
  for (const child of children) child.kill('SIGTERM');
}

/** fal_worker.py as a child process. */
class Program {
  saidTooMuch = false;
  #stderr = '';
  #killer = null;

  /** Throws a FalError when it can be seen beforehand that it will not start. */
  constructor(args, settings, onStderr = () => {}) {
    const env = merged(process.env, settings.env);
    const { python, entry, hint } = located(settings, env);
    this.python = python;
    this.hint = hint;
    // Else a folder `services` of the app would hide the installed package.
    if (entry[0] === '-m') env.PYTHONSAFEPATH ??= '1';
    const detached = settings.ownProcessGroup === true;
    const options = { cwd: workingFolder(settings.cwd), env, detached, stdio: 'pipe', windowsHide: true };
    try {
      this.child = spawn(python, [...entry, ...args], options);
    } catch (error) {
      throw failed('start_failed', `${python} cannot be started: ${error.message}.`, { hint, python, cause: error });
    }
    if (children.size === 0) process.on('exit', endChildren);
    children.add(this.child);
    this.over = this.#whenOver();
    if (!this.child.stdin) throw failed('start_failed', `Too many files are open to start ${python}.`, { python });
    // A worker that has ended does not read its input; why it ended is known from its exit.
    this.child.stdin.on('error', () => {});
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#stderr = (this.#stderr + text).slice(-TAIL_LENGTH);
      tell(onStderr, text);
    });
  }

  /** Tell it to end, and end it when it does not. */
  end() {
    this.child.kill('SIGTERM');
    this.killLater();
  }

  killLater() {
    if (children.has(this.child)) this.#killer ??= setTimeout(() => this.child.kill('SIGKILL'), GRACE_MS);
  }

  get hasEnded() {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** What is known of a process that left no document. */
  facts({ code = null, signal = null } = {}, more = {}) {
    return { ...more, stderr: this.#stderr, exit_code: code, signal, python: this.python };
  }

  didNotStart(over) {
    const { error, code, signal } = over;
    const said = this.#stderr.trim().split('\n').pop();
    const missing = !error && NO_SUCH_MODULE.test(said);
    const ended = `ended (${signal ?? `exit code ${code}`}) and printed nothing.${said && ` Its stderr: ${said}`}`;
    const why = error ? `cannot be started: ${error.message}.` : missing ? `has no ${PYTHON_MODULE}.` : shortened(ended);
    const hint = missing ? NOT_INSTALLED : this.hint;
    const cost = missing ? ` ${NOT_SENT}` : '';
    return failed('start_failed', `${this.python} ${why}${cost}`, { hint, cause: error, ...this.facts(over) });
  }

  ref() {
    for (const handle of [this.child, ...this.child.stdio]) handle?.ref?.();
  }

  unref() {
    for (const handle of [this.child, ...this.child.stdio]) handle?.unref?.();
  }

  #whenOver() {
    const { child } = this;
    return new Promise((resolve) => {
      let timer;
      const over = (result) => {
        clearTimeout(timer);
        clearTimeout(this.#killer);
        children.delete(child);
        if (children.size === 0) process.removeListener('exit', endChildren);
        for (const pipe of child.stdio ?? []) pipe?.destroy();
        resolve(result);
      };
      child.on('error', (error) => child.pid === undefined && over({ error, code: null, signal: null }));
      child.once('exit', (code, signal) => (timer = setTimeout(over, PIPES_MS, { code, signal })));
      child.once('close', (code, signal) => over({ code, signal }));
    });
  }
}

/** What Python says when `-m` finds no module of that name, or only a folder that happens to be called `services`. */
const NO_SUCH_MODULE = /No module named '?services(\.fal_worker)?'?\)?$/;
const NOT_INSTALLED =
  'This copy of the module stands apart from the Python project. Install that project for the Python that is used ' +
  '(`pip install` with the path of its folder backend), name another Python with the option `python` or FAL_PYTHON, ' +
  'or name fal_worker.py with the option `worker` or FAL_WORKER.';

/** Which Python runs what; the hint names every place where they are looked for. */
function located(settings, env) {
  const script = scriptOf(settings.worker ?? (env.FAL_WORKER || null));
  const own = script && join(dirname(dirname(dirname(script))), '.venv', ...(WINDOWS ? VENV_ON_WINDOWS : VENV));
  const named = WINDOWS ? 'python' : 'python3';
  const python = settings.python ?? (env.FAL_PYTHON || (own && existsSync(own) ? own : named));
  const hint =
    'Python 3.10 or newer is needed, with the packages of backend/requirements.txt. It is looked for in this order: ' +
    `the option \`python\`, the environment variable FAL_PYTHON, ${own ?? 'backend/.venv'}, and ${named} on the PATH.`;
  return { python, entry: script ? [script] : ['-m', PYTHON_MODULE], hint };
}

const VENV = ['bin', 'python'];
const VENV_ON_WINDOWS = ['Scripts', 'python.exe'];

/** The path of fal_worker.py; null when it was not named and does not stand beside this module. */
function scriptOf(path) {
  if (path == null) {
    const beside = HERE && join(HERE, '..', 'src', 'services', 'fal_worker.py');
    return beside && existsSync(beside) ? beside : null;
  }
  const script = absolute(String(path));
  if (existsSync(script)) return script;
  throw failed('start_failed', `fal_worker.py was not found: there is no ${script}. ${NOT_SENT}`, {
    hint: 'Name it with the option `worker` or the environment variable FAL_WORKER.',
  });
}

const ANOTHER_FOLDER = 'Name one with the option `cwd`, or start the app again in one that exists.';

/** The folder that the worker starts in; spawn would blame Python for one that it cannot enter. */
function workingFolder(named) {
  const folder = named == null ? currentFolder() : String(named);
  const why = whyNotIn(folder);
  if (!why) return folder;
  throw failed('start_failed', `The folder ${folder} ${why}. ${NOT_SENT}`, { hint: ANOTHER_FOLDER });
}

function whyNotIn(folder) {
  try {
    if (!statSync(folder).isDirectory()) return 'is not a folder';
    accessSync(folder, constants.X_OK);
    return null;
  } catch (error) {
    return error.code === 'EACCES' ? 'may not be entered' : 'does not exist';
  }
}

/** `path` as an absolute one. */
function absolute(path) {
  return isAbsolute(path) ? resolve(path) : resolve(currentFolder(), path);
}

/** Node's working folder; a deploy that deletes it takes away its name too. */
function currentFolder() {
  try {
    return process.cwd();
  } catch (cause) {
    const error = `The folder that this process was started in does not exist any more. ${NOT_SENT}`;
    throw failed('start_failed', error, { hint: ANOTHER_FOLDER, cause });
  }
}

function serveArguments({ concurrency, maxPending, queueTimeout, timeout, envFile }) {
  const options = { concurrency, max_pending: maxPending, queue_timeout: queueTimeout, timeout, env_file: envFile };
  const given = Object.entries(options).filter(([, value]) => value != null);
  return ['serve', ...given.map(([name, value]) => `--${name}=${value}`)];
}

// Webhooks

const KEYS_URL = 'https://rest.fal.ai/.well-known/jwks.json';
/** fal asks not to keep its keys longer. */
const KEYS_MAX_AGE_MS = 24 * 3_600_000;
/** fal is asked for its keys no more often: neither wrong signatures nor an outage make us ask at every request. */
const MOST_LOOKS = 5;
const LOOKS_WITHIN_MS = 60_000;
/** For a look; fal gives up on a first delivery after 15 s. */
const FETCH_MS = 10_000;
const MAX_KEYS_BYTES = 64 * 1024;
const MAX_KEYS = 16;
/** How far the time of a delivery may lie from ours, either way. */
const TOLERANCE_S = 300;
/** Request ids that are kept to tell repeats. */
const REMEMBERED = 10_000;
const REQUEST_ID = 'x-fal-webhook-request-id';
const USER_ID = 'x-fal-webhook-user-id';
const TIMESTAMP = 'x-fal-webhook-timestamp';
const SIGNATURE = 'x-fal-webhook-signature';
const FORMS = new Map([
  [REQUEST_ID, /^[^\x00-\x1f\x7f]+$/],
  [USER_ID, /^[^\x00-\x1f\x7f]+$/],
  [TIMESTAMP, /^[0-9]{1,12}$/],
  [SIGNATURE, /^[0-9a-fA-F]{128}$/],
]);

/** `WebhookVerifier.verify` with keys and a memory that the whole process shares. */
export function verifyFalWebhook(headers, body) {
  shared ??= new WebhookVerifier();
  return shared.verify(headers, body);
}
let shared;

/** Verifies webhooks with fal's keys, which it keeps, and tells repeats. */
export class WebhookVerifier {
  #keys;
  #now;
  #limit;
  #seen = new Set();

  /** `fetchKeys` gives fal's JWKS document as text, `now` milliseconds; `remembered` is the most request ids to keep. */
  constructor({ fetchKeys = readKeys, now = Date.now, remembered = REMEMBERED } = {}) {
    this.#keys = new WebhookKeys(fetchKeys, now);
    this.#now = now;
    this.#limit = remembered;
  }

  /**
   * What fal has signed. `headers` are the request's: an object, a Headers, or pairs; `body` is its raw bytes, before
   * any JSON parser. Rejects with a FalError: `webhook_rejected` with the `reason` in its `data` (answer 401),
   * `fal_unavailable` when fal's keys cannot be had (answer 503, and fal delivers again), `invalid_input`.
   */
  async verify(headers, body) {
    const claim = claimOf(headers, body);
    this.#checkTime(claim.timestamp);
    const keys = await this.#keys.current();
    // Several spellings and keys, none of them secret: the first that fits is enough.
    if (!fits(claim, keys) && !fits(claim, await this.#keys.renewed(keys))) {
      throw rejected("The webhook's signature is not fal's for this body.", 'bad_signature');
    }
    return new Webhook(claim, this.#remember(claim.requestId), () => this.#seen.delete(claim.requestId));
  }

  #checkTime(timestamp) {
    const late = Math.floor(this.#now() / 1000) - timestamp;
    if (late > TOLERANCE_S) {
      throw rejected(`The webhook is ${late} s old; fal sends it again with a new time.`, 'too_old');
    }
    if (-late > TOLERANCE_S) {
      throw rejected(`The webhook is dated ${-late} s ahead. Set this machine's clock.`, 'too_new');
    }
  }

  #remember(requestId) {
    const known = this.#seen.delete(requestId);
    this.#seen.add(requestId);
    // A Set keeps the order in which its members came.
    for (const oldest of this.#seen) {
      if (this.#seen.size <= this.#limit) break;
      this.#seen.delete(oldest);
    }
    return known;
  }
}

/** One delivery that fal has signed. */
class Webhook {
  #forget;

  constructor({ requestId, userId, timestamp, body }, repeat, forget) {
    Object.assign(this, { requestId, userId, timestamp, repeat, body });
    this.#forget = forget;
  }

  json() {
    const document = parsed(this.body.toString('utf8'));
    if (isObject(document)) return document;
    throw failed('bad_output', "The webhook's body is not a JSON object.", { request_id: this.requestId });
  }

  forget() {
    this.#forget();
  }
}

/** fal's public keys: fetched when they are first needed, when they are old, and when a signature fits none. */
class WebhookKeys {
  #fetchKeys;
  #now;
  #known = [];
  #fetchedAt = -Infinity;
  /** When the latest looks began. */
  #looks = [];
  #problem = null;
  #looking = null;

  constructor(fetchKeys, now) {
    this.#fetchKeys = fetchKeys;
    this.#now = now;
  }

  async current() {
    if (this.#known.length && this.#within(this.#fetchedAt, KEYS_MAX_AGE_MS)) return this.#known;
    this.#known = [];
    await this.#look();
    return this.#known;
  }

  /** The keys, fetched again when nobody else has done so since `known`, and not too often. */
  async renewed(known) {
    if (this.#known === known) await this.#look();
    return this.#known;
  }

  async #look() {
    const often = this.#looks.length === MOST_LOOKS && this.#within(this.#looks[0], LOOKS_WITHIN_MS);
    if (!this.#looking && !often) this.#looking = this.#fetch().finally(() => (this.#looking = null));
    await this.#looking;
    if (!this.#problem) return;
    // What fetch says itself is only that it failed.
    const why = this.#problem.cause?.message ?? this.#problem.message;
    throw failed('fal_unavailable', `fal's webhook keys are not available: ${why}`, {
      retryable: true,
      hint: 'Answer 503: fal delivers the webhook again.',
      cause: this.#problem,
    });
  }

  async #fetch() {
    const began = this.#now();
    this.#looks = [...this.#looks, began].slice(-MOST_LOOKS);
    try {
      this.#known = publicKeys(await this.#fetchKeys());
      this.#fetchedAt = began;
      this.#problem = null;
    } catch (error) {
      this.#problem = error;
    }
  }

  #within(moment, ms) {
    // A clock that was set back makes nothing last longer.
    const age = this.#now() - moment;
    return age >= 0 && age < ms;
  }
}

/** The document with fal's public keys. */
async function readKeys() {
  const answer = await fetch(KEYS_URL, { redirect: 'manual', signal: AbortSignal.timeout(FETCH_MS) });
  if (answer.status !== 200) {
    await answer.body?.cancel();
    throw new Error(`${KEYS_URL} answered ${answer.status}.`);
  }
  const parts = [];
  let size = 0;
  for await (const part of answer.body) {
    parts.push(part);
    size += part.length;
    if (size > MAX_KEYS_BYTES) throw new Error(`${KEYS_URL} sent too much.`);
  }
  return Buffer.concat(parts).toString('utf8');
}

/** The Ed25519 keys of a JWKS document; others are passed over. */
function publicKeys(text) {
  const rows = parsed(text)?.keys;
  if (!Array.isArray(rows)) throw new Error(`${KEYS_URL} does not contain a JWKS document.`);
  const found = [];
  for (const { kty, crv, x } of rows.filter(isObject)) {
    if (kty !== 'OKP' || crv !== 'Ed25519') continue;
    try {
      found.push(createPublicKey({ key: { kty, crv, x }, format: 'jwk' }));
    } catch {
      // Not a key: there may be another one.
    }
  }
  if (!found.length) throw new Error(`${KEYS_URL} contains no Ed25519 key.`);
  return found.slice(0, MAX_KEYS);
}

/** What a request says of itself; nothing is proven yet. */
function claimOf(headers, body) {
  if (!types.isUint8Array(body) && !types.isAnyArrayBuffer(body)) {
    const why = 'body must be the raw bytes of the request, as a Buffer. Take them before they are parsed.';
    throw failed('invalid_input', why);
  }
  const found = webhookHeaders(headers);
  const missing = [...FORMS.keys()].filter((name) => !found.get(name));
  if (missing.length) {
    throw rejected(`The request has no ${missing.join(', ')}: it is not a webhook from fal.`, 'missing_header');
  }
  for (const [name, form] of FORMS) {
    if (!form.test(found.get(name))) throw rejected(`${name} is not what fal sends.`, 'malformed_header');
  }
  const bytes = types.isUint8Array(body) ? Buffer.from(body.buffer, body.byteOffset, body.length) : Buffer.from(body);
  const [requestId, userId, timestamp] = [REQUEST_ID, USER_ID, TIMESTAMP].map((name) => found.get(name));
  const digest = createHash('sha256').update(bytes).digest('hex');
  const messages = spelled([requestId, userId, timestamp, digest].join('\n'));
  const signature = Buffer.from(found.get(SIGNATURE), 'hex');
  return { requestId, userId, timestamp: Number(timestamp), body: bytes, signature, messages };
}

/** The headers of fal's among all, by their names in small letters. */
function webhookHeaders(headers) {
  if (typeof headers !== 'object' || headers === null) {
    throw failed('invalid_input', "headers must be the request's: an object, a Headers, or pairs of names and texts.");
  }
  const iterable = typeof headers[Symbol.iterator] === 'function';
  const found = new Map();
  for (const [key, value] of iterable ? headers : Object.entries(headers)) {
    const name = String(key).toLowerCase();
    if (!FORMS.has(name)) continue;
    for (const one of Array.isArray(value) ? value : [value ?? '']) {
      const text = String(one).replace(/^[ \t]+|[ \t]+$/g, '');
      if ((found.get(name) ?? text) !== text) throw rejected(`${name} is there twice.`, 'malformed_header');
      found.set(name, text);
    }
  }
  return found;
}

/** The bytes that came over the wire: Node reads headers as Latin-1, others as UTF-8. */
function spelled(message) {
  const utf8 = Buffer.from(message, 'utf8');
  if (utf8.length === message.length || /[^\x00-\xff]/.test(message)) return [utf8];
  return [Buffer.from(message, 'latin1'), utf8];
}

function fits({ messages, signature }, keys) {
  return keys.some((key) => messages.some((message) => fitsSignature(null, message, key, signature)));
}

function rejected(error, reason) {
  return failed('webhook_rejected', error, { reason });
}

// Small things

/**
 * `onLine` for every line of a stream of bytes; the function it gives does so for what is left at the end. After a line
 * that is too long nothing more is kept.
 */
function eachLine(stream, onLine, onTooLong) {
  let parts = [];
  let size = 0;
  const flush = () => {
    const line = Buffer.concat(parts).toString('utf8');
    [parts, size] = [[], 0];
    if (line) onLine(line);
  };
  const take = (chunk) => {
    let from = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      parts.push(chunk.subarray(from, end));
      from = end + 1;
      flush();
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
    size += chunk.length - from;
    if (size <= MAX_ANSWER_BYTES) return;
    parts = [parts[0].subarray(0, TAIL_LENGTH)];
    stream.off('data', take).resume();
    onTooLong();
  };
  stream.on('data', take);
  return flush;
}

/** The worker's own deadline comes a little before Node's, unless the options name one. */
function withTimeout(options, timeoutMs) {
  if (!isObject(options)) throw failed('invalid_input', `The options must be an object. ${NOT_SENT}`);
  if (timeoutMs == null || options.timeout != null) return options;
  const ms = timeoutMs - Math.min(timeoutMs * SOONER, SOONER_MOST_MS);
  return { ...options, timeout: Math.min(ms / 1000, MAX_TIMEOUT_S) };
}

/** The worker's own deadline is `timeoutMs`, unless the options name an earlier one. */
function withDeadline(options, timeoutMs) {
  if (!isObject(options)) throw failed('invalid_input', `The options must be an object. ${NOT_SENT}`);
  if (timeoutMs == null) return options;
  const timeout = Math.min(timeoutMs / 1000, MAX_TIMEOUT_S);
  return options.timeout == null || options.timeout > timeout ? { ...options, timeout } : options;
}

/** A setting that is a time, when it is given. */
function milliseconds(name, value) {
  if (value == null || (typeof value === 'number' && value > 0)) return value;
  throw failed('invalid_input', `${name} must be a number of milliseconds above 0, not ${inspect(value)}.`);
}

function checkSignal(signal) {
  if (signal == null) return;
  // Many calls may share a signal: each has one listener, and takes it away.
  if (signal instanceof EventTarget) setMaxListeners(0, signal);
  const { aborted, addEventListener: add, removeEventListener: remove } = signal;
  if (typeof aborted === 'boolean' && typeof add === 'function' && typeof remove === 'function') return;
  throw failed('invalid_input', `signal must be an AbortSignal: of an AbortController, its \`signal\`. ${NOT_SENT}`);
}

function closed() {
  return failed('worker_closed', `This FalWorker is closed. ${NOT_SENT}`);
}

/** A listener that fails, also later, must not lose an answer that is paid for. */
function tell(listener, value) {
  const warn = (error) => process.emitWarning(`A listener of fal-worker failed: ${inspect(error)}`);
  try {
    const later = listener(value);
    if (typeof later?.then === 'function') later.then(undefined, warn);
  } catch (error) {
    warn(error);
  }
}

function toStderr(text) {
  process.stderr.write(text);
}

function toJson(value) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw failed('invalid_input', `The options are not JSON: ${error.message}. ${NOT_SENT}`, { cause: error });
  }
}

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function merged(base, changes = {}) {
  const all = { ...base, ...changes };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value != null));
}

function shortened(text) {
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
