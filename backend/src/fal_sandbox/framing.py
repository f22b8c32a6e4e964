"""Changes a picture's frame, size or file type.

Imported on first use, as everything that needs OpenCV.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from fal_sandbox.pictures import codec
from fal_sandbox.pictures.arrays import Array
from fal_sandbox.pictures.cutout import Made, cut_pixels

WORKING_SIDE = 1280
"""A product is cut out at no more than this, as the scenes are painted smaller."""
ENDINGS = {"jpeg": ".jpg", "jpg": ".jpg", "webp": ".webp"}


@lru_cache(maxsize=4)
def framed(photo: bytes, width: int, height: int) -> Made:
    """The photo's product, cut out, on a transparent canvas of the shape of `width` by `height`."""
    pixels = codec.decode(photo)
    scale = WORKING_SIDE / max(pixels.shape[:2])
    if scale < 1:
        pixels = _scaled(pixels, max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    cut, remark = cut_pixels(pixels)
    rows, columns = cut.shape[:2]
    wide, high = max(columns, round(rows * width / height)), max(rows, round(columns * height / width))
    top, left = (high - rows) // 2, (wide - columns) // 2
    canvas = np.zeros((high, wide, 4), dtype=cut.dtype)
    canvas[top : top + rows, left : left + columns] = cut
    return Made(codec.encode_png(canvas), remark)


def resized(png: bytes, width: int, height: int) -> bytes:
    """The picture in exactly this size."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] == (height, width):
        return png
    return codec.encode_png(_scaled(pixels, width, height))


def mask_of(cutout: bytes) -> bytes:
    """The alpha of a cut-out as a grey picture: white is the product."""
    return codec.encode_png(np.repeat(codec.decode(cutout)[..., 3:], 3, axis=2))


def as_type(png: bytes, kind: str) -> bytes:
    """The picture as a file of this kind: `jpeg`, `jpg` or `webp`."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the bytes are no picture")
    return cv2.imencode(ENDINGS[kind], pixels)[1].tobytes()


def _scaled(pixels: Array, width: int, height: int) -> Array:
    smaller = width * height < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
