"""The nine categories of a product, and reading them from a model's answer.

A model answers with JSON, or nearly (`loose_json.py`): bare, fenced, inside prose, in a list or as a JSON string.
Names are compared without case, blanks and punctuation, and looked for one and two levels inside, also as pairs of a
name and a value. Of several objects the last complete one counts that names a category: what a model repeats, or
drafts, stands before its answer. What it thinks between `<think>` tags is no answer. Only what stands there is taken:
a value that is missing, empty or no text is missing, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from services.fal.errors import BadOutput
from services.fal.loose_json import Found, read_all, unescaped

CATEGORY_EXAMPLES = {
    "main_product_type": "Footwear",
    "subcategory": "Sneakers",
    "target_audience": "Men",
    "price_range": "Mid-range",
    "use_case": "Casual Lifestyle",
    "style_design": "Streetwear",
    "season_occasion": "All Season",
    "industrial_type": "Footwear Manufacturing",
    "vibe": "Urban/Street",
}
CATEGORY_NAMES = tuple(CATEGORY_EXAMPLES)
UNKNOWN = "Unknown"

MAX_LEVELS = 4
"""Objects and lists inside each other in which a category is looked for."""
MAX_ESCAPES = 3
"""How many times over an answer may be escaped as a JSON text."""

_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
_THOUGHT_TAG = rf"(?i)<(/?){_THOUGHT}\s{{0,9}}>"
_NOT_IN_NAME = r"^[\W\d_]+|[\W_]+"
_PAIR_NAMES = ("name", "key", "category", "attribute", "field", "property", "label", "type", "title", "k")
_PAIR_VALUES = ("value", "values", "val", "v", "answer", "result", "text", "content")
_NOTHING = frozenset(
    (
        "null",
        "none",
        "nil",
        "nan",
        "na",
        "unknown",
        "undefined",
        "unspecified",
        "unavailable",
        "unclear",
        "undetermined",
        "tbd",
        "notavailable",
        "notapplicable",
        "notspecified",
        "notknown",
        "notprovided",
        "notgiven",
        "notsure",
        "notstated",
        "notvisible",
        "notdetermined",
        "notmentioned",
        "cannotbedetermined",
    )
)
"""What models write for "I do not know", without case, blanks and punctuation."""
_NO_WORDS = frozenset(("-", "--", "---", "–", "—", "?", "...", "…"))


class NoCategories(BadOutput):
    """A model wrote something, and none of the categories is in it."""


def read_categories(text: str) -> dict[str, str]:
    """The categories found in `text`, at most nine; those that are missing are left out.

    Raises NoCategories when `text` gives none at all.
    """
    for _ in range(MAX_ESCAPES + 1):
        if found := _last_named(_objects(text)):
            return found
        if '\\"' not in text and "\\'" not in text:
            break
        text = unescaped(text)
    raise NoCategories(
        "The model's answer names none of the nine categories as JSON.", hint="Try again, or use another model."
    )


def _objects(text: str) -> list[Found]:
    try:
        return [Found(json.loads(text), complete=True)]
    except (ValueError, RecursionError):
        return read_all(_without_thinking(text))


def _without_thinking(text: str) -> str:
    """What stands outside the tags. Thinking whose beginning is missing began with the text."""
    said: list[str] = []
    thinks, at = False, 0
    for tag in re.finditer(_THOUGHT_TAG, text):
        ends = bool(tag[1])
        if not thinks:
            said = [] if ends else [*said, text[at : tag.start()]]
        thinks, at = not ends, tag.end()
    return "".join(said if thinks else [*said, text[at:]])


def _last_named(objects: list[Found]) -> dict[str, str]:
    """The categories of the last object that names any; what was cut off counts when nothing else does."""
    for complete in (True, False):
        for found in reversed(objects):
            if found.complete is complete and (named := _named(found.value)):
                return named
    return {}


def _named(value: Any, level: int = 0) -> dict[str, str]:
    """The categories in `value`: those further out come first, then those further down."""
    if level >= MAX_LEVELS:
        return {}
    if isinstance(value, str):
        return _last_named(read_all(value)) if level and value.lstrip()[:1] in ("{", "[") else {}
    here: dict[str, str] = {}
    inside: dict[str, str] = {}
    for name, item in _members(value):
        category = _CATEGORIES.get(_plain(name)) if name is not None else None
        if category is None:
            inside.update(_named(item, level + 1))
        elif (words := _words(item)) and not (category in here and name != category):
            here[category] = words
    return {**inside, **here}


def _members(value: Any) -> Iterator[tuple[str | None, Any]]:
    """The names and values of an object, or of a pair; the items of a list, which have no name."""
    if isinstance(value, dict):
        yield from _pair(_first_of(_PAIR_NAMES, value), _first_of(_PAIR_VALUES, value))
        yield from value.items()
    elif isinstance(value, list):
        # Behind a name and a value may stand a confidence, but no further text: that is a list of texts.
        is_row = len(value) >= 2 and not any(isinstance(item, str) for item in value[2:])
        yield from _pair(*value[:2]) if is_row else ()
        for item in value:
            yield None, item


def _pair(name: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """`name` and `value` when they are a category's, and not two categories' names."""
    two_names = isinstance(value, str) and _plain(value) in _CATEGORIES
    if isinstance(name, str) and _plain(name) in _CATEGORIES and not two_names:
        yield name, value


def _first_of(names: tuple[str, ...], found: dict[str, Any]) -> Any:
    lowered = {name.lower(): item for name, item in found.items()}
    return next((lowered[name] for name in names if name in lowered), None)


def _words(value: Any) -> str | None:
    """`value` as a text, when it says something: a text, a list of them, or an object that holds one as its value."""
    if isinstance(value, dict):
        value = _first_of(_PAIR_VALUES, value)
    if isinstance(value, list):
        texts = (_first_of(_PAIR_VALUES, item) if isinstance(item, dict) else item for item in value)
        return ", ".join(words for text in texts if isinstance(text, str) and (words := _words(text))) or None
    if not isinstance(value, str) or _says_nothing(value):
        return None
    return value.strip()


def _says_nothing(value: str) -> bool:
    """Whether `value` is empty, stands for "I do not know", or cannot be sent on: half a letter of two surrogates."""
    words = value.strip()
    if not words or words in _NO_WORDS or any("\ud800" <= char <= "\udfff" for char in value):
        return True
    # "Not applicable (N/A)" says it twice.
    parts = [re.sub(r"[\W_]+", "", part).casefold() for part in re.split(r"[()\[\]]", words)]
    return any(parts) and _NOTHING.issuperset(filter(None, parts))


def _plain(name: str) -> str:
    # Upper case in Turkish makes İ of i, and lower case ı of I.
    return re.sub(_NOT_IN_NAME, "", name).casefold().replace("i\u0307", "i").replace("ı", "i")


_CATEGORIES = {name.replace("_", ""): name for name in CATEGORY_NAMES}
"""By their names as `_plain` gives them."""
