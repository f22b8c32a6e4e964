"""What the worker prints of a shop's jobs: their results, with the `error` that every document has."""

from __future__ import annotations

from typing import Any, TypedDict

from services.fal.results import Failed, Kept
from services.shop.listing import ListingResult
from services.shop.listing_writer import Incomplete
from services.shop.picture_check import PictureCheck, Verdict
from services.shop.shop import PackshotResult


class PackshotDocument(PackshotResult):
    """Of `packshot`."""

    error: Failed[str] | None


class CheckDocument(TypedDict):
    """Of `check-image`."""

    image: Kept[str]
    """The file that was checked."""
    verdict: Kept[Verdict]
    """The worst of all places."""
    checks: list[PictureCheck]
    """One per place, in their order."""
    error: Failed[str] | None
    """Set when the picture breaks a hard rule of a place, or cannot be checked."""


class IncompleteListings(TypedDict, total=False):
    incomplete: Failed[list[Incomplete]]
    """The languages whose texts cannot all be used."""
    raw_output: Failed[str]
    """What the model wrote in place of categories."""
    raw: Failed[dict[str, Any]]
    """fal's answer with it."""


class ListingDocument(ListingResult, IncompleteListings):
    """Of `listing`."""

    error: Failed[str] | None
