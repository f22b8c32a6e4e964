"""The colours of a picture by name, those of the object in its middle first."""

from __future__ import annotations

import cv2
import numpy as np

from sandbox.pictures import codec
from sandbox.pictures.arrays import Array
from sandbox.pictures.mask import find_object

THUMBNAIL = 120
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


def main_colours(photo: bytes) -> list[str]:
    """Up to three colour names, most of the object first; ValueError when the bytes are no picture."""
    pixels = codec.decode(photo)
    scale = THUMBNAIL / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    object_only = small[_object_mask(small)]
    names = _nearest_names(object_only if len(object_only) else small.reshape(-1, 4))
    found, counts = np.unique(names, return_counts=True)
    ranked = [list(NAMED)[found[index]] for index in np.argsort(-counts, kind="stable")]
    return ranked[: 1 + int(np.count_nonzero(counts >= 0.12 * counts.sum()) > 1) * 2]


def _object_mask(small: Array) -> Array:
    if (small[..., 3] < 128).any():
        return small[..., 3] >= 128
    return find_object(np.ascontiguousarray(small[..., :3])).mask > 0


def _nearest_names(pixels: Array) -> Array:
    """For every pixel the number of the named colour that looks most like it."""
    palette = np.array([list(NAMED.values())], np.uint8)
    lab = cv2.cvtColor(pixels[None, :, :3], cv2.COLOR_BGR2LAB)[0].astype(np.float32)
    known = cv2.cvtColor(palette, cv2.COLOR_BGR2LAB)[0].astype(np.float32)
    weights = np.array([0.5, 1.0, 1.0], np.float32)
    return np.asarray(np.linalg.norm((lab[:, None] - known[None]) * weights, axis=-1).argmin(axis=1))
