"""Product photo in, product on nothing out: the sandbox's stand-in for a background remover.

`mask.py` finds the object, `edges.py` makes its edge presentable. A photo that already has a transparent
background keeps it.
"""

from __future__ import annotations

import numpy as np

from sandbox.pictures import codec, edges
from sandbox.pictures.arrays import Array
from sandbox.pictures.header import picture_size
from sandbox.pictures.mask import find_object

__all__ = ["cut_out", "cut_pixels", "picture_size"]


def cut_out(photo: bytes) -> bytes:
    """An RGBA PNG of the photo's size; ValueError when the bytes are no picture."""
    return codec.encode_png(cut_pixels(codec.decode(photo)))


def cut_pixels(pixels: Array) -> Array:
    """BGRA with the product's alpha; pixels that are transparent already stay as they are."""
    if np.count_nonzero(pixels[..., 3] < 128) > 0.005 * pixels[..., 3].size:
        return pixels
    picture = np.ascontiguousarray(pixels[..., :3])
    alpha = edges.soften(find_object(picture), picture)
    return np.dstack([edges.decontaminate(picture, alpha), alpha])
