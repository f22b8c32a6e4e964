"""The progress of a batch on stderr: a bar on a terminal (tqdm, the extra `batch`), elsewhere a line now and then.

Like all that is shown there it never waits for its reader, and never reaches stdout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from services.fal import log
from services.worker.terminal import Display, cut, has_unicode, say_error, terminal_columns

LINE_EVERY_S = 10.0
"""How often a line is told where nothing moves."""
NO_TQDM = 'There is no progress bar without tqdm. Install it: pip install "./backend[batch]".'
BAR = "{{percentage:3.0f}}% |{{bar}}| {text}"

Bar = Callable[[int, int, str], str]
"""Draws how many of how many, and a text, as one line."""


class Meter(Display):
    """The state of one batch: products done and failed, running jobs, dollars, time left."""

    def __init__(self, *, tells_error: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`tells_error`: whether the command's error is told too, since its document goes elsewhere."""
        super().__init__()
        self._tells_error = tells_error
        self._clock = clock
        self._state: Mapping[str, Any] = {}
        """The last event of the step `batch`."""
        self._first: tuple[float, int] | None = None
        """When the first came, and how many products had ended by then: others ended in an earlier run."""
        self._next_line = self._clock() + LINE_EVERY_S
        self._bar = _bar() if self.moves else None
        if self.moves and self._bar is None:
            self.moves = False
            log.show(NO_TQDM)

    def on_event(self, event: Mapping[str, Any]) -> None:
        if event["step"] == "batch":
            self._state = event
            if self._first is None:
                self._first = self._clock(), _ended(event)

    def look(self) -> None:
        if not self._state:
            return
        if self.moves and self._bar is not None:
            self.draw(self._bar(_ended(self._state), self._state["total"], self._text()))
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_EVERY_S
            log.show(f"batch: {self._text()}")

    def finish(self, error: str | None) -> None:
        self.hide()
        if self._state:
            log.show(f"batch: {self._text(is_over=True)}")
        if error is not None and self._tells_error:
            say_error(error)

    def _text(self, *, is_over: bool = False) -> str:
        state = self._state
        parts = [f"{state['done']:,} of {state['total']:,} done"]
        parts += [f"{state[name]:,} {name}" for name in ("failed", "ambiguous") if state[name]]
        if not is_over:
            parts.append(f"{state['jobs']:,} {'job' if state['jobs'] == 1 else 'jobs'}")
        unknown = f" and {state['unknown_costs']:,} unknown" if state["unknown_costs"] else ""
        parts.append(f"${state['cost_usd']:,.2f}{unknown}")
        left = None if is_over else self._seconds_left()
        parts += [f"{_duration(left)} left"] if left is not None else []
        return (" · " if has_unicode() else ", ").join(parts)

    def _seconds_left(self) -> float | None:
        """As long as the rest takes at the speed of this run; None before the first product has ended."""
        if self._first is None:
            return None
        began, ended_before = self._first
        ended = _ended(self._state)
        if ended == ended_before:
            return None
        remaining = int(self._state["total"]) - ended
        return remaining * (self._clock() - began) / (ended - ended_before)


def _ended(state: Mapping[str, Any]) -> int:
    return int(state["done"] + state["failed"] + state["ambiguous"])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    known = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(known[:2]) or "0 s"


def _bar() -> Bar | None:
    """tqdm's bar; None where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None

    def drawn(ended: int, total: int, text: str) -> str:
        # Without a total tqdm draws no bar. It knows nothing of wide letters, and there are none.
        if not total:
            return text
        room = terminal_columns() - 1
        line = tqdm.format_meter(
            ended, total, 1.0, ncols=room, ascii=not has_unicode(), bar_format=BAR.format(text=text)
        )
        return cut(line, room)

    return drawn
