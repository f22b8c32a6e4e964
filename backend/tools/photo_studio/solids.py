"""Solid shapes as distance fields: each says for many points at once how far away its surface is.

Points are arrays (n, 3): right, up, towards the camera. Distances are negative inside. `props.py` builds products
from these, `render.py` photographs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fal_sandbox.pictures.arrays import Array, floats
from fal_sandbox.pictures.words import Colour

Field = Callable[[Array], Array]
Vector = tuple[float, float, float]
SAMPLES, NEARBY = 1600, 80
"""Of a turned outline: how many there are, and how many around a point count as its neighbours."""


@dataclass(frozen=True)
class Stripe:
    """Paint on a part: everything within `half` of the plane `across · point = at`."""

    across: Vector
    at: float
    half: float
    colour: Colour


@dataclass(frozen=True)
class Part:
    """A shape and what it is made of."""

    field: Field
    colour: Colour
    gloss: float = 0.3
    """0 is cloth, 1 is polished metal or glazed ceramic."""
    metal: bool = False
    stripes: tuple[Stripe, ...] = ()


def ellipsoid(centre: Vector, radii: Vector) -> Field:
    middle, size = np.array(centre, np.float32), np.array(radii, np.float32)

    def field(points: Array) -> Array:
        away = (points - middle) / size
        length = np.linalg.norm(away, axis=-1)
        return floats(length * (length - 1) / np.maximum(np.linalg.norm(away / size, axis=-1), 1e-4))

    return field


def box(centre: Vector, half: Vector, rounding: float) -> Field:
    middle, size = np.array(centre, np.float32), np.array(half, np.float32) - rounding

    def field(points: Array) -> Array:
        away = np.abs(points - middle) - size
        outside = np.linalg.norm(np.maximum(away, 0), axis=-1)
        return floats(outside + np.minimum(away.max(axis=-1), 0) - rounding)

    return field


def ring(centre: Vector, radius: float, thick: float, *, axis: int, squash: float = 1.0) -> Field:
    """A torus around an axis (0 right, 1 up, 2 to the camera), stretched along it by `squash`."""
    middle = np.array(centre, np.float32)
    plane = [index for index in range(3) if index != axis]

    def field(points: Array) -> Array:
        away = points - middle
        out = np.hypot(away[:, plane[0]], away[:, plane[1]]) - radius
        return floats((np.hypot(out, away[:, axis] / squash) - thick) * min(1.0, squash))

    return field


def rod(start: Vector, end: Vector, thick: float) -> Field:
    first, along = np.array(start, np.float32), np.array(end, np.float32) - np.array(start, np.float32)

    def field(points: Array) -> Array:
        away = points - first
        share = np.clip(away @ along / float(along @ along), 0, 1)
        return floats(np.linalg.norm(away - share[:, None] * along, axis=-1) - thick)

    return field


def turned(profile: Sequence[tuple[float, float]], smooth: float = 0.02, rounding: float = 0.015) -> Field:
    """A solid turned on a lathe: the outline from bottom to top as (radius, height), its corners eased."""
    low, high = profile[0][1], profile[-1][1]
    grid = np.linspace(low, high, SAMPLES)
    outline = np.interp(grid, [height for _, height in profile], [radius for radius, _ in profile])
    ease = max(1, round(smooth / (high - low) * SAMPLES))
    window = np.hanning(2 * ease + 1)
    radii = np.convolve(np.pad(outline, ease, mode="edge"), window / window.sum(), mode="valid") - rounding
    slope = np.abs(np.gradient(radii, grid))
    steepest = np.array([slope[max(0, i - NEARBY) : i + NEARBY].max() for i in range(SAMPLES)])
    near = (1 / np.sqrt(1 + steepest**2)).astype(np.float32)
    far = near.min()
    radii = radii.astype(np.float32)
    middle, half = np.float32((low + high) / 2), np.float32((high - low) / 2 - rounding)

    def field(points: Array) -> Array:
        at = np.clip((points[:, 1] - low) * ((SAMPLES - 1) / (high - low)), 0, SAMPLES - 1.01)
        index = at.astype(np.int32)
        share = (at - index).astype(np.float32)
        radius = radii[index] * (1 - share) + radii[index + 1] * share
        out = np.hypot(points[:, 0], points[:, 2]) - radius
        out = out * np.where(np.abs(out) < 0.05, near[index], far)  # no step may jump over a bulge
        beyond = np.abs(points[:, 1] - middle) - half
        corner = np.hypot(np.maximum(out, 0), np.maximum(beyond, 0))
        return floats(corner + np.minimum(np.maximum(out, beyond), 0) - rounding)

    return field


def hollow(outer: Field, inner: Field) -> Field:
    return lambda points: np.maximum(outer(points), -inner(points))


def blend(fields: Sequence[Field], soft: float) -> Field:
    """Shapes that flow into each other."""

    def field(points: Array) -> Array:
        result = fields[0](points)
        for other in fields[1:]:
            distance = other(points)
            share = np.clip(0.5 + 0.5 * (distance - result) / soft, 0, 1)
            result = distance + (result - distance) * share - soft * share * (1 - share)
        return result

    return field


def moved(field: Field, by: Vector, turn: float = 0.0) -> Field:
    """The shape elsewhere, turned about the vertical by `turn` radians."""
    offset, cosine, sine = np.array(by, np.float32), np.float32(np.cos(turn)), np.float32(np.sin(turn))

    def shifted(points: Array) -> Array:
        away = points - offset
        x = away[:, 0] * cosine - away[:, 2] * sine
        z = away[:, 0] * sine + away[:, 2] * cosine
        return field(np.stack([x, away[:, 1], z], axis=-1))

    return shifted
