"""The shop's texts on the report page: one set per language, with the verdicts of each place's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.page_look import html_text
from services.worker.report_checks import checks_of
from services.worker.report_html import about

TEXTS = {
    "title": "Title",
    "bullets": "Bullet points",
    "description": "Description",
    "seo_title": "SEO title",
    "seo_description": "SEO description",
    "tags": "Tags",
    "hashtags": "Hashtags",
    "captions": "Captions",
    "alt_text": "Alternative text",
    "slug": "Slug",
}
"""The texts of a listing, in their order."""
AS_LIST = ("bullets", "captions")
"""Lists whose items are sentences."""
FACTS = "facts"
"""The check that is of no place: whether the texts say what nobody gave."""


def listings_of(listings: Sequence[Mapping[str, Any]], code: Mapping[str, str]) -> str:
    """`code` gives the code of a language by its lower-case name."""
    if not listings:
        return '<p class="note">No texts were written.</p>'
    return "".join(_listing(listing, code) for listing in listings)


def _listing(listing: Mapping[str, Any], code: Mapping[str, str]) -> str:
    language = str(listing.get("language") or "")
    checks = [dict(check) for check in listing.get("checks") or ()]
    places = [str(check.get("place")) for check in checks if check.get("place") != FACTS]
    for check in checks:
        if check.get("place") == FACTS:
            check["place"] = "Facts and claims"
    rows = "".join(_row(label, key, listing[key]) for key, label in TEXTS.items() if listing.get(key))
    told = f"for {', '.join(places)}" if places else ""
    mended = "mended once" if listing.get("mended") else ""
    lang = code.get(language.strip().casefold(), "")
    return (
        f'<article class="listing"><h3 dir="auto">{html_text(language or "Texts")}</h3>{about([told, mended])}'
        f'<div class="texts"><dl lang="{lang}">{rows}</dl><div class="checks">{checks_of(checks)}</div></div></article>'
    )


def _row(label: str, key: str, value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        shown = html_text(value)
    elif key in AS_LIST:
        return (
            f'<div><dt lang="en">{label}</dt>'
            f'<dd dir="auto"><ul>{"".join(f"<li>{html_text(item)}</li>" for item in value)}</ul></dd></div>'
        )
    else:
        shown = html_text((" " if key == "hashtags" else ", ").join(map(str, value)))
    return f'<div><dt lang="en">{label}</dt><dd dir="auto">{shown}</dd></div>'
