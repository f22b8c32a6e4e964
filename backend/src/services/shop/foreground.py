"""Takes the colour of the old background out of a cut-out's soft edge.

A half-transparent pixel of a photo is a mixture of the product and of what was behind it; put on white, a dark
background leaves a grey rim. The product's own colour is estimated from coarse to fine: "Fast Multi-Level Foreground
Estimation" (Germer, Uelwer, Conrad, Harmeling 2020, https://arxiv.org/abs/2006.14970), here in numpy. Opaque pixels
keep their own value, bit by bit.
"""

from __future__ import annotations

import cv2
import numpy as np

from services.shop.picture_file import Pixels

OPAQUE = 254 / 255
"""From this alpha on a pixel is the product alone."""
REGULARISATION = 1e-5
COARSE_SIDE = 32
COARSE_ROUNDS = 10
FINE_ROUNDS = 2


def foreground(rgba: Pixels) -> Pixels:
    """The product's own colours, RGB of 8 bits, for a cut-out of 8 bits with straight alpha."""
    alpha = rgba[:, :, 3].astype(np.float32) / 255
    soft = (alpha > 0) & (alpha < OPAQUE)
    if not soft.any():
        return np.ascontiguousarray(rgba[:, :, :3])
    top, bottom, left, right = _box(soft, margin=32)
    part = rgba[top:bottom, left:right, :3]
    estimated, _ = _estimate(part.astype(np.float32) / 255, alpha[top:bottom, left:right])
    result = np.ascontiguousarray(rgba[:, :, :3])
    inside = soft[top:bottom, left:right]
    result[top:bottom, left:right][inside] = np.clip(estimated[inside] * 255 + 0.5, 0, 255).astype(np.uint8)
    return result


def background(picture: Pixels, alpha: Pixels) -> Pixels:
    """What is behind a product in `picture` (RGB, 0 to 255) whose soft edge has this `alpha` (0 to 1): RGB in float32.

    The product is still mixed into the pixels of its soft edge; put over them as they are, it would be there twice.
    """
    result = picture.astype(np.float32)
    soft = (alpha > 0) & (alpha < OPAQUE)
    if not soft.any():
        return result
    top, bottom, left, right = _box(soft, margin=32)
    _, behind = _estimate(result[top:bottom, left:right] / 255, alpha[top:bottom, left:right])
    inside = soft[top:bottom, left:right]
    result[top:bottom, left:right][inside] = behind[inside] * 255
    return result


def _box(mask: Pixels, margin: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        max(0, int(rows[0]) - margin),
        min(height, int(rows[-1]) + margin + 1),
        max(0, int(columns[0]) - margin),
        min(width, int(columns[-1]) + margin + 1),
    )


def _estimate(image: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels]:
    """The two colours that explain `image`, smooth where alpha is flat: from one pixel up to the full size."""
    height, width = alpha.shape
    front: Pixels = image.mean(axis=(0, 1), keepdims=True)
    back = front
    steps = max(1, int(np.ceil(np.log2(max(height, width)))))
    for step in range(steps + 1):
        size = round(width ** (step / steps)), round(height ** (step / steps))
        small, opacity = _resized(image, size), _resized(alpha, size)
        rounds = COARSE_ROUNDS if max(size) <= COARSE_SIDE else FINE_ROUNDS
        front, back = _relaxed(small, opacity, _resized(front, size), _resized(back, size), rounds)
    return front, back


def _resized(values: Pixels, size: tuple[int, int]) -> Pixels:
    # OpenCV drops an axis of length one.
    return cv2.resize(values, size, interpolation=cv2.INTER_NEAREST).reshape(size[1], size[0], *values.shape[2:])


def _relaxed(image: Pixels, alpha: Pixels, front: Pixels, back: Pixels, rounds: int) -> tuple[Pixels, Pixels]:
    """Some rounds of solving, for every pixel, the two colours that fit its own and its neighbours'."""
    a, b = alpha[..., None], 1 - alpha[..., None]
    weights = [REGULARISATION + np.abs(alpha - _shifted(alpha, *way)) for way in _WAYS]
    total = sum(weights)[..., None]
    front_front, front_back, back_back = a * a + total, a * b, b * b + total
    scale = 1 / (front_front * back_back - front_back * front_back)
    for _ in range(rounds):
        front_sum, back_sum = a * image, b * image
        for way, weight in zip(_WAYS, weights, strict=True):
            front_sum += weight[..., None] * _shifted(front, *way)
            back_sum += weight[..., None] * _shifted(back, *way)
        front = np.clip((back_back * front_sum - front_back * back_sum) * scale, 0, 1)
        back = np.clip((front_front * back_sum - front_back * front_sum) * scale, 0, 1)
    return front, back


_WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def _shifted(values: Pixels, rows: int, columns: int) -> Pixels:
    """`values` moved by one pixel, the edge repeated."""
    moved = np.roll(values, (rows, columns), axis=(0, 1))
    if rows:
        moved[0 if rows > 0 else -1] = values[0 if rows > 0 else -1]
    if columns:
        moved[:, 0 if columns > 0 else -1] = values[:, 0 if columns > 0 else -1]
    return moved
