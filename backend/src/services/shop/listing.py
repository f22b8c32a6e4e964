"""Writes texts that places accept, in one or several languages, from a photo or from known facts about a product.

What is asked for is checked before anything is sent. The languages are written side by side (`listing_writer.py`), and
one that fails stops no other: all that was paid for is in the result, or in the error's `partial`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from services.fal import arguments
from services.fal.call import Call, side_by_side
from services.fal.categories import UNKNOWN
from services.fal.errors import FalError, InvalidInput
from services.fal.image_files import local_image
from services.fal.results import Costs
from services.fal_service import FalClient
from services.shop.languages import languages_named
from services.shop.listing_writer import Ask, Brief, Draft, Listing, Writer, ask_of, raise_reported
from services.shop.places import places_named


class ListingResult(Costs):
    """Of `Shop.listing`."""

    image_url: str | None
    """The photo, when there was one."""
    categories: Mapping[str, str]
    """The product's categories that the texts were written from."""
    places: list[str]
    """The marketplaces that the texts were checked for."""
    listings: list[Listing]
    """One per language, in their order."""
    asks: list[Ask]
    """What was paid for."""


class Source(NamedTuple):
    """What the texts are written from, checked."""

    categories: dict[str, str] | None
    """None when they are still to be read from the photo."""
    photo: str | os.PathLike[str] | None
    known: dict[str, Any]
    """Title and facts."""


def brief(
    places: str | Sequence[str] | None, languages: str | Sequence[str], tone: str | None, length: int, model: str | None
) -> Brief:
    """Raises InvalidInput for what cannot be asked."""
    return Brief(
        languages_named(languages),
        [place.name for place in places_named(places)],
        arguments.optional_text(tone, "tone"),
        arguments.length(length),
        arguments.optional_text(model, "model"),
        datetime.date.today(),
    )


def source(product: object, title: str | None, facts: object) -> Source:
    """Raises InvalidInput for what cannot be written about: nothing is sent before."""
    known: dict[str, Any] = {}
    if title is not None:
        known["title"] = arguments.text(title, "title")
    if facts is not None:
        known["facts"] = arguments.facts(facts)
    if len(json.dumps(known, ensure_ascii=False)) > arguments.MAX_FACTS_CHARS:
        raise InvalidInput(f"title and facts have more than {arguments.MAX_FACTS_CHARS:,} characters. Shorten them.")
    if isinstance(product, Mapping):
        categories = arguments.categories(product)
        if not (_told(categories) or known):
            raise InvalidInput("Nothing is known of the product. Give its categories, a title or facts.")
        return Source(categories, None, known)
    if arguments.is_url(product):
        return Source(None, arguments.image_url(product, "product"), known)
    if not isinstance(product, str | os.PathLike):
        raise InvalidInput("product must be categories (an object of strings), or the path or the URL of a photo.")
    local_image(product, "product")
    return Source(None, product, known)


def _told(categories: Mapping[str, str]) -> dict[str, str]:
    """The categories that say something."""
    return {name: value for name, value in categories.items() if value.strip() and value != UNKNOWN}


def written(client: FalClient, call: Call, source: Source, brief: Brief) -> ListingResult:
    """The listings in all languages, within `call`."""
    made: ListingResult = {
        "image_url": None,
        "categories": source.categories or {},
        "places": brief.places,
        "listings": [],
        "asks": [],
    }
    try:
        if source.photo is not None:
            _analyse(client.within(call), call, source.photo, made)
        _write_all(client, call, {"categories": _told(made["categories"]), **source.known}, brief, made)
    except FalError as error:
        raise error.but(partial={**error.partial, **made}) from error
    return made


def _analyse(client: FalClient, call: Call, photo: str | os.PathLike[str], made: ListingResult) -> None:
    url = str(photo) if arguments.is_url(photo) else client.upload_file(photo, timeout=call.check())
    made["image_url"] = url
    answer = client.analyze_product_image(url, timeout=call.check())
    raise_reported(answer)
    made["categories"] = cast("Mapping[str, str]", answer["categories"])
    made["asks"].append(ask_of(answer, "analysis"))


def _write_all(client: FalClient, call: Call, product: Mapping[str, Any], brief: Brief, made: ListingResult) -> None:
    """Every language beside the others. One that fails stops none: all are paid for."""
    drafts = [Draft(language) for language in brief.languages]
    failed: list[tuple[Draft, FalError]] = []
    try:
        with side_by_side(call) as tasks:
            writer = Writer(client, tasks.call, product, brief)
            started = [(draft, tasks.start(partial(writer.write, draft))) for draft in drafts]
            for draft, task in started:
                try:
                    task.result()
                    made["listings"].append(draft.as_listing())
                except FalError as error:
                    failed.append((draft, error))
    finally:
        made["asks"] += [ask for draft in drafts for ask in draft.asks]
    if failed:
        first = failed[0][1]
        incomplete = [draft.as_incomplete() for draft, _ in failed]
        raise first.but(partial={**first.partial, "incomplete": incomplete}) from first
