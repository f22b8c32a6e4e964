// What node/fal-worker.mjs exports. docs/generate.py puts this behind the generated types, into node/fal-worker.d.ts.
// ---
export type Command = keyof Options;

/** An `errorType` that only the Node side gives; nothing is known of a document then. */
export type ProcessErrorType = "start_failed" | "worker_died" | "worker_closed";

/** What is known of a failure for which the worker left no document. */
export interface ProcessFailure extends Omit<ErrorDocument, "error_type"> {
  error_type: ErrorType | ProcessErrorType;
  /** The end of what the process wrote there. */
  stdout?: string;
  stderr?: string;
  exit_code?: number | null;
  signal?: string | null;
  /** The Python that was started. */
  python?: string;
  /** Why a webhook was rejected. */
  reason?: "missing_header" | "malformed_header" | "too_old" | "too_new" | "bad_signature";
  /** The call's jobs at fal, as far as the worker told them by then; a single one is `request_id` too. */
  request_ids?: string[];
}

/** Every failure of this module. */
export class FalError extends Error {
  readonly name: "FalError";
  readonly errorType: ErrorType | ProcessErrorType;
  /** Whether the same call may succeed later without paying twice for one result. */
  readonly retryable: boolean;
  readonly requestId: string | null;
  readonly statusCode: number | null;
  readonly hint: string | null;
  /** The worker's document, with what the command had made by then. */
  readonly data: Failures[Command] | ProcessFailure;
}

/** How the worker is started. */
export interface ProcessSettings {
  /** Default: FAL_PYTHON, backend/.venv, python3. */
  python?: string | undefined;
  /** The path of fal_worker.py. Default: FAL_WORKER, the one beside this module, `-m services.fal_worker`. */
  worker?: string | undefined;
  cwd?: string | undefined;
  /** Keep a terminal's Ctrl-C from the worker (false). It still ends with this process. */
  ownProcessGroup?: boolean | undefined;
  /** Added to this process's environment; null or undefined takes a variable away. */
  env?: Record<string, string | null | undefined> | undefined;
}

export interface CallSettings {
  /**
   * For the whole call, whose jobs at fal are cancelled when it passes. With runFal the worker's own deadline comes a
   * little sooner; with FalWorker it is this one, and counts from when the worker begins the call.
   */
  timeoutMs?: number | undefined;
  /** Cancels the call, also at fal. */
  signal?: AbortSignal | undefined;
  /** Each line of any-llm-stream as it comes. */
  onDelta?: ((line: StreamLine) => void) | undefined;
}

export interface RunSettings extends ProcessSettings, CallSettings {}

export interface WorkerCallSettings extends CallSettings {
  /** The steps of the call and its jobs' places in fal's queue; with `with_logs` also their logs. */
  onProgress?: ((event: ProgressEvent) => void) | undefined;
}

export interface WorkerSettings extends ProcessSettings {
  /** Calls that run side by side (8). */
  concurrency?: number | undefined;
  /** Calls that may wait for a place (1000); more are answered `busy`. */
  maxPending?: number | undefined;
  /** Seconds that a call may wait for a place before it is answered `busy`; no limit without it. */
  queueTimeout?: number | undefined;
  /** Seconds per call once it has a place, unless it says otherwise (110). */
  timeout?: number | undefined;
  envFile?: string | undefined;
  /** What the worker writes to stderr, in place of this process's stderr. */
  onStderr?: ((text: string) => void) | undefined;
  startTimeoutMs?: number | undefined;
  /** After so long without a sign of life, while calls are open, the process is ended. */
  hangTimeoutMs?: number | undefined;
}

/** What a worker says of itself. */
export interface Ready {
  version: string;
  pid: number;
  commands: Command[];
}

export interface Pong {
  pong: true;
  version: string;
  pid: number;
  running: number;
  waiting: number;
}

/** The options of a command, which may be left out when it needs none, and the settings of the call. */
export type Arguments<C extends Command, Settings> = {} extends Options[C]
  ? [options?: Options[C], settings?: Settings]
  : [options: Options[C], settings?: Settings];

/** What `stream` yields: the lines of any-llm-stream, or a command's steps and, as the last, its result. */
export type Streamed<C extends Command> = C extends "any-llm-stream" ? StreamLine : ProgressEvent | Results[C];

/** Run one command in a process of its own. Rejects with a FalError. */
export function runFal<C extends Command>(command: C, ...args: Arguments<C, RunSettings>): Promise<Results[C]>;

/** A worker process that stays, for many calls. */
export class FalWorker {
  constructor(settings?: WorkerSettings);
  /** A worker that is ready for calls. */
  static start(settings?: WorkerSettings): Promise<FalWorker>;
  /** Start the process if it does not run. */
  ready(): Promise<Ready>;
  /** The process id, while there is a process. */
  get pid(): number | undefined;
  /** Run one command. Rejects with a FalError. */
  call<C extends Command>(command: C, ...args: Arguments<C, WorkerCallSettings>): Promise<Results[C]>;
  /** The events of a call as they come. To leave the loop early cancels it. Throws a FalError. */
  stream<C extends Command>(
    command: C,
    ...args: Arguments<C, WorkerCallSettings>
  ): AsyncGenerator<Streamed<C>, Results[C], void>;
  /** Answered at once, however many calls are open. */
  ping(settings?: CallSettings): Promise<Pong>;
  /** End the process: open calls are cancelled, also at fal, and reject. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A request's headers: those of Node's http and of frameworks, a Headers, or pairs of names and values. */
export type WebhookHeaders =
  | Readonly<Record<string, string | readonly string[] | undefined>>
  | Iterable<readonly [string, string | readonly string[] | undefined]>;

/** What fal posts: `payload` is the job's result, or null. */
export interface WebhookBody {
  request_id: string;
  gateway_request_id?: string;
  status: "OK" | "ERROR";
  payload: unknown;
  error?: string;
  payload_error?: string;
}

/** One delivery that fal has signed. */
export interface Webhook {
  readonly requestId: string;
  readonly userId: string;
  /** When fal sent it, in Unix seconds. */
  readonly timestamp: number;
  /** Whether a delivery of this job has been verified before: fal may send it several times. */
  readonly repeat: boolean;
  /** As it came. */
  readonly body: Uint8Array;
  /** The body. Throws a FalError (`bad_output`) when it is not a JSON object. */
  json(): WebhookBody;
  /** Let fal's next delivery of the job count as the first: for a server that could not deal with this one. */
  forget(): void;
}

/**
 * What fal has signed; `body` is the request's raw bytes. Rejects with a FalError: `webhook_rejected` (answer 401),
 * `fal_unavailable` when fal's keys are not available (answer 503), `invalid_input`.
 */
export function verifyFalWebhook(headers: WebhookHeaders, body: Uint8Array | ArrayBuffer): Promise<Webhook>;

/** Verifies webhooks with keys and a memory of its own. */
export class WebhookVerifier {
  constructor(settings?: {
    /** Gives fal's JWKS document. */
    fetchKeys?: (() => Promise<string>) | undefined;
    /** The time in milliseconds (Date.now). */
    now?: (() => number) | undefined;
    /** The most request ids to keep (10,000). */
    remembered?: number | undefined;
  });
  verify(headers: WebhookHeaders, body: Uint8Array | ArrayBuffer): Promise<Webhook>;
}
