"""The edge of a cut-out: exact, soft over a pixel or two, and free of the old background's colour.

A pixel on the edge shows both product and background. How much of it is product is read from its colour, between the
colours just inside and just outside. Then its own colour is replaced by the one just inside.
"""

from __future__ import annotations

import cv2
import numpy as np

from fal_sandbox.pictures import codec
from fal_sandbox.pictures.arrays import Array, floats

FULL_SIDE = 1200
"""Pixels on the long side at which edges are looked for; larger photos get theirs enlarged."""
TELLING = 34.0
"""The difference of two colours, of 255, at which they tell product and background apart half way."""
INWARDS = 0.12
"""How much the edge is drawn in: a lost rim is not missed, a rim of old background is seen."""


def soften(mask: Array, picture: Array) -> Array:
    """The mask as alpha (0 to 255), of the picture's size."""
    small = _small(picture)
    height, width = small.shape[:2]
    coarse = floats(cv2.resize(mask, (width, height), interpolation=cv2.INTER_CUBIC)) / 255.0
    reach = max(2.0, 0.9 * max(height, width) / max(mask.shape), max(height, width) / 300)
    return _enlarged(codec.to_bytes(_matte(coarse, small, reach)), picture)


def _matte(coarse: Array, picture: Array, reach: float) -> Array:
    """Alpha from the place relative to the mask's edge and, as far as the colours tell, from the colour."""
    place = cv2.GaussianBlur(coarse, (0, 0), reach * 0.7)
    inner, outer = _eroded(coarse > 0.5, reach), _eroded(coarse < 0.5, reach)
    if not (inner.any() and outer.any()):
        return np.clip(place, 0, 1)
    inside, outside = spread(picture, inner, reach), spread(picture, outer, reach)
    across = inside - outside
    apart = np.square(across).sum(axis=-1)
    share = ((picture - outside) * across).sum(axis=-1) / np.maximum(apart, 1.0)
    # Colours decide on the edge only: a dark line across a light product is no background.
    trust = apart / (apart + TELLING**2) * 4 * place * (1 - place)
    score = (place - 0.5) * 2.0 + (np.clip(share, 0, 1) - 0.5) * 1.4 * trust - INWARDS
    alpha = np.clip(0.5 + score * (1.0 + 0.4 * (1 - trust)), 0, 1)
    pinholes_closed = cv2.morphologyEx(floats(alpha), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return cv2.GaussianBlur(pinholes_closed, (0, 0), 0.6)


def decontaminate(picture: Array, alpha: Array) -> Array:
    """BGR with the colours of the edge, and just outside it, taken from inside the product."""
    small, small_alpha = _small(picture), _small(alpha)
    reach = max(2.0, max(small_alpha.shape) / 350)
    inner = _eroded(small_alpha > 250, reach)
    if not inner.any():
        return picture
    carried = _enlarged(np.clip(spread(small, inner, reach) + 0.5, 0, 255).astype(np.uint8), picture)
    deep = cv2.GaussianBlur(floats(inner), (0, 0), reach * 0.5)
    keep = _enlarged(np.where(inner, np.clip(deep * 2 - 1, 0, 1), floats(0.0)), picture)
    return cv2.blendLinear(picture, carried, keep, 1 - keep)


def _small(picture: Array) -> Array:
    height, width = picture.shape[:2]
    scale = FULL_SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _enlarged(small: Array, picture: Array) -> Array:
    """To the picture's size; what has it already is left alone."""
    height, width = picture.shape[:2]
    if small.shape[:2] == (height, width):
        return small
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def spread(picture: Array, known: Array, reach: float) -> Array:
    """The colours of `known` carried outwards as floats, near ones first."""
    weight = known.astype(np.float32)
    colours = picture.astype(np.float32) * weight[..., None]
    total = np.zeros_like(colours)
    amount = np.full(weight.shape, 1e-7, np.float32)
    for sigma, share in ((reach * 0.8, 1.0), (reach * 2.5, 1e-3)):
        total += cv2.GaussianBlur(colours, (0, 0), sigma) * share
        amount += cv2.GaussianBlur(weight, (0, 0), sigma) * share
    return total / amount[..., None]


def _eroded(area: Array, reach: float) -> Array:
    """What is at least `reach` pixels inside; the picture's border is no edge."""
    padded = cv2.copyMakeBorder(area.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1] > reach
