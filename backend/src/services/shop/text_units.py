"""The length of a text in the unit that a place counts, and cutting it without breaking a letter.

`👩‍👩‍👧 anne` has 10 code points, 13 UTF-16 units, 23 bytes and 6 graphemes (what a reader calls a letter). Counting
graphemes needs `regex`, of the extra `image`, since the standard library does not know them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Literal

from services.fal.errors import InvalidInput

Unit = Literal["code_points", "utf16_units", "bytes", "graphemes"]

NAMES: Mapping[Unit, str] = {
    "code_points": "characters",
    "utf16_units": "UTF-16 units",
    "bytes": "bytes",
    "graphemes": "letters as a reader counts them",
}
_BREAK = re.compile(r"[\s\-‐-―]")


def graphemes(text: str) -> list[str]:
    """The letters of `text` as a reader sees them. Raises InvalidInput when `regex` is not installed."""
    try:
        import regex
    except ImportError as error:
        raise InvalidInput(
            "Counting letters needs the extra `image` (regex is not installed).",
            hint='Install it: pip install "./backend[image]".',
        ) from error
    return list(regex.findall(r"\X", text))


_LENGTHS: Mapping[Unit, Callable[[str], int]] = {
    "code_points": len,
    "utf16_units": lambda text: len(text.encode("utf-16-le", "surrogatepass")) // 2,
    "bytes": lambda text: len(text.encode("utf-8", "surrogatepass")),
    "graphemes": lambda text: len(graphemes(text)),
}


def length(text: str, unit: Unit = "code_points") -> int:
    """How many of `unit` the text has."""
    return _LENGTHS[unit](text)


def cut_text(text: str, most: int, unit: Unit = "code_points") -> str:
    """`text`, or as much of its beginning as fits into `most`: whole words where one fits, always whole graphemes."""
    if length(text, unit) <= most:
        return text
    letters = graphemes(text)
    ends = [*accumulate(length(letter, unit) for letter in letters)]
    fit = bisect_right(ends, most)
    # Back to the end of a word, unless not even one word fits.
    at = next((at for at in range(fit, 0, -1) if _BREAK.match(letters[at])), fit)
    while at and _BREAK.match(letters[at - 1]):
        at -= 1
    return "".join(letters[:at])
