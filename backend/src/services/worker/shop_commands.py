"""The commands of a shop: packshots, checks of pictures, and listings. They run `services/shop`.

Nothing here prints, and nothing is imported of packages that only some of them need.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.fal.errors import FalError, InvalidInput, summary
from services.fal.product import style_error
from services.fal.prompts import DEFAULT_LANGUAGE
from services.shop.languages import languages_named
from services.shop.places import places_named
from services.shop.shop import Shop, check_image, require_image_extra

if TYPE_CHECKING:
    from services.fal_service import FalClient
    from services.shop.shop import PackshotImage

Values = Mapping[str, Any]
Document = dict[str, Any]

SIZE = re.compile(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*\Z")
VERDICTS = ("pass", "not_checked", "warn", "fail")
"""From the best to the worst."""
MOST_NAMED = 3
"""Rules that an error names; all stand in `checks`."""


def packshot(client: FalClient, values: Values) -> Document:
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
    checks = [check_image(values["image"], place.name, on=day) for place in places]
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


class Extras:
    """Packshots and a listing for a workflow, of the cut-out and the categories that it has paid for."""

    def __init__(
        self,
        client: FalClient,
        arguments: Mapping[str, Any],
        folder: str | None,
        places: str | None,
        *,
        packshot: bool,
        listing: bool,
    ) -> None:
        """Raises InvalidInput before any money is spent."""
        self._client = client
        self._shop = Shop(client)
        self._arguments = arguments
        self._folder = folder
        self._places = places
        self._packshot, self._listing = packshot, listing
        places_named(places)
        if packshot:
            require_image_extra()
        if listing:
            languages_named(self._language)

    @property
    def jobs(self) -> dict[str, int]:
        """The jobs that they take, by role: a packshot is made of the cut-out that is there."""
        return {"text": 1} if self._listing else {}

    @property
    def _language(self) -> str:
        return str(self._arguments.get("language", DEFAULT_LANGUAGE))

    def add(self, document: Document) -> Document:
        """`document` with what is made; what fails is listed in its `errors`, since the rest is paid for."""
        errors = list(document["errors"] or ())
        if self._packshot:
            document["packshots"] = []
            try:
                document["packshots"] = self._packshots(document)
            except FalError as error:
                document["packshots"] = error.partial.get("images", [])
                errors.append(style_error(error, "packshot", None))
        if self._listing:
            made: Mapping[str, Any] = {}
            try:
                made = self._shop.listing(document["categories"], places=self._places, languages=[self._language])
            except FalError as error:
                made = error.partial
                errors.append(style_error(error, "listing", None))
            document["listing"] = {"listings": made.get("listings", []), "asks": made.get("asks", [])}
        document["errors"] = errors or None
        assert self._client.call is not None
        return {**document, **self._client.call.costs.told()}

    def _packshots(self, document: Document) -> list[PackshotImage]:
        cutout = (document.get("cutout") or {}).get("path") or self._arguments.get("cutout")
        if cutout is None:
            raise InvalidInput("The product was not cut out, so there is no packshot of it.")
        assert self._folder is not None
        image = self._arguments["image"]
        return self._shop.packshot(image, self._folder, cutout=cutout, places=self._places, check=True)["images"]


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
