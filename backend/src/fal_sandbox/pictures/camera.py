"""The camera of a scene: where the table lies in the frame, and how far away each row of it is.

One pinhole camera looks down on an endless table by an angle (`pitch`). A product photographed from high above needs
a table seen from high above, or it seems to float.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, mix

FOCAL = 1.7
"""In frame widths (or heights, whichever is larger): a short portrait lens, as product photographers use."""
FLATTEST, STEEPEST = 0.12, 0.90
"""Radians."""


@dataclass(frozen=True)
class Stage:
    """A frame with a table in it."""

    width: int
    height: int
    pitch: float
    base: float
    """The row (0 top, 1 bottom) where the product stands."""
    span: float
    """The product's width in pixels, which sets the scale of the materials."""

    @property
    def side(self) -> int:
        return max(self.width, self.height)

    @property
    def edge(self) -> float:
        """The row of the table's far edge: lower when seen flat, near the top when seen from above."""
        steep = (self.pitch - FLATTEST) / (STEEPEST - FLATTEST)
        return float(np.interp(steep, (0.0, 0.25, 0.6, 1.0), (0.59, 0.46, 0.28, 0.19)))

    def rows(self) -> Array:
        """Distance of the table along the line of sight, for every row; the product's row is 1."""
        focal = FOCAL * self.side
        down = (np.arange(self.height, dtype=np.float32) + 0.5 - self.height / 2) / focal
        slope = np.maximum(np.sin(self.pitch) + down * np.cos(self.pitch), 0.01)
        here = np.sin(self.pitch) + (self.base - 0.5) * self.height / focal * np.cos(self.pitch)
        return floats(here / slope)


def lay(stage: Stage, tile: Array, size: float, turn: float, shift: tuple[float, float]) -> Array:
    """The tile as a table top in perspective. `size`: the tile's side in product widths."""
    texels = tile.shape[0] / (size * stage.span)
    rows = stage.rows()
    across = (np.arange(stage.width, dtype=np.float32) - stage.width / 2)[None, :] * rows[:, None]
    depth = _depth(stage, rows)[:, None] + 0 * across
    x = (across * np.cos(turn) - depth * np.sin(turn)) * texels + shift[0]
    y = (across * np.sin(turn) + depth * np.cos(turn)) * texels + shift[1]
    # Far rows squeeze many texels into a pixel: they are read from smaller copies of the tile.
    squeeze = np.log2(np.maximum(rows * texels * np.sqrt(1.0 / max(np.sin(stage.pitch), 0.3)), 1.0))
    table = None
    for level in range(int(np.ceil(squeeze.max())) + 1 if squeeze.max() < 4 else 5):
        scale = 0.5**level
        at = (x * scale).astype(np.float32), (y * scale).astype(np.float32)
        layer = cv2.remap(_smaller(tile, level), *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        share = np.clip(squeeze - level + 1, 0, 1)[:, None]
        table = layer if table is None else mix(table, layer, np.repeat(share, stage.width, axis=1))
    assert table is not None
    return table


def _depth(stage: Stage, rows: Array) -> Array:
    """Where each row lies on the table, away from the camera, in pixels at the product's distance."""
    focal = FOCAL * stage.side
    down = (np.arange(stage.height, dtype=np.float32) + 0.5 - stage.height / 2) / focal
    return floats(-rows * (np.cos(stage.pitch) - down * np.sin(stage.pitch)) * focal)


def _smaller(tile: Array, level: int) -> Array:
    side = tile.shape[0] >> level
    return tile if level == 0 else cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA)


def focus(stage: Stage, picture: Array, aperture: float) -> Array:
    """The table sharp where the product stands and softer away from it."""
    rows = stage.rows()
    blur = np.abs(rows - 1.0) * aperture * stage.side
    result, sharpest = picture, 0.0
    for sigma in (0.0015, 0.004, 0.009, 0.018):
        sigma *= stage.side
        share = np.clip((blur - sharpest) / (sigma - sharpest), 0, 1)[:, None]
        if share.max() <= 0:
            break
        result = mix(result, soften(picture, sigma), np.repeat(share, stage.width, axis=1))
        sharpest = sigma
    return result


def soften(picture: Array, sigma: float) -> Array:
    """A Gaussian blur; wide ones are done on a smaller copy, where they cost little."""
    factor = max(1, int(sigma / 2.5))
    if factor == 1:
        return cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.1), borderType=cv2.BORDER_REPLICATE)
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def bokeh(picture: Array, radius: float) -> Array:
    """Out of focus as a lens does it: every point becomes a disc."""
    reach = max(1, round(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return cv2.filter2D(picture, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
