"""Where the product is: a mask of the whole object, without holes and specks, or the admission that it is not clear.

`saliency.py` says what the photo is a photo of, `evidence.py` what is surely or probably background; GrabCut decides
along the edge, and wherever those two leave it open. Without the network the evidence alone is where it starts from.
How the mask's edge is softened is `edges.py`'s.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fal_sandbox.pictures import saliency
from fal_sandbox.pictures.arrays import Array
from fal_sandbox.pictures.evidence import Evidence, frame_of, gather

WORK_SIDE = 420
"""Pixels on the long side while searching; finer detail costs much time and is found by `edges.py`."""
GRAB_CUT_ROUNDS = 4
STANDS_OUT = 4.5
"""In standard deviations of the background nearby."""
SMALLEST, LARGEST = 0.008, 0.86
MOST_PIECES = 8
SURE, LIKELY, POSSIBLE = 0.93, 0.5, 0.25
"""What the network says of a pixel."""
CONFIDENT, LOST = 0.15, 0.33
"""How much of what the network sees is neither clearly object nor clearly background: below the first it knows better
than the colours do, above the second it has not found one object."""
BLUR = 0.01
"""Of the long side: so near to an edge the network sees an inner corner filled, and is not to be believed alone."""
BRIGHT = 0.35
"""Of a background (white 1) on which dark lines say something; on a dark one they are its noise."""
LOOP_RIM = 0.2
"""The share of background just around an enclosed pocket: beyond a strap there is some, beyond a thick rim none."""
UNCLEAR = "The product could not be told from its background, so the photo is used whole."


_keeping = threading.Lock()


@dataclass(frozen=True)
class Found:
    """What is object in a photo."""

    mask: Array
    """0 and 255, with at most WORK_SIDE pixels on the long side; 255 everywhere when there is a doubt."""
    doubt: str | None = None
    """A sentence for whoever sees the result."""


def find_object(picture: Array) -> Found:
    """The object in a BGR picture. Scraps help nobody: what is doubtful gives the whole picture."""
    work = _shrink(picture)
    with _keeping:  # lru_cache would make one for each of those who ask at the same moment
        search = search_for(work.tobytes(), work.shape)
    return search.result(work)


class Search:
    """The search of one photo, made once: looking takes half a second of a processor, and vision, the cut-out and
    every scene ask for the same product, some of them at the same moment."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._found: Found | None = None

    def result(self, work: Array) -> Found:
        with self._looking:
            if self._found is None:
                self._found = _find(work)
            return self._found


@lru_cache(maxsize=16)
def search_for(pixels: bytes, shape: tuple[int, ...]) -> Search:
    return Search()


def _find(work: Array) -> Found:
    seen = saliency.look(work)
    mask, clear = _by_colours(work) if seen is None else _by_network(work, seen)
    found = Found(mask) if clear and _is_plausible(mask) else Found(np.full_like(mask, 255), UNCLEAR)
    found.mask.flags.writeable = False  # it is everybody's
    return found


def _by_network(work: Array, seen: Array) -> tuple[Array, bool]:
    """The mask, and whether the network found one object at all."""
    evidence = gather(work, cv2.dilate(seen, np.ones((9, 9), np.uint8)) > POSSIBLE)
    open_share = float((seen * (1 - seen)).sum() * 4 / max(float(seen.sum()), 1.0))
    mask = _grab_cut(_features(work), _seeds(seen, evidence, confident=open_share < CONFIDENT))
    if not evidence.calm:
        # A highlight on the object's edge, in the colour of the background, would be a bite taken out of it.
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(2 * _blur(seen)))
        mask = np.where((closed > 0) & (seen > SURE), 255, mask).astype(np.uint8)
    return _solid(mask, seen, _enclosed(evidence, seen)), evidence.calm or open_share < LOST


def _seeds(seen: Array, evidence: Evidence, *, confident: bool) -> Array:
    """GrabCut's starting point from what the network sees.

    Before a calm background, colours also find what the network overlooks, such as one of three spoons; a sharp
    shadow looks the same to them, so that they are not asked when the network is confident.
    """
    near = cv2.dilate((seen > POSSIBLE).astype(np.uint8), _disc(round(max(seen.shape) * 0.02))) > 0
    seeds = np.where(seen > LIKELY, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD)).astype(np.uint8)
    if evidence.calm:
        vivid = evidence.foreign > 2.5
        seeds[vivid & ~near & ~evidence.reached] = cv2.GC_PR_FGD
        seeds[evidence.reached & (seen < LIKELY)] = cv2.GC_BGD
        if not confident:
            by_colours = _trimap(evidence)
            seeds[(by_colours & 1 > 0) & (seeds & 1 == 0)] = cv2.GC_PR_FGD
        if evidence.brightness > BRIGHT:
            lines = _thin(~evidence.reached & (evidence.light < 0.7), near)
            seeds[lines & (seeds & 1 == 0)] = cv2.GC_FGD
    sure = seen > SURE
    if not evidence.calm:
        sure = cv2.erode(sure.astype(np.uint8), _disc(_blur(seen))) > 0
    seeds[sure] = cv2.GC_FGD
    seeds[_enclosed(evidence, seen)] = cv2.GC_BGD
    return seeds


def _blur(seen: Array) -> int:
    return max(1, round(float(max(seen.shape)) * BLUR))


def _thin(area: Array, near: Array) -> Array:
    """Straps, cords and handles: what is nowhere broad, as shadows are, and hangs together with the object."""
    whole = area.astype(np.uint8)
    broad = cv2.dilate(cv2.morphologyEx(whole, cv2.MORPH_OPEN, _disc(round(max(area.shape) * 0.012))), _disc(2))
    _, labels = cv2.connectedComponents(((whole > 0) & (broad == 0)).astype(np.uint8))
    # A line that runs out of the picture is the table's edge or a joint in the wall.
    return np.isin(labels, np.setdiff1d(labels[near], [0, *labels[frame_of(area.shape)]]))


def _enclosed(evidence: Evidence, seen: Array) -> Array:
    """Background that a strap encloses: the network takes the inside of a loop for the object.

    It is a large pocket, and looks like the background in every way. Labels and dials of that kind have thick rims,
    clear glass has faint ones, and is most of the product.
    """
    result = np.zeros(evidence.pockets.shape, bool)
    if not evidence.calm:
        return result
    bare = evidence.pockets & (evidence.foreign < 0.5) & (np.abs(evidence.light - 1) < 0.03)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(bare.astype(np.uint8), connectivity=4)
    loops = _disc(round(max(bare.shape) * 0.035))
    for pocket in range(1, count):
        if not 0.01 * bare.size < stats[pocket, cv2.CC_STAT_AREA] < 0.45 * np.count_nonzero(seen > LIKELY):
            continue
        here = labels == pocket
        around = cv2.dilate(here.astype(np.uint8), loops) > 0
        rim = around & ~here
        if np.mean(evidence.reached[rim]) > LOOP_RIM and np.mean(evidence.foreign[rim] > 1.0) > 0.5 * LOOP_RIM:
            result |= here
    return result


def _solid(mask: Array, seen: Array, opening: Array) -> Array:
    """Without specks, and without holes where the network sees the object."""
    main = _main_pieces(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((main == 0).astype(np.uint8), connectivity=4)
    for hole in range(1, count):
        left, top, width, height, area = stats[hole]
        if opening[labels == hole].mean() > 0.5:
            continue
        on_frame = left == 0 or top == 0 or left + width == mask.shape[1] or top + height == mask.shape[0]
        if not on_frame and (area < SMALLEST * 0.1 * mask.size or np.median(seen[labels == hole]) > LIKELY):
            main[labels == hole] = 255
    smooth = cv2.GaussianBlur(main, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def _is_plausible(mask: Array) -> bool:
    """Neither next to nothing, nor next to everything, nor many islands."""
    share = float(np.count_nonzero(mask)) / mask.size
    return SMALLEST < share < LARGEST and cv2.connectedComponents(mask)[0] - 1 <= MOST_PIECES


def _by_colours(work: Array) -> tuple[Array, bool]:
    evidence = gather(work)
    features = _features(work)
    mask = _grab_cut(features, _trimap(evidence))
    if not evidence.calm:
        mask = mask | _standing_out(features, _clean(mask, evidence))
    return _clean(mask, evidence), True


def _clean(mask: Array, evidence: Evidence) -> Array:
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
    """GrabCut's starting point from colours and edges alone."""
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
    return trimap


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
