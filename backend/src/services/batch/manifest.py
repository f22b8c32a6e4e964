"""The manifest of a batch: JSON Lines, CSV, or a folder of photos, read line by line into products.

A line that cannot be used is told with its number and does not stop the others. A key that comes twice stops all of
it, before anything is sent: nobody can know which of the two was meant.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from services.batch.columns import Columns, named
from services.batch.journal import NewProduct
from services.batch.keys import checked_key, same_folder
from services.fal.arguments import is_url
from services.fal.errors import FalError, InvalidInput
from services.fal.image_files import content_type_of
from services.fal.log import logger
from services.fal.redaction import shown

MAX_LINE_CHARS = 16 * 1024 * 1024
"""Of one line or cell: photos may be given as data URIs."""
MOST_NAMED = 10
"""Keys that come twice, as many as an error names."""
DELIMITERS = ",;\t"
"""Excel writes semicolons where the comma is the decimal sign, as in Turkish and German."""
PATHS = ("image", "cutout")
"""Columns whose relative paths begin at the manifest's folder."""
_SEVERAL = re.compile(r"\s(?=https?://)")
"""What stands between the photos of a product in a shop's export."""
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")


class BadLine(NamedTuple):
    """A line that is left out."""

    line: int
    error: str


class Row(NamedTuple):
    """One line as it stands in the manifest."""

    line: int
    values: Mapping[str, Any]


Read = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Makes the options of a command from the values of a row, texts included. Raises InvalidInput."""


class Manifest:
    """The products, and what is wrong with their lines. It is read anew for each use, and never held as a whole."""

    def __init__(
        self, source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], read: Read, options: Iterable[str]
    ) -> None:
        """`source` is a file, a folder of photos, or rows that are there already; `options` are what a row may give.

        Raises InvalidInput for keys that come twice, columns that resemble options, when no line can be used, and
        for a file that cannot be read.
        """
        self._source = source if isinstance(source, str | os.PathLike | list) else list(source)
        self._read = read
        self._columns = Columns(options)
        self.bad_lines: list[BadLine] = []
        self.count = 0
        """Products of good lines."""
        self._check()
        if names := self.ignored_columns:
            logger.warning(f"These columns are not options of the command and are ignored: {named(names)}.")
        if self.bad_lines:
            first, lines = self.bad_lines[0], "line" if len(self.bad_lines) == 1 else "lines"
            logger.warning(f"{len(self.bad_lines):,} {lines} left out. Line {first.line}: {first.error}")

    @property
    def ignored_columns(self) -> list[str]:
        """Columns that are not options of the command."""
        return self._columns.ignored

    def __iter__(self) -> Iterator[NewProduct]:
        """Every product of a good line."""
        for row in self._rows():
            with contextlib.suppress(FalError):
                yield self._product(row)

    def _check(self) -> None:
        lines: dict[str, int] = {}
        twice: list[str] = []
        for row in self._rows():
            try:
                key = self._product(row).key
            except FalError as error:
                self.bad_lines.append(BadLine(row.line, str(error)))
                continue
            self.count += 1
            first = lines.setdefault(same_folder(key), row.line)
            if first != row.line:
                twice.append(f"{shown(key, 60)!r} in lines {first} and {row.line}")
        if self.bad_lines and not self.count:
            first_bad = self.bad_lines[0]
            ignored = (
                f" These columns are not options and were ignored: {named(names)}."
                if (names := self.ignored_columns)
                else ""
            )
            raise InvalidInput(
                f"No line of the manifest can be used. Line {first_bad.line}: {first_bad.error}",
                hint=f"Correct the lines, or rename columns to options of the command.{ignored}",
            )
        if twice:
            more = f", and {len(twice) - MOST_NAMED} more" if len(twice) > MOST_NAMED else ""
            raise InvalidInput(
                f"These keys are not unique, case apart: {', '.join(twice[:MOST_NAMED])}{more}.",
                hint="Give each product a key of its own, and one line. Nothing was sent.",
            )

    def _product(self, row: Row) -> NewProduct:
        values = dict(row.values)
        if _FAULT in values:
            raise InvalidInput(values[_FAULT])
        key = checked_key(values.pop("key", None))
        for name in PATHS:
            if is_url(values.get(name)) and _SEVERAL.search(values[name]):
                raise InvalidInput(f"{name} contains several URLs. Keep one of them.")
        return NewProduct(key, row.line, self._read(values))

    def _rows(self) -> Iterator[Row]:
        if not isinstance(self._source, str | os.PathLike):
            for line, values in enumerate(self._source, start=1):
                if isinstance(values, Mapping):
                    yield self._checked(Row(line, {str(name): value for name, value in values.items()}))
                else:
                    kind = type(values).__name__
                    yield Row(line, {_FAULT: f"A product must be a mapping with a key, not {kind}."})
            return
        path = Path(self._source)
        try:
            if path.is_dir():
                yield from _photos_of(path)
                return
            with open(path, encoding="utf-8-sig", newline="") as file:
                is_json = path.suffix.lower() in JSON_ENDINGS
                for row in map(self._checked, _json_rows(file)) if is_json else _csv_rows(file, self._columns):
                    yield row._replace(values=_with_paths(row.values, path.parent))
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"The manifest {str(path)!r} is not in UTF-8 (byte {error.start}).",
                hint="Save it as UTF-8, in Excel as 'CSV UTF-8'.",
            ) from error
        except OSError as error:
            raise InvalidInput(
                f"The manifest {str(path)!r} cannot be read: {error.strerror or error}. Check --input."
            ) from error

    def _checked(self, row: Row) -> Row:
        """A row that has columns of its own."""
        if _FAULT in row.values:
            return row
        self._columns.check(row.values)
        return row._replace(values=self._columns.options_of(row.values))


_FAULT = "\0fault"
"""In place of a column: why the line cannot be read."""


def _json_rows(file: io.TextIOBase) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            yield Row(number, {str(name): value for name, value in values.items() if value is not None})
        else:
            yield Row(number, {_FAULT: "The line is not a JSON object. Write one object a line."})


def _csv_rows(file: io.TextIOBase, columns: Columns) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_CHARS)
    head = file.readline()
    delimiter = max(DELIMITERS, key=head.count) if head else ","
    reader = csv.reader(_lines(head, file), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # The rest of the file may be inside of a quote that is never closed.
            yield Row(number, {_FAULT: f"The line is not CSV: {error}. Check its quotes."})
            continue
        if cells is None:
            return
        if not names:
            names = [name.strip() for name in cells]
            _check_names(names, columns)
        elif any(cell.strip() for cell in cells):
            yield Row(number, _values(names, cells, columns))


def _lines(head: str, rest: Iterable[str]) -> Iterator[str]:
    yield head
    yield from rest


def _values(names: list[str], cells: list[str], columns: Columns) -> Mapping[str, Any]:
    if any(cell.strip() for cell in cells[len(names) :]):
        return {_FAULT: f"The line has {len(cells)} cells, and the first line names {len(names)}. Check its quotes."}
    return columns.options_of({name: cell for name, cell in zip(names, cells, strict=False) if name and cell.strip()})


def _check_names(names: list[str], columns: Columns) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"These columns appear twice in the first line: {named(twice)}.", hint="Give each column its own name."
        )
    given = [name for name in names if name]
    if not columns.has_key(given):
        raise InvalidInput(
            f"The first line has no column 'key', only {named(given) or 'nothing'}.",
            hint="Rename the column that identifies a product, such as its SKU, to key, and its photo's to image.",
        )
    columns.check(given)


def _photos_of(folder: Path) -> Iterator[Row]:
    """Every picture file of a folder; other files are skipped."""
    number = 0
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        with open(path, "rb") as file:
            if not (content_type_of(file.read(64)) or "").startswith("image/"):
                continue
        number += 1
        yield Row(number, {"key": path.stem, "image": str(path.absolute())})


def _with_paths(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`values` with paths that are found from every folder: a batch may be resumed from another one."""

    def absolute(name: str, value: Any) -> Any:
        if name not in PATHS or not isinstance(value, str) or is_url(value):
            return value
        return str((folder / value.strip()).absolute())

    return {name: absolute(name, value) for name, value in values.items()}
