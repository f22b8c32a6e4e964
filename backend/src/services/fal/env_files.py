"""Finds, reads and decodes `.env` files, including pipes and files that cannot be read.

A file that the caller named must be there and be text. Those that are looked for by themselves may be somebody
else's: one that cannot be read is noted and passed over. Beside ordinary files, pipes are read (password managers
mount `.env` as one, shells pass `<(...)` and `/dev/stdin`), but nobody waits for a writer without end. What the
lines in a file mean is decided in `settings.py`.
"""

import contextlib
import os
import re
import select
import stat
import time
from collections.abc import Iterable
from typing import NamedTuple

from services.fal.errors import InvalidInput

MAX_WAIT_S = 10.0
"""The longest that anyone waits for a pipe to be written, when the call has that long."""
GLANCE_S = 1.0
"""The same for a pipe that is not needed, since the key is known without it."""
MAX_BYTES = 1024 * 1024
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DESCRIPTOR = r"/dev/stdin|(?:/dev/fd|/proc/self/fd)/(\d{1,9})"
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class EnvFile(NamedTuple):
    """A file that was found."""

    path: str
    text: str
    problem: str | None
    """Why it could not be read; its text is empty then."""


def named(path: str | os.PathLike[str], wait_s: float) -> EnvFile:
    """The file that the caller named. Raises InvalidInput when it cannot be read, or is no text."""
    if not isinstance(path, str | os.PathLike) or not isinstance(shown := os.fspath(path), str):
        raise InvalidInput(f"env_file must be the path of a file, not {path!r}.")
    try:
        data = _read(shown, wait_s)
        return EnvFile(shown, data.decode(_encoding(data)), None)
    except FileNotFoundError as error:
        raise InvalidInput(f"The env file {shown!r} does not exist. Check --env_file.") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The env file {shown!r} cannot be read: {_reason(error)}. Check --env_file.") from error


def found(paths: Iterable[str], wait_s: float) -> list[EnvFile]:
    """Those of `paths` that are there, each once, in order."""
    files: dict[str, EnvFile] = {}
    for path in paths:
        real = _real(path)
        if real not in files and (file := _found(path, wait_s)) is not None:
            files[real] = file
    return list(files.values())


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # the working folder was deleted
        return path


def _found(path: str, wait_s: float) -> EnvFile | None:
    try:
        data = _read(path, wait_s)
    except _NOT_THERE:  # a folder named .env is a virtual environment
        return None
    except (OSError, ValueError) as error:
        return EnvFile(path, "", _reason(error))
    # A letter of another encoding stands in a comment mostly; in a value it is told by the value's own check.
    return EnvFile(path, data.decode(_encoding(data), "replace"), None)


def _encoding(data: bytes) -> str:
    return next((encoding for bom, encoding in _BOMS if data.startswith(bom)), "utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()} (byte {error.start})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read(path: str, wait_s: float) -> bytes:
    """What stands at `path`. Raises OSError or ValueError."""
    descriptor = _open(path)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(None, "it is a folder")
        return _all_of(descriptor, None if stat.S_ISREG(mode) else time.monotonic() + wait_s)
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    if path.startswith("/") and (own := re.fullmatch(_DESCRIPTOR, path)):
        # Not opened anew: a socket cannot be, and a pipe's end would not be seen.
        return os.dup(int(own[1] or 0))
    # Opening a pipe must not wait for its writer.
    return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))


def _all_of(descriptor: int, deadline: float | None) -> bytes:
    data = b""
    while len(data) <= MAX_BYTES:
        if deadline is not None:
            _wait(descriptor, deadline)
        with contextlib.suppress(BlockingIOError):
            part = os.read(descriptor, MAX_BYTES)
            if not part:
                return data
            data += part
    raise ValueError(f"it is larger than {MAX_BYTES // 1024} KiB")


def _wait(descriptor: int, deadline: float) -> None:
    """Until there is something to read, or nobody writes any more. Raises TimeoutError."""
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError(None, "it is a pipe that nobody wrote to and closed in time")
