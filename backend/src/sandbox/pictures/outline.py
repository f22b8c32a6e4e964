"""Outlines of made things: plates, cups, bowls and bottles end in long, clean arcs.

A segmentation follows the grain of a table a little here and there. Where most of a mask's outline lies on one
ellipse, that ellipse is the truth and the outline is put on it; handles, spoons and corners, which leave the
ellipse for good, stay as they are.
"""

from __future__ import annotations

import cv2
import numpy as np

from sandbox.pictures.arrays import Array

TRIES = 300
POINTS = 360
TOLERANCE = 0.013
"""How far, as a share of the ellipse's radius, an outline strays and is still taken for the ellipse."""
SUPPORT = 0.5
"""The share of the outline that must lie on the ellipse."""
GAP_BINS = 14

Ellipse = tuple[float, float, float, float, float]
"""Centre x and y, half axes, angle in degrees."""


def straighten(mask: Array) -> Array:
    """The mask with its outline put on the ellipse that explains most of it, if there is one."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return mask
    outline = max(contours, key=len).reshape(-1, 2).astype(np.float32)
    ellipse = _best_ellipse(outline) if len(outline) > 60 else None
    return mask if ellipse is None else _put_on(mask, outline, ellipse)


def _best_ellipse(outline: Array) -> Ellipse | None:
    """RANSAC: the ellipse through six points that most other points agree with, then fitted to all of those."""
    points = outline[:: max(1, len(outline) // POINTS)]
    draw = np.random.default_rng(0)
    best, most = None, 0
    for _ in range(TRIES):
        ellipse = _fit(points[draw.choice(len(points), 6, replace=False)])
        agreeing = 0 if ellipse is None else int(np.count_nonzero(_stray(points, ellipse) < TOLERANCE))
        if agreeing > most:
            best, most = ellipse, agreeing
    for _ in range(3):
        if best is None or most < SUPPORT * len(points):
            return None
        agreed = outline[_stray(outline, best) < TOLERANCE]
        best = _fit(agreed) if len(agreed) >= 6 else None
    return best


def _fit(points: Array) -> Ellipse | None:
    (x, y), (first, second), angle = cv2.fitEllipseDirect(points)
    smallest, largest = sorted((first / 2, second / 2))
    extent = float(np.ptp(points, axis=0).max())
    if not (smallest > 5 and largest < 4 * extent and smallest > 0.2 * largest):
        return None
    return x, y, first / 2, second / 2, angle


def _polar(points: Array, ellipse: Ellipse) -> tuple[Array, Array]:
    """Radius (1 on the ellipse) and the angle along it, for points of any shape (…, 2)."""
    x, y, across, down, degrees = ellipse
    turn = np.deg2rad(degrees)
    dx, dy = points[..., 0] - x, points[..., 1] - y
    u = (dx * np.cos(turn) + dy * np.sin(turn)) / across
    v = (dy * np.cos(turn) - dx * np.sin(turn)) / down
    return np.hypot(u, v), np.arctan2(v, u)


def _stray(points: Array, ellipse: Ellipse) -> Array:
    return np.abs(_polar(points, ellipse)[0] - 1.0)


def _bins(angles: Array) -> Array:
    return ((angles / (2 * np.pi) + 0.5) * POINTS).astype(int) % POINTS


def _put_on(mask: Array, outline: Array, ellipse: Ellipse) -> Array:
    """The ellipse decides where the outline follows it, and across short gaps unless something sticks out there."""
    radius, angles = _polar(outline, ellipse)
    supported = np.zeros(POINTS, np.uint8)
    supported[_bins(angles[np.abs(radius - 1) < TOLERANCE])] = 1
    outermost = np.zeros(POINTS, np.float32)
    np.maximum.at(outermost, _bins(angles), radius)
    round_about = np.concatenate([supported] * 3)[None]
    kernel = np.ones((1, GAP_BINS), np.uint8)
    bridged = cv2.morphologyEx(round_about, cv2.MORPH_CLOSE, kernel)[0, POINTS : 2 * POINTS] > 0
    height, width = mask.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    radius, angles = _polar(grid, ellipse)
    where = _bins(angles)
    inside = radius <= 1.005  # GrabCut tends to lose the rim, which catches the light
    near = (radius > 0.85) & (radius < 1 + 4 * TOLERANCE)
    decided = (bridged & (outermost < 1 + 4 * TOLERANCE))[where] & near
    added = bridged[where] & near & inside
    return np.where(np.where(decided, inside, mask > 0) | added, 255, 0).astype(np.uint8)
