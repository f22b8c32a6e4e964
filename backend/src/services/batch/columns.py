"""The columns of a manifest: finds those that are options of the command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from services.fal.errors import InvalidInput
from services.fal.redaction import shown

KEY = "key"
ALIKE = 0.8
"""From this likeness on a column is taken for a misspelt option (https://docs.python.org/3/library/difflib.html)."""
MOST_NAMED = 12


class Columns:
    """Finds the option that a column names: case, blanks, dashes and underscores do not matter.

    A column that is nearly an option is an error, since without it the wrong pictures would be paid for. All others,
    such as a stock or a barcode, are ignored.
    """

    def __init__(self, options: Iterable[str]) -> None:
        self._known = {_plain(name): name for name in (KEY, *options)}
        self._found: dict[str, str | None] = {}
        """The option of each column that was seen; None for one that is ignored."""

    @property
    def ignored(self) -> list[str]:
        """The columns that are no options, in the order in which they were seen."""
        return [column for column, option in self._found.items() if option is None]

    def options_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a row under the names of their options. Raises InvalidInput."""
        taken: dict[str, str] = {}
        options: dict[str, Any] = {}
        for name, value in values.items():
            column = str(name)
            option = self._option(column)
            if option is None:
                continue
            if (other := taken.setdefault(option, column)) != column:
                raise InvalidInput(
                    f"The columns {other!r} and {column!r} are both the option {option}.", hint="Remove one of them."
                )
            options[option] = value
        return options

    def has_key(self, names: Iterable[str]) -> bool:
        return any(self._option(name) == KEY for name in names)

    def _option(self, column: str) -> str | None:
        if column not in self._found:
            plain = _plain(column)
            option = self._known.get(plain)
            if option is None and (near := get_close_matches(plain, self._known, n=1, cutoff=ALIKE)):
                raise InvalidInput(
                    f"The column {shown(column, 60)!r} is not an option. Did you mean {self._known[near[0]]}?",
                    hint="Rename the column, or remove it. Nothing was sent.",
                )
            self._found[column] = option
        return self._found[column]


def named(columns: Iterable[str]) -> str:
    """Columns for a message; of many the first ones."""
    names = [shown(name, 60) for name in columns]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _plain(name: str) -> str:
    # Upper case in Turkish makes İ of i, and lower case ı of I.
    return re.sub(r"[\s_-]+", "", name).casefold().replace("i\u0307", "i").replace("ı", "i")
