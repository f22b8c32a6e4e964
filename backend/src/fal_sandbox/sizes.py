"""The size of a picture: fal's names for sizes, width and height, aspect ratios and resolutions."""

from __future__ import annotations

import math
import re

from fal_sandbox.wire_types import Json

Size = tuple[int, int]

NAMED: dict[str, Size] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
USUAL = NAMED["square_hd"]
LARGEST_SIDE, MOST_PIXELS = 16_384, 8192 * 8192
STEP = 8
"""Sides that follow from a ratio are multiples of this, as models give them."""

_SIDES = re.compile(r"(\d{1,6})\s*[xX*×]\s*(\d{1,6})")
_RATIO = re.compile(r"(\d{1,4})\s*:\s*(\d{1,4})")
_RESOLUTION = re.compile(r"(\d{1,2}(?:\.\d)?)\s*[kK]")


def read_size(asked: Json) -> Size | None:
    """The size that an `image_size` names; None leaves it to the model. A ValueError when it names none."""
    if asked is None or asked == "auto":
        return None
    if isinstance(asked, str):
        return _bounded(_spelled(asked))
    if isinstance(asked, dict):
        return _bounded((asked.get("width", USUAL[0]), asked.get("height", USUAL[1])))
    return _bounded(asked)


def size_of(aspect_ratio: Json, resolution: Json, usual: Size = USUAL) -> Size:
    """The size of so many pixels in this shape; `usual` gives the shape when the ratio is "auto" or none."""
    ratio = _RATIO.fullmatch(aspect_ratio) if isinstance(aspect_ratio, str) else None
    shape = usual if ratio is None else (int(ratio[1]), int(ratio[2]))
    thousands = _RESOLUTION.fullmatch(resolution) if isinstance(resolution, str) else None
    side = min(MOST_PIXELS**0.5, 1024 * float(thousands[1] if thousands else 1))
    if not all(shape):
        shape = USUAL
    root = math.sqrt(shape[0] / shape[1])
    return _stepped(side * root), _stepped(side / root)


def _stepped(side: float) -> int:
    return min(LARGEST_SIDE, max(STEP, round(side / STEP) * STEP))


def _spelled(asked: str) -> Json:
    if asked in NAMED:
        return NAMED[asked]
    if sides := _SIDES.fullmatch(asked):
        return int(sides[1]), int(sides[2])
    if _RATIO.fullmatch(asked):
        return size_of(asked, None)
    return size_of(None, asked) if _RESOLUTION.fullmatch(asked) else None


def _bounded(sides: Json) -> Size:
    if isinstance(sides, (list, tuple)) and len(sides) == 2 and all(type(side) is int for side in sides):
        width, height = sides
        if min(sides) >= 1 and max(sides) <= LARGEST_SIDE and width * height <= MOST_PIXELS:
            return width, height
    raise ValueError(
        f"one of {', '.join(NAMED)}, auto, or width and height up to {LARGEST_SIDE} and {MOST_PIXELS} pixels together"
    )
