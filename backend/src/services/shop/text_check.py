"""Measures texts and checks them against a place's rules: pass, fail, warn or not_checked, with the number.

    check_text({"title": "Ceramic mug"}, "amazon", language="English")

A rule without an official source never fails a text, and what cannot be told is `not_checked`, never a pass. The rules
are data, in `text_rules.py`. Whether a text says more than is known of the product is `fact_check.py`.
"""

from __future__ import annotations

import datetime
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

from services.fal import arguments
from services.fal.errors import InvalidInput
from services.shop.casing import folded, hashtag
from services.shop.languages import Language, language_named
from services.shop.places import OFFICIAL, READ_ON, place_named
from services.shop.text_rules import TextRule, text_rules_on
from services.shop.text_units import NAMES, length
from services.shop.text_words import FUNCTION_WORDS, PROMOTION, words_of

Verdict = Literal["pass", "warn", "fail", "not_checked"]
Texts = Mapping[str, str | Sequence[str]]

LISTS = ("bullets", "tags", "hashtags", "captions")
"""Fields that hold a list of texts."""
FIELDS = ("title", "bullets", "description", "seo_title", "seo_description", "tags", "hashtags", "captions", "alt_text")
"""What a listing has, in its order."""
CHECKED_FIELDS = (*FIELDS, "title_differentiation")
"""What can be checked: Amazon's title has a second part of its own."""


class TextRuleResult(TypedDict):
    """One rule, checked on one text."""

    field: str
    """The text: title, bullets, ...; `listing` when it is about all of them."""
    rule: str
    """The name of the rule."""
    verdict: Verdict
    """fail when a hard rule is broken, warn when an advice is."""
    measured: Any
    """The number or the words that were measured; None when nothing was."""
    unit: str | None
    """What `measured` counts: code_points, utf16_units, bytes or graphemes, for a length."""
    limit: Any
    """What the place asks."""
    reason: str
    """One sentence."""
    sureness: str
    """O official page, Oq official text quoted elsewhere, T third party, C conflicting, U not found, own: this
    library's own rule."""
    source: str
    """Where the rule was read."""
    read_on: str
    """The day on which it was read."""


class TextCheck(TypedDict):
    """The texts of one listing against one place."""

    place: str
    """A marketplace, or `facts`: nothing that nobody gave, no claims."""
    date: str
    """The day whose rules were used."""
    verdict: Verdict
    """fail when a hard rule is broken, warn when an advice is, not_checked when nothing could be checked."""
    rules: list[TextRuleResult]
    """Every rule of the place, with what was measured."""


class Measured(NamedTuple):
    """What one measure found."""

    value: Any
    verdict: Verdict
    reason: str


def check_text(texts: Texts, place: str, *, language: str = "English", on: datetime.date | None = None) -> TextCheck:
    """Hold texts against the rules of `place` that hold on the day `on` (today). Nothing is sent anywhere.

    `texts` has any of the keys title, bullets, description, seo_title, seo_description, tags, hashtags, captions,
    alt_text and title_differentiation (Amazon's). Returns `{"place", "date", "verdict", "rules"}`; each rule has its
    `field`, its `verdict` ("pass", "warn", "fail", "not_checked"), what was `measured` in which `unit`, the `limit`, a
    `reason`, and the `source` of the rule. Raises InvalidInput for an unknown place and for texts that are none.
    """
    known = place_named(place)
    return checked(checked_texts(texts), known.name, language_named(language), on or datetime.date.today())


def checked_texts(texts: object) -> dict[str, str | list[str]]:
    """`texts` when its keys are fields and its values texts, or lists of texts."""
    if not isinstance(texts, Mapping) or not texts:
        raise InvalidInput('texts must be an object such as {"title": ..., "tags": [...]}.')
    if unknown := [str(name) for name in texts if name not in CHECKED_FIELDS]:
        raise InvalidInput(f"texts has no {', '.join(unknown)[:200]}. Known: {', '.join(CHECKED_FIELDS)}.")
    return {name: _checked_text(name, value) for name, value in texts.items()}


def _checked_text(name: str, value: object) -> str | list[str]:
    if name not in LISTS:
        return arguments.text(value, name)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidInput(f"{name} must be a list of strings.")
    return [arguments.text(item, f"an item of {name}") for item in value]


def checked(texts: Texts, place: str, language: Language, day: datetime.date) -> TextCheck:
    return summed_up(place, day, [_held_against(texts, rule, language) for rule in text_rules_on(place, day)])


def summed_up(place: str, day: datetime.date, results: list[TextRuleResult]) -> TextCheck:
    verdicts = {result["verdict"] for result in results}
    order: tuple[Verdict, ...] = ("fail", "warn", "pass", "not_checked")
    worst = next((verdict for verdict in order if verdict in verdicts), order[-1])
    return {"place": place, "date": day.isoformat(), "verdict": worst, "rules": results}


def _held_against(texts: Texts, rule: TextRule, language: Language) -> TextRuleResult:
    if rule.severity == "unknown":
        found = Measured(None, "not_checked", rule.why_not)
    elif rule.field not in texts:
        found = Measured(None, "not_checked", f"There is no {rule.field}.")
    else:
        found = MEASURES[rule.measure](texts, rule, language)
        if found.verdict == "fail" and (rule.severity != "hard" or rule.sureness not in OFFICIAL):
            found = found._replace(verdict="warn")
    return {
        "field": rule.field,
        "rule": rule.measure,
        "verdict": found.verdict,
        "measured": found.value,
        "unit": rule.unit if rule.measure in LENGTHS and found.value is not None else None,
        "limit": list(rule.limit) if isinstance(rule.limit, tuple) else rule.limit,
        "reason": found.reason,
        "sureness": rule.sureness,
        "source": rule.source,
        "read_on": READ_ON,
    }


def text_of(texts: Texts, field: str) -> str:
    """A field as one text."""
    value = texts[field]
    return value if isinstance(value, str) else "\n".join(value)


def items_of(texts: Texts, field: str) -> list[str]:
    """A field as a list of texts."""
    value = texts[field]
    return [value] if isinstance(value, str) else list(value)


def _in_range(value: int, limit: tuple[int | None, int | None], what: str, of: str = "It has") -> Measured:
    least, most = limit
    if least is not None and value < least:
        return Measured(value, "fail", f"{of} {value:,} {what}; at least {least:,} are asked.")
    if most is not None and value > most:
        return Measured(value, "fail", f"{of} {value:,} {what}; at most {most:,} are taken.")
    return Measured(value, "pass", f"{of} {value:,} {what}.")


def _long(text: str, rule: TextRule, of: str = "It has") -> Measured:
    """The length of one text. Where a page says "characters", none says of which kind: some count UTF-16 units."""
    found = _in_range(length(text, rule.unit), rule.limit, NAMES[rule.unit], of)
    most = rule.limit[1]
    units = length(text, "utf16_units")
    if found.verdict == "pass" and rule.unit == "code_points" and most is not None and units > most:
        said = f"{found.reason[:-1]}, but {units:,} UTF-16 units: too long for a place that counts those."
        return Measured(found.value, "warn", said)
    return found


def _length(texts: Texts, rule: TextRule, language: Language) -> Measured:
    return _long(text_of(texts, rule.field), rule)


def _item_length(texts: Texts, rule: TextRule, language: Language) -> Measured:
    items = items_of(texts, rule.field)
    if not items:
        return Measured(0, "pass", "It has no items.")
    at, longest = max(enumerate(items, start=1), key=lambda item: length(item[1], rule.unit))
    found = _long(longest, rule, f"Item {at} has")
    if found.verdict == "pass":
        return found
    limit = rule.limit[1]
    over = [str(at) for at, item in enumerate(items, start=1) if length(item, rule.unit) > limit]
    return found._replace(reason=f"{found.reason} Too long: {', '.join(over)}.") if len(over) > 1 else found


def _joined_length(texts: Texts, rule: TextRule, language: Language) -> Measured:
    return _long(" ".join(items_of(texts, rule.field)), rule, "Joined with blanks it has")


def _title_sum(texts: Texts, rule: TextRule, language: Language) -> Measured:
    parts = [text_of(texts, name) for name in ("title", "title_differentiation") if name in texts]
    return _in_range(sum(map(len, parts)), rule.limit, "characters", "Title and title_differentiation have")


def _count(texts: Texts, rule: TextRule, language: Language) -> Measured:
    return _in_range(len(items_of(texts, rule.field)), rule.limit, "items")


def _words(texts: Texts, rule: TextRule, language: Language) -> Measured:
    return _in_range(len(words_of(text_of(texts, rule.field))), rule.limit, "words")


def _forbidden_characters(texts: Texts, rule: TextRule, language: Language) -> Measured:
    found = [*dict.fromkeys(char for char in text_of(texts, rule.field) if char in rule.limit)]
    return _listed(found, f"none of {' '.join(rule.limit)} is allowed")


def _only_letters_digits_and(texts: Texts, rule: TextRule, language: Language) -> Measured:
    """Letters of any script, with the marks that some are written with."""
    text = "".join(items_of(texts, rule.field))
    found = [*dict.fromkeys(char for char in text if not (_is_letter_or_digit(char) or char in rule.limit))]
    return _listed(found, f"only letters, digits, blanks and {' '.join(rule.limit.strip())} are allowed")


def _is_letter_or_digit(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM" or unicodedata.category(char) == "Nd"


def _once_each(texts: Texts, rule: TextRule, language: Language) -> Measured:
    counts = Counter(char for char in text_of(texts, rule.field) if char in rule.limit)
    return _listed([char for char, n in counts.items() if n > 1], f"each of {' '.join(rule.limit)} is allowed once")


def _repeated_words(texts: Texts, rule: TextRule, language: Language) -> Measured:
    """How often the most frequent word stands there: not articles, prepositions and conjunctions, nor numbers."""
    passed_over = FUNCTION_WORDS.get(language.code)
    words = [folded(word) for word in words_of(text_of(texts, rule.field)) if any(map(str.isalpha, word))]
    counts = Counter(word for word in words if word not in (passed_over or FUNCTION_WORDS["en"]))
    most, worst = rule.limit[1], max(counts.values(), default=0)
    if worst <= most:
        return Measured(worst, "pass", f"No word stands there more than {most} times.")
    said = ", ".join(f"{word} {n} times" for word, n in counts.items() if n > most)
    if passed_over is None:
        return Measured(worst, "warn", f"{said}; whether it is an article or the like is not known for this language.")
    return Measured(worst, "fail", f"{said}; at most {most} times is allowed.")


def _promotion(texts: Texts, rule: TextRule, language: Language) -> Measured:
    if language.code not in PROMOTION:
        return Measured(None, "not_checked", f"No list of such words is known for {language.name}.")
    return _listed(PROMOTION[language.code].found_in(text_of(texts, rule.field)), "promotion is not allowed")


def _hashtag_form(texts: Texts, rule: TextRule, language: Language) -> Measured:
    """A mark, a hyphen or a blank ends a hashtag: the rest of it is lost."""
    found = [tag for tag in items_of(texts, rule.field) if tag != hashtag(tag, language.code)]
    return _listed(found, "a hashtag is # and letters, digits or underscores only")


def _listed(found: list[str], rule: str) -> Measured:
    if found:
        return Measured(found, "fail", f"It has {' '.join(found)[:300]}; {rule}.")
    return Measured([], "pass", f"Nothing was found; {rule}.")


MEASURES: Mapping[str, Callable[[Texts, TextRule, Language], Measured]] = {
    "length": _length,
    "item_length": _item_length,
    "joined_length": _joined_length,
    "title_sum": _title_sum,
    "count": _count,
    "words": _words,
    "forbidden_characters": _forbidden_characters,
    "only_letters_digits_and": _only_letters_digits_and,
    "once_each": _once_each,
    "repeated_words": _repeated_words,
    "promotion": _promotion,
    "hashtag_form": _hashtag_form,
}
LENGTHS = frozenset(("length", "item_length", "joined_length"))
BY_WORD_LIST = frozenset(("promotion",))
"""Measures that a word list decides, which can only warn."""
