"""Texts that a test puts in place of the models' answers, first in, first out."""

from __future__ import annotations

from pydantic import Field

from fal_sandbox.options import Options


class Line(Options):
    """One text to say."""

    text: str
    endpoint: str | None = Field(default=None, min_length=1)
    """None fits every text endpoint."""
    times: int | None = Field(default=1, ge=1)
    """How often; None means for ever."""


class Script:
    """The texts still waiting to be said, with what is left of their counts."""

    def __init__(self) -> None:
        self._lines: list[tuple[Line, int | None]] = []

    def add(self, line: Line) -> None:
        self._lines.append((line, line.times))

    def clear(self) -> None:
        self._lines.clear()

    def has(self, endpoint: str) -> bool:
        """Whether a text waits for this endpoint."""
        return any(line.endpoint in (None, endpoint) for line, _ in self._lines)

    def take(self, endpoint: str) -> str | None:
        """The text this endpoint has to say next, if one was put there."""
        for place, (line, left) in enumerate(self._lines):
            if line.endpoint in (None, endpoint):
                if left == 1:
                    del self._lines[place]
                elif left is not None:
                    self._lines[place] = line, left - 1
                return line.text
        return None
