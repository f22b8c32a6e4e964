"""What the worker prints of a shop's commands: their results, with the `error` that every document has."""

from __future__ import annotations

from typing import Any, TypedDict

from services.fal.results import (
    Failed,
    Kept,
    MadePicture,
    OfProduct,
    OfStyles,
    StyledImage,
    StyleError,
    UnusableAnalysis,
    Variant,
    WorkflowFiles,
)
from services.shop.judge import JudgedPicture
from services.shop.listing import ListingResult
from services.shop.listing_writer import Ask, Incomplete, Listing
from services.shop.picture_check import PictureCheck, Verdict
from services.shop.shop import Checked, PackshotImage, PackshotResult


class PackshotDocument(PackshotResult):
    """Of `packshot`."""

    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""


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
    """What went wrong, and what to do next; null when nothing did."""


class ShopTexts(TypedDict):
    """The texts of `workflow --listing`."""

    listings: list[Listing]
    """One, in the language of the description; none when it failed."""
    asks: list[Ask]
    """What was paid for."""


class WorkflowExtras(TypedDict, total=False):
    packshots: Kept[list[PackshotImage]]
    """With --packshot: one per place, in their order."""
    listing: Kept[ShopTexts]
    """With --listing."""


class OneJob(TypedDict, total=False):
    billable_units: float | None
    """fal's own count of what is billed."""
    cost_usd: float | None
    """US dollars for this picture alone."""


class PublishedImage(Variant, OneJob, JudgedPicture, Checked):
    """A picture, with what --fidelity and --check tell of it."""


class PublishedStyledImage(StyledImage, JudgedPicture, Checked):
    """A picture of one style, with what --fidelity and --check tell of it."""


class PictureExtras(TypedDict, total=False):
    images: Kept[list[PublishedImage]]
    """With `--num_images` above 1: all pictures, in order."""
    errors: list[StyleError] | None
    """With --fidelity or --check: what failed of them."""


class PictureDocument(MadePicture, PictureExtras):
    """Of `background` and `remove-background`."""

    image: Kept[PublishedImage]
    """The picture; the first one of several."""


class StyledPictures(TypedDict):
    images: list[PublishedStyledImage]
    """In the order of the styles, the variants of one style in their order."""


class BackgroundsDocument(OfStyles, StyledPictures):
    """Of `generate-multiple-bg`."""

    error: Failed[str] | None
    """Set when no picture was made."""


class WorkflowDocument(OfStyles, StyledPictures, OfProduct, WorkflowFiles, UnusableAnalysis, WorkflowExtras):
    """Of `workflow`."""

    error: Failed[str] | None
    """Set when no picture was made, or when the upload or the analysis failed."""
