"""Places the product: scaled, centred, standing on the table; and what it shows about camera and light."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from fal_sandbox.pictures import camera, light
from fal_sandbox.pictures.arrays import Array
from fal_sandbox.pictures.camera import Stage
from fal_sandbox.pictures.light import Foot

SMALLEST_SIDE, LARGEST_SIDE = 512, 1024
FILL = 0.64
"""The product's share of the frame's width or height, whichever is tighter."""


@dataclass(frozen=True)
class Cut:
    """A cut-out without its empty margins, and the size (width, height) of the photo it came from."""

    pixels: Array
    frame: tuple[int, int]


@dataclass(frozen=True)
class Product:
    """The product in place: its colours and alpha over the whole frame, and what it stands on."""

    colours: Array
    alpha: Array
    foot: Foot
    half_width: float


def trim(cut: Array) -> Cut:
    """A BGRA cut-out, trimmed to what is seen of it."""
    height, width = cut.shape[:2]
    seen = cut[..., 3] > 12
    if not seen.any():
        return Cut(cut, (width, height))
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return Cut(cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (width, height))


def frame_size(width: int, height: int) -> tuple[int, int]:
    """The new picture's size: the photo's shape, larger than a small photo, since the product fills less of it."""
    scale = float(np.clip(max(width, height) * 1.5, SMALLEST_SIDE, LARGEST_SIDE)) / max(width, height)
    return max(64, round(width * scale)), max(64, round(height * scale))


def place(cut: Cut, width: int, height: int) -> tuple[Product, Stage]:
    """Scale the product and stand it in the frame; the camera looks down as it did in the photo."""
    small = _scaled(cut.pixels, FILL * width, FILL * height)
    rows, columns = small.shape[:2]
    foot = light.find_foot(small[..., 3])
    steep = (foot.pitch - camera.FLATTEST) / (camera.STEEPEST - camera.FLATTEST)
    bottom = min(round(height * (0.58 - 0.03 * steep) + rows * 0.5), round(height * 0.93))
    left, top = (width - columns) // 2, bottom - rows
    frame = np.zeros((height, width, 4), np.float32)
    frame[top:bottom, left : left + columns] = small
    placed = replace(foot, x=foot.x + left, y=foot.y + top)
    colours = np.clip(frame[..., :3] / np.maximum(frame[..., 3:], 1e-3), 0, 1)
    product = Product(colours, np.clip(frame[..., 3], 0, 1), placed, columns / 2)
    return product, Stage(width, height, foot.pitch, placed.y / height, float(max(rows, columns)))


def _scaled(pixels: Array, width: float, height: float) -> Array:
    """Floats with colours multiplied by alpha, so that what is unseen does not bleed in."""
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    size = max(2, round(pixels.shape[1] * scale)), max(2, round(pixels.shape[0] * scale))
    values = pixels.astype(np.float32) / 255.0
    values[..., :3] *= values[..., 3:]
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return np.clip(small, 0, 1)


def light_side(product: Product, draw: np.random.Generator) -> int:
    """The side on which the product is lit already (-1 left, 1 right); a guess when both are alike."""
    grey = product.colours.mean(axis=-1) * product.alpha
    half = round(product.foot.x)
    left = grey[:, :half].sum() / max(product.alpha[:, :half].sum(), 1)
    right = grey[:, half:].sum() / max(product.alpha[:, half:].sum(), 1)
    if abs(left - right) > 0.03 * (left + right):
        return -1 if left > right else 1
    return int(draw.choice([-1, 1]))
