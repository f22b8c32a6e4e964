"""Separates a product from its plain background, and measures both: how white, how full.

Compression blurs the border between them: at JPEG quality 75 to 95 every background pixel that is not exactly 255
lies within 17 px of the product with 4:2:0 subsampling, and within 7 px with 4:4:4. So exact white is asked of the
frame's outermost pixels and of the background further away than that.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from services.shop.picture_file import Pixels

CORE = 235
"""A pixel with a channel below is part of something, not of a white background."""
PALE = 245
"""From here to 254 in every channel a pixel may be shadow, halo, or a white product."""
SOFT = 250
"""A product's box begins where a channel is below: compression leaves 251 to 254 around it."""


class Fill(NamedTuple):
    """How much of the frame a product takes, measured in three ways."""

    side: float
    """Its longer part of a side: the larger of box width / width and box height / height."""
    box: float
    mask: float
    box_width: int
    box_height: int


class Backdrop(NamedTuple):
    """A plain background, measured."""

    border_white_share: float
    """The part of the frame's outermost pixels that is exactly white."""
    white_share: float
    """The part of all pixels that is exactly white and connected to the frame."""
    impure_pixels: int
    """Pixels that are not white, with nothing near them that could be the product."""
    pale_share: float
    """Of the product's pixels, the part that is almost white and further from its core than compression reaches."""
    fill: Fill | None
    """None when no product can be told from the background."""


def measured_backdrop(pixels: Pixels, ripple_px: int) -> Backdrop:
    """Measure RGB `pixels`; compression may have changed the background within `ripple_px` of the product."""
    darkest = pixels.min(axis=2)
    white = darkest == 255
    background = _connected_to_frame(white)
    border = _border(white)
    product, impure = _things(darkest, ~background, ripple_px)
    core = darkest < CORE
    far = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3) > ripple_px + 1 if core.any() else ~core
    pale = product & far & (darkest >= PALE) & (darkest < 255)
    area = int(product.sum())
    return Backdrop(
        border_white_share=float(border.mean()),
        white_share=float(background.mean()),
        impure_pixels=int(impure.sum()),
        pale_share=float(pale.sum()) / area if area else 0.0,
        fill=_fill(product & (darkest < SOFT)) if background.any() else None,
    )


def _connected_to_frame(mask: Pixels) -> Pixels:
    """The parts of `mask` that touch the frame."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return _labelled(labels, _border(labels))


def _labelled(labels: Pixels, chosen: Pixels) -> Pixels:
    """Where `labels` is one of `chosen`, which may repeat itself; 0 is no label."""
    wanted = np.zeros(int(labels.max()) + 1, bool)
    wanted[chosen] = True
    wanted[0] = False
    return wanted[labels]


def _border(values: Pixels) -> Pixels:
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _things(darkest: Pixels, rest: Pixels, ripple_px: int) -> tuple[Pixels, Pixels]:
    """What is not background: the product, which has a core, and what has none within reach of compression."""
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * ripple_px + 1, 2 * ripple_px + 1))
    joined = cv2.dilate(rest.astype(np.uint8), reach) if ripple_px else rest.astype(np.uint8)
    _, labels = cv2.connectedComponents(joined, connectivity=8)
    product = rest & _labelled(labels, labels[rest & (darkest < CORE)])
    return product, rest & ~product


def _fill(mask: Pixels) -> Fill | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    box_height, box_width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    return Fill(
        side=max(box_width / width, box_height / height),
        box=box_width * box_height / (width * height),
        mask=float(mask.mean()),
        box_width=box_width,
        box_height=box_height,
    )
