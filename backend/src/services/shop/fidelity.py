"""Measures whether a product is unchanged in a picture that a model made: a score, a reason, a verdict.

The product is found, both are brought to the same size, and three things are compared inside its outline: structure in
the worst tile (SSIM; its mean misses a garbled label), colour after a blur (ΔE00; per pixel it is unusable), and edges
(F1). What one changed letter would say needs OCR and is not measured. Figures behind the gates: docs/fidelity.md.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypedDict

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from services.shop.picture_file import Pixels
from services.shop.placement import OPAQUE, Placement, located

FidelityVerdict = Literal["pass", "warn", "fail"]


class Gate(NamedTuple):
    """Two limits of one measure: from `fair` on it passes, beyond `bad` it fails, and warns between them."""

    fair: float
    bad: float

    def verdict(self, value: float) -> FidelityVerdict:
        more_is_better = self.fair > self.bad
        if (value >= self.fair) if more_is_better else (value <= self.fair):
            return "pass"
        return "fail" if ((value < self.bad) if more_is_better else (value > self.bad)) else "warn"

    def score(self, value: float, best: float) -> float:
        """1 for the best value, 0.75 at `fair`, 0.5 at `bad`, falling on at the same rate to 0."""
        worst = self.bad + 2 * (self.bad - self.fair)
        known = sorted([(worst, 0.0), (self.bad, 0.5), (self.fair, 0.75), (best, 1.0)])
        return float(np.interp(value, [at for at, _ in known], [score for _, score in known]))


TILE_PX = 32
TILE_GATE = Gate(fair=0.85, bad=0.75)
"""SSIM of the worst tile: a garbled label .40, halved and enlarged again .86, JPEG q80 .93 (measured at 1024 px)."""
COLOUR_GATE = Gate(fair=1.0, bad=2.0)
"""Mean blurred ΔE00: JPEG q80 .54; a warm cast 2.7, hue by 8 degrees 4.2, brightness -10 % 3.9."""
EDGE_GATE = Gate(fair=0.95, bad=0.85)
"""F1 of edges: .92 for a garbled label. Edges alone are noisy on soft products: below `bad` only they fail it."""
STRETCH_GATE = Gate(fair=1.02, bad=1.04)
"""Proportions: one side enlarged more than the other by so much. For a smooth candle 1.3 % is measuring error."""
CUT_GATE = Gate(fair=0.01, bad=0.03)
"""The part of the product outside the picture."""
WORKING_SIDE = 1024
"""Pixels of the product's longer side: what the gates were measured at."""
LEAST_SIDE = 96
"""A product of fewer pixels shows too little to be judged."""
SOFTENED_PX = 1.0
BLUR_PX = 4.0
EDGE_REACH_PX = 2
TILE_COVER = 0.4
"""The part of a tile that must be product for it to count."""


class Fidelity(TypedDict):
    """The product in a picture against its cut-out."""

    verdict: FidelityVerdict
    """Whether the product is still the same."""
    score: float
    """0 to 1; from 0.75 on it passes, below 0.5 it fails."""
    reason: str
    """One sentence: what is worst."""
    worst_tile_ssim: float | None
    """Structural similarity of the worst tile of 32 x 32 pixels; None, as all numbers, when there is no product."""
    worst_tile_box: list[int] | None
    """Left, top, right and bottom of that tile in the cut-out."""
    colour_difference: float | None
    """Mean ΔE00 after a blur."""
    edge_f1: float | None
    """Edges that both have, as F1."""
    stretch: float | None
    """How many times more the product is enlarged one way than the other."""
    cut_off: float | None
    """The part of it that is outside the picture."""
    scale: float | None
    """Its size against the cut-out."""
    not_measured: list[str]
    """What this cannot tell."""


NOT_MEASURED = ["one changed letter (needs OCR)"]


def measured(cutout: Pixels, picture: Pixels, found: Placement | None = None) -> Fidelity:
    """Compare the product of `cutout` (RGBA) with what `picture` (RGB) shows of it; both of 8 bits.

    `found` is where it is, when that is known by now.
    """
    found = found or located(cutout, picture)
    if found is None:
        return _failed("The product was not found in the picture.")
    pair = _aligned(cutout, picture, found)
    if max(pair.inside.shape) < LEAST_SIDE:
        return _failed(f"The product is too small in the picture to be judged: {max(pair.inside.shape)} px.")
    tile, box = _worst_tile(pair)
    colour, edges = _colour_difference(pair), _edge_f1(pair)
    return _judged(found, pair, tile, box, colour, edges)


class _Pair(NamedTuple):
    """Cut-out and picture in the same place and size."""

    product: Pixels
    seen: Pixels
    inside: Pixels
    """Where the product alone is, and inside the picture."""
    cut_off: float
    to_cutout: Pixels
    """3 x 3, from here to pixels of the cut-out."""


def _aligned(cutout: Pixels, picture: Pixels, found: Placement) -> _Pair:
    visible = cutout[..., 3] > 8
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    box = cutout[top : rows[-1] + 1, left : columns[-1] + 1]
    # Neither is enlarged: a comparison of invented pixels would say nothing.
    scale = min(1.0, found.scale, WORKING_SIDE / max(box.shape[:2]))
    size = max(1, round(box.shape[1] * scale)), max(1, round(box.shape[0] * scale))
    small = cv2.resize(box, size, interpolation=cv2.INTER_AREA) if scale < 1 else box
    across, down = size[0] / box.shape[1], size[1] / box.shape[0]
    to_cutout = np.array(
        [[1 / across, 0, left + (1 / across - 1) / 2], [0, 1 / down, top + (1 / down - 1) / 2], [0, 0, 1]]
    )
    from_picture = np.linalg.inv(np.vstack([found.matrix, [0, 0, 1]]) @ to_cutout)[:2]
    shrink = found.scale / scale
    if shrink > 1.5:
        # Warping takes single pixels: what is much larger is smoothed first, as INTER_AREA does.
        picture = cv2.GaussianBlur(picture, (0, 0), 0.35 * shrink)
    seen = cv2.warpAffine(picture, from_picture, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.warpAffine(np.full(picture.shape[:2], 255, np.uint8), from_picture, size, flags=cv2.INTER_LINEAR)
    opaque = small[..., 3] >= OPAQUE
    area = int(opaque.sum())
    cut_off = float((opaque & (shown < 128)).sum()) / area if area else 0.0
    # At the rim, the background shines through and lenses mix: two pixels are left out.
    inside = cv2.erode((opaque & (shown == 255)).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    return _Pair(np.ascontiguousarray(small[..., :3]), seen, inside, cut_off, to_cutout)


def _worst_tile(pair: _Pair) -> tuple[float, list[int] | None]:
    """The lowest mean SSIM of a tile, and where that is; tiles overlap by half."""
    # A little softness, as of a picture made smaller and larger again, is no other product: both are softened.
    # Outside the product both are made the same: a window at its rim would compare backgrounds.
    seen = np.where(pair.inside[..., None], pair.seen, pair.product)
    greys = (cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in (pair.product, seen))
    first, second = (cv2.GaussianBlur(grey, (0, 0), SOFTENED_PX) for grey in greys)
    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        first, second, full=True, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    weight = cv2.boxFilter(pair.inside.astype(np.float32), -1, (TILE_PX, TILE_PX), borderType=cv2.BORDER_CONSTANT)
    total = cv2.boxFilter(
        (similarity * pair.inside).astype(np.float32), -1, (TILE_PX, TILE_PX), borderType=cv2.BORDER_CONSTANT
    )
    step, cover = np.s_[:: TILE_PX // 2, :: TILE_PX // 2], TILE_COVER
    weight, total = weight[step], total[step]
    if not (weight >= cover).any():
        cover = float(weight.max())
    if cover <= 0:
        return 0.0, None
    mean = np.where(weight >= cover, total / np.maximum(weight, 1e-6), 2.0)
    row, column = np.unravel_index(int(np.argmin(mean)), mean.shape)
    y, x = int(row) * TILE_PX // 2, int(column) * TILE_PX // 2
    half = TILE_PX // 2
    corners = pair.to_cutout @ np.array([[x - half, y - half, 1], [x + half, y + half, 1.0]]).T
    return float(mean.min()), [round(float(value)) for value in (*corners[:2, 0], *corners[:2, 1])]


def _colour_difference(pair: _Pair) -> float:
    """Mean ΔE00 of both after a blur that stays inside the product."""
    weight = cv2.GaussianBlur(pair.inside.astype(np.float32), (0, 0), BLUR_PX)[..., None]
    every = max(1, int(BLUR_PX) // 2)
    kept = pair.inside[::every, ::every]
    labs = []
    for pixels in (pair.product, pair.seen):
        masked = np.where(pair.inside[..., None], pixels, 0).astype(np.float32)
        blurred = cv2.GaussianBlur(masked, (0, 0), BLUR_PX) / np.maximum(weight, 1e-3)
        labs.append(rgb2lab(np.clip(blurred[::every, ::every][kept] / 255, 0, 1)))
    if not kept.any():
        return 0.0
    return float(deltaE_ciede2000(*labs).mean())  # type: ignore[no-untyped-call]


def _edge_f1(pair: _Pair) -> float:
    """Edges of either that the other has within two pixels, as F1; 1 when neither has any."""
    inside = cv2.erode(pair.inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    reach = np.ones((2 * EDGE_REACH_PX + 1,) * 2, np.uint8)
    first, second = (_strong_edges(one) & inside for one in (pair.product, pair.seen))
    if first.sum() + second.sum() < TILE_PX:
        return 1.0
    # An edge just above the threshold in one may be just below it in the other: weak edges answer strong ones.
    near_first, near_second = (
        cv2.dilate((_strong_edges(one, 0.5) & inside).astype(np.uint8), reach) > 0 for one in (pair.product, pair.seen)
    )
    recall = float((first & near_second).sum()) / max(1, int(first.sum()))
    precision = float((second & near_first).sum()) / max(1, int(second.sum()))
    return 2 * precision * recall / max(1e-9, precision + recall)


def _strong_edges(rgb: Pixels, part: float = 1.0) -> Pixels:
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    return cv2.Canny(grey, 50 * part, 120 * part, L2gradient=True) > 0


def _judged(found: Placement, pair: _Pair, tile: float, box: list[int] | None, colour: float, edges: float) -> Fidelity:
    rows = (
        (STRETCH_GATE, found.stretch, 1.0, f"Its proportions are off by {found.stretch - 1:.1%}."),
        (CUT_GATE, pair.cut_off, 0.0, f"{pair.cut_off:.0%} of the product is outside the picture."),
        (TILE_GATE, tile, 1.0, f"Part of the product is drawn differently (SSIM {tile:.2f} in the worst tile)."),
        (COLOUR_GATE, colour, 0.0, f"Its colours are off by {colour:.1f} ΔE00."),
        (EDGE_GATE, edges, 1.0, f"Its edges agree by {edges:.2f} (F1)."),
    )
    scores = [gate.score(value, best) for gate, value, best, _ in rows]
    worst = int(np.argmin(scores))
    verdicts = {gate.verdict(value) for gate, value, _, _ in rows}
    verdict: FidelityVerdict = "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"
    return {
        "verdict": verdict,
        "score": round(scores[worst], 3),
        "reason": "The product is the same." if verdict == "pass" else rows[worst][3],
        "worst_tile_ssim": round(tile, 4),
        "worst_tile_box": box,
        "colour_difference": round(colour, 3),
        "edge_f1": round(edges, 4),
        "stretch": round(found.stretch, 4),
        "cut_off": round(pair.cut_off, 4),
        "scale": round(found.scale, 4),
        "not_measured": NOT_MEASURED,
    }


def _failed(reason: str) -> Fidelity:
    return {
        "verdict": "fail",
        "score": 0.0,
        "reason": reason,
        "worst_tile_ssim": None,
        "worst_tile_box": None,
        "colour_difference": None,
        "edge_f1": None,
        "stretch": None,
        "cut_off": None,
        "scale": None,
        "not_measured": NOT_MEASURED,
    }
