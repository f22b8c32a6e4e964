"""Products that stay where they stood in the photo, and products that a model changes without being asked.

Shops complain of exactly that: a garbled label, a product drawn anew, moved, cut off, in other colours. Played on
purpose, it shows whether a program notices.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fal_sandbox.pictures import codec
from fal_sandbox.pictures.arrays import Array, grid
from fal_sandbox.pictures.cutout import Made, cut_pixels
from fal_sandbox.pictures.scene import generic_picture

JITTER_PX = (1.4, -0.7)
MOVED = 0.12
"""Of the frame's width."""
CUT_OFF = 0.3
"""Of the product's height."""
WARM = (0.88, 1.0, 1.08)
"""Blue, green, red."""
SHADOW = 0.35


def in_place(photo: bytes, prompt: str, seed: int, how: str | None = None) -> Made:
    """The photo's product on a new background, where it stood and as it was, unless changed in the way `how`."""
    cut, remark = cut_pixels(codec.decode(photo))
    product = CHANGES[how](cut) if how else cut
    height, width = product.shape[:2]
    behind = codec.decode(generic_picture(width, height, prompt, seed))[..., :3].astype(np.float32)
    alpha = product[..., 3:].astype(np.float32) / 255
    soft = cv2.GaussianBlur(alpha, (0, 0), max(2.0, width / 40))
    shadow = np.roll(soft, max(1, height // 40), axis=0)[..., None]
    picture = product[..., :3] * alpha + behind * (1 - SHADOW * shadow) * (1 - alpha)
    return Made(codec.encode_png(np.clip(picture + 0.5, 0, 255).astype(np.uint8)), remark)


def _box(cut: Array) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is seen."""
    rows, columns = np.flatnonzero((cut[..., 3] > 12).any(axis=1)), np.flatnonzero((cut[..., 3] > 12).any(axis=0))
    if not len(rows):
        return 0, 0, cut.shape[1], cut.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _label(cut: Array) -> Array:
    """The middle of the product, its parts in another order, as letters come out of a model that draws them anew."""
    left, top, right, bottom = _box(cut)
    wide, high = right - left, bottom - top
    rows = slice(top + round(high * 0.35), top + round(high * 0.65))
    columns = slice(left + round(wide * 0.25), left + round(wide * 0.75))
    result: Array = cut.copy()
    part = cut[rows, columns, :3]
    strips = np.array_split(np.arange(part.shape[1]), 9)
    result[rows, columns, :3] = np.flipud(part[:, np.concatenate([strips[n] for n in (4, 1, 7, 0, 3, 8, 2, 6, 5)])])
    return result


def _redrawn(cut: Array) -> Array:
    """Every part of it a little elsewhere."""
    height, width = cut.shape[:2]
    y, x = grid(height, width)
    size = max(height, width)
    bent_x, bent_y = np.sin(y * 22 / size + 1), np.sin(x * 22 / size)
    return cv2.remap(cut, x + 0.02 * size * bent_x, y + 0.02 * size * bent_y, cv2.INTER_LINEAR)


def _shifted(cut: Array, x: float, y: float) -> Array:
    values = cut.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    size = cut.shape[1], cut.shape[0]
    moved = cv2.warpAffine(values, np.array([[1, 0, x], [0, 1, y]], np.float64), size, flags=cv2.INTER_CUBIC)
    alpha = np.clip(moved[..., 3:], 0, 255)
    colours = moved[..., :3] * 255 / np.maximum(alpha, 1)
    return np.clip(np.dstack([colours, alpha]) + 0.5, 0, 255).astype(np.uint8)


def _rescaled(cut: Array) -> Array:
    left, top, right, bottom = _box(cut)
    middle = (left + right) / 2, (top + bottom) / 2
    size = cut.shape[1], cut.shape[0]
    return cv2.warpAffine(cut, cv2.getRotationMatrix2D(middle, 0, 0.9), size, flags=cv2.INTER_AREA)


def _tinted(cut: Array) -> Array:
    return np.dstack([np.clip(cut[..., :3] * np.array(WARM), 0, 255).astype(np.uint8), cut[..., 3]])


def _cropped(cut: Array) -> Array:
    _, top, _, bottom = _box(cut)
    return _shifted(cut, 0, -top - round(CUT_OFF * (bottom - top)))


CHANGES: dict[str, Callable[[Array], Array]] = {
    "label": _label,
    "redraw": _redrawn,
    "move": lambda cut: _shifted(cut, MOVED * cut.shape[1], 0),
    "jitter": lambda cut: _shifted(cut, *JITTER_PX),
    "rescale": _rescaled,
    "tint": _tinted,
    "crop": _cropped,
}
