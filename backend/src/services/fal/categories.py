"""The nine categories of a product, and how they are read out of what a model wrote.

A model answers with JSON that is bare, fenced, inside prose or in a list. Only what stands there is taken:
a value that is missing, empty or not text is missing, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from services.fal.errors import BadOutput

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
MAX_FAILURES = 1000
"""Braces tried in one answer that begin no object: rubbish of any length is given up in moments."""


def read_categories(text: str) -> dict[str, str]:
    """The categories found in `text`, at most nine; those that are missing are left out.

    Raises BadOutput when `text` holds no JSON object at all.
    """
    best: dict[str, str] | None = None
    for found in _objects(text):
        values = {name: found.get(name) for name in CATEGORY_NAMES}
        named = {name: value.strip() for name, value in values.items() if isinstance(value, str) and value.strip()}
        if best is None or len(named) > len(best):
            best = named
    if best is None:
        raise BadOutput("The model's answer holds no JSON object.", hint="Try again, or use another model.")
    return best


def _objects(text: str) -> Iterator[dict[str, object]]:
    """Every outermost JSON object in `text`, in order; an object in a list counts."""
    decoder = json.JSONDecoder()
    position, failures = text.find("{"), 0
    while position >= 0 and failures < MAX_FAILURES:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end, failures = position + 1, failures + 1
        else:
            yield value
        position = text.find("{", end)
