"""What code can see in a photo without a model: the product's colours by name, and its kind if the outline shows it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from fal_sandbox.pictures import codec
from fal_sandbox.pictures.arrays import Array
from fal_sandbox.pictures.mask import WORK_SIDE, find_object
from fal_sandbox.pictures.shapes import kind_of

THUMBNAIL = 120
"""Pixels on the long side; enough to count colours."""
NAMED = {
    "white": (240, 240, 240),
    "grey": (140, 140, 140),
    "black": (28, 28, 28),
    "red": (45, 40, 185),
    "orange": (40, 130, 235),
    "brown": (45, 75, 120),
    "beige": (165, 195, 215),
    "yellow": (60, 215, 240),
    "green": (70, 140, 60),
    "teal": (140, 140, 30),
    "blue": (180, 90, 40),
    "purple": (150, 50, 120),
    "pink": (180, 140, 235),
}
"""Blue, green, red."""


class Seen(NamedTuple):
    """What plain code can tell of a photo's product."""

    colours: list[str]
    """Up to three names, most of the object first."""
    kind: str
    """As `phrases.PRODUCT_WORDS` calls it; empty when its outline is none of those known."""


@lru_cache(maxsize=16)
def look(photo: bytes) -> Seen:
    """The product in a photo; kept, since one photo is asked about more than once. ValueError when it is no picture."""
    pixels = _small(codec.decode(photo), WORK_SIDE)
    picture = np.ascontiguousarray(pixels[..., :3])
    if (pixels[..., 3] < 128).any():
        mask, clear = np.where(pixels[..., 3] < 128, 0, 255).astype(np.uint8), True
    else:
        found = find_object(picture)
        mask, clear = found.mask, found.doubt is None
    return Seen(_main_colours(picture, mask), kind_of(picture, mask) if clear else "")


def _small(pixels: Array, side: int) -> Array:
    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _main_colours(picture: Array, mask: Array) -> list[str]:
    small = _small(picture, THUMBNAIL)
    inside = cv2.resize(mask, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA) > 127
    names = _nearest_names(small[inside] if inside.any() else small.reshape(-1, 3))
    found, counts = np.unique(names, return_counts=True)
    ranked = [list(NAMED)[found[index]] for index in np.argsort(-counts, kind="stable")]
    return ranked[: 1 + int(np.count_nonzero(counts >= 0.12 * counts.sum()) > 1) * 2]


def _nearest_names(pixels: Array) -> Array:
    """For every pixel the number of the named colour that looks most like it."""
    palette = np.array([list(NAMED.values())], np.uint8)
    lab = cv2.cvtColor(pixels[None, :, :3], cv2.COLOR_BGR2LAB)[0].astype(np.float32)
    known = cv2.cvtColor(palette, cv2.COLOR_BGR2LAB)[0].astype(np.float32)
    weights = np.array([0.5, 1.0, 1.0], np.float32)
    return np.asarray(np.linalg.norm((lab[:, None] - known[None]) * weights, axis=-1).argmin(axis=1))
