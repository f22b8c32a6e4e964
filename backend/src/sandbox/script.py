"""Words put into the models' mouths: texts that replace the scripted answer, first in, first out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Line:
    text: str
    endpoint: str | None
    times: int | None


class Script:
    """The texts still waiting to be said."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []

    def add(self, text: str, endpoint: str | None = None, times: int | None = 1) -> None:
        """`endpoint=None` fits every text endpoint, `times=None` means for ever."""
        if times is None or times > 0:
            self._lines.append(_Line(text, endpoint, times))

    def clear(self) -> None:
        self._lines.clear()

    def take(self, endpoint: str) -> str | None:
        """The text this endpoint has to say next, if one was put there."""
        for line in self._lines:
            if line.endpoint in (None, endpoint):
                if line.times is not None:
                    line.times -= 1
                    if line.times == 0:
                        self._lines.remove(line)
                return line.text
        return None
