"""Where the product is: a mask of the whole object, without holes and specks.

GrabCut does the work. It starts from the habit of product photos: the object stands in the middle and the
border is background; a plain background is told apart by its colour. What stands out from the background
right around it, and touches the object, belongs to it. How the mask's edge is softened is `edges.py`'s.
"""

from __future__ import annotations

import cv2
import numpy as np

from sandbox.pictures.codec import Array
from sandbox.pictures.outline import straighten

WORK_SIDE = 600
"""Pixels on the long side while searching; finer detail costs much time and gains little."""
BORDER = 0.03
PLAIN_SPREAD = 5.0
GRAB_CUT_ROUNDS = 4
STANDS_OUT = 4.5
"""In standard deviations of the background nearby."""
SMALLEST, LARGEST = 0.01, 0.92


def find_object(picture: Array) -> Array:
    """The object in a BGR picture, as a mask of 0 and 255 with at most WORK_SIDE pixels on the long side."""
    work = _shrink(picture)
    lab = cv2.cvtColor(cv2.bilateralFilter(work, 9, 40, 9), cv2.COLOR_BGR2LAB)
    distance, spread = _distance_to_background(lab)
    plain = spread < PLAIN_SPREAD
    trimap = _plain_trimap(distance, spread) if plain else _centre_trimap(lab.shape[:2])
    mask = _grab_cut(lab, trimap)
    if not plain:
        mask = mask | _standing_out(lab, clean(mask))
    mask = clean(straighten(clean(mask)))
    share = float(np.count_nonzero(mask)) / mask.size
    return mask if SMALLEST < share < LARGEST else _ellipse(mask.shape, 0.42, 0.46)


def clean(mask: Array) -> Array:
    """One solid piece: gaps closed, holes filled, specks and whiskers dropped."""
    radius = max(1, round(max(mask.shape) * 0.007))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(mask, radius, radius, radius, radius, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[radius:-radius, radius:-radius]
    opened = cv2.morphologyEx(_fill_holes(_main_piece(closed)), cv2.MORPH_OPEN, kernel)
    smooth = cv2.GaussianBlur(_main_piece(opened), (0, 0), radius * 0.6)
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def _shrink(picture: Array) -> Array:
    height, width = picture.shape[:2]
    scale = WORK_SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _border(shape: tuple[int, ...]) -> Array:
    """True on the frame of the picture."""
    inset = max(1, round(BORDER * min(shape[:2])))
    frame = np.ones(shape[:2], bool)
    frame[inset:-inset, inset:-inset] = False
    return frame


def _distance_to_background(lab: Array) -> tuple[Array, float]:
    """How far each pixel is from a smooth backdrop fitted to the border, and how far the border itself is."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    frame = _border(lab.shape)
    values = lab.astype(np.float32)
    weights = np.linalg.lstsq(terms[frame], values[frame], rcond=None)[0]
    distance = np.linalg.norm(values - terms @ weights, axis=-1)
    return distance, float(np.percentile(distance[frame], 90))


def _plain_trimap(distance: Array, spread: float) -> Array:
    near, far = max(4.0, 2.0 * spread), max(14.0, 5.0 * spread)
    trimap = np.full(distance.shape, cv2.GC_PR_BGD, np.uint8)
    trimap[distance > (near + far) / 2] = cv2.GC_PR_FGD
    trimap[distance > far * 1.5] = cv2.GC_FGD
    trimap[distance < near] = cv2.GC_BGD
    trimap[_border(distance.shape)] = cv2.GC_BGD
    return trimap


def _centre_trimap(shape: tuple[int, ...]) -> Array:
    trimap = np.full(shape, cv2.GC_PR_BGD, np.uint8)
    trimap[_ellipse(shape, 0.42, 0.48) > 0] = cv2.GC_PR_FGD
    trimap[_ellipse(shape, 0.15, 0.15) > 0] = cv2.GC_FGD
    trimap[_border(shape)] = cv2.GC_BGD
    return trimap


def _ellipse(shape: tuple[int, ...], across: float, down: float) -> Array:
    height, width = shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    inside = ((x - width / 2) / (width * across)) ** 2 + ((y - height / 2) / (height * down)) ** 2 < 1
    return np.where(inside, 255, 0).astype(np.uint8)


def _grab_cut(lab: Array, trimap: Array) -> Array:
    if not (trimap & 1).any() or (trimap & 1).all():
        return np.zeros_like(trimap)
    cv2.setRNGSeed(0)  # GrabCut's clustering draws numbers: the same photo must give the same mask
    # Colour says more than brightness here: shadows and highlights change the one and hardly the other.
    weighted = np.clip((lab.astype(np.float32) - 128) * (0.6, 2.0, 2.0) + 128, 0, 255).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(weighted, trimap, (0, 0, 1, 1), *models, GRAB_CUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return np.where(trimap & 1, 255, 0).astype(np.uint8)


def _standing_out(lab: Array, mask: Array) -> Array:
    """Pixels near the object whose colour is far from that of the background around them.

    What is much darker than its surroundings does not count: that is the object's shadow.
    """
    side = max(mask.shape)
    values = lab.astype(np.float32)
    reach = cv2.dilate(mask, np.ones((side // 15, side // 15), np.uint8))
    outside = np.where(reach > 0, 0.0, 1.0).astype(np.float32)
    sigma = side / 15
    amount = cv2.GaussianBlur(outside, (0, 0), sigma) + 1e-4
    mean = cv2.GaussianBlur(values * outside[..., None], (0, 0), sigma) / amount[..., None]
    away = ((values - mean)[..., 1:] ** 2).sum(axis=-1)
    spread = cv2.GaussianBlur(away * outside, (0, 0), sigma) / amount
    stands_out = (away > STANDS_OUT**2 * (spread + 2.25)) & (amount > 0.02)
    stands_out &= values[..., 0] > 0.7 * mean[..., 0]
    return np.where(stands_out & (reach > 0), 255, 0).astype(np.uint8)


def _main_piece(mask: Array) -> Array:
    """The biggest piece, and any other that is at least a fifth of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= areas.max() * 0.2)
    return np.where(np.isin(labels, kept), 255, 0).astype(np.uint8)


def _fill_holes(mask: Array) -> Array:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), contours, -1, (255,), cv2.FILLED)
