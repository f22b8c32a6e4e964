"""The library's log: standard `logging` under the name `fal_services`, redacted.

As a library should (https://docs.python.org/3/howto/logging.html#configuring-logging-for-a-library) it has a
NullHandler and leaves the rest to the program. Only the worker, the smoke test and FAL_LOG have it written to stderr.
The words of prompts are never logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import sys
from collections.abc import Iterator

from services.fal.errors import FalError
from services.fal.redaction import for_log

logger = logging.getLogger("fal_services")


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = for_log(record.getMessage()), ()
        return True


class _StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is at that moment, whatever its encoding, and never waits for its reader.

    A pipe holds 64 kB. When nobody empties it, lines are dropped and counted: a call that costs money comes first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0
        self.before_line = ""
        """What erases the line that a terminal shows for the moment."""
        self._terminal: tuple[int, int] | None = None
        """The device of the terminal that is stderr, and its number as opened once more."""

    def emit(self, record: logging.LogRecord) -> None:
        self.write(f"{record.levelname.lower()}: {self.format(record)}")

    def write(self, line: str) -> None:
        self.acquire()
        try:
            if self._dropped and self._has_written(f"warning: {self._dropped} lines were dropped: nobody read stderr"):
                self._dropped = 0
            self._dropped += not self._has_written(line)
        except Exception:  # a closed stderr must not end a call that costs money
            pass
        finally:
            self.release()

    def draw(self, text: str) -> None:
        """Write `text` with its control characters; it is lost when nobody takes it."""
        with contextlib.suppress(Exception):
            self.acquire()
            try:
                self._has_put(text)
            finally:
                self.release()

    def _has_written(self, line: str) -> bool:
        return self._has_put(f"{self.before_line}{printable(for_log(line))}\n")

    def _has_put(self, text: str) -> bool:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        data = text.encode(encoding, "backslashreplace")
        fd = self._fd()
        if fd is None:
            sys.stderr.write(data.decode(encoding))
            sys.stderr.flush()
            return True
        # What is no longer than that is written at once when the file is ready.
        for start in range(0, len(data), select.PIPE_BUF):
            if not _is_ready(fd):
                return start > 0
            try:
                os.write(fd, data[start : start + select.PIPE_BUF])
            except BlockingIOError:  # a terminal that has room for less
                return start > 0
        return True

    def _fd(self) -> int | None:
        """Where to write: stderr, or the terminal that it is, opened once more.

        A terminal that takes no more (Ctrl-S, a stalled SSH connection) may have room for a part of a line, and then a
        write of the whole waits. O_NONBLOCK on stderr itself would be the shell's too: they share it.
        """
        fd = _own_fd()
        if fd is None or not os.isatty(fd):
            return fd
        device = os.fstat(fd).st_rdev
        if self._terminal is None or self._terminal[0] != device:
            try:
                self._terminal = device, os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            except OSError:  # such as a terminal of another user, after su
                self._terminal = device, fd
        return self._terminal[1]


def _own_fd() -> int | None:
    """The number of stderr, which can be asked whether it would block; None for a stream put in its place."""
    stream = sys.__stderr__
    if stream is None or sys.stderr is not stream or not hasattr(select, "poll"):
        return None  # or on Windows
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _is_ready(fd: int) -> bool:
    look = select.poll()
    look.register(fd, select.POLLOUT)
    return bool(look.poll(0))


CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"


def printable(text: str) -> str:
    """`text` with its control characters escaped, so that it moves no cursor: all but line breaks and tabs."""
    return re.sub(CONTROLS, lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def clean(text: str) -> str:
    """`text` as a part of one line of the log: without secrets and control characters."""
    return printable(for_log(text)).replace("\n", "\\n")


def outline(error: FalError) -> str:
    """An error as the log may tell it: fal's own text may repeat the prompt."""
    return error.error_type if error.status_code is None else f"{error.error_type}, {error.status_code}"


logger.addFilter(_Redacting())
logger.addHandler(logging.NullHandler())
_handler = _StderrHandler()


def to_stderr(level: str = "off") -> None:
    """Write the log to stderr from `level` on: "info", "debug", or "off" for warnings alone."""
    if _handler not in logger.handlers:
        logger.addHandler(_handler)
    elif level == "off":
        return  # what FAL_LOG asked for stays
    logger.setLevel({"off": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}[level])


def show(line: str) -> None:
    """One line on stderr, whatever the log's level; never waits for its reader."""
    _handler.write(line)


def draw(text: str) -> None:
    """Write `text` to stderr as it is, with its control characters; never waits, and is lost when nobody takes it."""
    _handler.draw(text)


@contextlib.contextmanager
def erasing(text: str) -> Iterator[None]:
    """While this lasts, `text` precedes each line: it erases what a terminal shows for the moment."""
    _handler.before_line = text
    try:
        yield
    finally:
        _handler.before_line = ""
