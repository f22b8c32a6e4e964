"""Reserves stdout for JSON: while a command runs, everything else that is written there goes to stderr.

File descriptor 1 itself is moved, so a library that prints, also from C, cannot spoil the document. JSON is written
by one locked function, as UTF-8 under every locale.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
from typing import Any, TextIO

from services.fal.redaction import redact, redacted

LOOK_MS = 1000


class JsonStdout:
    """Use as a context manager around a command; `write` one document, or several lines of a stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: TextIO | None = None
        self._fd: int | None = None

    def __enter__(self) -> JsonStdout:
        self._stream = sys.stdout
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        self._fd = _moved_away(1) if _is_fd_1(self._stream) else None
        sys.stdout = sys.stderr
        return self

    def __exit__(self, *exc: object) -> None:
        sys.stdout = self._stream
        if self._fd is not None:
            os.dup2(self._fd, 1)
            os.close(self._fd)
            self._fd = None

    @property
    def is_terminal(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def write(self, document: Any) -> None:
        """One JSON document and a newline. Raises BrokenPipeError when nobody reads any more."""
        self.write_text(rendered(document))

    def write_text(self, text: str) -> None:
        """One text and a newline, for `--help`."""
        with self._lock:
            if self._fd is not None:
                _write_all(self._fd, f"{text}\n".encode("utf-8", "backslashreplace"))
            elif self._stream is not None:
                self._stream.write(f"{text}\n")
                self._stream.flush()

    def reader_has_left(self, wait_ms: int = 0) -> bool:
        """Whether nobody reads any more; False also when that cannot be learnt: no pipe of ours, or Windows."""
        if self._fd is None or not hasattr(select, "poll"):
            return False
        pipe = select.poll()
        pipe.register(self._fd, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(wait_ms))

    def wait_for_the_reader_to_leave(self) -> bool:
        """Wait until nobody reads any more: True. False when that cannot be learnt."""
        while self._fd is not None and hasattr(select, "poll"):
            if self.reader_has_left(LOOK_MS):
                return True
        return False


def stderr_is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr is sys.__stderr__ and os.isatty(2)


def rendered(document: Any, *, indent: int | None = None) -> str:
    """The JSON text of a document, without a line break unless it is indented.

    Raises RecursionError for one that is nested too deeply.
    """
    text = _json(document, indent)
    # A key of digits may stand in a number, which a mask would spoil.
    return text if redact(text) == text else _json(redacted(json.loads(text)), indent)


def _is_fd_1(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 1
    except (OSError, ValueError, AttributeError):
        return False


def _moved_away(fd: int) -> int:
    """A private copy of `fd`; the number itself now leads to stderr, or nowhere when that is closed."""
    copy = os.dup(fd)
    try:
        os.dup2(2, fd)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, fd)
        os.close(null)
    return copy


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _json(document: Any, indent: int | None) -> str:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, default=str, indent=indent)
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but it has an escape.
        return json.dumps(_finite(document), ensure_ascii=True, default=str, indent=indent)
    except ValueError:
        return _json(_finite(document), indent)
    return text


def _finite(value: Any) -> Any:
    """`value` with null for the numbers that JSON does not have."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
