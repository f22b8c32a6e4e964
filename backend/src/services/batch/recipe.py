"""The recipe of a batch: what is made of each product, and how the columns of a manifest become its options."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from services.batch.journal import NewProduct
from services.fal.call import Call
from services.fal.errors import InvalidInput
from services.fal_service import FalClient
from services.saved_files import SavedPicture, made_and_saved, readable_paths

Values = Mapping[str, Any]
NOT_OPTIONS = ("return", "timeout", "with_logs", "on_progress")
SEVERAL = ("product_workflow", "generate_multiple_backgrounds")
ONE = ("background_replace", "remove_background")
OTHERS = ("analyze_product_image",)
"""Methods of FalClient that can be run over a catalogue."""
STAND_IN = "https://example.com/photo.jpg"
"""For a photo that is not looked at."""
MOST_CHECKED = 1000
"""Products, of which none can be made for the same reason, after which the others are not looked at."""


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


def with_stand_in(recipe: Recipe, product: Values) -> Values:
    """All options of a product, whose photo need not be there yet."""
    options = {**recipe.options, **product}
    return {**options, "image": STAND_IN} if "image" in options else options


def check_products(recipe: Recipe, client: FalClient, products: Iterable[NewProduct]) -> None:
    """Raises InvalidInput when no product can be made, and all for the same reason: it is told once, not for each.

    Sends nothing, and ends at the first product with which nothing seems to be wrong.
    """
    first: str | None = None
    with tempfile.TemporaryDirectory() as folder:
        for product in islice(products, MOST_CHECKED):
            said = _refusal(recipe, client, with_stand_in(recipe, product.input), Path(folder))
            if said is None or said != (first or said):
                return
            first = said
    if first is not None:
        raise InvalidInput(f"No product can be made: {first}", hint="Correct --options, or the manifest.")


def _refusal(recipe: Recipe, client: FalClient, options: Values, folder: Path) -> str | None:
    """Why a product cannot be made, as far as that shows before anything is sent."""
    said: list[str] = []

    def make(view: FalClient) -> None:
        try:
            recipe.make(view, options, folder)
        except InvalidInput as error:
            said.append(str(error))

    with contextlib.suppress(Exception):
        # Without time it does not even read prices.
        client.within(Call(0.0)).estimate_of(make)
    return said[0] if said else None


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
