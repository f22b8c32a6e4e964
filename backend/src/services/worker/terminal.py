"""Output for a person at a terminal: the steps of a command on stderr, and its document on stdout, indented.

Loaded only when stderr or stdout is a terminal, or for `--progress`: a program that runs the worker pays nothing
for it. Nothing here waits for the terminal; what it does not take at once is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from services.fal import log
from services.worker.output import rendered, stderr_is_terminal

INDENT = 2
SHOW_AFTER_S = 0.4
"""A command that is over by then shows no moving line."""
MAX_REASON = 300
"""Characters that are shown of why a step failed; the document has all."""
SPINNER, PLAIN_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
MARKS, PLAIN_MARKS = {"done": "✓", "failed": "✗"}, {"done": "done:", "failed": "failed:"}
ERASE = "\r\x1b[K"
GREEN, RED, DIM, RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


class Display(ABC):
    """What stderr shows of one command: lines that stay, and below them one that moves.

    That one is drawn only on a terminal that can erase (TERM), and while the command is in its foreground.
    """

    def __init__(self) -> None:
        self.moves = stderr_is_terminal() and os.environ.get("TERM", "dumb") not in ("", "dumb")
        """Whether the moving line is drawn at all."""
        self.has_colours = self.moves and not os.environ.get("NO_COLOR")
        self._drawing = threading.Lock()
        self._is_drawn = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While this lasts, other lines on stderr erase the moving one."""
        if not stderr_is_terminal():
            yield
            return
        with log.erasing(ERASE if self.moves else ""):
            try:
                yield
            finally:
                self.hide()

    @abstractmethod
    def on_event(self, event: Mapping[str, Any]) -> None:
        """What the command tells of its progress."""

    @abstractmethod
    def look(self) -> None:
        """Move the line; called every few tenths of a second."""

    @abstractmethod
    def finish(self, error: str | None) -> None:
        """The command is over. Its document may go to the same terminal next."""

    def draw(self, text: str) -> None:
        with self._drawing:
            if not self.moves or not _is_in_foreground():
                return
            shown = cut(log.clean(text), terminal_columns() - 1)
            # The cursor stays in the first column: whatever else is written there begins on top of this line.
            log.draw(f"\r{DIM}{shown}{RESET}\x1b[K\r" if self.has_colours else f"\r{shown}\x1b[K\r")
            self._is_drawn = True

    def hide(self) -> None:
        """Erase the moving line for good: the terminal is the document's from now on."""
        with self._drawing:
            self.moves = False
            if self._is_drawn:
                self._is_drawn = False
                log.draw(ERASE)


class Steps(Display):
    """The steps of one command: a line for each that is over, and one that moves for those that run."""

    def __init__(self, command: str, *, tells_error: bool) -> None:
        """`tells_error`: whether the command's error is told too, since its document goes elsewhere."""
        super().__init__()
        self._command = command
        self._tells_error = tells_error
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], float] = {}
        """When they began, by step and style."""
        self._ahead: dict[str, int] = {}
        """The jobs ahead of those that wait in fal's queue, by request id."""
        fits = has_unicode()
        self._spinner = SPINNER if fits else PLAIN_SPINNER
        self._marks = MARKS if fits else PLAIN_MARKS
        self._is_over = False

    def on_event(self, event: Mapping[str, Any]) -> None:
        if self._is_over:
            return  # a part of a call that was given up
        step, style = str(event["step"]), str(event.get("style", ""))
        if step == "log":
            log.show(f"fal: {event['timestamp']} {event['message']}".replace("\n", "\\n"))
        elif step == "queue":
            self._note_place(event["request_id"], event["queue_position"])
        elif event["status"] == "started":
            with self._lock:
                self._running[step, style] = time.monotonic()
        else:
            with self._lock:
                began = self._running.pop((step, style), self._began)
            seconds = event.get("seconds", time.monotonic() - began)
            self._say(event["status"], f"{step} {style}".rstrip(), seconds, event.get("error") or "")

    def look(self) -> None:
        if self.moves and time.monotonic() - self._began >= SHOW_AFTER_S:
            self._draw()

    def finish(self, error: str | None) -> None:
        self.hide()
        with self._lock:
            over, self._is_over = self._is_over, True
        if not over:
            self._say("done" if error is None else "failed", self._command, time.monotonic() - self._began)
            if error is not None and self._tells_error:
                say_error(error)

    def _note_place(self, request_id: str, ahead: int) -> None:
        with self._lock:
            self._ahead[request_id] = ahead
            if not ahead:
                del self._ahead[request_id]
        if self.moves:
            self._draw()
        elif ahead:
            log.show(f"queue: {_jobs(str(ahead))} ahead")

    def _say(self, status: str, name: str, seconds: float, reason: str = "") -> None:
        mark = self._marks[status]
        if self.has_colours:
            mark = f"{GREEN if status == 'done' else RED}{mark}{RESET}"
        reason = " ".join(reason.split())
        shown = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}…"
        name = " ".join(name.split())
        self._put_line(mark, f" {name}  {seconds:.1f} s{'  ' if shown else ''}{shown}")

    def _put_line(self, mark: str, text: str) -> None:
        if self.has_colours:
            log.draw(f"{ERASE}{mark}{log.clean(text)}\n")
        else:
            log.show(f"{mark}{text}")

    def _draw(self) -> None:
        now = time.monotonic()
        with self._lock:
            text = f"{self._spinner[int(now * 10) % len(self._spinner)]} {self._what_runs(now)}"
        self.draw(text)

    def _what_runs(self, now: float) -> str:
        began = min(self._running.values(), default=self._began)
        styles: dict[str, list[str]] = {}
        for step, style in self._running:
            styles.setdefault(step, []).extend([" ".join(style.split())] if style else [])
        parts = [f"{step} {', '.join(names)}".rstrip() for step, names in styles.items()] or [self._command]
        if self._ahead:
            parts.insert(0, f"queue: {_jobs(', '.join(map(str, sorted(self._ahead.values()))))} ahead")
        return " · ".join([f"{now - began:.1f} s", *parts])


def document_text(document: Mapping[str, Any], *, with_trace: bool, in_one_line: bool = False) -> str:
    """A document for a terminal: indented, without `trace` unless that is wanted, and with controls escaped."""
    shown = {name: value for name, value in document.items() if with_trace or name != "trace"}
    text = rendered(shown, indent=None if in_one_line else INDENT)
    return re.sub(log.CONTROLS, lambda found: f"\\u{ord(found[0]):04x}", text)


def error_of(document: Mapping[str, Any]) -> str | None:
    """The error of a document in one sentence or two, its remedy at the end."""
    error, hint = document.get("error"), document.get("hint")
    if error is None:
        return None
    return f"{error} {hint}" if hint and str(hint) not in str(error) else str(error)


def say_error(error: str) -> None:
    log.show(f"error: {error}")


def cut(text: str, columns: int) -> str:
    """As much of `text` as fits, with an ellipsis for the rest."""
    if sum(map(_width, text)) <= columns:
        return text
    kept, room = [], columns - 1
    for letter in text:
        room -= _width(letter)
        if room < 0:
            break
        kept.append(letter)
    return f"{''.join(kept)}{'…' if has_unicode() else '.'}" if columns > 0 else ""


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _jobs(ahead: str) -> str:
    return f"{ahead} job{'' if ahead == '1' else 's'}"


def terminal_columns() -> int:
    """How wide stderr's terminal is."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def has_unicode() -> bool:
    """Whether stderr can show more than ASCII."""
    try:
        SPINNER.encode(getattr(sys.stderr, "encoding", None) or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _is_in_foreground() -> bool:
    """Whether the terminal is ours to draw on; a terminal that controls no session is."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return True
