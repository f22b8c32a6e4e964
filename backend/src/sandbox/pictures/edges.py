"""The edge of a cut-out: soft over a pixel or two, and free of the old background's colour.

A pixel on the edge of a product shows both product and background. Its colour is replaced by the colour that the
product has just inside, and its alpha says how much of it is seen.
"""

from __future__ import annotations

import cv2
import numpy as np

from sandbox.pictures.codec import Array


def soften(mask: Array, width: int, height: int) -> Array:
    """The mask as alpha (0 to 255) at full size, feathered and drawn in a little."""
    scale = max(width / mask.shape[1], height / mask.shape[0])
    smooth = cv2.resize(mask, (width, height), interpolation=cv2.INTER_CUBIC)
    sigma = 0.8 * max(1.0, min(scale, 8.0))
    smooth = cv2.GaussianBlur(smooth, (0, 0), sigma)
    # 0.5 is the mask's own edge; starting above it leaves the mixed pixels of the old background outside.
    steep = max(1.0, sigma / 0.9)
    alpha = (smooth.astype(np.float32) / 255.0 - 0.62) * steep / 0.6 + 0.5
    return np.clip(alpha * 255.0 + 0.5, 0, 255).astype(np.uint8)


def decontaminate(picture: Array, alpha: Array) -> Array:
    """BGR with the colours of the edge, and just outside it, taken from inside the product."""
    reach = max(2, round(max(alpha.shape) / 350))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    solid = np.where(alpha > 250, 255, 0).astype(np.uint8)
    inner = cv2.erode(solid, kernel, borderType=cv2.BORDER_REPLICATE)
    if not inner.any():
        return picture
    spread = _spread(picture, inner, reach)
    keep = cv2.GaussianBlur(inner, (0, 0), 0.8).astype(np.float32)[..., None] / 255.0
    keep = np.where(inner[..., None] > 0, np.maximum(keep, 0.5) * 2 - 1, 0.0)
    return (picture * keep + spread * (1 - keep) + 0.5).astype(np.uint8)


def _spread(picture: Array, inner: Array, reach: int) -> Array:
    """The colours of `inner` carried outwards, near ones first."""
    weight = np.where(inner > 0, 1.0, 0.0).astype(np.float32)
    colours = picture.astype(np.float32) * weight[..., None]
    total = np.zeros_like(colours)
    amount = np.full(weight.shape, 1e-6, np.float32)
    for sigma, share in ((reach * 0.8, 1.0), (reach * 2.5, 1e-3)):
        total += cv2.GaussianBlur(colours, (0, 0), sigma) * share
        amount += cv2.GaussianBlur(weight, (0, 0), sigma) * share
    return total / amount[..., None]
