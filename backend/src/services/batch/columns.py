"""The columns of a manifest: finds those that are options of the command."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from services.fal.errors import InvalidInput
from services.fal.redaction import shown
from services.shop.casing import folded

KEY = "key"
OWN = ("save_dir", "out", "env_file", "timeout", "max_usd")
"""Options of commands that a batch sets for all products."""
ALIKE = 0.8
"""From this likeness on a column may be a misspelt option (https://docs.python.org/3/library/difflib.html)."""
COMBINED = ("image", "title", "language", "languages")
"""Options that shops' exports name with more words: Image Src, product title."""
PHOTO = {"image", "image_url"}
"""Where one is given, the other is not missing."""
MOST_NAMED = 12


class Columns:
    """Finds the option that a column names: case, blanks, dashes and underscores do not matter.

    A column that resembles an option which no other column names is an error, since without that option the wrong
    pictures would be paid for. All others, such as a stock or a barcode, are ignored.
    """

    def __init__(self, options: Iterable[str]) -> None:
        self._known = {_plain(name): name for name in (KEY, *options)}
        self._own = {_plain(name): name for name in OWN if _plain(name) not in self._known}
        self._seen: dict[str, tuple[str | None, str | None]] = {}
        """The option of each column that was seen, and the one that it only resembles."""

    @property
    def ignored(self) -> list[str]:
        """The columns that are not options, in the order in which they were seen."""
        return [column for column, (option, _) in self._seen.items() if option is None]

    def check(self, columns: Collection[str]) -> None:
        """Look at the columns that come together. Raises InvalidInput for those that would make the wrong pictures."""
        taken: dict[str, str] = {}
        for column in columns:
            option, _ = self._look(column)
            if option is not None and (other := taken.setdefault(option, column)) != column:
                raise InvalidInput(
                    f"The columns {shown(other, 60)!r} and {shown(column, 60)!r} are both the option {option}.",
                    hint="Remove one of them.",
                )
        given = taken.keys() | PHOTO if taken.keys() & PHOTO else taken.keys()
        near = {column: meant for column in columns if (meant := self._look(column)[1]) and meant not in given}
        if near:
            said = "columns {} are not options" if len(near) > 1 else "column {} is not an option"
            meant = " and ".join(dict.fromkeys(near.values()))
            raise InvalidInput(
                f"The {said.format(named(map(repr, near)))}. Did you mean {meant}?",
                hint="Rename the column that you mean, and remove or rename the others. Nothing was sent.",
            )

    def options_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a row, whose columns were checked, under the names of their options."""
        found = ((self._look(column)[0], value) for column, value in values.items())
        return {option: value for option, value in found if option is not None}

    def has_key(self, columns: Iterable[str]) -> bool:
        return any(_plain(column) == KEY for column in columns)

    def _look(self, column: str) -> tuple[str | None, str | None]:
        if (seen := self._seen.get(column)) is not None:
            return seen
        plain = _plain(column)
        if plain in self._own:
            raise InvalidInput(
                f"The column {shown(column, 60)!r} is not an option of a product: the batch sets {self._own[plain]}.",
                hint="Remove or rename the column. Nothing was sent.",
            )
        option, near = self._known.get(plain), None
        if option is None:
            words = (word for word in map(_plain, re.split(r"[\W_]+", column)) if word in COMBINED)
            close = get_close_matches(plain, self._known, n=1, cutoff=ALIKE)
            near = next((self._known[name] for name in (*close, *words) if name in self._known), None)
        self._seen[column] = option, near
        return option, near


def named(columns: Iterable[str]) -> str:
    """Columns for a message; of many the first ones."""
    names = [shown(name, 60) for name in columns]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _plain(name: str) -> str:
    return folded(re.sub(r"[\s_-]+", "", name))
