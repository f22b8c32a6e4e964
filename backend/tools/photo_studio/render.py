"""A photograph of solid parts on a table: rays are followed to the nearest surface, then lit as in a studio.

One large soft lamp on the left, a strip lamp on the right, a bright ceiling. The table is the plane at height 0; its
own colour is the caller's, this module gives how much light reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, smoothstep
from photo_studio.solids import Part

STEPS = 40
FOCAL = 2.6
LAMP = np.array([-0.62, 0.72, 0.42], np.float32) / np.float32(np.linalg.norm([-0.62, 0.72, 0.42]))


@dataclass(frozen=True)
class Shot:
    """The rendered layers: the product's colours and alpha, and how much light the table gets."""

    colours: Array
    alpha: Array
    table_light: Array


def photograph(parts: Sequence[Part], side: int, *, pitch: float, height: float, width: float) -> Shot:
    """A square picture of parts `height` tall and `width` wide together, seen from `pitch` radians above."""
    eye, rays = _rays(side, pitch, height, width)
    distance, cover = _march(parts, eye, rays, pixel=1.0 / (FOCAL * side))
    seen = cover > 0
    colours = np.zeros((side * side, 3), np.float32)
    colours[seen] = _shade(parts, eye + rays[seen] * distance[seen, None], rays[seen])
    shape = (side, side)
    return Shot(colours.reshape(*shape, 3), cover.reshape(shape), _table_light(parts, side, pitch, height, width))


def _table_light(parts: Sequence[Part], side: int, pitch: float, height: float, width: float) -> Array:
    """Shadows on a table are soft: a coarse grid is enough."""
    coarse = max(64, side // 4)
    eye, rays = _rays(coarse, pitch, height, width)
    light = np.ones(coarse * coarse, np.float32)
    down = rays[:, 1] < -1e-3
    light[down] = _floor_light(parts, eye + rays[down] * (-eye[1] / rays[down, 1])[:, None])
    return cv2.resize(light.reshape(coarse, coarse), (side, side), interpolation=cv2.INTER_CUBIC)


def _rays(side: int, pitch: float, height: float, width: float) -> tuple[Array, Array]:
    """The camera's place and a direction for every pixel; the middle of the product is in the middle."""
    away = max(height, width) * FOCAL * 1.5 + 0.3
    forward = np.array([0, -np.sin(pitch), -np.cos(pitch)], np.float32)
    upward = np.array([0, np.cos(pitch), -np.sin(pitch)], np.float32)
    eye = np.array([0, height * 0.48, 0], np.float32) - forward * np.float32(away)
    y, x = (np.mgrid[0:side, 0:side].astype(np.float32) + 0.5) / side - 0.5
    rays = forward * np.float32(FOCAL) + x[..., None] * np.array([1, 0, 0], np.float32) - y[..., None] * upward
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return eye, rays.reshape(-1, 3).astype(np.float32)


def _nearest(parts: Sequence[Part], points: Array) -> Array:
    result = parts[0].field(points)
    for part in parts[1:]:
        result = np.minimum(result, part.field(points))
    return result


def _march(parts: Sequence[Part], eye: Array, rays: Array, *, pixel: float) -> tuple[Array, Array]:
    """How far along each ray the surface is, and the share of the pixel that it covers.

    A ray that only just misses counts as a partly covered pixel, which makes smooth edges without more rays.
    """
    far = float(np.linalg.norm(eye))
    travelled = np.full(len(rays), max(far - 2.2, 0.1), np.float32)
    closest = np.full(len(rays), np.inf, np.float32)
    where = travelled.copy()
    alive = np.arange(len(rays))
    for _ in range(STEPS):
        gap = _nearest(parts, eye + rays[alive] * travelled[alive, None])
        width = travelled[alive] * np.float32(pixel)
        closer = gap / width < closest[alive]
        closest[alive[closer]] = (gap / width)[closer]
        where[alive[closer]] = travelled[alive[closer]]
        travelled[alive] += gap
        alive = alive[(gap > 0.15 * width) & (travelled[alive] < far + 2.0)]
        if not len(alive):
            break
    return where, np.clip(1.15 - closest, 0, 1)


def _normals(parts: Sequence[Part], points: Array) -> Array:
    normals = np.zeros_like(points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        step = np.array(corner, np.float32)
        normals += step * _nearest(parts, points + step * np.float32(0.003))[:, None]
    return floats(normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6))


def _shade(parts: Sequence[Part], points: Array, rays: Array) -> Array:
    normals = _normals(parts, points)
    owner = np.stack([part.field(points) for part in parts]).argmin(axis=0)
    colour = _painted(parts, owner, points)
    gloss = np.array([part.gloss for part in parts], np.float32)[owner]
    metal = np.array([part.metal for part in parts], bool)[owner]
    open_sky = _openness(parts, points, normals)
    lamp = np.clip(normals @ LAMP * 0.75 + 0.25, 0, 1)
    lit = np.flatnonzero(lamp > 0.02)
    lamp[lit] *= _reaches(parts, points[lit] + normals[lit] * np.float32(0.01))
    ambient = (0.62 + 0.38 * normals[:, 1]) * 0.5
    diffuse = colour * (0.78 * lamp + ambient * open_sky + 0.06)[:, None]
    facing = np.clip(-(normals * rays).sum(axis=-1), 0, 1)
    mirrored = _studio(rays - 2 * (normals * rays).sum(axis=-1, keepdims=True) * normals, gloss)
    share = np.where(metal, 0.75, (0.055 + 0.7 * (1 - facing) ** 5) * gloss)
    seen = np.where(metal[:, None], colour, 1.0) * (mirrored * (0.4 + 0.6 * open_sky))[:, None]
    return floats(diffuse * (1 - share)[:, None] + seen * share[:, None] * 1.15)


def _painted(parts: Sequence[Part], owner: Array, points: Array) -> Array:
    colour = np.array([part.colour for part in parts], np.float32)[owner]
    for index, part in enumerate(parts):
        for stripe in part.stripes:
            away = np.abs(points @ np.array(stripe.across, np.float32) - stripe.at)
            share = (1 - smoothstep(stripe.half - 0.002, stripe.half + 0.002, away)) * (owner == index)
            colour += (np.array(stripe.colour, np.float32) - colour) * share[:, None]
    return colour


def _studio(directions: Array, gloss: Array) -> Array:
    """What a mirror would see: lamps with soft edges, softer the less glossy the mirror is."""
    x, y, z = directions.T
    soft = 0.04 + 0.4 * (1 - gloss)
    window = smoothstep(0, 1, (0.34 - np.abs(x + 0.62)) / soft + 0.5)
    window = window * smoothstep(0, 1, (0.42 - np.abs(y - 0.42)) / soft + 0.5) * (z > -0.4)
    strip = smoothstep(0, 1, (0.07 - np.abs(x - 0.80)) / soft + 0.5)
    strip = strip * smoothstep(0, 1, (0.55 - np.abs(y - 0.3)) / soft + 0.5)
    ceiling = smoothstep(0.55, 1.0, y) * 0.7
    return floats(0.16 + 0.22 * (y + 1) * 0.5 + 3.4 * window + 0.9 * strip + ceiling)


def _openness(parts: Sequence[Part], points: Array, normals: Array) -> Array:
    """1 in the open, less in corners and close to the table."""
    closed = np.zeros(len(points), np.float32)
    for step in (0.03, 0.09, 0.2):
        probe = points + normals * np.float32(step)
        gap = np.minimum(_nearest(parts, probe), probe[:, 1])
        closed += np.clip(step - gap, 0, None) / step * 0.33
    return np.clip(1 - closed, 0.1, 1)


def _reaches(parts: Sequence[Part], points: Array, soft: float = 5.0) -> Array:
    """How much of the big lamp is seen from each point: 1 all of it, 0 nothing."""
    seen = np.ones(len(points), np.float32)
    travelled = np.full(len(points), 0.03, np.float32)
    alive = np.arange(len(points))
    for _ in range(14):
        gap = _nearest(parts, points[alive] + LAMP * travelled[alive, None])
        seen[alive] = np.minimum(seen[alive], np.clip(0.5 + 0.5 * soft * gap / travelled[alive], 0, 1))
        travelled[alive] += np.clip(gap, 0.04, 0.3)
        alive = alive[(seen[alive] > 0.01) & (travelled[alive] < 1.8)]
        if not len(alive):
            break
    return seen * seen * (3 - 2 * seen)


def _floor_light(parts: Sequence[Part], floor: Array) -> Array:
    """Light on the table: the lamp's soft shadow, and the darkness right under the product."""
    light = np.ones(len(floor), np.float32)
    close = np.flatnonzero(np.hypot(floor[:, 0], floor[:, 2]) < 3.5)
    points = floor[close]
    gap = np.clip(_nearest(parts, points + floats([0, 0.01, 0])), 0, None)
    contact = 1 - 0.55 * np.exp(-gap / 0.05) - 0.22 * np.exp(-gap / 0.25)
    light[close] = (0.45 + 0.55 * _reaches(parts, points, soft=2.4)) * contact
    return light


def expose(shot: Shot, ground: Array) -> Array:
    """The linear light of the product over a ground of floats of the same size."""
    lit = ground * shot.table_light[..., None]
    return floats(lit + (shot.colours - lit) * shot.alpha[..., None])
