"""Cuts a product out of its photo: the sandbox's stand-in for a background remover.

`mask.py` finds the object, `edges.py` makes its edge presentable. A photo that already has a transparent
background keeps it: its alpha channel is the mask.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fal_sandbox.pictures import codec, edges
from fal_sandbox.pictures.arrays import Array
from fal_sandbox.pictures.header import picture_size
from fal_sandbox.pictures.mask import find_object

__all__ = ["Made", "cut_out", "cut_pixels", "picture_size"]

LEAST_TRANSPARENT = 0.005
"""The share of the photo; less is a rounded corner or a speck, and no background."""


class Made(NamedTuple):
    """A picture, and what there is to say about it."""

    png: bytes
    remark: str | None


def cut_out(photo: bytes) -> Made:
    """An RGBA PNG of the photo's size; ValueError when the bytes are no picture."""
    pixels, remark = cut_pixels(codec.decode(photo))
    return Made(codec.encode_png(pixels), remark)


def cut_pixels(pixels: Array) -> tuple[Array, str | None]:
    """BGRA with the product's alpha, and why that is the whole photo, if it is."""
    if np.count_nonzero(pixels[..., 3] < 128) > LEAST_TRANSPARENT * pixels[..., 3].size:
        return pixels, None
    picture = np.ascontiguousarray(pixels[..., :3])
    found = find_object(picture)
    if found.doubt is not None:
        return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]), found.doubt
    alpha = edges.soften(found.mask, picture)
    return np.dstack([edges.decontaminate(picture, alpha), alpha]), None
