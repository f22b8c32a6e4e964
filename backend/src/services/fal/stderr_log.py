"""The library's log: standard `logging` under the name `services`, redacted, to stderr when FAL_LOG asks.

Warnings reach stderr without any set-up, as logging does by itself. Values of prompts are never logged.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
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


def watcher(with_logs: bool) -> Callable[[dict[str, Any]], None] | None:
    """What writes a job's own log lines to stderr as they come, when they are wanted."""
    if not with_logs:
        return None
    seen: set[tuple[str, str]] = set()

    def show(status: dict[str, Any]) -> None:
        position = status.get("queue_position")
        lines = [("queue", f"position {position}")] if isinstance(position, int) else []
        for entry in status.get("logs") or []:
            if isinstance(entry, dict):
                lines.append((str(entry.get("timestamp", "")), str(entry.get("message", ""))))
        for line in lines:
            if line not in seen:
                seen.add(line)
                _handler.write("fal: " + " ".join(line))

    return show
