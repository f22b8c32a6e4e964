"""The marketplaces' rules for product texts, as data: one row per rule, with its source and how sure it is.

The marks are those of `places.py`: only O and Oq may make a rule `hard`; T and C are `advice` and warn; what nobody can
tell is `unknown` and `not_checked`, never a pass. Where a page says "characters" code points are counted, and a text
that is too long only in UTF-16 units warns. Measuring texts against these rows is `text_check.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from services.shop.places import Severity, Sureness
from services.shop.text_units import Unit


class TextRule(NamedTuple):
    """One demand of one place on one text."""

    field: str
    """The text that it is about, a key of `Listing`."""
    measure: str
    """What is measured; see `text_check.MEASURES`."""
    limit: Any
    """A pair (least, most) with None for an open end, or the characters in question."""
    severity: Severity
    sureness: Sureness
    source: str
    unit: Unit = "code_points"
    since: date | None = None
    """The first day on which it holds."""
    until: date | None = None
    """The last day on which it holds."""
    why_not: str = ""
    """For `unknown`: why it cannot be checked."""


def at_most(
    field: str,
    most: int,
    severity: Severity,
    sureness: Sureness,
    source: str,
    unit: Unit = "code_points",
    *,
    measure: str = "length",
    since: date | None = None,
    until: date | None = None,
) -> TextRule:
    return TextRule(field, measure, (None, most), severity, sureness, source, unit, since, until)


def unknown(field: str, why: str, sureness: Sureness = "U", source: str = "") -> TextRule:
    return TextRule(field, "none", None, "unknown", sureness, source, why_not=why)


_AMAZON_NEW = "https://github.com/amzn/selling-partner-api-models/issues/5307; the date and the sum from third parties"
_AMAZON = "https://sellercentral.amazon.com/help/hub/reference/201100890"
_AMAZON_ALT = "Amazon's text on alt text (quoted)"
_GOOGLE = "https://support.google.com/merchants product data specification"
_ETSY = "https://help.etsy.com: characters in titles and tags"
_TRENDYOL = "https://developers.trendyol.com ürün-yaratma-v2 (quoted 2026-09-18)"
_N11 = "N11's text on titles (quoted)"
_ALLEGRO = "Allegro help: offer titles"
_TIKTOK = "https://developers.tiktok.com content posting (quoted)"
_THIRD = "third parties only"
_CONFLICT = "sources conflict"
_AMAZON_SINCE = date(2026, 7, 27)

NO_TEXT_RULES = "No limit of this place's texts was found."

TEXT_RULES: Mapping[str, tuple[TextRule, ...]] = {
    "amazon": (
        at_most("title", 200, "hard", "O", _AMAZON, until=date(2026, 7, 26)),
        at_most("title", 75, "hard", "Oq", _AMAZON_NEW, since=_AMAZON_SINCE),
        at_most("title_differentiation", 125, "hard", "Oq", _AMAZON_NEW, since=_AMAZON_SINCE),
        at_most("title_differentiation", 200, "advice", "T", _THIRD, measure="title_sum", since=_AMAZON_SINCE),
        TextRule("title", "forbidden_characters", "!$?_{}^¬¦", "hard", "O", _AMAZON),
        at_most("title", 2, "hard", "O", _AMAZON, measure="repeated_words"),
        TextRule("title", "promotion", True, "advice", "O", _AMAZON + ": a word list can only warn"),
        at_most("bullets", 5, "advice", "T", _THIRD, measure="count"),
        at_most("bullets", 500, "advice", "T", _THIRD, measure="item_length"),
        at_most("description", 2000, "advice", "T", _THIRD),
        # Its search terms are one text: the tags with blanks between them.
        at_most("tags", 250, "advice", "T", _THIRD, "bytes", measure="joined_length"),
        at_most("alt_text", 100, "hard", "Oq", _AMAZON_ALT),
    ),
    "google": (
        at_most("title", 150, "hard", "O", _GOOGLE),
        at_most("description", 5000, "hard", "O", _GOOGLE),
        unknown(
            "title",
            "Send texts that a model wrote as structured_title and structured_description; whether they are sent so "
            "cannot be seen in the texts.",
            "O",
            _GOOGLE,
        ),
    ),
    "etsy": (
        at_most("title", 140, "advice", "T", _THIRD),
        TextRule("title", "once_each", "%:&+", "hard", "O", _ETSY),
        at_most("tags", 13, "advice", "T", _THIRD, measure="count"),
        at_most("tags", 20, "advice", "T", _THIRD, measure="item_length"),
        TextRule("tags", "only_letters_digits_and", " -'™©®", "hard", "O", _ETSY),
        at_most("alt_text", 500, "advice", "T", _THIRD),
    ),
    "trendyol": (
        at_most("title", 100, "hard", "Oq", _TRENDYOL),
        at_most("description", 30_000, "hard", "Oq", _TRENDYOL),
    ),
    "hepsiburada": (at_most("title", 100, "advice", "C", _CONFLICT + ": 100 or 150"),),
    "n11": (
        TextRule("title", "length", (15, None), "hard", "Oq", _N11),
        at_most("title", 65, "advice", "C", _CONFLICT + ": 65, 100 or 150"),
    ),
    "allegro": (
        TextRule("title", "length", (12, 75), "hard", "O", _ALLEGRO),
        TextRule("title", "words", (3, None), "hard", "O", _ALLEGRO),
    ),
    "meta": (
        at_most("title", 200, "advice", "T", _THIRD),
        at_most("description", 9999, "advice", "T", _THIRD),
    ),
    "shopify": (
        at_most("seo_title", 70, "advice", "T", _THIRD + ": 60 to 70"),
        at_most("seo_description", 160, "advice", "T", _THIRD + ": 155 to 160"),
        at_most("alt_text", 512, "advice", "T", _THIRD),
    ),
    "instagram": (
        at_most("captions", 2200, "advice", "C", _CONFLICT, measure="item_length"),
        at_most(
            "hashtags",
            5,
            "advice",
            "C",
            _CONFLICT + ": 5 in the app since 2025-12-18, 30 in the reference",
            measure="count",
            since=date(2025, 12, 18),
        ),
        TextRule("hashtags", "hashtag_form", True, "advice", "T", _THIRD),
    ),
    **dict.fromkeys(
        ("tiktok", "tiktok_uk"),
        (
            at_most("captions", 2200, "hard", "Oq", _TIKTOK, "utf16_units", measure="item_length"),
            at_most("title", 90, "hard", "Oq", _TIKTOK, "utf16_units"),
            at_most("description", 4000, "hard", "Oq", _TIKTOK, "utf16_units"),
            TextRule("hashtags", "hashtag_form", True, "advice", "T", _THIRD),
        ),
    ),
}
"""By place. Those of `places.PLACES` that are not named here have none that was found."""


def most_items(field: str, places: Sequence[str], day: date) -> int | None:
    """How many items the strictest of `places` takes in a list."""
    rules = [rule for place in places for rule in text_rules_on(place, day)]
    return min((rule.limit[1] for rule in rules if (rule.field, rule.measure) == (field, "count")), default=None)


def text_rules_on(place: str, day: date) -> list[TextRule]:
    """The rules for the texts of `place` that hold on `day`."""
    rules = TEXT_RULES.get(place) or (unknown("title", NO_TEXT_RULES), unknown("description", NO_TEXT_RULES))
    return [rule for rule in rules if (rule.since or day) <= day <= (rule.until or day)]
