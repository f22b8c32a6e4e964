"""The languages of texts, and their names and codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.fal import arguments
from services.fal.errors import InvalidInput
from services.shop.casing import folded

MAX_LANGUAGES = 20
MAX_NAME = 60
"""Characters of a language's name."""


class Language(NamedTuple):
    """A language that texts are written in."""

    code: str
    """ISO 639-1; empty for a language that is not known here."""
    name: str
    """In English; as the caller named it when it is not known here."""


_KNOWN = (
    ("tr", "Turkish", "türkçe", "tr-tr"),
    ("en", "English", "en"),
    ("en", "British English", "en-gb"),
    ("en", "American English", "en-us"),
    ("de", "German", "deutsch", "de-de", "de-at"),
    ("fr", "French", "français", "fr-fr", "fr-be"),
    ("es", "Spanish", "español", "castellano", "es-es"),
    ("it", "Italian", "italiano", "it-it"),
    ("pt", "Portuguese", "português", "pt-pt"),
    ("pt", "Brazilian Portuguese", "português brasileiro", "pt-br"),
    ("nl", "Dutch", "nederlands", "nl-nl", "nl-be"),
    ("pl", "Polish", "polski", "pl-pl"),
    # Of these no words are known here.
    ("az", "Azerbaijani", "azərbaycanca"),
    ("ar", "Arabic", "العربية"),
    ("bg", "Bulgarian", "български"),
    ("cs", "Czech", "čeština"),
    ("da", "Danish", "dansk"),
    ("el", "Greek", "ελληνικά"),
    ("fi", "Finnish", "suomi"),
    ("hu", "Hungarian", "magyar"),
    ("ja", "Japanese", "日本語"),
    ("ko", "Korean", "한국어"),
    ("no", "Norwegian", "norsk"),
    ("ro", "Romanian", "română"),
    ("ru", "Russian", "русский"),
    ("sv", "Swedish", "svenska"),
    ("uk", "Ukrainian", "українська"),
    ("zh", "Chinese", "中文"),
)
"""Code, English name, and other names. The first of a code is what the code alone means."""
_BY_NAME: dict[str, Language] = {}
for _code, _name, *_others in _KNOWN:
    for _spelled in (_code, _name, *_others):
        _BY_NAME.setdefault(folded(_spelled), Language(_code, _name))


def language_named(value: object) -> Language:
    """A language by its English name, its own name or its code; another name is taken as it stands."""
    name = arguments.text(value, "language").strip()
    if len(name) > MAX_NAME or "\n" in name:
        raise InvalidInput(f"language must be the name of one language, such as Turkish or tr, not {name[:100]!r}.")
    return _known(name) or Language("", name)


def language_code(value: object) -> str:
    """The code of a language that a result names; empty when it is not known here."""
    known = _known(str(value).strip())
    return known.code if known else ""


def _known(name: str) -> Language | None:
    return _BY_NAME.get(folded(name.replace("_", "-")))


def languages_named(value: str | Sequence[str]) -> list[Language]:
    """Languages given as a list, or in one text with commas; each once, in their order."""
    if not isinstance(value, str) and (not isinstance(value, Sequence) or isinstance(value, bytes)):
        raise InvalidInput('languages must be a string such as "Turkish,English", or a list of strings.')
    found = [*dict.fromkeys(map(language_named, value.split(",") if isinstance(value, str) else value))]
    if not found:
        raise InvalidInput("languages must name at least one language.")
    if len(found) > MAX_LANGUAGES:
        raise InvalidInput(f"languages must name at most {MAX_LANGUAGES} languages, not {len(found)}.")
    return found
