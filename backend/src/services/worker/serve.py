"""The persistent worker: the commands as JSON-RPC methods, many calls at once, until its standard input ends.

A method is a command's name, `params` what the command takes with `--json -`, the result the document it prints; when
that has an `error`, it is the `data` of a JSON-RPC error. The first line out is `ready`. Beside replies go out, each
with the call's `id`: `progress` (a command's steps, its jobs' places in fal's queue, with `with_logs` their log) and
`delta` (the events of any-llm-stream, whose reply is the last one again). In come also `ping`, `shutdown` and the
notification `$/cancelRequest`. A command that comes without an id is not run: nobody could learn what it cost.

Lines and codes are `jsonrpc.py`'s, the calls on their way `calls.py`'s. Here it is decided what a line starts, and how
the process ends: by `shutdown`, the end of input, a signal, or a stdout that nobody reads any more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.fal import stderr_log
from services.fal.errors import FalError, InvalidInput, as_fal_error, report
from services.fal.settings import MAX_TIMEOUT_S, check_timeout
from services.worker import early_signals, jsonrpc
from services.worker.calls import Calls, OpenCall
from services.worker.commands import COMMANDS, CONCURRENCY, ENV_FILE, MAX_PENDING, QUEUE_TIMEOUT, TIMEOUT, Command
from services.worker.jsonrpc import Batch, Id, Outbox, Refused, Reply, Request
from services.worker.options import require, values_of
from services.worker.output import JsonStdout
from services.worker.run import LOOK_S, PausingClock, failure, on_signal

if TYPE_CHECKING:
    from services.fal_service import FalClient

DEFAULT_CONCURRENCY = 8
DEFAULT_PENDING = 1000
MOST_CONCURRENCY = 1000
MOST_PENDING = 1_000_000
EXIT_S = 1.9
"""However the worker ends, it takes no longer."""
LAST_LINE_S = 0.1
"""Of that, what is left for the process's own end when the reader is far behind."""

PING = "ping"
SHUTDOWN = "shutdown"
OWN_METHODS = (PING, SHUTDOWN, "$/cancelRequest")
END_OF_INPUT = "end of input"
NOBODY_READS = "nobody reads"
METHODS = {name: row for name, row in COMMANDS.items() if row.program is None}
HEAVY = ("services.fal.core", "services.fal.workflow", "services.worker.gallery", "services.worker.report", "traceback")
"""Imported before `ready`: no call pays for them, and a package that is missing shows at once."""


def serve(values: Mapping[str, Any], out: JsonStdout) -> int:
    """The command: 0 after `shutdown` or the end of input, 1 after a signal, or when it could not begin."""
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
        from services.fal_service import FalClient

        concurrency = _whole(values, CONCURRENCY.name, DEFAULT_CONCURRENCY, 1, MOST_CONCURRENCY)
        max_pending = _whole(values, MAX_PENDING.name, DEFAULT_PENDING, 0, MOST_PENDING)
        self._env_file = values.get(ENV_FILE.name)
        about = {"timeout": values.get(TIMEOUT.name), "env_file": self._env_file}
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
        self._refusals: tuple[FalError | None, dict[str, str]] = (None, {})
        self._about = {"version": _version(), "pid": os.getpid()}
        self._ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Why the worker ends; a signal handler may put into it at any moment."""
        self._farewells: list[Callable[[], None]] = []
        """The replies to `shutdown`, which come last."""
        self._out = out
        self._outbox = Outbox(out.write_text, lambda: self._ends.put(NOBODY_READS))
        self._calls = Calls(
            self._reply_to,
            self._failed,
            self._outbox.wait_for_room,
            self._outbox.together,
            concurrency=concurrency,
            max_pending=max_pending,
            queue_timeout_s=queue_timeout_s,
        )

    def run(self, stdin: int) -> int:
        """Answer the lines of `stdin` until something ends it; the exit code."""
        with on_signal(self._ends.put):
            early_signals.disarm()
            self._outbox.put(jsonrpc.notification("ready", {**self._about, "commands": list(METHODS)}))
            threading.Thread(target=self._watch_reader, name="fal-watch-reader", daemon=True).start()
            threading.Thread(target=self._read, args=(stdin,), name="fal-reader", daemon=True).start()
            code = 0 if self._ends.get() in (SHUTDOWN, END_OF_INPUT) else 1
            ends_at = time.monotonic() + EXIT_S
            over = threading.Event()
            with contextlib.suppress(RuntimeError):  # no thread to be had: what follows is bounded by itself
                threading.Thread(target=_end_at, args=(ends_at, over), name="fal-last-resort", daemon=True).start()
            self._calls.close()
            for say_farewell in self._farewells:
                say_farewell()
            all_told = self._outbox.flush(max(ends_at - time.monotonic() - LAST_LINE_S, LAST_LINE_S))
            over.set()
        return code if all_told else 1

    # What comes in

    def _read(self, stdin: int) -> None:
        try:
            for line in jsonrpc.read_lines(stdin):
                self._answer_line(line)
                if self._farewells:
                    self._ends.put(SHUTDOWN)
        finally:
            self._ends.put(END_OF_INPUT)

    def _answer_line(self, line: bytes | None) -> None:
        try:
            if line is None:
                raise jsonrpc.too_long()
            if line.strip():
                self._take_line(jsonrpc.parsed(line))
        except Refused as refused:
            self._outbox.put(self._refusal(refused))
        except Exception as error:  # the lines after it are not its fault
            self._outbox.put(jsonrpc.error_reply(None, jsonrpc.INVALID_REQUEST, report(as_fal_error(error))))

    def _watch_reader(self) -> None:
        # Nobody reads any more, and what runs would be paid for in vain; its own output may be far away.
        if self._out.wait_for_the_reader_to_leave():
            self._ends.put(NOBODY_READS)

    def _take_line(self, document: Any) -> None:
        if not isinstance(document, list):
            self._take(document, lambda: self._outbox.put)
            return
        batch = Batch(self._outbox.put)
        for member in document:
            self._take(member, batch.member)
        batch.complete()

    def _take(self, member: Any, reply_of: Callable[[], Reply]) -> None:
        """Begin what one message asks for; `reply_of` gives where its reply goes, when it gets one."""
        try:
            request = jsonrpc.as_request(member)
        except Refused as refused:
            reply_of()(self._refusal(refused))
            return
        if request.call_id is None:
            if request.method in OWN_METHODS:
                self._own(request, lambda line: None)
            return
        reply = reply_of()
        try:
            self._begin(request, request.call_id, reply)
        except Refused as refused:
            reply(refused.reply())
        except Exception as error:
            reply(jsonrpc.error_reply(request.call_id, jsonrpc.CALL_FAILED, report(as_fal_error(error))))

    def _refusal(self, refused: Refused) -> str:
        """The reply to what is no request; never under the id of an open call, whose reply it would be."""
        refused.call_id = None if self._calls.is_open(refused.call_id) else refused.call_id
        return refused.reply()

    def _begin(self, request: Request, call_id: Id, reply: Reply) -> None:
        if self._calls.is_open(call_id):
            # Its own id would make this the reply to the call that is open.
            why = f"The id {str(call_id)[:100]!r} is that of a call that is still open."
            raise jsonrpc.refused(jsonrpc.INVALID_REQUEST, why)
        if request.method in OWN_METHODS:
            self._own(request, reply)
            return
        command = METHODS.get(request.method)
        if command is None:
            known = ", ".join((*OWN_METHODS, *METHODS))
            why = f"There is no method {request.method[:100]!r}. Known: {known}."
            raise jsonrpc.refused(jsonrpc.METHOD_NOT_FOUND, why, call_id)
        values = _values(command, request.params, call_id)
        try:
            self._calls.add(OpenCall(call_id, command, values, self._timeout_s(command, values), reply))
        except FalError as error:
            reply(_failure_reply(call_id, command, error))

    def _timeout_s(self, command: Command, values: Mapping[str, Any]) -> float:
        """How long a call may take once it has a place. Raises InvalidInput."""
        if command.local is not None:
            return MAX_TIMEOUT_S
        if (timeout := values.get(TIMEOUT.name)) is not None:
            return check_timeout(timeout)
        # Another .env file is read when the call begins; until then its own time-out is not known.
        return self._client.timeout if self._has_our_client(values) else MAX_TIMEOUT_S

    def _own(self, request: Request, reply: Reply) -> None:
        """The methods that are no commands: answered by the reader itself, without a place."""
        call_id = 0 if request.call_id is None else request.call_id
        if request.method == SHUTDOWN:
            # The end itself comes after this line, of which it may be but a part.
            self._farewells.append(lambda: reply(jsonrpc.result_reply(call_id, None)))
            self._calls.take_no_more()
        elif request.method == PING:
            reply(jsonrpc.result_reply(call_id, {"pong": True, **self._about, **self._calls.counts()}))
        else:
            named = request.params.get("id") if isinstance(request.params, dict) else None
            known = jsonrpc.is_id(named) and self._calls.cancel(named)
            reply(jsonrpc.result_reply(call_id, {"cancelled": known}))

    # What goes out

    def _failed(self, call: OpenCall, error: FalError) -> str:
        """The reply to a call that ends without a document of its own; quick when many end in the same way."""
        if call.made.document:
            return _document_reply(call.call_id, call.made.beside(failure(call.command, error)))
        if self._refusals[0] is not error:
            self._refusals = (error, {})
        replies = self._refusals[1]
        if call.command.help not in replies:
            replies[call.command.help] = _failure_reply(0, call.command, error)
        return jsonrpc.same_reply(replies[call.command.help], call.call_id)

    def _reply_to(self, call: OpenCall) -> str:
        """Run one call to its reply."""
        try:
            with call.within().resumed(), stderr_log.told_to(lambda event: self._tell(call, "progress", event)):
                return _document_reply(call.call_id, self._document(call))
        except BaseException as error:
            return _failure_reply(call.call_id, call.command, error)

    def _document(self, call: OpenCall) -> Mapping[str, Any]:
        if call.command.local is not None:
            return call.command.local(call.values)
        with self._client_for(call.values) as client:
            if call.command.handler is not None:
                return call.command.handler(client, call.values, lambda event: self._tell_progress(call, event))
            assert call.command.streamer is not None
            event: dict[str, Any] = {}
            for event in call.command.streamer(client, call.values, lambda event: None):
                self._tell(call, "delta", event)
            return event

    def _tell_progress(self, call: OpenCall, event: Mapping[str, Any]) -> None:
        call.made.note(event)
        self._tell(call, "progress", event)

    def _tell(self, call: OpenCall, method: str, event: Mapping[str, Any]) -> None:
        line = jsonrpc.notification(method, {**event, "id": call.call_id})
        within = call.within()
        self._outbox.wait_for_room(lambda: within.cancelled or within.remaining() == 0)
        with self._calls.while_open(call) as is_open:
            if is_open:
                self._outbox.put(line)

    @contextlib.contextmanager
    def _client_for(self, values: Mapping[str, Any]) -> Iterator[FalClient]:
        """The client that all calls share, or one of its own for a call that names another .env file."""
        if self._has_our_client(values):
            yield self._client
            return
        from services.fal_service import FalClient

        with FalClient(timeout=values.get(TIMEOUT.name), env_file=values[ENV_FILE.name]) as client:
            yield client

    def _has_our_client(self, values: Mapping[str, Any]) -> bool:
        return bool(values.get(ENV_FILE.name, self._env_file) == self._env_file)


def _values(command: Command, params: Any, call_id: Id) -> dict[str, Any]:
    """The options in `params`, as `--json -` would read them. Raises Refused."""
    try:
        if not isinstance(params, dict | None):
            raise InvalidInput("params is one JSON object with the command's options.")
        values = values_of(command.all_options, params or {})
        require(command.options, values)
    except InvalidInput as error:
        raise Refused(jsonrpc.INVALID_PARAMS, error, call_id) from error
    return values


def _document_reply(call_id: Id, document: Mapping[str, Any]) -> str:
    if document.get("error") is None:
        return jsonrpc.result_reply(call_id, document)
    wrong_input = document.get("error_type") == InvalidInput.error_type
    return jsonrpc.error_reply(call_id, jsonrpc.INVALID_PARAMS if wrong_input else jsonrpc.CALL_FAILED, document)


def _failure_reply(call_id: Id, command: Command, error: BaseException) -> str:
    return _document_reply(call_id, failure(command, error))


def _end_at(ends_at: float, over: threading.Event) -> None:
    """End the process then, whatever still holds it; when it was paused meanwhile, as much later."""
    clock = PausingClock()
    while (left := ends_at - time.monotonic()) > 0:
        if over.wait(min(LOOK_S, left)):
            return
        if (woke_at := clock.woke_at()) is not None:
            ends_at = max(ends_at, woke_at + EXIT_S)
    os._exit(1)


def _whole(values: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value: int = values.get(name, default)
    if not least <= value <= most:
        raise InvalidInput(f"--{name} must be a whole number from {least} to {most}, not {value}.")
    return value


def _own_stdin() -> int:
    """Standard input under a number of its own: what a library or a child reads from 0 is no call."""
    stdin = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return stdin


def _version() -> str:
    """This project's version: from the checkout that this file stands in, else of the installed package."""
    # Not `parents[3]`: src/ may stand at the root, as in a container.
    project = Path(__file__).resolve().parent.parent.parent.parent
    with contextlib.suppress(OSError):
        text = (project / "pyproject.toml").read_text(encoding="utf-8")
        if found := re.search(r'^name = "fal-python-services"\nversion = "(.+)"$', text, re.MULTILINE):
            return found[1]
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("fal-python-services")
    return "unknown"
