"""The first moments of the process: makes sure of its three standard streams, and answers a signal.

A worker that is ended before its command began still prints its one document; `serve` prints it as the error of a
JSON-RPC reply.

Installed by the script before anything else is imported; nothing has been sent to fal then, so there is nothing to
cancel. Once a command runs, the supervisor handles the signals. In the few milliseconds in which Python itself starts,
a signal ends the process without a document.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

SIGNALS = tuple(
    number
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    if (number := getattr(signal, name, None)) is not None
    # nohup, and a shell for what runs behind it, have these two ignored: that stays so.
    and (name in ("SIGTERM", "SIGINT") or signal.getsignal(number) is not signal.SIG_IGN)
)
"""What ends a worker in good order: asked for, Ctrl-C, its terminal or SSH connection is gone, Ctrl-\\."""
WHY = b"The worker was ended by a signal before its command began. Nothing was sent to fal."
DOCUMENT = (
    b'{"error": "%s", "trace": "", "error_type": "cancelled", "retryable": false, "status_code": null, '
    b'"request_id": null, "hint": null}' % WHY
)
SERVE = "serve"
BEFORE_COMMAND = ("--env_file", "--env-file")
"""The option that may also stand before the command."""
REPLY = b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "%s", "data": %s}}' % (WHY, DOCUMENT)

_stdout: int | None = None


def install() -> None:
    """Answer what ends the process with a document of our own, until `disarm`."""
    global _stdout
    if _stdout is not None:
        return
    _occupy_closed_streams()
    _stdout = os.dup(1)
    for number in SIGNALS:
        signal.signal(number, _end)


def disarm() -> None:
    """The command has answered, or answers signals itself: say nothing more."""
    global _stdout
    if _stdout is not None:
        os.close(_stdout)
        _stdout = None


def let_end() -> None:
    """The last word is being printed: when nobody reads it, a signal ends the process as it would any other."""
    if _stdout is not None:
        disarm()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the command, `--env_file` with its value, and the command with what is behind it."""
    end = 0
    while end < len(words) and words[end].partition("=")[0] in BEFORE_COMMAND:
        end += 1 if "=" in words[end] else 2
    return words[:end], words[end:]


def _occupy_closed_streams() -> None:
    """Lead a closed stdin, stdout or stderr nowhere; else the next file or socket that is opened gets its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _end(number: int, frame: FrameType | None) -> None:
    if _stdout is not None:
        try:
            os.write(_stdout, (REPLY if split(sys.argv[1:])[1][:1] == [SERVE] else DOCUMENT) + b"\n")
        finally:
            os._exit(1)
