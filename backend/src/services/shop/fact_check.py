"""Finds facts in texts that were not given (numbers, materials, brands), and claims that advertising may not make.

A number, a material or a brand that is not in what is known of the product fails. Health claims and superlatives that
may be unproven warn: a word list cannot know what is proven. Materials and claims are known in nine languages; in
others they are `not_checked`.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from services.shop.casing import folded
from services.shop.languages import Language
from services.shop.materials import LANGUAGES, materials_in, named_in
from services.shop.text_check import TextCheck, TextRuleResult, Texts, Verdict, summed_up, text_of
from services.shop.text_words import BRANDS, HEALTH_CLAIMS, NUMBER_WORDS, SUPERLATIVES, letters_of

FACTS = "facts"
"""The `place` of this check."""
MEASURED_ON = "2026-11-25"

_NUMBER = re.compile(r"\d+(?:[.,٫٬'’\u00a0\u202f]\d{3})*(?:[.,٫]\d+)?")
_HASHTAG = re.compile(r"#\w+")
_MARKED = re.compile(r"(?<![\w&'-])([\w&'-]{1,60})\s?[™®]")
_UNITS = frozenset(
    "kwh wh mah db dba ghz mhz khz kpa mpa ph hpa wifi leds usbs dvds cds tvs ml diy gb mb tb kcal".split()  # noqa: SIM905
)
"""Words with a capital inside that are no names."""
_NOT_A_NAME = frozenset(("hand", "nature", "design", "love", "default", "machine"))
_BRAND_PHRASES = {
    "en": r"(?i:\b(?:designed|made|manufactured|crafted|developed) by|\bbrand(?: name)?:?) ([A-Z][\w&'-]{1,40})"
    r"|\b([A-Z][\w&'-]{1,40})(?= brand\b)",
    "tr": r"\b([A-ZÇĞİÖŞÜ][\w&'-]{1,40})(?= marka(?:lı|sı|nın|ya)?\b)|(?i:\bmarka(?:sı)?:) ?([A-ZÇĞİÖŞÜ][\w&'-]{1,40})",
    "de": r"(?i:\b(?:der|die|von der) marke|\bmarke:) [„\"“]?([A-ZÄÖÜ][\w&'-]{1,40})",
    "fr": r"(?i:\b(?:de )?la marque|\bmarque\s?:) ([A-ZÀ-Ý][\w&'-]{1,40})",
    "es": r"(?i:\b(?:de )?la marca|\bmarca:) ([A-ZÁ-Ú][\w&'-]{1,40})",
    "it": r"(?i:\b(?:della marca|del marchio)|\bmarca:) ([A-ZÀ-Ú][\w&'-]{1,40})",
    "pt": r"(?i:\b(?:da marca)|\bmarca:) ([A-ZÁ-Ú][\w&'-]{1,40})",
    "nl": r"(?i:\bhet merk|\bmerk:) ([A-Z][\w&'-]{1,40})",
    "pl": r"(?i:\bmarki|\bmarka:) ([A-ZĄĆĘŁŃÓŚŹŻ][\w&'-]{1,40})",
}
"""How a language says that a name is a brand's. A capital alone says nothing: German nouns have one."""


class Known(NamedTuple):
    """What is known of a product, for comparing."""

    numbers: frozenset[str]
    materials: frozenset[str]
    text: str
    """All of it, folded."""

    @classmethod
    def of(cls, text: str) -> Known:
        numbers = frozenset(form for number in _numbers_in(text) for form in _forms(number))
        words = frozenset(folded(word) for word in letters_of(text))
        spelled = {
            str(value) for words_of in NUMBER_WORDS.values() for word, value in words_of.items() if word in words
        }
        return cls(numbers | spelled, frozenset(materials_in(text)), folded(text))

    def names(self, word: str) -> bool:
        """Whether `word` stands there, as a word or as the beginning of one: "Kütahya" in "Kütahya'dan"."""
        return re.search(rf"(?<!\w){re.escape(folded(word))}", self.text) is not None


class Finding(NamedTuple):
    """What a text says that it must or should not say."""

    verdict: Verdict
    words: list[str]


def checked_facts(texts: Texts, known: Known, language: Language, day: datetime.date) -> TextCheck:
    """Every text against what is known of the product."""
    return summed_up(FACTS, day, [result for rule in RULES for result in _results(rule, texts, known, language)])


def invented(text: str, product: Mapping[str, Any], language: Language, day: datetime.date) -> list[str]:
    """What is wrong with a description of which `product` is all that is known: one sentence per fault."""
    check = checked_facts({"description": text}, Known.of(" ".join(said(product))), language, day)
    return [rule["reason"] for rule in check["rules"] if rule["verdict"] == "fail"]


def said(value: Any) -> Iterator[str]:
    """Every name and value of what is known of a product."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from said(item)
    elif isinstance(value, list):
        for item in value:
            yield from said(item)
    else:
        yield str(value)


def _results(rule: FactRule, texts: Texts, known: Known, language: Language) -> Iterator[TextRuleResult]:
    if rule.languages is not None and language.code not in rule.languages:
        yield _result("listing", rule, "not_checked", None, f"No such words are known for {language.name}.")
        return
    broken = False
    for field in texts:
        for found in rule.measure(text_of(texts, field), field, known, language.code):
            if found.words:
                broken = True
                yield _result(
                    field, rule, found.verdict, found.words, f"{rule.reason}: {', '.join(found.words)[:300]}."
                )
    if not broken:
        yield _result("listing", rule, "pass", [], rule.good)


def _result(field: str, rule: FactRule, verdict: Verdict, measured: list[str] | None, reason: str) -> TextRuleResult:
    return {
        "field": field,
        "rule": rule.name,
        "verdict": verdict,
        "measured": measured,
        "unit": None,
        "limit": None,
        "reason": reason,
        "sureness": "own",
        "source": "",
        "read_on": MEASURED_ON,
    }


def _numbers(text: str, field: str, known: Known, language: str) -> Iterator[Finding]:
    invented = [number for number in _numbers_in(text) if not _forms(number) & known.numbers]
    for word in letters_of(text):
        value = NUMBER_WORDS.get(language, {}).get(folded(word))
        if value is not None and str(value) not in known.numbers:
            invented.append(word)
    yield Finding("fail", [*dict.fromkeys(invented)])


def _numbers_in(text: str) -> list[str]:
    """The numbers of a text in ASCII digits, whatever script they are written in."""
    plain = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return _NUMBER.findall(plain)


def _forms(number: str) -> frozenset[str]:
    """What a number may mean: 1.500 is fifteen hundred in German, one and a half in English."""
    groups = re.split(r"[^\d]", number)
    is_grouped = all(len(group) == 3 for group in groups[1:])
    forms = {_plain(groups)} if is_grouped else set()
    if len(groups) == 2 or not is_grouped:
        decimals = groups[-1].rstrip("0")
        forms.add(_plain(groups[:-1]) + (f".{decimals}" if decimals else ""))
    return frozenset(forms)


def _plain(groups: list[str]) -> str:
    return "".join(groups).lstrip("0") or "0"


def _materials(text: str, field: str, known: Known, language: str) -> Iterator[Finding]:
    invented = {name: found for name, found in named_in(text, language).items() if name not in known.materials}
    yield Finding("fail", [*dict.fromkeys(found.word for found in invented.values() if found.sure)])
    yield Finding("warn", [*dict.fromkeys(found.word for found in invented.values() if not found.sure)])


def _brands(text: str, field: str, known: Known, language: str) -> Iterator[Finding]:
    if field == "hashtags":
        names = [word for word in letters_of(text) if folded(word) in BRANDS]
    else:
        text = _HASHTAG.sub(" ", text)
        names = [word for word in letters_of(text) if _looks_like_a_name(word)]
        names += _MARKED.findall(text)
        if phrase := _BRAND_PHRASES.get(language):
            names += [found for groups in re.findall(phrase, text) for found in _as_tuple(groups) if found]
    foreign = [name for name in dict.fromkeys(names) if folded(name) not in _NOT_A_NAME and not known.names(name)]
    yield Finding("fail", foreign)


def _as_tuple(groups: str | tuple[str, ...]) -> tuple[str, ...]:
    return (groups,) if isinstance(groups, str) else groups


def _looks_like_a_name(word: str) -> bool:
    """A known brand that is written with a capital, or a word with a capital behind a small letter: AquaShield."""
    plain = folded(word)
    if plain in BRANDS:
        return word != word.lower()
    has_inner_capital = any(a.islower() and b.isupper() for a, b in pairwise(word))
    # German writes "KundInnen" for customers of all sexes.
    return has_inner_capital and plain not in _UNITS and not word.endswith(("In", "Innen"))


def _superlatives(text: str, field: str, known: Known, language: str) -> Iterator[Finding]:
    yield Finding("warn", SUPERLATIVES[language].found_in(text))


def _health(text: str, field: str, known: Known, language: str) -> Iterator[Finding]:
    yield Finding("warn", HEALTH_CLAIMS[language].found_in(text))


class FactRule(NamedTuple):
    """One thing that a text must not or should not say."""

    name: str
    measure: Callable[[str, str, Known, str], Iterator[Finding]]
    reason: str
    good: str
    languages: tuple[str, ...] | Mapping[str, object] | None = None
    """Of which words are known; None when it needs none."""


RULES = (
    FactRule(
        "numbers", _numbers, "Numbers that are not among the known facts", "Every number is among the known facts."
    ),
    FactRule(
        "materials",
        _materials,
        "Materials that are not among the known facts",
        "Every material is among the known facts.",
        LANGUAGES,
    ),
    FactRule("brands", _brands, "Names that are not among the known facts", "No other brand was found."),
    FactRule(
        "superlatives",
        _superlatives,
        "Superlatives, which advertising must prove",
        "No superlative was found.",
        SUPERLATIVES,
    ),
    FactRule(
        "health_claims",
        _health,
        "Words of health claims, which are regulated",
        "No health claim was found.",
        HEALTH_CLAIMS,
    ),
)
