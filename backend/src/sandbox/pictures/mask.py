"""Where the product is: a mask of the whole object, without holes and specks.

`evidence.py` says what is surely or probably background; GrabCut decides the rest. What stands out from the
background right around the object, and touches it, belongs to it. How the mask's edge is softened is `edges.py`'s.
"""

from __future__ import annotations

import cv2
import numpy as np

from sandbox.pictures.arrays import Array
from sandbox.pictures.evidence import Evidence, frame_of, gather
from sandbox.pictures.outline import straighten

WORK_SIDE = 420
"""Pixels on the long side while searching; finer detail costs much time and is found by `edges.py`."""
GRAB_CUT_ROUNDS = 4
STANDS_OUT = 4.5
"""In standard deviations of the background nearby."""
SMALLEST, LARGEST = 0.008, 0.92


def find_object(picture: Array) -> Array:
    """The object in a BGR picture, as a mask of 0 and 255 with at most WORK_SIDE pixels on the long side."""
    work = _shrink(picture)
    evidence = gather(work)
    features = _features(work)
    mask = _grab_cut(features, _trimap(evidence))
    if not evidence.calm:
        mask = mask | _standing_out(features, clean(mask, evidence))
    mask = clean(straighten(clean(mask, evidence)), evidence)
    share = float(np.count_nonzero(mask)) / mask.size
    return mask if SMALLEST < share < LARGEST else _ellipse(mask.shape, 0.42, 0.46)


def clean(mask: Array, evidence: Evidence) -> Array:
    """One solid piece: gaps closed, holes filled, specks and whiskers dropped."""
    radius = max(1, round(max(mask.shape) * 0.004))
    gap = 2 * radius
    padded = cv2.copyMakeBorder(mask, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _disc(gap))[gap:-gap, gap:-gap]
    opened = cv2.morphologyEx(_fill_holes(_main_pieces(closed), evidence), cv2.MORPH_OPEN, _disc(radius))
    smooth = cv2.GaussianBlur(_main_pieces(opened), (0, 0), radius * 0.7)
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def _disc(radius: int) -> Array:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _shrink(picture: Array) -> Array:
    height, width = picture.shape[:2]
    scale = WORK_SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _features(work: Array) -> Array:
    """Colour for GrabCut. Hue counts more than brightness: shadows and highlights change it less."""
    lab = cv2.cvtColor(cv2.bilateralFilter(work, 7, 40, 7), cv2.COLOR_BGR2LAB).astype(np.float32)
    weighted: Array = np.clip((lab - 128) * (0.6, 2.0, 2.0) + 128, 0, 255)
    return weighted.astype(np.uint8)


def _trimap(evidence: Evidence) -> Array:
    """GrabCut's starting point; without any clue, the object is taken to be in the middle."""
    foreign = evidence.foreign
    trimap = np.full(foreign.shape, cv2.GC_PR_BGD, np.uint8)
    if evidence.calm:
        trimap[foreign > 1.0] = cv2.GC_PR_FGD
        trimap[foreign > 2.5] = cv2.GC_FGD
        outside = evidence.reached | _see_through(evidence)
        depth = cv2.distanceTransform((~outside).astype(np.uint8), cv2.DIST_L2, 5)
        deep = depth > max(foreign.shape) * 0.02
        shadowy = (evidence.strange < 0.35) & (evidence.light < 0.9)
        trimap[(depth > 0) & (deep | ~(shadowy | evidence.pockets))] = cv2.GC_PR_FGD
        trimap[deep & ~shadowy] = cv2.GC_FGD
        trimap[cv2.erode(outside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = cv2.GC_BGD
    else:
        trimap[evidence.rare] = cv2.GC_PR_FGD
        trimap[frame_of(trimap.shape)] = cv2.GC_BGD
    if np.count_nonzero(trimap & 1) < SMALLEST * trimap.size:
        trimap[_ellipse(trimap.shape, 0.42, 0.48) > 0] = cv2.GC_PR_FGD
    return trimap


def _ellipse(shape: tuple[int, ...], across: float, down: float) -> Array:
    height, width = shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    inside = ((x - width / 2) / (width * across)) ** 2 + ((y - height / 2) / (height * down)) ** 2 < 1
    return np.where(inside, 255, 0).astype(np.uint8)


def _grab_cut(features: Array, trimap: Array) -> Array:
    result = np.zeros_like(trimap)
    box = _open_box(trimap)
    part, picture = np.ascontiguousarray(trimap[box]), np.ascontiguousarray(features[box])
    if not (part & 1).any() or (part & 1).all():
        return result  # nothing to compare
    cv2.setRNGSeed(0)  # GrabCut's clustering draws numbers: the same photo must give the same mask
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(picture, part, (0, 0, 1, 1), *models, GRAB_CUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    result[box] = np.where(part & 1, 255, 0)
    return result


def _open_box(trimap: Array) -> tuple[slice, slice]:
    """Rows and columns that are not decided yet, and a margin of background: the rest would only cost time."""
    margin = max(2, round(0.08 * max(trimap.shape)))
    undecided = trimap != cv2.GC_BGD
    if not undecided.any():
        return slice(None), slice(None)
    rows, columns = np.flatnonzero(undecided.any(axis=1)), np.flatnonzero(undecided.any(axis=0))
    return (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, columns[0] - margin), columns[-1] + margin + 1),
    )


def _standing_out(features: Array, mask: Array) -> Array:
    """Pixels near the object whose hue is far from that of the background around them.

    What is much darker than its surroundings does not count: that is the object's shadow.
    """
    side = max(mask.shape)
    values = features.astype(np.float32)
    reach = cv2.dilate(mask, np.ones((side // 15, side // 15), np.uint8))
    outside = np.where(reach > 0, 0.0, 1.0).astype(np.float32)
    sigma = side / 15
    amount = cv2.GaussianBlur(outside, (0, 0), sigma) + 1e-4
    mean = cv2.GaussianBlur(values * outside[..., None], (0, 0), sigma) / amount[..., None]
    away = ((values - mean)[..., 1:] ** 2).sum(axis=-1)
    spread = cv2.GaussianBlur(away * outside, (0, 0), sigma) / amount
    stands_out = (away > STANDS_OUT**2 * (spread + 9)) & (amount > 0.02)
    stands_out &= values[..., 0] > mean[..., 0] - 16
    return np.where(stands_out & (reach > 0), 255, 0).astype(np.uint8)


def _main_pieces(mask: Array) -> Array:
    """The biggest piece, and any other that is at least a tenth of it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = 1 + np.flatnonzero(areas >= areas.max() * 0.1)
    return np.where(np.isin(labels, kept), 255, 0).astype(np.uint8)


def _fill_holes(mask: Array, evidence: Evidence) -> Array:
    """Fill what the object encloses, unless the background is seen through it, as in a handle."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = cv2.drawContours(np.zeros_like(mask), contours, -1, (255,), cv2.FILLED)
    if evidence.calm:
        solid[_see_through(evidence) & (mask == 0)] = 0
        return solid
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid & ~mask)
    for hole in range(1, count):
        large = stats[hole, cv2.CC_STAT_AREA] > 0.02 * np.count_nonzero(solid)
        if large and np.percentile(evidence.foreign[labels == hole], 70) < 1.0:
            solid[labels == hole] = 0
    return solid


def _see_through(evidence: Evidence) -> Array:
    """Pockets of a calm background inside the object, such as the opening of a handle."""
    outside = (~evidence.reached).astype(np.uint8)
    depth = cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    result = np.zeros(outside.shape, bool)
    size = max(1.0, float(np.count_nonzero(outside))) ** 0.5
    count, labels, stats, _ = cv2.connectedComponentsWithStats(evidence.pockets.astype(np.uint8), connectivity=4)
    for pocket in range(1, count):
        if stats[pocket, cv2.CC_STAT_AREA] > (0.06 * size) ** 2:
            here = labels == pocket
            if _is_opening(here, depth < 0.16 * size, evidence):
                result |= here
    return cv2.dilate(result.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _is_opening(pocket: Array, shallow: Array, evidence: Evidence) -> bool:
    """Whether the background is seen through a pocket.

    White parts of a product look just like white paper: what tells them apart is the rim, which a label or a dial has
    all around or nowhere, and a handle on one side. Before paper that is not white, the colour alone will do.
    """
    light, hue = float(np.median(evidence.light[pocket])), float(np.median(evidence.strange[pocket]))
    rim = (cv2.dilate(pocket.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~pocket
    sharp = float(np.percentile(evidence.edge[rim], 50)) > 0.013
    if not sharp or hue > 0.2 or abs(light - 1) > max(0.08, min(evidence.tolerance, 0.15)):
        return False
    if evidence.rough < 0.006 and evidence.brightness < 0.92 and hue < 0.15:
        return True
    thin = np.argwhere(rim & shallow)
    if not 0.3 < len(thin) / max(1, int(np.count_nonzero(rim))) < 0.93:
        return False
    aside = np.linalg.norm(thin.mean(axis=0) - np.argwhere(pocket).mean(axis=0))
    return bool(aside > 0.12 * np.sqrt(np.count_nonzero(pocket)))
