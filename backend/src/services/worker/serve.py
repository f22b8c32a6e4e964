"""The resident worker: the commands as JSON-RPC methods, many calls at once, until its standard input ends.

A method is a command's name, `params` what the command takes with `--json -`, the result the document it prints; when
that has an `error`, it is the `data` of a JSON-RPC error. The first line out is `ready`. Beside replies go out, each
with the call's `id`: `progress` (a command's steps, its jobs' places in fal's queue, with `with_logs` their log) and
`delta` (the events of any-llm-stream, whose reply is the last one again). In come also `ping`, `shutdown` and the
notification `$/cancelRequest`. A command without an id is not run, since nobody could learn what it cost.

For lines and codes see `jsonrpc.py`, for the calls `supervisor.py`. Here it is decided what a message starts, and how
the process ends: by `shutdown`, the end of input, a signal, or a stdout that nobody reads any more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from services.fal import log
from services.fal.errors import FalError, InvalidInput, as_fal_error, report
from services.fal.progress import Progress
from services.fal.settings import DEFAULT_CONCURRENCY, check_timeout
from services.fal_service import FalClient
from services.worker import early_signals, jsonrpc
from services.worker.command import ENV_FILE, TIMEOUT, Command
from services.worker.commands import COMMANDS, CONCURRENCY, MAX_PENDING, QUEUE_TIMEOUT
from services.worker.jsonrpc import BadMessage, Id, Message, Outbox
from services.worker.options import require, values_of
from services.worker.output import JsonStdout
from services.worker.supervisor import LOOK_S, NOBODY_READS, Invocation, PausingClock, Supervisor, failure, on_signal
from services.worker.version import version

DEFAULT_PENDING = 1000
MOST_CONCURRENCY = 1000
MOST_PENDING = 1_000_000
EXIT_S = 1.9
"""The worker ends within this time, whatever ends it."""
LAST_LINE_S = 0.1
"""The part of it that is kept for the end of the process when the reader is far behind."""

PING = "ping"
SHUTDOWN = "shutdown"
OWN_METHODS = (PING, SHUTDOWN, "$/cancelRequest")
END_OF_INPUT = "end of input"
METHODS = {name: row for name, row in COMMANDS.items() if not row.is_program}
HEAVY = (
    "services.fal.fal_api",
    "services.saved_files",
    "services.worker.report",
    "traceback",
)
"""Imported before `ready`: no call pays for them, and a package that is missing shows at once."""


def serve(values: Mapping[str, Any], out: JsonStdout) -> int:
    """Run the command: 0 after `shutdown` or the end of input, 1 after a signal, or when it could not begin."""
    stdin = _own_stdin()
    try:
        for name in HEAVY:
            importlib.import_module(name)
        gc.freeze()
        gc.enable()
        worker = Worker(values, out)
    except BaseException as error:
        early_signals.disarm()
        out.write_text(jsonrpc.error_reply(None, jsonrpc.CALL_FAILED, report(as_fal_error(error))))
        return 1
    return worker.run(stdin)


class Worker:
    """One process's worth of calls, over one client."""

    def __init__(self, values: Mapping[str, Any], out: JsonStdout) -> None:
        """Raises InvalidInput, and MissingKey."""
        concurrency = _whole(values, CONCURRENCY.name, DEFAULT_CONCURRENCY, 1, MOST_CONCURRENCY)
        max_pending = _whole(values, MAX_PENDING.name, DEFAULT_PENDING, 0, MOST_PENDING)
        self._env_file = values.get(ENV_FILE.name)
        about = {"timeout": values.get(TIMEOUT.name), "env_file": self._env_file}
        log.to_stderr()
        self._client = FalClient(**about)
        if concurrency > self._client.max_concurrency:
            # A call that runs has a model call's place at least: more of them would only wait for each other, each
            # against its own deadline.
            if CONCURRENCY.name in values:
                self._client = FalClient(**about, max_concurrency=concurrency)
            concurrency = self._client.max_concurrency
        queue_timeout_s = values.get(QUEUE_TIMEOUT.name)
        if queue_timeout_s is not None:
            check_timeout(queue_timeout_s, QUEUE_TIMEOUT.name)
        self._about = {"version": version(), "pid": os.getpid()}
        self._shutdowns: list[Id | None] = []
        """The ids of the `shutdown` messages; their replies come last."""
        self._refusals = Refusals()
        self._outbox = Outbox(out.write_text, lambda: self._supervisor.ends.put(NOBODY_READS))
        self._supervisor = Supervisor(
            out,
            self._client_for,
            concurrency=concurrency,
            max_pending=max_pending,
            queue_timeout_s=queue_timeout_s,
            wait_for_room=self._outbox.wait_for_room,
            together=self._outbox.together,
        )

    def run(self, stdin: int) -> int:
        """Answer the lines of `stdin` until something ends it; the exit code."""
        with on_signal(self._supervisor.ends.put):
            early_signals.disarm()
            self._outbox.put(jsonrpc.notification("ready", {**self._about, "commands": list(METHODS)}))
            threading.Thread(target=self._read, args=(stdin,), name="fal-reader", daemon=True).start()
            code = 0 if self._supervisor.watch() in (SHUTDOWN, END_OF_INPUT) else 1
            ends_at = time.monotonic() + EXIT_S
            over = threading.Event()
            with contextlib.suppress(RuntimeError):  # no thread to be had: what follows is bounded by itself
                threading.Thread(target=_end_at, args=(ends_at, over), name="fal-last-resort", daemon=True).start()
            self._supervisor.close()
            for call_id in self._shutdowns:
                if call_id is not None:
                    self._outbox.put(jsonrpc.result_reply(call_id, None))
            all_told = self._outbox.flush(max(ends_at - time.monotonic() - LAST_LINE_S, LAST_LINE_S))
            over.set()
        return code if all_told else 1

    # What comes in

    def _read(self, stdin: int) -> None:
        try:
            for line in jsonrpc.read_lines(stdin):
                self._answer_line(line)
                if self._shutdowns:
                    self._supervisor.ends.put(SHUTDOWN)
        finally:
            self._supervisor.ends.put(END_OF_INPUT)

    def _answer_line(self, line: bytes | None) -> None:
        try:
            if line is None:
                raise jsonrpc.too_long()
            if line.strip():
                self._take(jsonrpc.message_in(line))
        except BadMessage as bad:
            # Never under the id of an open call, whose reply it would be.
            self._outbox.put(bad.reply(None if self._supervisor.is_open(bad.call_id) else bad.call_id))
        except Exception as error:  # the lines after it are not its fault
            self._outbox.put(jsonrpc.error_reply(None, jsonrpc.INVALID_REQUEST, report(as_fal_error(error))))

    def _take(self, message: Message) -> None:
        """Begin what one message asks for."""
        if message.call_id is None:
            if message.method in OWN_METHODS:
                self._own(message)
            return
        if self._supervisor.is_open(message.call_id):
            # Its own id would make this the reply to the call that is open.
            why = f"The id {str(message.call_id)[:100]!r} belongs to a call that is still open."
            raise BadMessage(jsonrpc.INVALID_REQUEST, InvalidInput(why))
        try:
            self._begin(message, message.call_id)
        except BadMessage:
            raise
        except Exception as error:
            reply = jsonrpc.error_reply(message.call_id, jsonrpc.CALL_FAILED, report(as_fal_error(error)))
            self._outbox.put(reply)

    def _begin(self, message: Message, call_id: Id) -> None:
        if message.method in OWN_METHODS:
            self._own(message)
            return
        command = METHODS.get(message.method)
        if command is None:
            known = ", ".join((*OWN_METHODS, *METHODS))
            why = InvalidInput(f"The method {message.method[:100]!r} does not exist. Known: {known}.")
            raise BadMessage(jsonrpc.METHOD_NOT_FOUND, why, call_id)
        values = _values(message.method, message.params, call_id)
        try:
            if (timeout := values.get(TIMEOUT.name)) is not None:
                check_timeout(timeout)
            self._supervisor.start(
                RemoteInvocation(call_id, command, values, self._supervisor, self._outbox, self._refusals)
            )
        except FalError as error:
            self._outbox.put(document_reply(call_id, failure(command, error)))

    def _own(self, message: Message) -> None:
        """The methods that are no commands: answered by the reader itself, without a place."""
        if message.method == SHUTDOWN:
            self._shutdowns.append(message.call_id)
            self._supervisor.take_no_more()
            return
        if message.method == PING:
            result = {"pong": True, **self._about, **self._supervisor.counts()}
        else:
            named = message.params.get("id") if isinstance(message.params, dict) else None
            result = {"cancelled": jsonrpc.is_id(named) and self._supervisor.cancel(named)}
        if message.call_id is not None:
            self._outbox.put(jsonrpc.result_reply(message.call_id, result))

    @contextlib.contextmanager
    def _client_for(self, values: Mapping[str, Any]) -> Iterator[FalClient]:
        """The client that all calls share, or one of its own for a call that names another .env file."""
        if values.get(ENV_FILE.name, self._env_file) == self._env_file:
            yield self._client
            return
        with FalClient(timeout=values.get(TIMEOUT.name), env_file=values[ENV_FILE.name]) as client:
            yield client


class Refusals:
    """The replies to calls that end with the same error; when thousands do, each is not made anew."""

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._replies: dict[str, str] = {}

    def reply(self, error: BaseException, invocation: Invocation) -> str:
        if self._error is not error:
            self._error, self._replies = error, {}
        replies, command = self._replies, invocation.command
        if command.help not in replies:
            replies[command.help] = document_reply(0, failure(command, error))
        return jsonrpc.same_reply(replies[command.help], invocation.key)


class RemoteInvocation(Invocation):
    """A command that was called by a message: its answer is a reply with the message's id."""

    def __init__(
        self,
        call_id: Id,
        command: Command,
        values: Mapping[str, Any],
        supervisor: Supervisor,
        outbox: Outbox,
        refusals: Refusals,
    ) -> None:
        super().__init__(call_id, command, values)
        self._supervisor = supervisor
        self._outbox = outbox
        self._refusals = refusals

    def progress(self) -> Progress:
        return Progress(self._tell_progress, to_stderr=False)

    def send_line(self, line: Mapping[str, Any]) -> None:
        self._tell("delta", line)

    def text_of(self, document: Mapping[str, Any]) -> str:
        return document_reply(self.key, document)

    def text_of_failure(self, error: BaseException) -> str:
        return (
            super().text_of_failure(error) if self.made.document or self.spent() else self._refusals.reply(error, self)
        )

    def send_answer(self, text: str, *, failed: bool) -> None:
        self._outbox.put(text)

    def _tell_progress(self, event: Mapping[str, Any]) -> None:
        self.made.note(event)
        self._tell("progress", event)

    def _tell(self, method: str, event: Mapping[str, Any]) -> None:
        line = jsonrpc.notification(method, {**event, "id": self.key})
        call = self.within()
        self._outbox.wait_for_room(lambda: call.cancelled or call.remaining() == 0)
        with self._supervisor.while_open(self) as is_open:
            if is_open:
                self._outbox.put(line)


def _values(name: str, params: Any, call_id: Id) -> dict[str, Any]:
    """The options in `params`, as `--json -` would read them. Raises BadMessage."""
    try:
        if not isinstance(params, dict | None):
            raise InvalidInput("params must be one JSON object with the command's options.")
        values = values_of(METHODS[name].all_options, params or {})
        require(METHODS[name].options, values, f"See fal-worker {name} --help.")
    except InvalidInput as error:
        raise BadMessage(jsonrpc.INVALID_PARAMS, error, call_id) from error
    return values


def document_reply(call_id: Id, document: Mapping[str, Any]) -> str:
    """The reply with a command's document."""
    if document.get("error") is None:
        return jsonrpc.result_reply(call_id, document)
    wrong_input = document.get("error_type") == InvalidInput.error_type
    return jsonrpc.error_reply(call_id, jsonrpc.INVALID_PARAMS if wrong_input else jsonrpc.CALL_FAILED, document)


def _end_at(ends_at: float, over: threading.Event) -> None:
    """End the process at that time, whatever still holds it; later when the process was paused meanwhile."""
    clock = PausingClock()
    while (left := ends_at - time.monotonic()) > 0:
        if over.wait(min(LOOK_S, left)):
            return
        if (woke_at := clock.woke_at(LOOK_S)) is not None:
            ends_at = max(ends_at, woke_at + EXIT_S)
    os._exit(1)


def _whole(values: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value: int = values.get(name, default)
    if not least <= value <= most:
        raise InvalidInput(f"--{name} must be a whole number from {least} to {most}, not {value}.")
    return value


def _own_stdin() -> int:
    """Move standard input to a descriptor of its own, so that no library or child process reads messages from 0."""
    stdin = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return stdin
