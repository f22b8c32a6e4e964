"""The commands of a shop: packshots, checks of pictures, and listings. They run `services/shop`.

Nothing here prints, and nothing is imported of packages that only some of them need.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.fal.errors import InvalidInput, summary
from services.shop.places import places_named
from services.shop.shop import Shop, checks_of

if TYPE_CHECKING:
    from services.fal_service import FalClient

Values = Mapping[str, Any]
Document = dict[str, Any]

SIZE = re.compile(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*\Z")
VERDICTS = ("pass", "not_checked", "warn", "fail")
"""From the best to the worst."""
MOST_NAMED = 3
"""Rules that an error names; all stand in `checks`."""


def packshot(client: FalClient | None, values: Values) -> Document:
    """The document of `packshot`, whose options are `values` by their arguments' names."""
    given = dict(values)
    folder = given.pop("save_dir", ".")
    image = given.pop("image", None) or given["cutout"]
    if "size" in given:
        given["size"] = _size(given["size"])
    return {**Shop(client).packshot(image, folder, **given), "error": None}


def check(values: Values) -> Document:
    """The document of `check-image`: a failure when a picture breaks a hard rule, since a script goes by the exit code.

    All of it stands beside the error too.
    """
    places = places_named(values["for"])
    if not places:
        raise InvalidInput("--for must name at least one place.")
    day = _day(values.get("on"))
    checks = checks_of(values["image"], places, day)
    verdict = max((one["verdict"] for one in checks), key=VERDICTS.index)
    document: Document = {"image": values["image"], "verdict": verdict, "checks": checks, "error": None}
    if verdict != "fail":
        return document
    said = " ".join(
        _failing(one["place"], [rule["reason"] for rule in one["rules"] if rule["verdict"] == "fail"])
        for one in checks
        if one["verdict"] == "fail"
    )
    error = InvalidInput(said, hint="See `checks` for the measured number and the source of each rule.")
    return {**document, **summary(error), "trace": ""}


def listing(client: FalClient, values: Values) -> Document:
    """The document of `listing`."""
    given = dict(values)
    photo, categories = given.pop("image", None), given.pop("categories", None)
    if photo is not None and categories is not None:
        raise InvalidInput("Give --image or --categories, not both: a photo is analysed for its categories.")
    return {**Shop(client).listing(categories if photo is None else photo, **given), "error": None}


def _failing(place: str, reasons: list[str]) -> str:
    count = "1 rule" if len(reasons) == 1 else f"{len(reasons)} rules"
    more = f" And {len(reasons) - MOST_NAMED} more." if len(reasons) > MOST_NAMED else ""
    return f"The picture breaks {count} of {place}: {' '.join(reasons[:MOST_NAMED])}{more}"


def _size(text: str) -> tuple[int, int]:
    found = SIZE.match(text)
    if found is None:
        raise InvalidInput(f"--size must be a width and a height in pixels such as 2000x2000, not {text[:100]!r}.")
    return int(found[1]), int(found[2])


def _day(text: str | None) -> datetime.date | None:
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--on must be a day such as 2027-01-31, not {text[:100]!r}.") from error
