"""The backdrop behind the table: a studio wall, a room, a garden, a beach, darkness.

Painted small and out of focus, as floats that may exceed 1 where a window or a lamp shines. The bottom row is the
table's far edge. `light` is the side the light comes from: -1 left, 1 right.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fal_sandbox.pictures import interior
from fal_sandbox.pictures.arrays import Array, floats, grid, mix, smoothstep
from fal_sandbox.pictures.camera import bokeh, soften
from fal_sandbox.pictures.noise import clouds
from fal_sandbox.pictures.words import Look

WIDTH = 480


def paint(look: Look, height_share: float, light: int, draw: np.random.Generator) -> Array:
    """The backdrop, WIDTH pixels wide and `height_share` of that high."""
    height = max(8, round(WIDTH * height_share))
    canvas = BACKDROPS.get(look.place, _wall)(look, height, draw)
    canvas = _haze(canvas, draw)
    return canvas[:, ::-1] if light > 0 else canvas


def _colour(blue: float, green: float, red: float) -> Array:
    return np.array([blue, green, red], np.float32)


def _grid(height: int) -> tuple[Array, Array]:
    """x from 0 to 1 and y from 0 (top) to 1, for every pixel."""
    y, x = grid(height, WIDTH)
    return x / WIDTH, y / max(height - 1, 1)


def _haze(canvas: Array, draw: np.random.Generator) -> Array:
    """Slow unevenness: no wall and no air is quite even."""
    field = clouds(512, int(draw.integers(4)), 2.4)[: canvas.shape[0], :WIDTH]
    if field.shape[0] < canvas.shape[0]:
        field = cv2.resize(field, (WIDTH, canvas.shape[0]))
    return canvas * (1.0 + 0.02 * field[..., None])


def _wall(look: Look, height: int, draw: np.random.Generator) -> Array:
    """Plaster with the soft, slanted light of a window on it."""
    x, y = _grid(height)
    base = _colour(0.80, 0.835, 0.86) * (0.30 if look.dark else 1.02)
    shade = 1.02 - 0.20 * x - 0.06 * y
    slant = x + 0.55 * (y - 0.5) * height / WIDTH + draw.uniform(-0.06, 0.06)
    beam = np.zeros_like(x)
    for start in (0.12, 0.36, 0.60):
        beam += smoothstep(start - 0.015, start + 0.02, slant) * smoothstep(start + 0.20, start + 0.15, slant)
    beam *= smoothstep(-0.1, 0.25, y + 0.3 * x) * smoothstep(1.3, 0.4, x + 0.2 * y)
    lit = soften(beam.astype(np.float32), 5.0)
    return floats(base * (shade + 0.20 * lit)[..., None] * (1 + lit[..., None] * _colour(-0.04, 0.0, 0.02)))


def _dark(look: Look, height: int, draw: np.random.Generator) -> Array:
    """A dark backdrop with a pool of light behind the product and a little smoke."""
    x, y = _grid(height)
    centre = 0.5 + draw.uniform(-0.08, 0.04)
    aspect = height / WIDTH
    away = np.hypot((x - centre) * 1.15, (y - 0.80) * aspect * 1.35)
    glow = np.exp(-((away / 0.30) ** 2)) * 0.75 + np.exp(-((away / 0.62) ** 2)) * 0.35
    smoke = clouds(512, 70 + int(draw.integers(4)), 2.1)
    smoke = cv2.resize(smoke, (WIDTH, height))
    colour = look.tint if look.strength else _dark_colour(look)
    lit = _colour(*colour) * (0.46 * glow * (1 + 0.16 * smoke))[..., None]
    canvas = lit + _colour(0.028, 0.026, 0.026)
    if look.words & {"gold", "golden", "luxury", "luxurious", "premium", "elegant", "night", "christmas"}:
        canvas = canvas + _lights(height, 16, draw, _colour(0.30, 0.62, 1.0), 0.26)
    return canvas


def _dark_colour(look: Look) -> tuple[float, float, float]:
    return (1.15, 1.0, 0.92) if look.warmth < 0 else (0.62, 0.80, 1.0)


def _lights(height: int, count: int, draw: np.random.Generator, colour: Array, strength: float) -> Array:
    """Small far lights, out of focus: soft discs of different size and strength."""
    canvas = np.zeros((height, WIDTH, 3), np.float32)
    for _ in range(count):
        centre = int(draw.uniform(0, WIDTH)), int(height * draw.beta(1.6, 1.6))
        radius = int(WIDTH * draw.uniform(0.012, 0.034))
        layer = np.zeros((height, WIDTH), np.float32)
        cv2.circle(layer, centre, radius, 1.0, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(layer, centre, radius, 1.25, 1, cv2.LINE_AA)
        hue = colour * draw.uniform(0.85, 1.15, 3).astype(np.float32)
        around = tuple(slice(max(0, middle - radius - 2), middle + radius + 3) for middle in reversed(centre))
        canvas[around] += layer[around][..., None] * hue * draw.uniform(0.25, 1.0) * strength
    return soften(canvas, 1.6)


def _room(look: Look, height: int, draw: np.random.Generator) -> Array:
    """A lived-in room by a window: curtain, plant, shelf or lamp, sofa, all well out of focus."""
    canvas = interior.furnish(look, height, WIDTH, draw)
    canvas = bokeh(canvas, WIDTH * 0.022)
    if look.season == "christmas" or look.words & {"cozy", "cosy", "hygge", "candle"}:
        canvas = canvas + _lights(height, 22, draw, _colour(0.30, 0.66, 1.0), 0.5)
    return canvas


def _outdoor(look: Look, height: int, draw: np.random.Generator) -> Array:
    """Sky, trees in three depths and the light that falls through them."""
    x, y = _grid(height)
    sky = mix(_colour(1.0, 0.93, 0.84), _colour(1.02, 1.02, 1.0), smoothstep(0.0, 0.6, y))
    greens = _leaf_colours(look)
    canvas = mix(sky * 1.05, greens[2] * 1.2, smoothstep(0.30, 0.62, y))
    for depth, (line, size) in enumerate(((0.42, 0.05), (0.34, 0.035), (0.78, 0.022))):
        canvas = _foliage(canvas, greens[depth], line, size, draw, low=depth == 2)
    sun = np.exp(-(((x - 0.14) / 0.26) ** 2 + ((y - 0.10) / 0.42) ** 2))
    canvas = canvas + sun[..., None] * _colour(0.45, 0.72, 0.85)
    canvas = bokeh(canvas.astype(np.float32), WIDTH * 0.02)
    return canvas + _lights(height, 34, draw, _colour(0.55, 0.85, 0.80), 0.30)


def _leaf_colours(look: Look) -> tuple[Array, Array, Array]:
    if look.season == "autumn":
        return _colour(0.36, 0.60, 0.80), _colour(0.16, 0.40, 0.74), _colour(0.10, 0.26, 0.52)
    if look.season == "winter":
        return _colour(0.86, 0.84, 0.80), _colour(0.74, 0.70, 0.66), _colour(0.56, 0.52, 0.48)
    return _colour(0.52, 0.76, 0.66), _colour(0.24, 0.56, 0.42), _colour(0.13, 0.38, 0.25)


def _foliage(canvas: Array, colour: Array, line: float, size: float, draw: np.random.Generator, *, low: bool) -> Array:
    """Leaves in front of what is there: dense away from `line`, torn near it, lit from above."""
    height = canvas.shape[0]
    count = 420
    for _ in range(count):
        fall = draw.beta(1.2, 1.8)
        at = line + (1 - line) * fall if low else line * 0.2 + (1 - line * 0.2) * fall
        if not low and draw.random() < 0.35 and at < line:
            continue
        centre = int(draw.uniform(-0.05, 1.05) * WIDTH), int(at * height)
        axes = int(WIDTH * size * draw.uniform(0.4, 1.0)) + 1, int(WIDTH * size * draw.uniform(0.2, 0.7)) + 1
        bright = draw.uniform(0.55, 1.35) * (1.15 - 0.35 * at)
        leaf = colour * draw.uniform(0.88, 1.12, 3).astype(np.float32) * bright
        angle = draw.uniform(0, 180)
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, [float(c) for c in leaf], cv2.FILLED, cv2.LINE_AA)
    return canvas


def _beach(look: Look, height: int, draw: np.random.Generator) -> Array:
    """Sky, sea and a line of surf, out of focus."""
    x, y = _grid(height)
    sky = mix(_colour(0.98, 0.83, 0.62), _colour(1.0, 0.97, 0.90), smoothstep(0.0, 0.62, y))
    sea = mix(_colour(0.72, 0.62, 0.32), _colour(0.76, 0.78, 0.52), smoothstep(0.64, 0.9, y))
    canvas = mix(sky, sea, smoothstep(0.625, 0.64, y))
    waves = cv2.resize(clouds(512, 80, 1.6, across=1.0, along=0.12), (WIDTH, height))
    canvas = canvas + ((y > 0.64) * waves * 0.02)[..., None]
    shore = 0.90 + 0.012 * np.sin(x * 9 + draw.uniform(0, 6)) + 0.01 * waves
    canvas = mix(canvas, _colour(0.98, 0.99, 0.98), np.exp(-(((y - shore) / 0.022) ** 2)) * 0.85)
    canvas = mix(canvas, _colour(0.62, 0.78, 0.88), smoothstep(0.0, 0.03, y - shore))
    sun = np.exp(-(((x - 0.12) / 0.30) ** 2 + ((y - 0.05) / 0.40) ** 2))
    canvas = canvas + sun[..., None] * _colour(0.30, 0.50, 0.60)
    return bokeh(canvas.astype(np.float32), WIDTH * 0.016)


BACKDROPS: dict[str, Callable[[Look, int, np.random.Generator], Array]] = {
    "wall": _wall,
    "dark": _dark,
    "room": _room,
    "outdoor": _outdoor,
    "beach": _beach,
}
