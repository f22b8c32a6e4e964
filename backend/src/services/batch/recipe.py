"""The recipe of a batch: what is made of each product, and how the columns of a manifest become its options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from services.fal.errors import InvalidInput
from services.fal_service import FalClient
from services.saved_files import SavedPicture, made_and_saved, readable_paths

Values = Mapping[str, Any]
NOT_OPTIONS = ("return", "timeout", "with_logs", "on_progress")
SEVERAL = ("product_workflow", "generate_multiple_backgrounds")
ONE = ("background_replace", "remove_background")
OTHERS = ("analyze_product_image",)
"""Methods of FalClient that can be run over a catalogue."""


class Recipe(NamedTuple):
    """What is made of each product."""

    command: str
    options: Values
    """For every product; its own options go before them."""
    names: Sequence[str]
    """The options that a row of the manifest may give."""
    read: Callable[[Values], Values]
    """A product's own options from a row of the manifest, where they may be texts. Raises InvalidInput."""
    make: Callable[[FalClient, Values, Path], Mapping[str, Any]]
    """Makes a product with all its options, saves its pictures into the folder, and returns the document."""


RecipeOf = Callable[[str, Values], Recipe]


def of_method(command: str, options: Values) -> Recipe:
    """The recipe that runs a method of FalClient. Raises InvalidInput for one that makes nothing of a product."""
    known = (*SEVERAL, *ONE, *OTHERS)
    if command not in known:
        raise InvalidInput(f"The command {command[:100]!r} cannot be run over a catalogue. Known: {', '.join(known)}.")
    annotations = getattr(FalClient, command).__annotations__
    kinds = {name: str(kind) for name, kind in annotations.items() if name not in NOT_OPTIONS}
    read = partial(_read, kinds)
    return Recipe(command, read(options), tuple(kinds), read, partial(_make, command))


def _make(method: str, client: FalClient, options: Values, folder: Path) -> Mapping[str, Any]:
    if method in SEVERAL:
        return made_and_saved(client, method, options, str(folder))
    if method in ONE:
        arguments = {**options, "save_dir": str(folder)}
        with readable_paths() as readable:
            return readable(SavedPicture(client, method, arguments).of(method, arguments))
    result: Mapping[str, Any] = getattr(client, method)(**options)
    return result


def _read(kinds: Mapping[str, str], values: Values) -> Values:
    unknown = [name for name in values if name not in kinds]
    if unknown:
        raise InvalidInput(f"There is no option {unknown[0][:100]!r}. There are {', '.join(sorted(kinds))}.")
    return {name: _typed(name, kinds[name], value) for name, value in values.items()}


def _typed(name: str, kind: str, value: Any) -> Any:
    """A text from a CSV as the method takes it: JSON, unless the method takes texts there."""
    if not isinstance(value, str) or kind.startswith("str"):
        return value
    if name == "styles" and (styles := listed(value)):
        return styles
    try:
        return json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError as error:
        raise InvalidInput(f'{name} must be JSON, such as 4, true or ["Studio"], not {value[:100]!r}.') from error


def listed(cell: str) -> list[str]:
    """The names in a cell such as `Studio, Premium`; none when it is JSON."""
    return [] if cell.lstrip().startswith("[") else [name.strip() for name in cell.split(",") if name.strip()]
