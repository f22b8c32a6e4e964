"""The library's log: standard `logging` under the name `services`, redacted, to stderr when FAL_LOG asks.

Warnings reach stderr without any set-up, as logging does by itself. Values of prompts are never logged.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from services.fal.redaction import for_log

logger = logging.getLogger("services")


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = for_log(record.getMessage()), ()
        return True


class _StderrHandler(logging.Handler):
    """Writes to whatever sys.stderr is at that moment, whatever its encoding."""

    def emit(self, record: logging.LogRecord) -> None:
        self.write(f"{record.levelname.lower()}: {self.format(record)}")

    def write(self, line: str) -> None:
        try:
            text = for_log(line) + "\n"
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()
        except Exception:  # a closed stderr must not end a call that costs money
            pass


logger.addFilter(_Redacting())
_handler = _StderrHandler()


def enable(level: str) -> None:
    """Show the log on stderr from `level` on: "info", "debug", or "off" for warnings alone."""
    if _handler not in logger.handlers:
        logger.addHandler(_handler)
        logger.propagate = False
    logger.setLevel({"off": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}[level])


_listener: ContextVar[Callable[[dict[str, Any]], None] | None] = ContextVar("log_listener", default=None)


@contextlib.contextmanager
def told_to(listener: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While this lasts, the jobs of this thread tell `listener` their log in place of stderr."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def watcher(with_logs: bool) -> Callable[[dict[str, Any]], None] | None:
    """What shows a job's place in the queue and its own log lines as they come, when they are wanted."""
    if not with_logs:
        return None
    seen: set[tuple[str, str]] = set()
    listener = _listener.get()

    def show(status: dict[str, Any]) -> None:
        position = status.get("queue_position")
        lines = [("queue", f"position {position}")] if isinstance(position, int) else []
        logs = status.get("logs")
        for entry in logs if isinstance(logs, list) else []:
            if isinstance(entry, dict):
                lines.append((str(entry.get("timestamp", "")), str(entry.get("message", ""))))
        for line in lines:
            if line not in seen:
                seen.add(line)
                if listener is None:
                    _handler.write("fal: " + " ".join(line))
                elif line[0] == "queue":
                    listener({"step": "queue", "queue_position": position})
                else:
                    listener({"step": "log", "timestamp": line[0], "message": line[1]})

    return show
