"""JSON-RPC 2.0 with one message per line: parsing, reading lines within bounds, and writing replies.

Arrays of messages (JSON-RPC calls them batches) are not taken: lines need no batches. For what the methods do see
`serve.py`. Codes of errors:

    -32700  the line is not JSON in UTF-8, or is too large or too deeply nested to be parsed
    -32600  it is not a request (an array is none), its id is that of an open call, or it is over 32 MiB
    -32601  there is no such method
    -32602  wrong params: `data` is the `invalid_input` document
    -32000  the call failed, or did not begin: `data` is its document, whose `error_type` says why

`data` is always a document as the one-shot command prints it, and `message` is its `error`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, TypeGuard

from services.fal.errors import FalError, InvalidInput, report
from services.worker.output import rendered

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
CALL_FAILED = -32000

MAX_LINE_BYTES = 32 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
ROOM = 4 * 1024 * 1024
"""Characters that may wait for a slow reader before calls wait with them."""
ROOM_LOOK_S = 0.05

PIPE_BUF = getattr(select, "PIPE_BUF", 512)

_HEAD = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,15})\s*,')

Id = str | int | float


class BadMessage(Exception):
    """A line that is answered with an error at once."""

    def __init__(self, code: int, error: FalError, call_id: Id | None = None) -> None:
        super().__init__(str(error))
        self.code = code
        self.error = error
        self.call_id = call_id

    def reply(self, call_id: Id | None) -> str:
        return error_reply(call_id, self.code, report(self.error))


class Message(NamedTuple):
    """A request of JSON-RPC, or a notification when `call_id` is None."""

    method: str
    params: Any
    call_id: Id | None


def result_reply(call_id: Id, result: Any) -> str:
    return rendered({"jsonrpc": "2.0", "id": call_id, "result": result})


def error_reply(call_id: Id | None, code: int, document: Mapping[str, Any]) -> str:
    error = {"code": code, "message": str(document.get("error")), "data": document}
    return rendered({"jsonrpc": "2.0", "id": call_id, "error": error})


def same_reply(reply: str, call_id: Id) -> str:
    """`reply`, which was made for the id 0, to another call: without making the whole document again."""
    return f"{_REPLY_TO}{rendered(call_id)}{reply[len(_REPLY_TO) + 1 :]}"


_REPLY_TO = '{"jsonrpc": "2.0", "id": '


def notification(method: str, params: Mapping[str, Any]) -> str:
    return rendered({"jsonrpc": "2.0", "method": method, "params": params})


def read_lines(fd: int) -> Iterator[bytes | None]:
    """The lines of `fd` to its end; None for one that is too long, of which no more than the limit is ever kept."""
    parts: list[bytes] = []
    size = 0
    refused = False
    while chunk := _read(fd):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            if not refused:
                yield b"".join((*parts, end)) if size + len(end) <= MAX_LINE_BYTES else None
            parts, size, refused = [], 0, False
        size += len(rest)
        if size <= MAX_LINE_BYTES:
            parts.append(rest)
        elif not refused:
            parts, refused = [], True
            yield None
    if parts:
        yield b"".join(parts)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            select.select([fd], [], [])
        except OSError:
            return b""


def message_in(line: bytes) -> Message:
    """The message of a line. Raises BadMessage."""
    value = _parsed(line)
    if isinstance(value, list):
        raise _bad(INVALID_REQUEST, "An array is not a request. Send each request on a line of its own.")
    if not isinstance(value, dict):
        raise _bad(INVALID_REQUEST, "A request must be a JSON object.")
    call_id = value.get("id")
    if "id" in value and not is_id(call_id):
        raise _bad(INVALID_REQUEST, "An id must be a string or a number.")
    if value.get("jsonrpc") != "2.0":
        raise _bad(INVALID_REQUEST, 'A request must have "jsonrpc": "2.0".', call_id)
    method = value.get("method")
    if not isinstance(method, str):
        raise _bad(INVALID_REQUEST, "The method of a request must be a string.", call_id)
    return Message(method, value.get("params"), call_id)


def _parsed(line: bytes) -> Any:
    # Looking for cycles among millions of new values takes longer than making them.
    gc.disable()
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant)
    except (RecursionError, MemoryError) as error:
        why = f"The request is too large or too deeply nested ({type(error).__name__})."
        raise _bad(PARSE_ERROR, why, _id_at_start(line)) from error
    except ValueError as error:
        raise _bad(PARSE_ERROR, f"The line is not JSON in UTF-8 ({type(error).__name__}).") from error
    finally:
        gc.enable()


def _id_at_start(line: bytes) -> Id | None:
    """The id of a request that is JSON but cannot be parsed: else its caller would wait for ever."""
    found = _HEAD.match(line)
    return int(found[1]) if found else None


def too_long() -> BadMessage:
    return _bad(INVALID_REQUEST, f"The line is longer than {MAX_LINE_BYTES // 1024**2} MiB.")


def is_id(value: Any) -> TypeGuard[Id]:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bad(code: int, why: str, call_id: Id | None = None) -> BadMessage:
    return BadMessage(code, InvalidInput(why), call_id)


class Outbox:
    """Lines to be written, by a thread of its own: a slow reader does not hold up those who must react."""

    def __init__(self, write: Callable[[str], None], on_broken: Callable[[], None]) -> None:
        self._write = write
        self._on_broken = on_broken
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._size = 0
        """Characters that were put and not yet written."""
        self._broken = False
        threading.Thread(target=self._work, name="fal-outbox", daemon=True).start()

    def put(self, line: str) -> None:
        """Send one line. Never waits."""
        with self._changed:
            if not self._broken:
                self._lines.append(line)
                self._size += len(line)
                self._changed.notify_all()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What this thread puts meanwhile is sent when it is all there."""
        with self._changed:
            yield

    def wait_for_room(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Wait while the reader is far behind, and not yet `enough`."""
        with self._changed:
            while self._size > ROOM and not enough():
                self._changed.wait(ROOM_LOOK_S)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is written, but no longer than that; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._size == 0, timeout_s) and not self._broken

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                lines, self._lines = self._lines, []
            for some in _packed(lines):
                try:
                    self._write("\n".join(some))
                except OSError:
                    self._end()
                    return
                with self._changed:
                    self._size -= sum(map(len, some))
                    self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._broken = True
            self._lines, self._size = [], 0
            self._changed.notify_all()
        self._on_broken()


def _packed(lines: list[str]) -> Iterator[list[str]]:
    """Lines by the handful: what a pipe takes whole or not at all, so that no line is cut when the process ends."""
    some: list[str] = []
    size = 0
    for line in lines:
        # A letter may take four bytes.
        length = len(line) + 1 if line.isascii() else 4 * len(line) + 1
        if some and size + length > PIPE_BUF:
            yield some
            some, size = [], 0
        some.append(line)
        size += length
    if some:
        yield some
