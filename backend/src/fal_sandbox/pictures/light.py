"""What light does between a product and its scene: shadows, reflection, light that spills over the edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, grid, smoothstep
from fal_sandbox.pictures.camera import FLATTEST, STEEPEST, soften

LYING_PITCH = 0.8
"""Radians: what lies flat was photographed from well above, and all of the table around it shows."""
SLANT = 0.05
"""In heights of the product; a foot's edge strays less from its arc."""


@dataclass(frozen=True)
class Foot:
    """The ellipse a product stands on, in pixels."""

    x: float
    y: float
    across: float
    down: float
    lies: bool = False
    """It lies flat and touches the table all over: the ellipse is then the product's own."""

    @property
    def pitch(self) -> float:
        """The angle from which the camera looked down: a circle seen flat is a thin ellipse."""
        if self.lies:
            return LYING_PITCH
        return float(np.clip(np.arcsin(min(self.down / self.across, 1.0)), FLATTEST, STEEPEST))


def find_foot(alpha: Array) -> Foot:
    """Read off the curve of the lower outline; alpha is 0 to 1 and cropped to the product."""
    solid = alpha > 0.5
    columns = np.flatnonzero(solid.any(axis=0))
    if len(columns) < 8:
        return Foot(alpha.shape[1] / 2, alpha.shape[0] - 1.0, max(alpha.shape[1] / 2, 1.0), 1.0)
    bottom = (alpha.shape[0] - 1 - solid[::-1].argmax(axis=0)).astype(np.float32)[columns]
    first, last = _standing_part(bottom)
    x, y = columns[first : last + 1].astype(np.float32), bottom[first : last + 1]
    centre, across = float(x[0] + x[-1]) / 2, max(float(x[-1] - x[0]) / 2, 2.0)
    arc = np.sqrt(np.clip(1 - ((x - centre) / across) ** 2, 0, 1))
    down = float(np.polyfit(arc, y, 1)[0]) if np.ptp(arc) > 0.2 else 0.0
    down = float(np.clip(down, np.sin(FLATTEST) * across, np.sin(STEEPEST) * across))
    stray = float(np.sqrt(np.mean((float(y.max()) - down + down * arc - y) ** 2)))
    if _lies(solid, stray / solid.shape[0], 2 * across / solid.shape[1], float(y.max())):
        return Foot(alpha.shape[1] / 2, alpha.shape[0] / 2, alpha.shape[1] / 2, alpha.shape[0] / 2, lies=True)
    return Foot(centre, float(y.max()) - down, across, down)


def _lies(solid: Array, stray: float, foot_share: float, ground: float) -> bool:
    """Whether the product lies flat: a slanting lower edge, a long thing on a tiny foot, or pieces up in the air.

    `stray`: how far the lower edge is from the arc of a foot, in heights; `foot_share`: the foot's share of the width.
    """
    height, width = solid.shape
    if (stray > SLANT and foot_share > 0.25) or (width > 1.2 * height and foot_share < 0.3):
        return True
    _, _, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8))
    bottoms = stats[1:, cv2.CC_STAT_TOP] + stats[1:, cv2.CC_STAT_HEIGHT]
    hovering = stats[1:, cv2.CC_STAT_AREA][bottoms < ground - 0.1 * height].sum()
    return bool(hovering > 0.3 * np.count_nonzero(solid))


def _standing_part(bottom: Array) -> tuple[int, int]:
    """The columns around the lowest one up to where the outline leaves the table (a jump or a steep side)."""
    smooth = cv2.GaussianBlur(bottom[None], (0, 0), max(1.0, len(bottom) / 120))[0]
    steps = np.abs(np.diff(smooth))
    lowest = np.flatnonzero(smooth >= smooth.max() - max(1.0, len(bottom) * 0.01))
    middle = int(lowest[len(lowest) // 2])
    steep = np.flatnonzero(steps > 3.0)
    first = int(max((s + 1 for s in steep if s < middle), default=0))
    last = int(min((s for s in steep if s >= middle), default=len(bottom) - 1))
    return (first, last) if last - first >= 6 else (0, len(bottom) - 1)


def shadow(alpha: Array, foot: Foot, *, side: int, hardness: float) -> Array:
    """How much light the table loses around the product, 0 to 1, for a frame-sized alpha.

    `side` is where the light comes from (-1 left, 1 right); `hardness` runs from a studio's big lamp (0) to sun (1).
    """
    reach = float(np.count_nonzero(alpha.max(axis=1) > 0.5))
    if foot.lies:
        return _shadow_under(alpha, side, min(reach, 2 * foot.across), hardness)
    ground = _ellipse(alpha.shape, foot, 1.0)
    cast = _cast(alpha, foot, side, reach, length=0.42 + 0.25 * hardness)
    near = soften(cast, reach * (0.022 - 0.012 * hardness))
    far = soften(cast, reach * (0.075 - 0.035 * hardness))
    away = np.hypot(*_offset(alpha.shape, foot)) - 1.0
    share = smoothstep(0.0, 1.6, away)
    soft_cast = near * (1 - share) + far * share
    ambient = soften(_ellipse(alpha.shape, foot, 1.06), reach * 0.07)
    contact = _contact(alpha, ground, reach)
    lost = 1 - (1 - (0.34 + 0.26 * hardness) * soft_cast) * (1 - 0.42 * ambient) * (1 - contact)
    return floats(np.clip(lost, 0, 1))


def _shadow_under(alpha: Array, side: int, size: float, hardness: float) -> Array:
    """Of what lies flat: a narrow shadow all along its outline, wider away from the light."""
    contact = soften(_moved(alpha, 0, size * 0.008), max(size * 0.008, 1.0))
    cast = soften(_moved(alpha, -side * size * 0.03, size * 0.035), size * (0.025 - 0.012 * hardness))
    ambient = soften(alpha, size * 0.06)
    return floats(np.clip(1 - (1 - 0.55 * contact) * (1 - (0.34 + 0.26 * hardness) * cast) * (1 - 0.3 * ambient), 0, 1))


def _contact(alpha: Array, ground: Array, reach: float) -> Array:
    """The dark line where product and table meet, from what is solid and close to the ground."""
    touching = alpha * np.clip(soften(ground, reach * 0.01) * 4, 0, 1)
    tight = soften(_moved(touching, 0, reach * 0.006), max(reach * 0.006, 0.8))
    wide = soften(_moved(touching, 0, reach * 0.014), max(reach * 0.022, 1.5))
    return 1 - (1 - 0.62 * tight) * (1 - 0.45 * wide)


def _moved(picture: Array, right: float, down: float) -> Array:
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, np.array([[1, 0, right], [0, 1, down]], np.float32), (width, height))


def _offset(shape: tuple[int, ...], foot: Foot) -> tuple[Array, Array]:
    y, x = grid(shape[0], shape[1])
    return (x - foot.x) / foot.across, (y - foot.y) / foot.down


def _ellipse(shape: tuple[int, ...], foot: Foot, grown: float) -> Array:
    x, y = _offset(shape, foot)
    return np.clip((grown - np.hypot(x, y)) * foot.down * 0.8 + 0.5, 0, 1).astype(np.float32)


def _cast(alpha: Array, foot: Foot, side: int, reach: float, *, length: float) -> Array:
    """The silhouette laid on the table, away from the light and towards the camera, and the foot's own shadow.

    Seen from above, much of the silhouette's height is the far half of the foot: that part throws no shadow.
    """
    top = foot.y - reach
    high = max(0.2, 1 - foot.down / max(foot.y - top, 1.0))
    tilt = max(foot.down / foot.across, 0.16)
    lean, fall = -side * length * high, length * 0.55 * high * tilt
    # A point h above the foot's line lands at (x + lean·h, y_foot + fall·h); warpAffine needs the way back.
    forward = np.array([[1, -lean, lean * foot.y], [0, -fall, foot.y * (1 + fall)]], np.float32)
    flags = cv2.INTER_LINEAR
    height, width = alpha.shape
    above = alpha * smoothstep(foot.y + foot.down * 0.3, foot.y, np.arange(height, dtype=np.float32))[:, None]
    laid = cv2.warpAffine(above, forward, (width, height), flags=flags)
    thick = max(1, round(foot.down * 0.5)) * 2 + 1
    body = cv2.dilate(laid, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, min(thick, 61))))
    slid = _moved(_ellipse(alpha.shape, foot, 1.0), lean * foot.down * 0.5, fall * foot.down)
    return np.maximum(body, slid)


def reflection(picture: Array, alpha: Array, foot: Foot, *, blur: float) -> tuple[Array, Array]:
    """The product mirrored in the table: every column is turned over at its lowest point and fades away.

    Only where the product stands: what overhangs its foot is mirrored too far below to be seen.
    """
    height, width = alpha.shape
    solid = alpha > 0.5
    bottom = np.where(solid.any(axis=0), height - 1 - solid[::-1].argmax(axis=0), -1).astype(np.float32)
    bottom = floats(cv2.GaussianBlur(bottom[None], (0, 0), 1.5))
    y = np.arange(height, dtype=np.float32)[:, None] + 0 * bottom
    x = np.arange(width, dtype=np.float32)[None, :] + 0 * y
    source = (2 * bottom - y).astype(np.float32)
    turned = cv2.remap(picture, x, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(alpha, x, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    reach = max(1.0, float(np.count_nonzero(solid.any(axis=1))))
    fade = np.exp(-np.clip(y - bottom, 0, None) / (0.16 * reach)) * (y > bottom - 2)
    standing = smoothstep(1.25, 1.0, np.abs(x - foot.x) / foot.across)
    return soften(turned, blur), soften((seen * fade * standing).astype(np.float32), blur)


def wrap(picture: Array, alpha: Array, behind: Array) -> Array:
    """Light from the backdrop that spills over the product's edge, as it does through a lens."""
    sigma = max(1.2, max(alpha.shape) * 0.006)
    edge = alpha * (1 - soften(alpha, sigma))
    glow = soften(behind, sigma * 2.5)
    return floats(picture + np.maximum(glow - picture, 0) * edge[..., None] * 0.28)
