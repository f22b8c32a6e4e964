"""Finds a product, given as a cut-out, in a picture that a model made of it: where, how large, how much distorted.

A coarse search over sizes and places is refined to a fraction of a pixel by enhanced correlation (Evangelidis and
Psarakis 2008, OpenCV's findTransformECC). Brightness and contrast do not matter to it. Whether the product is still
the same is measured elsewhere: `fidelity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from services.shop.picture_file import Pixels

OPAQUE = 254
"""From this alpha on a pixel is the product alone, see `foreground.py`."""
SEARCH_SIDE = 224
"""Pixels of the picture's longer side in the coarse search: a product of a tenth of the frame still has 22."""
SMALLEST, LARGEST = 0.12, 1.15
"""The product's longer side against the frame's longer side, between which it is looked for."""
SIZE_STEP = 1.06
"""From one size to the next; enhanced correlation finds the rest from 3 % off."""
CANDIDATES = 4
"""Sizes that are tried out after the coarse search; the best one is wrong for one smooth product in seventeen."""
FINE_SIDE = 512
"""Pixels of the product's longer side in the refinement: a tenth of a pixel there is two hundredths of a per cent."""
SURE, SURELY_AGREED = 0.9, 0.8
"""A likeness and an agreement from which on the product is taken to stand where it stood, without a search."""

FOUND = 0.35
"""Below this likeness nothing was found: products put against pictures without them reach 0.3 (docs/fidelity.md)."""
ROUNDS, ENOUGH = 50, 1e-5
BLUR_PX = 5
ROOM = 0.08
"""What is looked at around the product, as a part of its longer side: a coarse place is nearer than that."""
CHANGED, CHANGED_BLUR_PX, LEAST_CHANGE = 3.0, 2.0, 0.002
"""A part that differs by this many times the median difference, after a blur, was changed by the model."""
LIGHT_ROUNDS = 4
AGREED = 0.06
"""A difference of grey (0 to 1) from which on a pixel does not agree at all."""
PRIOR = 0.1
"""How much surer another place must be than the one where it stood."""
LEAST_OVERLAP_PX = 8
LEAST_SHOWN = 0.4
"""The part of the product that must be inside the picture."""
OUTLINE_STEP = 0.35
"""How much darker the unknown surroundings are taken to be, 0 to 1, so that the outline is an edge."""


class Placement(NamedTuple):
    """Where the product stands in the picture."""

    matrix: Pixels
    """2 x 3, from pixels of the cut-out to pixels of the picture."""
    likeness: float
    """Correlation of both, -1 to 1."""
    agreement: float = 0.0
    """How much of the product is seen as it is, 0 to 1; a garbled label takes its own part away and no more."""

    @property
    def sureness(self) -> float:
        return self.likeness + self.agreement

    @property
    def scale(self) -> float:
        """The product's size in the picture against the cut-out's."""
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:, :2]))))

    @property
    def stretch(self) -> float:
        """How many times more it is enlarged one way than the other; 1 when its proportions are kept."""
        values = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return float(values[0] / max(values[1], 1e-9))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the cut-out is in the picture."""
        moved = self.matrix @ np.array([x, y, 1.0])
        return float(moved[0]), float(moved[1])


def located(cutout: Pixels, picture: Pixels) -> Placement | None:
    """The placement of `cutout` (RGBA) in `picture` (RGB), both of 8 bits; None when it is not found."""
    product = _Product.of(cutout)
    seen = grey(picture)
    guesses = _guesses(product, cutout, seen)
    best = stood = _refined(product, seen, next(guesses))
    if stood.likeness < SURE or stood.agreement < SURELY_AGREED:
        others = [_refined(product, seen, guess) for guess in guesses]
        best = max(others, key=lambda found: found.sureness, default=stood)
    if stood.sureness + PRIOR >= best.sureness:
        best = stood
    return best if best.likeness >= FOUND else None


class _Product(NamedTuple):
    """The cut-out's visible box."""

    grey: Pixels
    opaque: Pixels
    """255 where the product alone is."""
    left: int
    top: int

    @classmethod
    def of(cls, cutout: Pixels) -> _Product:
        rows, columns = (
            np.flatnonzero((cutout[..., 3] > 8).any(axis=1)),
            np.flatnonzero((cutout[..., 3] > 8).any(axis=0)),
        )
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        opaque = np.where(cutout[..., 3] >= OPAQUE, 255, 0).astype(np.uint8)
        return cls(grey(cutout[box][..., :3]), opaque[box], int(columns[0]), int(rows[0]))


def grey(rgb: Pixels) -> Pixels:
    """Brightness, 0 to 1."""
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _guesses(product: _Product, cutout: Pixels, picture: Pixels) -> Iterator[Pixels]:
    """Where it stood, in a frame of another size as well; then what a search finds. From cut-out to picture."""
    height, width = picture.shape
    yield _scaling(min(width / cutout.shape[1], height / cutout.shape[0]))
    yield from _searched(product, picture)


def _scaling(scale: float, x: float = 0, y: float = 0) -> Pixels:
    """Pixel centres: the picture of twice the size has the first one at 0.5."""
    return np.array([[scale, 0, (scale - 1) / 2 + x], [0, scale, (scale - 1) / 2 + y]], np.float64)


def _searched(product: _Product, picture: Pixels) -> Iterator[Pixels]:
    """The best places of a coarse search, one for each of the best sizes."""
    down = min(1.0, SEARCH_SIDE / max(picture.shape))
    small = _resized(picture, down)
    margin = round(0.3 * SEARCH_SIDE)
    # A product that is cut off by the frame is looked for beyond it too.
    small = cv2.copyMakeBorder(small, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    edges = _edges(small)
    known: list[tuple[float, float, int, int]] = []
    longest = SMALLEST * max(picture.shape)
    while longest <= LARGEST * max(picture.shape):
        scale = longest / max(product.grey.shape)
        longest *= SIZE_STEP
        score = _scores(product, small, edges, scale * down)
        if score is not None:
            _, most, _, (x, y) = cv2.minMaxLoc(score)
            known.append((float(most), scale, x - margin, y - margin))
    for _, scale, x, y in sorted(known, reverse=True)[:CANDIDATES]:
        box = _scaling(scale, x / down, y / down)
        yield box @ np.array([[1, 0, -product.left], [0, 1, -product.top], [0, 0, 1.0]])


def _scores(product: _Product, small: Pixels, edges: Pixels, scale: float) -> Pixels | None:
    """How well the product of this size fits each place: by what is inside it and by its edges, half each."""
    template, mask = _resized(product.grey, scale), _resized(product.opaque.astype(np.float32), scale)
    if min(template.shape) < 6 or template.shape[0] > small.shape[0] or template.shape[1] > small.shape[1]:
        return None
    inside = (mask > 250).astype(np.float32)
    if inside.sum() < 20:
        return None
    # Outside, the template is as bright as the product is on average: its outline stays an edge.
    outline = _edges(
        np.where(mask > 128, template, float(template[inside > 0].mean()) - OUTLINE_STEP).astype(np.float32)
    )
    first = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED, mask=inside)
    second = cv2.matchTemplate(edges, outline, cv2.TM_CCOEFF_NORMED)
    total = np.nan_to_num(first, nan=-1, posinf=-1, neginf=-1).clip(-1, 1) + np.nan_to_num(second, nan=-1)
    scores: Pixels = total / 2
    return scores


def _edges(grey: Pixels) -> Pixels:
    strength: Pixels = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return cv2.GaussianBlur(strength, (0, 0), 1.0)


def _resized(values: Pixels, scale: float) -> Pixels:
    size = max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _refined(product: _Product, picture: Pixels, guess: Pixels) -> Placement:
    """`guess` (from cut-out to picture) to a fraction of a pixel, first the place, then size and form."""
    # Both at the size at which the product has the fewer pixels: what is enlarged has no more to say.
    in_box = guess @ np.array([[1, 0, product.left], [0, 1, product.top], [0, 0, 1.0]])
    scale = math.sqrt(abs(float(np.linalg.det(in_box[:, :2]))))
    fine = min(1.0, scale, FINE_SIDE / max(product.grey.shape))
    small = _resized(product.grey, fine)
    mask = np.where(_resized(product.opaque.astype(np.float32), fine) > 250, 255, 0).astype(np.uint8)
    seen = min(1.0, fine / scale)
    shrink, grow = _full(_scaling(fine)), np.linalg.inv(_full(_scaling(seen)))
    to_frame = np.linalg.inv(grow) @ _full(in_box) @ np.linalg.inv(shrink)
    frame, left, top = _around(_resized(picture, seen), to_frame, small.shape)
    corner = _full(np.array([[1, 0, left], [0, 1, top]], np.float64))
    if min(frame.shape) < LEAST_OVERLAP_PX:
        return Placement(guess[:2], -1.0)
    warp = (np.linalg.inv(to_frame) @ corner)[:2].astype(np.float32)
    warp = _best_form(frame, small, mask, warp)
    refined = grow @ corner @ np.linalg.inv(_full(warp)) @ shrink
    matrix = refined @ np.array([[1, 0, -product.left], [0, 1, -product.top], [0, 0, 1.0]])
    agreement = _agreement(frame, small, warp, mask)
    return Placement(matrix[:2], _likeness(frame, small, warp, mask), agreement)


def _best_form(frame: Pixels, product: Pixels, mask: Pixels, start: Pixels) -> Pixels:
    """The best place, size and form near `start`.

    A part that the model changed, such as a label, would pull: it is left out on trial, from where it began as well.
    """
    moved = _correlated(frame, product, start, mask, cv2.MOTION_TRANSLATION)
    whole = _correlated(frame, product, moved, mask, cv2.MOTION_AFFINE)
    forms = [start, moved, whole]
    for near in (start, moved, whole):
        same = unchanged(frame, product, near, mask)
        forms.append(_correlated(frame, product, near, same, cv2.MOTION_AFFINE))
    return max(forms, key=lambda warp: _agreement(frame, product, warp, mask))


def _residual(frame: Pixels, product: Pixels, warp: Pixels, inside: Pixels) -> Pixels:
    """How much `frame` differs from `product`, light apart, after a small blur."""
    size = product.shape[1], product.shape[0]
    seen = cv2.warpAffine(frame, warp, size, borderMode=cv2.BORDER_REPLICATE)
    first, second = product[inside].astype(np.float64), seen[inside].astype(np.float64)
    gain, lift = 1.0, 0.0
    kept = np.ones(first.shape, bool)
    for _ in range(LIGHT_ROUNDS):
        # The light is what most of the product says: the half that fits better decides.
        gain, lift = _line(first[kept], second[kept])
        off = np.abs(second - first * gain - lift)
        kept = off <= np.median(off)
    return cv2.GaussianBlur(np.abs(seen - product * gain - lift), (0, 0), CHANGED_BLUR_PX)


def _line(first: Pixels, second: Pixels) -> tuple[float, float]:
    """Gain and lift from `first` to `second`."""
    gain = float(((first - first.mean()) * (second - second.mean())).mean()) / max(1e-9, float(first.var()))
    return gain, float(second.mean()) - gain * float(first.mean())


def unchanged(frame: Pixels, product: Pixels, warp: Pixels, mask: Pixels) -> Pixels:
    """`mask` without what differs by much more than the rest; `warp` leads from `frame` to `product`, greys 0 to 1."""
    inside = mask > 0
    off = _residual(frame, product, warp, inside)
    kept = inside & (off <= CHANGED * max(LEAST_CHANGE, float(np.median(off[inside]))))
    return np.where(kept, 255, 0).astype(np.uint8)


def _agreement(frame: Pixels, product: Pixels, warp: Pixels, mask: Pixels) -> float:
    """How much of the product is seen as it is, 0 to 1; what differs much counts no more than what differs."""
    off = _residual(frame, product, warp, mask > 0)[mask > 0]
    return float(np.clip(1 - off / AGREED, 0, 1).mean())


def _around(frame: Pixels, to_frame: Pixels, size: tuple[int, ...]) -> tuple[Pixels, int, int]:
    """The part of `frame` where a product of this size is, with some room, and its left and top."""
    height, width = size
    corners = to_frame @ np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]]).T
    room = ROOM * max(size)
    left, top = (max(0, math.floor(corners[axis].min() - room)) for axis in (0, 1))
    right, bottom = (max(0, math.ceil(corners[axis].max() + room)) for axis in (0, 1))
    return frame[top:bottom, left:right], left, top


def _full(matrix: Pixels) -> Pixels:
    return np.vstack([matrix, [0, 0, 1.0]])


def _correlated(frame: Pixels, product: Pixels, warp: Pixels, mask: Pixels, motion: int) -> Pixels:
    """A better `warp` (from frame to product), or the same when there is none near."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ROUNDS, ENOUGH)
    try:
        _, better = cv2.findTransformECC(frame, product, warp.copy(), motion, criteria, mask, BLUR_PX)
    except cv2.error:  # it does not converge, or nothing overlaps
        return warp
    corners = np.array([[0, 0, 1], [frame.shape[1], 0, 1], [0, frame.shape[0], 1.0]]).T
    if np.isfinite(better).all() and np.abs((better - warp) @ corners).max() < 0.25 * max(frame.shape):
        return np.asarray(better, np.float32)
    return warp


def _likeness(frame: Pixels, product: Pixels, warp: Pixels, mask: Pixels) -> float:
    """Correlation inside the product, or, for one that is all of one colour, of the edges around it as well."""
    height, width = product.shape
    whole = mask > 0
    seen = cv2.warpAffine(frame, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.warpAffine(np.ones_like(frame), warp, (width, height)) > 0.99
    mask = np.where(shown, mask, 0).astype(np.uint8)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0) > 0
    if inside.sum() < LEAST_SHOWN * max(1, int(whole.sum())):
        return -1.0
    around = (cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 0) & shown
    outline = np.where(whole, product, float(product[inside].mean()) - OUTLINE_STEP).astype(np.float32)
    return max(_correlation(seen[inside], product[inside]), _correlation(_edges(seen)[around], _edges(outline)[around]))


def _correlation(first: Pixels, second: Pixels) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = math.sqrt(float((first * first).sum()) * float((second * second).sum()))
    return float((first * second).sum()) / size if size > 1e-9 else 0.0
