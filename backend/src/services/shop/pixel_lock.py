"""Puts a product's original pixels back over a picture in which a model gave it a new background.

It is possible when the product stands where it stood, at its size: labels cannot be garbled then, whatever the model
did to them. The product is moved by whole pixels and the background by the rest, so that no pixel of the product is
resampled: opaque ones stay bit by bit. A product that was redrawn, moved far, turned or rescaled is not covered by its
original; the lock is refused with a reason, and `fidelity.py` measures it instead.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from services.shop.fidelity import WORKING_SIDE
from services.shop.foreground import background, foreground
from services.shop.picture_file import Pixels
from services.shop.placement import OPAQUE, Placement, grey, located, unchanged

MAX_MOVE_PX, MAX_MOVE = 8.0, 0.02
"""Moved by more than this (in pixels, or as a part of the longer side) it does not stand where it stood: its shadow and
reflection were drawn for another place."""
LEAST_AGREEMENT = 0.35
"""How much of the product must be seen as it was: .6 with a label garbled that takes a fifth of it, .16 redrawn."""
MAX_WARP_PX = 1.5
"""How far any corner may be from where a mere move would put it: more is another size, turn or form."""
LEAST_SHIFT_PX = 0.05
"""A background is not resampled for less: the eye does not see it, and every resampling costs sharpness."""
TILE_PX = 32
SAME_TILE = 0.6
"""Correlation within a tile from which on it shows the same thing."""
LEAST_SAME = 0.6
"""The part of the product's tiles that must show the same thing: a label may be garbled, the product may not."""
PLAIN = 4.0
"""Standard deviation of a tile's grey levels below which it has nothing to compare but its brightness."""
PLAIN_STEP = 40.0
"""Grey levels by which a plain tile may be brighter or darker: light changes, things do not."""
MAX_STICKS_OUT = 0.12
"""The part of the outline outside of which the model's product may still be seen."""
OUTLINE_PX = (3, 6)
BEYOND_PX = 14
SEEN_LAB = 18.0
"""A distance in Lab at which product and background can be told apart at the outline."""
LIGHT_BLUR = 0.06
"""Light is what is left of a picture after a blur of this part of the product's size."""
LIGHT_RANGE = (0.6, 1.6)


class Lock(NamedTuple):
    """A picture with the product's original pixels, or why there is none."""

    pixels: Pixels | None
    """RGB of 8 bits in the picture's size; None when the lock was refused."""
    reason: str
    """One sentence."""
    moved_px: tuple[float, float] | None
    """How far right and down the model moved the product; None when it was not found."""
    found: Placement | None = None
    """Where the product is in the picture."""


def locked(cutout: Pixels, picture: Pixels, *, adapt_light: bool = False) -> Lock:
    """Put the pixels of `cutout` (RGBA) over their likeness in `picture` (RGB), both of 8 bits and of one size.

    Light is adapted in the half-transparent edge; with `adapt_light` in the whole product, whose pixels then change.
    """
    if cutout.shape[:2] != picture.shape[:2]:
        sizes = " and ".join(f"{one.shape[1]} x {one.shape[0]}" for one in (cutout, picture))
        return Lock(None, f"The picture has another size than the cut-out ({sizes} px).", None)
    found = located(cutout, picture)
    if found is None:
        return Lock(None, "The product was not found in the picture.", None)
    moved = _moved(cutout, picture, found)
    if reason := _why_not(cutout, picture, found, moved):
        return Lock(None, reason, moved, found)
    whole, behind, product = _set_up(cutout, picture, moved)
    pixels = _composed(product, picture, behind, adapt_light=adapt_light)
    said = f"The original pixels are back, moved by {whole[0]} and {whole[1]} px."
    return Lock(pixels, said, moved, found)


def _box(cutout: Pixels) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what can be seen."""
    visible = cutout[..., 3] > 8
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _moved(cutout: Pixels, picture: Pixels, found: Placement) -> tuple[float, float]:
    """How far the product's middle was moved, by a correlation that knows of nothing but moves when it is near."""
    left, top, right, bottom = _box(cutout)
    x, y = (left + right - 1) / 2, (top + bottom - 1) / 2
    new_x, new_y = found.at(x, y)
    first, second = grey(picture), grey(cutout[..., :3])
    mask = np.where(cutout[..., 3] >= OPAQUE, 255, 0).astype(np.uint8)
    warp = np.array([[1, 0, x - new_x], [0, 1, y - new_y]], np.float32)
    # What the model changed, such as a label, would pull.
    warp = _correlated(first, second, warp, unchanged(first, second, warp, mask))
    return -float(warp[0, 2]), -float(warp[1, 2])


def _correlated(picture: Pixels, product: Pixels, warp: Pixels, mask: Pixels) -> Pixels:
    """A better move from picture to product, or the same when there is none near."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-7)
    try:
        _, better = cv2.findTransformECC(picture, product, warp.copy(), cv2.MOTION_TRANSLATION, criteria, mask, 3)
    except cv2.error:  # it does not converge
        return warp
    near = np.isfinite(better).all() and np.hypot(*(better - warp)[:, 2]) <= MAX_WARP_PX
    return np.asarray(better) if near else warp


def _why_not(cutout: Pixels, picture: Pixels, found: Placement, moved: tuple[float, float]) -> str | None:
    if found.agreement < LEAST_AGREEMENT:
        return f"The product was redrawn: only {found.agreement:.0%} of it is seen as it was."
    left, top, right, bottom = _box(cutout)
    corners = [(x, y) for x in (left, right) for y in (top, bottom)]
    warp = max(math.dist(found.at(x, y), (x + moved[0], y + moved[1])) for x, y in corners)
    if warp > MAX_WARP_PX:
        if abs(found.scale - 1) * max(right - left, bottom - top) > MAX_WARP_PX:
            return f"The product was rescaled to {found.scale:.1%} of its size."
        return f"The product was turned or bent by up to {warp:.1f} px."
    distance = math.hypot(*moved)
    if distance > max(MAX_MOVE_PX, MAX_MOVE * max(picture.shape[:2])):
        return f"The product was moved by {distance:.0f} px."
    aligned = _shifted(picture, -moved[0], -moved[1])
    same = _same_part(cutout, aligned)
    if same < LEAST_SAME:
        return f"The product was redrawn: only {same:.0%} of it show the same."
    out = _sticks_out(cutout, aligned)
    if out > MAX_STICKS_OUT:
        return f"The product was redrawn larger: it sticks out along {out:.0%} of its outline."
    return None


def _shifted(picture: Pixels, x: float, y: float) -> Pixels:
    if math.hypot(x, y) < LEAST_SHIFT_PX:
        return picture
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    size = picture.shape[1], picture.shape[0]
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)


def _same_part(cutout: Pixels, aligned: Pixels) -> float:
    """The part of the product's tiles that show the same in both, whatever the light."""
    grey = [
        cv2.GaussianBlur(cv2.cvtColor(np.ascontiguousarray(one[..., :3]), cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
        for one in (cutout, aligned)
    ]
    left, top, right, bottom = _box(cutout)
    # Tiles of the size that a product of 1024 px has; a small product has smaller ones.
    side = max(8, round(TILE_PX * min(1.0, max(right - left, bottom - top) / (WORKING_SIDE / 2))))
    opaque = cutout[..., 3] >= OPAQUE
    same = tiles = 0
    for y in range(top, bottom, side):
        for x in range(left, right, side):
            here = np.s_[y : min(y + side, bottom), x : min(x + side, right)]
            if opaque[here].mean() >= 0.5:
                tiles += 1
                same += _same_tile(*(one[here][opaque[here]].astype(np.float32) for one in grey))
    return same / tiles if tiles else 0.0


def _same_tile(first: Pixels, second: Pixels) -> bool:
    step = abs(float(first.mean()) - float(second.mean()))
    spreads = float(first.std()), float(second.std())
    if max(spreads) < PLAIN:
        return step < PLAIN_STEP
    if min(spreads) < PLAIN / 4:
        return False
    product = float(((first - first.mean()) * (second - second.mean())).mean())
    return product / (spreads[0] * spreads[1]) >= SAME_TILE


def _sticks_out(cutout: Pixels, aligned: Pixels) -> float:
    """The part of the ring around the outline that looks like the product there and not like what is behind it."""
    outside = (cutout[..., 3] <= 8).astype(np.uint8)
    distance, _ = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5)
    ring = (distance >= OUTLINE_PX[0]) & (distance <= OUTLINE_PX[1])
    inner = cv2.erode((cutout[..., 3] >= OPAQUE).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    outer = distance >= BEYOND_PX
    if not ring.any() or not inner.any() or not outer.any():
        return 0.0
    lab = cv2.cvtColor(cv2.GaussianBlur(aligned, (0, 0), 1.0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    here, product, behind = lab[ring], _nearest(lab, inner)[ring], _nearest(lab, outer)[ring]
    told = np.linalg.norm(product - behind, axis=1) > SEEN_LAB
    to_product, to_behind = np.linalg.norm(here - product, axis=1), np.linalg.norm(here - behind, axis=1)
    return float((told & (to_product < 0.5 * to_behind)).mean())


def _nearest(values: Pixels, known: Pixels) -> Pixels:
    """Every pixel's value at the nearest pixel that is `known`."""
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros((int(labels.max()) + 1, values.shape[2]), values.dtype)
    table[labels[known]] = values[known]
    return np.asarray(table[labels])


def _set_up(cutout: Pixels, picture: Pixels, moved: tuple[float, float]) -> tuple[tuple[int, int], Pixels, Pixels]:
    """The whole pixels by which the product moves, the picture without the rest of the move, the product in place."""
    whole = round(moved[0]), round(moved[1])
    aligned = _shifted(picture, whole[0] - moved[0], whole[1] - moved[1])
    height, width = cutout.shape[:2]
    product = np.zeros_like(cutout)
    to_rows, from_rows = _overlap(whole[1], height)
    to_columns, from_columns = _overlap(whole[0], width)
    clean = np.dstack([foreground(cutout), cutout[..., 3]])
    product[to_rows, to_columns] = clean[from_rows, from_columns]
    return whole, aligned, product


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    """Where a side of this size goes and what of it, when it moves."""
    return slice(max(0, by), size + min(0, by)), slice(max(0, -by), size + min(0, -by))


def _composed(product: Pixels, picture: Pixels, aligned: Pixels, *, adapt_light: bool) -> Pixels:
    alpha = product[..., 3].astype(np.float32) / 255
    opaque = product[..., 3] >= OPAQUE
    lit = product[..., :3].astype(np.float32) * _light(product, aligned)
    mixed = lit * alpha[..., None] + background(aligned, alpha) * (1 - alpha[..., None])
    result = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    outside = product[..., 3] == 0
    # What the product does not touch stays as the model made it.
    result[outside] = aligned[outside]
    if not adapt_light:
        result[opaque] = product[opaque][:, :3]
    return result


def _light(product: Pixels, aligned: Pixels) -> Pixels:
    """The light of the picture on the product against its own, as a factor per channel: what is left after a blur."""
    opaque = (product[..., 3] >= OPAQUE).astype(np.float32)
    left, top, right, bottom = _box(product)
    sigma = max(2.0, LIGHT_BLUR * max(right - left, bottom - top))
    weight = np.maximum(cv2.GaussianBlur(opaque, (0, 0), sigma), 1e-4)[..., None]
    was, now = (
        cv2.GaussianBlur(one[..., :3].astype(np.float32) * opaque[..., None], (0, 0), sigma) / weight
        for one in (product, aligned)
    )
    return np.clip((now + 2) / (was + 2), *LIGHT_RANGE)
