"""Evidence for object and for background, pixel by pixel, before any segmentation.

The frame of a product photo shows background. Smooth curves through it say what the background would look like
behind the object. A shadow is that background with less light: darker, but of the same hue, and it has no sharp
edge. Whatever the frame can reach without crossing an edge, through background and shadow, is background.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, grid

FRAME = 0.03
"""The frame's width, as a share of the picture's shorter side."""
USUAL_SIDE = 420
"""Steepness is given for pictures of this side; a shadow in a smaller one is steeper."""
CALM = 0.013
"""The steepest change of light, per pixel, in a background that hides no edges."""
FLOOR = 0.04
DARKEST_SHADOW = 0.25
LEAST_FRAME = 0.25
"""The share of the frame that tells what the background is like."""
RARE = 0.4
"""On the frame, in relation to everywhere."""


@dataclass(frozen=True)
class Evidence:
    """Maps of one photo, and what its background is like."""

    light: Array
    """How bright the pixel is compared with the background there: 1 the same, less in a shadow."""
    strange: Array
    """How far its hue is from the background's; above 1 is more than the frame itself shows."""
    rare: Array
    """True where the hue is rarer on the frame than in the whole picture."""
    reached: Array
    """True where the frame reaches without crossing an edge."""
    pockets: Array
    """True where it looks like background but lies inside edges."""
    edge: Array
    """How steeply the light changes, per pixel."""
    rough: float
    """The steepest usual change in the background itself."""
    tolerance: float
    """How much the background's light strays by itself."""
    brightness: float
    """Of the background, 0 black to 1 white."""

    @property
    def calm(self) -> bool:
        """The background hides no edges: what is not reached is object."""
        return self.rough < CALM

    @property
    def foreign(self) -> Array:
        """Above 1: neither background nor its shadow."""
        brighter = (self.light - 1.0) / self.tolerance
        darker = (DARKEST_SHADOW - self.light) / 0.05 + 1
        return np.maximum(self.strange, np.maximum(brighter, darker))


def gather(picture: Array, product: Array | None = None) -> Evidence:
    """The evidence in a BGR picture. `product`: where it may be, which says nothing of the background."""
    # The floor keeps ratios calm where the background is nearly black.
    smooth = _calmed(picture).astype(np.float32) / 255.0 + FLOOR
    frame = _bare_frame(picture.shape, product)
    behind = np.clip(_fitted(smooth, frame), FLOOR, None)
    light = (smooth * behind).sum(axis=-1) / np.square(behind).sum(axis=-1)
    hue = np.linalg.norm(smooth - light[..., None] * behind, axis=-1) / np.linalg.norm(behind, axis=-1)
    usual = float(np.percentile(hue[frame], 95))
    tolerance = 0.03 + 3.0 * float(np.percentile(np.abs(light[frame] - 1), 75))
    # Dark pixels have little hue of their own: what is strange is judged in relation to the light.
    strange = hue / (0.018 + 1.6 * usual) / np.clip(light, 0.35, 1.0) ** 0.5
    edge = _edges(light)
    rough = float(np.percentile(edge[frame], 85))
    usual_hue = 2 * float(np.percentile(strange[frame], 99))
    passable = _passable(light, strange, edge, rough, usual_hue, tolerance)
    reached = _flood(passable, frame & (np.abs(light - 1) < max(0.2, tolerance)))
    brightness = float(behind[frame].mean())
    return Evidence(
        light, strange, _rare(picture, frame), reached, passable & ~reached, edge, rough, tolerance, brightness
    )


def _calmed(picture: Array) -> Array:
    """Without noise, and without the colour fringes that JPEG leaves around a vivid product."""
    lab = cv2.cvtColor(cv2.bilateralFilter(picture, 7, 30, 7), cv2.COLOR_BGR2LAB)
    light, green_red, blue_yellow = cv2.split(lab)
    hues = (cv2.medianBlur(channel, 9) for channel in (green_red, blue_yellow))
    return cv2.cvtColor(cv2.merge([light, *hues]), cv2.COLOR_LAB2BGR)


def frame_of(shape: tuple[int, ...]) -> Array:
    """True on the frame of the picture."""
    inset = max(1, round(FRAME * min(shape[:2])))
    frame = np.ones(shape[:2], bool)
    frame[inset:-inset, inset:-inset] = False
    return frame


def _bare_frame(shape: tuple[int, ...], product: Array | None) -> Array:
    """The frame without the product that touches it, unless the product leaves next to nothing of it."""
    frame = frame_of(shape)
    if product is None:
        return frame
    bare = frame & ~product
    return bare if np.count_nonzero(bare) > LEAST_FRAME * np.count_nonzero(frame) else frame


def _fitted(picture: Array, frame: Array) -> Array:
    """The frame's colours carried across the picture by quadratic curves; pixels that stray are left out."""
    height, width = frame.shape
    y, x = grid(height, width)
    x, y = x / width - 0.5, y / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    known, values = terms[frame], picture[frame]
    weights = np.linalg.lstsq(known, values, rcond=None)[0]
    stray = np.linalg.norm(values - known @ weights, axis=-1)
    kept = stray <= np.percentile(stray, 85)
    weights = np.linalg.lstsq(known[kept], values[kept], rcond=None)[0]
    return floats(terms @ weights)


def hue_of(picture: Array) -> Array:
    """Two numbers per pixel that a shadow leaves as they are: the colour in relation to the brightness."""
    lab = cv2.cvtColor(cv2.bilateralFilter(picture, 9, 40, 9), cv2.COLOR_BGR2LAB).astype(np.float32)
    return (lab[..., 1:] - 128) / (lab[..., :1] + 25) * 120


def _rare(picture: Array, frame: Array) -> Array:
    """Compares how often each hue is met on the frame and everywhere: a product's hues are met inside only."""
    hue = hue_of(picture)
    cell = np.clip((hue + 64) / 2, 0, 63).astype(int)
    counts = np.zeros((2, 64, 64), np.float32)
    np.add.at(counts[0], (cell[frame][:, 0], cell[frame][:, 1]), 1)
    np.add.at(counts[1], (cell[..., 0].ravel(), cell[..., 1].ravel()), 1)
    on_frame, anywhere = (cv2.GaussianBlur(count / count.sum(), (0, 0), 1.2) for count in counts)
    return np.asarray((on_frame < RARE * anywhere)[cell[..., 0], cell[..., 1]])


def _edges(light: Array) -> Array:
    """How steeply the light changes, per pixel."""
    grey = cv2.GaussianBlur(light.astype(np.float32), (0, 0), 0.8)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8


def _passable(light: Array, strange: Array, edge: Array, rough: float, usual_hue: float, tolerance: float) -> Array:
    """What may be background or its shadow: no edge, no other hue.

    The deeper the shadow, the steeper its rim may be; next to bare background every edge counts.
    """
    scale = USUAL_SIDE / min(max(light.shape), USUAL_SIDE)
    steepest = np.interp(light, (0.3, 0.5, 0.75, 0.97), (0.034, 0.026, 0.0125, 0.0055)) * scale + rough
    # Shadows take up a little hue from the product and the room.
    hue_limit = np.clip(usual_hue + np.interp(light, (0.85, 0.95), (0.25, 0.1)), 0.2, 1.2)
    return np.asarray((edge < steepest) & (strange < hue_limit) & (light < 1 + tolerance) & (light > DARKEST_SHADOW))


def _flood(passable: Array, start: Array) -> Array:
    """What of `passable` hangs together with the start; ways narrower than the kernel are closed."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    ways = cv2.erode(passable.astype(np.uint8), kernel)
    _, labels = cv2.connectedComponents(ways, connectivity=4)
    reached = np.isin(labels, np.unique(labels[start])) & (ways > 0)
    return (cv2.dilate(reached.astype(np.uint8), kernel) > 0) & passable
