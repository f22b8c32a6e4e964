"""The languages of which this project knows words, and how they are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.fal import checks
from services.fal.errors import InvalidInput
from services.shop.casing import folded

MAX_LANGUAGES = 20
MAX_NAME = 60
"""Characters of a language's name."""


class Language(NamedTuple):
    """A language that texts are written in."""

    code: str
    """ISO 639-1; empty for a language of which no words are known here."""
    name: str
    """In English, or as the caller named it."""


_KNOWN = {
    "tr": ("Turkish", "türkçe"),
    "en": ("English", "en-us", "en-gb"),
    "de": ("German", "deutsch", "de-de", "de-at", "de-ch"),
    "fr": ("French", "français", "fr-fr"),
    "es": ("Spanish", "español", "castellano", "es-es"),
    "it": ("Italian", "italiano", "it-it"),
    "pt": ("Portuguese", "português", "pt-pt", "pt-br"),
    "nl": ("Dutch", "nederlands", "nl-nl"),
    "pl": ("Polish", "polski", "pl-pl"),
}
_BY_NAME = {
    folded(name): Language(code, names[0])
    for code, names in _KNOWN.items()
    for name in (code, f"{code}-{code}", *names)
}


def language_named(value: object) -> Language:
    """A language by its English name, its own name or its code; another name is taken as it stands."""
    name = checks.text(value, "language").strip()
    if len(name) > MAX_NAME or "\n" in name:
        raise InvalidInput(f"language must be the name of one language, such as Turkish or tr, not {name[:100]!r}.")
    return _BY_NAME.get(folded(name.replace("_", "-")), Language("", name))


def languages_named(value: str | Sequence[str]) -> list[Language]:
    """Languages given as a list, or in one text with commas; each once, in their order."""
    if not isinstance(value, str) and (not isinstance(value, Sequence) or isinstance(value, bytes)):
        raise InvalidInput('languages must be a text such as "Turkish,English", or a list of texts.')
    found = [*dict.fromkeys(map(language_named, value.split(",") if isinstance(value, str) else value))]
    if not found:
        raise InvalidInput("languages must name at least one language.")
    if len(found) > MAX_LANGUAGES:
        raise InvalidInput(f"languages must name at most {MAX_LANGUAGES} languages, not {len(found)}.")
    return found
