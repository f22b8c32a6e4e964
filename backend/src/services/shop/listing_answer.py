"""Reads a listing from a model's answer: JSON or nearly JSON (`fal/loose_json.py`), tolerant of names and shapes.

Of several objects the last one counts that names most fields. A list that came as one text is taken apart at its lines,
a text that came as a list is joined. Marks before bullet points go, and hashtags are brought into form (`casing.py`).
Nothing is made up: a field that is missing or empty is missing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any

from services.fal.loose_json import Found, read_all
from services.shop.casing import folded, hashtag
from services.shop.text_check import FIELDS, LISTS

Listed = dict[str, str | list[str]]

MAX_LEVELS = 3
"""Objects or lists inside each other that are looked into, such as {"listing": {...}}."""

_THOUGHT = re.compile(r"\A.*</(?:think|thinking|thought|thoughts|reasoning)\s*>", re.DOTALL | re.IGNORECASE)
_NOT_IN_NAME = re.compile(r"[\W\d_]+")
_BY_NAME = {_NOT_IN_NAME.sub("", name): name for name in FIELDS} | {
    "bulletpoints": "bullets",
    "metatitle": "seo_title",
    "metadescription": "seo_description",
    "caption": "captions",
    "alttag": "alt_text",
    "alt": "alt_text",
    "keywords": "tags",
}
_BULLET = re.compile(r"\A\s*(?:[-*•–—▪●]|\d{1,2}[.)])\s+")
_SEPARATORS = {"tags": re.compile(r"[,;\n]+"), "hashtags": re.compile(r"[,;\s]+(?=#)|[,;\n]+")}
_LINES = re.compile(r"\n+")


def read_listing(text: str, language: str, brands: Collection[str]) -> Listed:
    """The fields that `text` gives; empty when it has none. `brands` are never cased in a hashtag."""
    best: dict[str, Any] = {}
    for found in _objects(_THOUGHT.sub("", text)):
        fields = _fields(found.value)
        if fields and len(fields) >= len(best):
            best = fields
    return {name: value for name in FIELDS if name in best and (value := _value(name, best[name], language, brands))}


def _objects(text: str) -> list[Found]:
    try:
        return [Found(json.loads(text), complete=True)]
    except (ValueError, RecursionError):
        return read_all(text)


def _fields(value: Any, level: int = 0) -> dict[str, Any]:
    """The texts of an object, or of the first object inside that has any."""
    if isinstance(value, list):
        value = {str(at): item for at, item in enumerate(value)}
    if not isinstance(value, dict) or level > MAX_LEVELS:
        return {}
    named = {_BY_NAME.get(_NOT_IN_NAME.sub("", str(name)).casefold()): item for name, item in value.items()}
    here = {name: item for name, item in named.items() if name is not None}
    if here:
        return here
    return next(filter(None, (_fields(item, level + 1) for item in value.values())), {})


def _value(name: str, value: Any, language: str, brands: Collection[str]) -> str | list[str]:
    items = list(_texts(value))
    if name not in LISTS:
        joined = "\n\n".join(items) if name == "description" else " ".join(items)
        return joined if name == "description" else " ".join(joined.split())
    if isinstance(value, str):
        items = [part.strip() for item in items for part in _SEPARATORS.get(name, _LINES).split(item)]
    if name == "hashtags":
        items = [hashtag(item, language, brands) for item in items]
    elif name == "tags":
        items = [" ".join(item.lstrip("#").split()) for item in items]
    elif name == "bullets":
        items = [_BULLET.sub("", item) for item in items]
    once: dict[str, str] = {}
    for item in filter(None, items):
        once.setdefault(folded(item), item)
    return [*once.values()]


def _texts(value: Any, level: int = 0) -> Iterator[str]:
    """The texts of a value, in their order; half a letter of two surrogates cannot be sent on."""
    if level > MAX_LEVELS:
        return
    if isinstance(value, str):
        if (text := value.strip()) and not any("\ud800" <= char <= "\udfff" for char in text):
            yield unicodedata.normalize("NFC", text)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, level + 1)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item, level + 1)
