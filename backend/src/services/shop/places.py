"""The marketplaces' rules for product pictures, as data: one row per rule, with its source and how sure it is.

Sureness: O the marketplace's own page was read; Oq its text was read where somebody else quotes it; T a third party
says so; C sources conflict; U nothing was found. Only O and Oq may make a rule `hard` (a picture that breaks it fails);
`advice` warns; U is `not_checked`, never a pass. Measuring a picture against these rows is `picture_check.py`; making
one that fits is `packshot.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple

from services.fal.errors import InvalidInput

Severity = Literal["hard", "advice", "unknown"]
Sureness = Literal["O", "Oq", "T", "C", "U"]

OFFICIAL = ("O", "Oq")
READ_ON = "2026-11-25"
"""The day on which the pages were read, unless a row says otherwise."""


class Rule(NamedTuple):
    """One demand of one place."""

    name: str
    """What is measured; see `picture_check.MEASURES`."""
    limit: Any
    """Depends on the measure: a pair (least, most) with None for an open end, a set of formats, or True."""
    severity: Severity
    sureness: Sureness
    source: str
    since: date | None = None
    """The first day on which it holds."""
    until: date | None = None
    """The last day on which it holds."""
    why_not: str = ""
    """For `unknown`: why it cannot be checked."""


class Place(NamedTuple):
    """One marketplace: what it asks, and how a packshot for it is made."""

    name: str
    rules: tuple[Rule, ...]
    size: tuple[int, int]
    """Width and height of a packshot in pixels: the recommended size, within every hard limit."""
    fill: float
    """Part of the frame that the product takes, measured on the side that it fills more."""
    format: Literal["JPEG", "PNG"] = "JPEG"
    dpi: int | None = None
    digital_source_type: str = "compositeWithTrainedAlgorithmicMedia"
    """IPTC's word for a real product on a generated background, as this place wants it."""


def at_least(name: str, least: float, severity: Severity, sureness: Sureness, source: str, **dates: Any) -> Rule:
    return Rule(name, (least, None), severity, sureness, source, **dates)


def at_most(name: str, most: float, severity: Severity, sureness: Sureness, source: str) -> Rule:
    return Rule(name, (None, most), severity, sureness, source)


def unknown(name: str, why: str) -> Rule:
    return Rule(name, None, "unknown", "U", "", why_not=why)


NOT_BY_PIXELS = (
    unknown("real_item", "Whether colour and shape are the real item's cannot be seen in the picture alone."),
    unknown("contents", "One unit only, props, packaging, mannequin and front view need a person or a vision model."),
    unknown("text_logo_watermark", "Text, logos and watermarks need OCR or a vision model."),
    unknown("rights", "Who holds the rights cannot be seen in a picture."),
)
"""What no measurement of pixels tells, whatever the place."""

_AMAZON = "https://sellercentral.amazon.com/help/hub/reference/G1881 (quoted 2026-10-08)"
_EBAY = "https://www.ebay.com/help/selling/listings/adding-pictures-listings?id=4370"
_EBAY_API = "https://developer.ebay.com createImageFromFile"
_ETSY = "https://help.etsy.com/hc/articles/115015663347 (quoted 2026-09-23)"
_GOOGLE = "https://support.google.com/merchants/answer/6324350"
_SHOPIFY = "https://help.shopify.com product-media-types (quoted 2026-10-08)"
_WALMART = "https://marketplacelearn.walmart.com (2025-07-15)"
_ZALANDO = "Zalando partner site (2025-03-03)"
_TRENDYOL = "https://developers.trendyol.com ürün-yaratma-v2 (quoted 2026-09-18)"
_META = "https://www.facebook.com/business/help/686259348512056 (quoted)"
_INSTAGRAM = "https://developers.facebook.com Instagram content publishing (quoted)"
_TIKTOK = "https://seller-us.tiktok.com 3196690250417921 (quoted 2026-09-01)"
_BOL = "https://partnerplatform.bol.com"
_ALLEGRO = "Allegro help (quoted)"
_THIRD = "third parties only"
_CONFLICT = "sources conflict"


def _formats(*names: str, sureness: Sureness, source: str) -> Rule:
    return Rule("format", frozenset(names), "hard", sureness, source)


PLACES: Mapping[str, Place] = {
    place.name: place
    for place in (
        Place(
            "amazon",
            (
                Rule("longest_side", (500, 10_000), "hard", "Oq", _AMAZON),
                at_least("longest_side", 1000, "advice", "Oq", _AMAZON),
                _formats("JPEG", "TIFF", "PNG", "GIF", sureness="Oq", source=_AMAZON),
                Rule("rgb", True, "hard", "Oq", _AMAZON),
                at_most("megabytes", 10, "advice", "C", _CONFLICT),
                Rule("white_background", True, "hard", "Oq", _AMAZON),
                at_least("fill", 0.85, "hard", "Oq", _AMAZON),
            ),
            size=(2000, 2000),
            fill=0.88,
        ),
        Place(
            "ebay",
            (
                at_least("longest_side", 500, "hard", "O", _EBAY),
                at_least("longest_side", 1600, "advice", "O", _EBAY),
                _formats("JPEG", "PNG", "GIF", "BMP", "TIFF", "HEIC", "AVIF", "WEBP", sureness="O", source=_EBAY_API),
                at_most("megabytes", 12, "hard", "Oq", _EBAY),
            ),
            size=(1600, 1600),
            fill=0.85,
        ),
        Place(
            "etsy",
            (
                at_least("shortest_side", 635, "hard", "Oq", _ETSY),
                at_least("shortest_side", 2000, "advice", "Oq", _ETSY),
                at_least("ratio", 1.0, "hard", "Oq", _ETSY),
                _formats("JPEG", "GIF", "PNG", "HEIC", sureness="Oq", source=_ETSY),
                at_most("megabytes", 1, "advice", "Oq", _ETSY),
                Rule("opaque", True, "hard", "Oq", _ETSY),
                Rule("srgb", True, "hard", "Oq", _ETSY),
            ),
            size=(2000, 2000),
            fill=0.85,
        ),
        Place(
            "google",
            (
                at_least("shortest_side", 100, "hard", "O", _GOOGLE, until=date(2027, 1, 30)),
                at_least("shortest_side", 500, "hard", "O", _GOOGLE, since=date(2027, 1, 31)),
                at_least("shortest_side", 250, "advice", "O", _GOOGLE + ": required of apparel"),
                at_least("shortest_side", 1500, "advice", "O", _GOOGLE),
                at_most("megapixels", 64, "hard", "O", _GOOGLE),
                _formats("JPEG", "WEBP", "PNG", "GIF", "BMP", "TIFF", sureness="O", source=_GOOGLE),
                at_most("megabytes", 16, "hard", "O", _GOOGLE),
                Rule("extension", True, "hard", "O", _GOOGLE),
                Rule("fill", (0.75, 0.90), "advice", "Oq", _GOOGLE),
            ),
            size=(1500, 1500),
            fill=0.85,
            digital_source_type="trainedAlgorithmicMedia",
        ),
        Place(
            "shopify",
            (
                at_least("shortest_side", 2048, "advice", "Oq", _SHOPIFY),
                at_most("longest_side", 5000, "hard", "Oq", _SHOPIFY),
                at_most("megapixels", 25, "hard", "Oq", _SHOPIFY),
                _formats("PNG", "JPEG", sureness="Oq", source=_SHOPIFY),
                at_most("megabytes", 20, "hard", "Oq", _SHOPIFY),
            ),
            size=(2048, 2048),
            fill=0.85,
        ),
        Place(
            "walmart",
            (
                at_least("shortest_side", 1500, "advice", "O", _WALMART + ": for zoom"),
                at_least("shortest_side", 2200, "advice", "O", _WALMART),
                Rule("ratio", (1.0, 1.0), "hard", "O", _WALMART),
                _formats("JPEG", "PNG", "BMP", sureness="O", source=_WALMART),
                at_most("megabytes", 5, "hard", "O", _WALMART),
                Rule("rgb", True, "hard", "O", _WALMART),
                Rule("white_background", True, "hard", "O", _WALMART),
            ),
            size=(2200, 2200),
            fill=0.85,
        ),
        Place(
            "zalando",
            (
                at_least("width", 762, "hard", "O", _ZALANDO),
                at_least("height", 1100, "hard", "O", _ZALANDO),
                at_least("width", 1801, "advice", "O", _ZALANDO),
                at_least("height", 2600, "advice", "O", _ZALANDO),
                # 762 x 1100 and 1801 x 2600, which its page names, are 1:1.4436.
                Rule("ratio", (1 / 1.45, 1 / 1.43), "hard", "O", _ZALANDO),
                _formats("JPEG", sureness="O", source=_ZALANDO),
                at_most("megabytes", 20, "hard", "O", _ZALANDO),
                unknown("white_background", "Its page asks for a white packshot and names no value."),
            ),
            size=(1801, 2600),
            fill=0.85,
        ),
        Place(
            "trendyol",
            (
                Rule("width", (1200, 1200), "hard", "Oq", _TRENDYOL),
                Rule("height", (1800, 1800), "hard", "Oq", _TRENDYOL),
                Rule("dpi", 96, "hard", "Oq", _TRENDYOL),
                unknown("format", "Its pages name no formats."),
                Rule("white_background", True, "advice", "T", _THIRD),
                at_least("fill", 0.85, "advice", "T", _THIRD),
            ),
            size=(1200, 1800),
            fill=0.88,
            dpi=96,
        ),
        Place(
            "hepsiburada",
            (
                unknown("size", "Its public pages name no size."),
                unknown("format", "Its public pages name no formats."),
                unknown("white_background", "Its public pages name no background."),
            ),
            size=(1500, 1500),
            fill=0.85,
        ),
        Place(
            "n11",
            (
                unknown("size", "No page that names a size was found."),
                unknown("format", "No page that names formats was found."),
                unknown("white_background", "No page that names a background was found."),
            ),
            size=(1500, 1500),
            fill=0.85,
        ),
        Place(
            "meta",
            (
                at_least("shortest_side", 500, "hard", "Oq", _META),
                at_least("shortest_side", 1024, "advice", "Oq", _META),
                Rule("ratio", (1.0, 1.0), "advice", "T", _THIRD),
                _formats("JPEG", "PNG", sureness="Oq", source=_META),
                at_most("megabytes", 8, "hard", "Oq", _META),
            ),
            size=(1080, 1080),
            fill=0.85,
        ),
        Place(
            "instagram",
            (
                Rule("width", (320, 1440), "hard", "Oq", _INSTAGRAM),
                Rule("ratio", (0.8, 1.91), "hard", "Oq", _INSTAGRAM),
                _formats("JPEG", sureness="Oq", source=_INSTAGRAM),
                at_most("megabytes", 8, "hard", "Oq", _INSTAGRAM),
            ),
            size=(1080, 1080),
            fill=0.8,
        ),
        *(
            Place(
                name,
                (
                    at_least("shortest_side", least, "hard", "Oq", _TIKTOK),
                    Rule("ratio", (3 / 4, 4 / 3), "hard", "Oq", _TIKTOK),
                    _formats("JPEG", "PNG", sureness="Oq", source=_TIKTOK),
                    at_most("megabytes", 5, "hard", "Oq", _TIKTOK),
                    Rule("white_background", True, "hard", "Oq", _TIKTOK),
                    Rule("fill", (0.60, 0.80), "advice", "C", _CONFLICT),
                ),
                size=(1200, 1200),
                fill=0.78,
            )
            for name, least in (("tiktok", 600), ("tiktok_uk", 800))
        ),
        Place(
            "bol",
            (
                # The white margin is not counted.
                Rule("longest_product_side", (500, 6000), "hard", "O", _BOL),
                at_least("longest_product_side", 1200, "advice", "O", _BOL),
                Rule("megabytes", (0.03, 10), "hard", "O", _BOL),
                Rule("white_background", True, "hard", "O", _BOL),
                unknown("shadow", "Whether a shadow is visible cannot be told from a grey product by measuring."),
            ),
            size=(1600, 1600),
            fill=0.88,
        ),
        Place(
            "allegro",
            (
                at_least("longest_side", 500, "hard", "Oq", _ALLEGRO),
                at_least("longest_side", 2560, "advice", "Oq", _ALLEGRO),
                at_most("megapixels", 26, "hard", "Oq", _ALLEGRO),
                _formats("JPEG", "PNG", "WEBP", sureness="Oq", source=_ALLEGRO),
                Rule("srgb", True, "hard", "Oq", _ALLEGRO),
            ),
            size=(2560, 2560),
            fill=0.85,
        ),
    )
}


def rules_on(place: Place, day: date) -> list[Rule]:
    """The rules that hold on `day`, then what pixels never tell."""
    inside = [rule for rule in place.rules if (rule.since or day) <= day <= (rule.until or day)]
    return [*inside, *NOT_BY_PIXELS]


def place_named(name: object) -> Place:
    if isinstance(name, str) and (found := PLACES.get(name.strip().lower())):
        return found
    raise InvalidInput(f"There is no place named {str(name)[:100]!r}. Known: {', '.join(PLACES)}.")


def places_named(names: str | Sequence[str] | None) -> list[Place]:
    """Places given as a list, or in one string with commas; each once, in their order."""
    if names is None:
        return []
    if not isinstance(names, Sequence):
        raise InvalidInput('places must be a string such as "amazon,trendyol", or a list of names.')
    words = names.split(",") if isinstance(names, str) else names
    return [*{place.name: place for place in map(place_named, words)}.values()]
