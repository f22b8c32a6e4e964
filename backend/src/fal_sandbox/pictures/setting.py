"""The scene without the product: a backdrop, a table in front of it, and the light on both."""

from __future__ import annotations

import cv2
import numpy as np

from fal_sandbox.pictures import backdrops, camera, surfaces
from fal_sandbox.pictures.arrays import Array, floats, grid, mix, smoothstep
from fal_sandbox.pictures.camera import Stage
from fal_sandbox.pictures.noise import clouds
from fal_sandbox.pictures.words import Look

TILE_SIZES = {"marble": 2.6, "wood": 2.0, "stone": 2.4, "plaster": 2.4, "cloth": 1.3, "sand": 2.0, "gloss": 3.0}
"""A material tile's side, in product widths."""
SHINE = {"marble": 0.32, "wood": 0.13, "stone": 0.05, "gloss": 0.55, "sweep": 0.06}
"""How much of a mirror the surface is."""
BACKDROP_SHARE = 0.75
"""The backdrop's height, in frame widths."""


def paint(stage: Stage, look: Look, side: int, draw: np.random.Generator) -> Array:
    """The scene as floats; `side` is where the light comes from (-1 left, 1 right)."""
    if look.place == "sweep":
        return _tinted(_sweep(stage, side, draw), look)
    line = max(0, round(stage.edge * stage.height))
    backdrop = backdrops.paint(look, BACKDROP_SHARE, side, draw)
    rows = max(round(BACKDROP_SHARE * stage.width), line, 2)
    backdrop = cv2.resize(backdrop, (stage.width, rows), interpolation=cv2.INTER_CUBIC)
    table = _lit(stage, _table(stage, look, draw), look, side, line, draw)
    table = _sheen(stage, table, backdrop, look, line)
    behind = np.repeat(backdrop[-1:], stage.height, axis=0)
    # Seen from above the table's edge is high in the frame; what stands just over the floor says little of the place.
    last = len(backdrop) - round((len(backdrop) - line) * 0.35 * np.sin(stage.pitch))
    behind[:line] = backdrop[last - line : last]
    y = np.arange(stage.height, dtype=np.float32)[:, None]
    soft = 0.007 * stage.side
    share = np.repeat(smoothstep(line - soft, line + soft, y), stage.width, axis=1)
    return _tinted(mix(behind, table, share), look)


def _sweep(stage: Stage, side: int, draw: np.random.Generator) -> Array:
    """Seamless paper: a bright floor, a soft bend, a wall that is lighter where the lamp stands."""
    y, x = grid(stage.height, stage.width)
    x, y = x / stage.width - 0.5, y / stage.height
    lamp = 0.30 * side + draw.uniform(-0.06, 0.06)
    wall = 0.955 + 0.085 * np.exp(-(((x - lamp) / 0.5) ** 2 + ((y - 0.25) / 0.5) ** 2)) - 0.04 * (1 - y)
    pool = np.exp(-(((x - lamp * 0.3) / 0.55) ** 2 + ((y - stage.base) / 0.34) ** 2))
    bend = smoothstep(stage.edge - 0.12, stage.edge + 0.18, y)
    level = wall * (1 - bend) + (0.965 + 0.075 * pool) * bend
    level -= 0.025 * np.exp(-(((y - stage.edge - 0.02) / 0.08) ** 2))
    haze = clouds(512, int(draw.integers(4)), 2.3)
    level += 0.004 * cv2.resize(haze, (stage.width, stage.height))
    return np.repeat(level[..., None], 3, axis=2).astype(np.float32)


def _table(stage: Stage, look: Look, draw: np.random.Generator) -> Array:
    """The bare table top, sharp where the product stands."""
    material = "plaster" if look.surface == "sweep" else look.surface
    grained = material in ("wood", "cloth")
    turn = draw.uniform(-0.45, 0.45) if grained else draw.uniform(0, 2 * np.pi)
    shift = draw.uniform(0, surfaces.SIZE), draw.uniform(0, surfaces.SIZE)
    tile = surfaces.tile(material, look.tone)
    return camera.focus(stage, camera.lay(stage, tile, TILE_SIZES[material], turn, shift), 0.030)


def _lit(stage: Stage, table: Array, look: Look, side: int, line: int, draw: np.random.Generator) -> Array:
    """The table in the scene's light: brighter on the lit side, a pool of light in the dark, sun between leaves."""
    y, x = grid(stage.height, stage.width)
    x = (x / stage.width - 0.5) * side
    away = (y / stage.height - stage.base) / 0.6
    if look.dark:
        level = 0.34 + 2.3 * np.exp(-(((x - 0.06) / 0.40) ** 2 + ((away + 0.12) / 0.62) ** 2))
        return floats(table * level[..., None])
    level = (0.90 if look.surface == "marble" else 0.97) + 0.24 * x - 0.10 * np.abs(away)
    pattern = {"outdoor": "leaves", "room": "panes", "wall": "panes"}.get(look.place)
    if pattern:
        shift = draw.uniform(0, surfaces.SIZE), draw.uniform(0, surfaces.SIZE)
        cast = camera.lay(stage, surfaces.pattern(pattern), 2.8, 0.5 * side, shift)
        depth = 0.62 if pattern == "leaves" else 0.22
        sun = camera.soften(cast, 0.004 * stage.side)[..., None]
        warm = np.array([0.88, 0.98, 1.06], np.float32)
        return floats(table * level[..., None] * (1 - depth * 0.5 + depth * sun * warm))
    return floats(table * level[..., None])


def _sheen(stage: Stage, table: Array, backdrop: Array, look: Look, line: int) -> Array:
    """The backdrop mirrored in the table, blurred; stronger far away, where the table is seen at a flat angle."""
    frame = np.zeros((stage.height, stage.width, 3), np.float32)
    rows = np.minimum(np.arange(stage.height - line), len(backdrop) - 1)
    frame[line:] = backdrop[::-1][rows]
    mirrored = camera.soften(frame, stage.side * 0.03)
    y = np.arange(stage.height, dtype=np.float32)[:, None, None]
    far = np.clip(1 - (y - line) / max(stage.height - line, 1), 0, 1)
    share = SHINE.get(look.surface, 0.05) * (0.25 + 0.75 * far**2) * (1.0 - 0.7 * np.sin(stage.pitch))
    return floats(table * (1 - 0.5 * share) + mirrored * share)


def _tinted(picture: Array, look: Look) -> Array:
    """The colour and warmth the words ask for."""
    tint = np.array(look.tint, np.float32)
    if look.strength and look.place == "sweep":
        picture = picture * (1 + (tint / 0.95 - 1) * look.strength)
    elif look.strength:
        picture = picture * (1 + (tint / tint.mean() - 1) * 0.35 * look.strength)
    return floats(picture * (1 + floats([-0.08, 0.0, 0.055]) * look.warmth))
