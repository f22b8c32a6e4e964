"""Upper and lower case, hashtags and slugs, right in Turkish too.

Python knows one rule for all languages: `'IŞIK'.lower()` is `'işik'` and `'i'.upper()` is `'I'`, while Turkish and
Azerbaijani pair I with ı and İ with i. The mapping here is the one of Unicode's SpecialCasing for `tr`, which ICU uses.
Brands and Latin words keep the Latin pairs in a Turkish text, too: TITANIUM is titanium, never tıtanıum.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable

TURKIC = frozenset(("tr", "az"))
"""Codes of the languages with a dotless ı."""

MAX_SLUG = 80
"""Characters; a slug ends with a whole word."""

_TO_LOWER = str.maketrans({"I": "ı", "İ": "i"})
_TO_UPPER = str.maketrans({"i": "İ", "ı": "I"})
_TO_SLUG = str.maketrans(
    {"ı": "i", "ß": "ss", "ẞ": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th"}
)
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*")
_APOSTROPHES = re.compile(r"['’ʼ`´]")
_TURKISH_LETTER = re.compile(r"[ğışçöüĞİŞÇÖÜ]")
_LATIN_LETTER = re.compile(r"[qwxQWX]")
_NEVER_DOTLESS = re.compile(r"[AEOUaeou]I|I[AEOUaeou]|\b[BCDFGHKLMNPRSTVZ]{2,}I", re.IGNORECASE)
"""In Turkish no vowel stands beside an ı, and no ı after two consonants that begin a word: such an I is a Latin i."""
_LATIN_ENDING = re.compile(r"(?:ium|tion|ing|ics?)\Z", re.IGNORECASE)
_LATIN_WORDS = frozenset(
    """
    air bluetooth bosch casio chic dvi fitness gift girl girls hdmi hifi iced icon iconic idea ideas inch indoor
    industrial inox inspiration instant interior international invisible ios ipad iphone iron kids led life light
    line lite lithium live magic nike organic original philips plastic premium siemens silicone silk sinbo size
    skin slim style time titan titanium usb vintage vip wifi wireless xiaomi
    """.split()  # noqa: SIM905 - a word list is read more easily so
)
_LOANS = frozenset(
    ("bisiklet", "bit", "cilt", "film", "kit", "kiti", "midi", "mikro", "mini", "multi", "pil", "silikon")
)
"""Turkish words with an i that are often typed in capitals without its dot."""


def turkish_lower(text: str) -> str:
    """`text` in lower case by the Turkish rule."""
    return unicodedata.normalize("NFC", text).translate(_TO_LOWER).lower()


def turkish_upper(text: str) -> str:
    """`text` in upper case by the Turkish rule."""
    return unicodedata.normalize("NFC", text).translate(_TO_UPPER).upper()


def lower(text: str, language: str, keep: Iterable[str] = ()) -> str:
    """`text` in lower case as the language `language` (a code) does it; the words of `keep` are Latin."""
    return _cased(text, language, keep, turkish_lower, str.lower)


def upper(text: str, language: str, keep: Iterable[str] = ()) -> str:
    """`text` in upper case as the language `language` (a code) does it; the words of `keep` are Latin."""
    return _cased(text, language, keep, turkish_upper, str.upper)


def capitalised(word: str, language: str, keep: Iterable[str] = ()) -> str:
    """`word` with its first letter in upper case; the rest stays as it is. A word of `keep` stays whole."""
    if not word or folded(word) in {folded(one) for one in keep}:
        return word
    first = upper(word[0], language) if language in TURKIC and not _is_latin(word) else word[0].upper()
    return first + word[1:]


def folded(text: str) -> str:
    """`text` for comparing: without case, and with one i for the dotted and the dotless one."""
    composed = unicodedata.normalize("NFC", text).replace("İ", "i").replace("I", "i").replace("ı", "i")
    return unicodedata.normalize("NFC", composed.casefold())


def hashtag(text: str, language: str, keep: Iterable[str] = ()) -> str:
    """`text` as one hashtag, such as "#AnnelerGünü"; empty when no letter is left.

    An apostrophe, a hyphen, an emoji or a combining mark would end it: words are joined instead, each with a capital.
    A text without blanks keeps its case. The words of `keep` (brands) are written as they are.
    """
    words = _tag_words(_APOSTROPHES.sub("", unicodedata.normalize("NFC", text)))
    if len(words) > 1:
        kept = tuple(keep)
        words = [capitalised(word, language, kept) for word in words]
    tag = "".join(words)
    return f"#{tag}" if any(char.isalpha() for char in tag) else ""


def slug(text: str, language: str = "") -> str:
    """`text` for a URL: a to z, digits and single hyphens, at most MAX_SLUG; empty when no Latin letter is left."""
    # "İ".lower() is i with a combining dot, which goes with the other marks below.
    plain = unicodedata.normalize("NFC", _APOSTROPHES.sub("", text)).lower()
    if language == "de":
        plain = plain.translate(_GERMAN)
    plain = unicodedata.normalize("NFKD", plain.translate(_TO_SLUG))
    whole = "-".join(re.findall(r"[a-z0-9]+", "".join(char for char in plain if not unicodedata.combining(char))))
    if len(whole) <= MAX_SLUG:
        return whole
    short = whole[: MAX_SLUG + 1]
    return short.rpartition("-")[0] if "-" in short else short[:MAX_SLUG]


def _cased(
    text: str, language: str, keep: Iterable[str], turkish: Callable[[str], str], latin: Callable[[str], str]
) -> str:
    if language not in TURKIC:
        return latin(text)
    kept = {word for one in keep for word in _WORD.findall(folded(one))}
    composed = unicodedata.normalize("NFC", text)

    def one(found: re.Match[str]) -> str:
        return latin(found[0]) if _is_latin(found[0], kept) else turkish(found[0])

    return _WORD.sub(one, composed)


def _is_latin(word: str, keep: Collection[str] = ()) -> bool:
    """Whether `word` is a brand, or surely no Turkish word."""
    known = folded(word)
    if known in keep:
        return True
    if _TURKISH_LETTER.search(word):
        return False
    return bool(
        known in _LATIN_WORDS
        or _LATIN_LETTER.search(word)
        or _LATIN_ENDING.search(word)
        or (word.isupper() and "I" in word and (known in _LOANS or _NEVER_DOTLESS.search(word)))
    )


def _tag_words(text: str) -> list[str]:
    """The runs of letters, digits and underscores.

    A combining mark on a Latin letter is left out: there is no letter of its own for the two. Scripts that are written
    with marks (Devanagari, Thai) keep them.
    """
    words = [""]
    for char in text:
        if char.isalnum() or char == "_":
            words[-1] += char
        elif not unicodedata.category(char).startswith("M"):
            words.append("")
        elif words[-1] and not unicodedata.name(words[-1][-1], "").startswith(("LATIN", "GREEK", "CYRILLIC", "DIGIT")):
            words[-1] += char
    return [word for word in words if word]
