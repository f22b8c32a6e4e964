"""A new background for a product: `words.py` reads the prompt, this module puts the picture together.

The order is a photographer's: camera, backdrop, table, light; then the product with its shadow and reflection; then
the finish (vignette, tone, grain) over everything, which is what makes it one photograph.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from sandbox.pictures import backdrops, camera, codec, light, surfaces
from sandbox.pictures.camera import Stage
from sandbox.pictures.codec import Array
from sandbox.pictures.cutout import cut_pixels
from sandbox.pictures.light import Foot
from sandbox.pictures.noise import clouds, mix, smoothstep
from sandbox.pictures.words import Look, read

SMALLEST_SIDE, LARGEST_SIDE = 512, 1024
FILL = 0.64
"""The product's share of the frame's width or height, whichever is tighter."""
TILE_SIZES = {"marble": 3.2, "wood": 2.1, "stone": 2.4, "plaster": 2.4, "cloth": 1.5, "sand": 2.2, "gloss": 3.0}
"""A material tile's side, in product widths."""
SHINE = {"marble": 0.30, "wood": 0.13, "stone": 0.05, "gloss": 0.55, "sweep": 0.06}


@dataclass(frozen=True)
class Product:
    """The product in place: a frame of its colours and its alpha, and what it stands on."""

    colours: Array
    alpha: Array
    foot: Foot


def replace_background(photo: bytes, prompt: str, seed: int = 0) -> bytes:
    """The photo's product in the scene the prompt describes, as PNG.

    A photo with a transparent background is taken as cut out already. ValueError when the bytes are no picture.
    """
    cut = _trim(cut_pixels(codec.decode(photo)))
    width, height = _frame_size(*cut.frame)
    draw = _draw(prompt, seed)
    look = read(prompt)
    product, stage = _place(cut.pixels, width, height)
    side = _light_side(product, draw)
    behind = _paint(stage, look, side, draw)
    return codec.encode_png(codec.to_bytes(_finish(_compose(behind, product, look, side), look, draw)))


def generic_picture(width: int, height: int, prompt: str, seed: int) -> bytes:
    """An empty scene of exactly this size, as PNG."""
    draw = _draw(prompt, seed)
    look = read(prompt)
    scale = min(1.0, LARGEST_SIDE / max(width, height))
    small = max(8, round(width * scale)), max(8, round(height * scale))
    stage = Stage(*small, pitch=0.24, base=0.8, span=0.42 * min(small))
    picture = _finish(_paint(stage, look, int(draw.choice([-1, 1])), draw), look, draw)
    return codec.encode_png(codec.to_bytes(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)))


def _draw(prompt: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


@dataclass(frozen=True)
class _Cut:
    pixels: Array
    frame: tuple[int, int]


def _trim(cut: Array) -> _Cut:
    """The cut-out without its empty margins."""
    height, width = cut.shape[:2]
    mask = cut[..., 3] > 12
    if not mask.any():
        return _Cut(cut, (width, height))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return _Cut(cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (width, height))


def _frame_size(width: int, height: int) -> tuple[int, int]:
    """The photo's shape; a little larger than the photo, since the product fills less of the frame."""
    longest = float(np.clip(max(width, height) * 1.5, SMALLEST_SIDE, LARGEST_SIDE))
    scale = longest / max(width, height)
    return max(64, round(width * scale)), max(64, round(height * scale))


def _place(cut: Array, width: int, height: int) -> tuple[Product, Stage]:
    """Scale the product and stand it in the frame, higher up the more it is seen from above."""
    scale = min(FILL * height / cut.shape[0], FILL * width / cut.shape[1])
    size = max(2, round(cut.shape[1] * scale)), max(2, round(cut.shape[0] * scale))
    premultiplied = cut.astype(np.float32) / 255.0
    premultiplied[..., :3] *= premultiplied[..., 3:]
    small = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    alpha = np.clip(small[..., 3], 0, 1)
    foot = light.find_foot(alpha)
    flat = 1 - (foot.pitch - camera.FLATTEST) / (camera.STEEPEST - camera.FLATTEST)
    bottom = round(height * (0.5 + 0.06 * flat + 0.02) + size[1] * 0.5)
    left, top = (width - size[0]) // 2, min(bottom, round(height * 0.92)) - size[1]
    frame = np.zeros((height, width, 4), np.float32)
    frame[top : top + size[1], left : left + size[0]] = small
    placed = Foot(foot.x + left, foot.y + top, foot.across, foot.down)
    colours = frame[..., :3] / np.maximum(frame[..., 3:], 1e-3)
    stage = Stage(width, height, foot.pitch, placed.y / height, float(max(size)))
    return Product(np.clip(colours, 0, 1), np.clip(frame[..., 3], 0, 1), placed), stage


def _light_side(product: Product, draw: np.random.Generator) -> int:
    """The side on which the product is lit already; a guess when both are alike."""
    x = np.arange(product.alpha.shape[1], dtype=np.float32)[None, :] - product.foot.x
    grey = product.colours.mean(axis=-1) * product.alpha
    left = grey[:, x[0] < 0].sum() / max(product.alpha[:, x[0] < 0].sum(), 1)
    right = grey[:, x[0] > 0].sum() / max(product.alpha[:, x[0] > 0].sum(), 1)
    if abs(left - right) > 0.03:
        return -1 if left > right else 1
    return int(draw.choice([-1, 1]))


def _paint(stage: Stage, look: Look, side: int, draw: np.random.Generator) -> Array:
    """The scene without the product."""
    if look.place == "sweep":
        return _tinted(_sweep(stage, look, side, draw), look)
    edge = stage.edge
    share = 0.75
    backdrop = backdrops.paint(look, share, side, draw)
    table = _table(stage, look, draw)
    rows = round(share * stage.width)
    picture = np.zeros((stage.height, stage.width, 3), np.float32)
    line = round(edge * stage.height)
    scaled = cv2.resize(backdrop, (stage.width, max(rows, line)), interpolation=cv2.INTER_CUBIC)
    if line > 0:
        picture[:line] = scaled[-line:]
    table = _lit(stage, table, scaled, look, side, line)
    y = np.arange(stage.height, dtype=np.float32)[:, None]
    blend = smoothstep(line - 0.008 * stage.side, line + 0.008 * stage.side, y)
    picture[max(line, 0) :] = scaled[-1:] if line > 0 else 0
    return _tinted(mix(picture, table, np.repeat(blend, stage.width, axis=1)), look)


def _sweep(stage: Stage, look: Look, side: int, draw: np.random.Generator) -> Array:
    """Seamless paper: bright floor, a soft bend, a wall that is lighter where the lamp stands."""
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    x, y = x / stage.width - 0.5, y / stage.height
    lamp = 0.30 * side + draw.uniform(-0.05, 0.05)
    wall = 0.90 + 0.075 * np.exp(-(((x - lamp) / 0.5) ** 2 + ((y - 0.25) / 0.5) ** 2)) - 0.05 * (1 - y)
    pool = np.exp(-((x / 0.55) ** 2 + ((y - stage.base) / 0.32) ** 2))
    floor = 0.90 + 0.07 * pool
    bend = smoothstep(stage.edge - 0.10, stage.edge + 0.16, y)
    level = wall * (1 - bend) + floor * bend
    level -= 0.028 * np.exp(-(((y - stage.edge - 0.02) / 0.07) ** 2))
    level += 0.004 * cv2.resize(clouds(512, int(draw.integers(4)), 2.3), (stage.width, stage.height))
    return level[..., None] * np.array([1.0, 1.0, 1.0], np.float32)


def _table(stage: Stage, look: Look, draw: np.random.Generator) -> Array:
    material = surfaces.tile(look.surface if look.surface != "sweep" else "plaster", look.dark)
    turn = draw.uniform(-0.5, 0.5) if look.surface in ("wood", "cloth") else draw.uniform(0, 2 * np.pi)
    shift = draw.uniform(0, surfaces.SIZE), draw.uniform(0, surfaces.SIZE)
    table = camera.lay(stage, material, TILE_SIZES.get(look.surface, 2.4), turn, shift)
    return camera.focus(stage, table, 0.030)


def _lit(stage: Stage, table: Array, backdrop: Array, look: Look, side: int, line: int) -> Array:
    """The table under the scene's light: brighter on the lit side, with the backdrop's sheen far away."""
    y, x = np.mgrid[0 : stage.height, 0 : stage.width].astype(np.float32)
    x = (x / stage.width - 0.5) * side
    away = (y / stage.height - stage.base) / 0.6
    if look.dark:
        pool = np.exp(-((x / 0.42) ** 2 + (away / 0.62) ** 2))
        fall = 0.25 + 1.5 * pool
    else:
        fall = 0.97 + 0.22 * x - 0.10 * np.abs(away)
    far = np.clip(1 - (y - line) / max(stage.height - line, 1), 0, 1)
    mirrored = camera.soften(_mirrored(backdrop, stage, line), stage.side * 0.03)
    sheen = SHINE.get(look.surface, 0.05) * (0.25 + 0.75 * far**2) * (1.0 - 0.6 * np.sin(stage.pitch))
    return table * fall[..., None] * (1 - 0.5 * sheen[..., None]) + mirrored * sheen[..., None]


def _mirrored(backdrop: Array, stage: Stage, line: int) -> Array:
    """The backdrop upside down below the table's far edge."""
    frame = np.zeros((stage.height, stage.width, 3), np.float32)
    start = max(line, 0)
    rows = np.minimum(np.arange(stage.height - start), backdrop.shape[0] - 1)
    frame[start:] = backdrop[::-1][rows]
    return frame


def _tinted(picture: Array, look: Look) -> Array:
    """The colour and warmth the words ask for."""
    tint = np.array(look.tint, np.float32)
    if look.strength and look.place == "sweep":
        picture = picture * (1 + (tint / 0.95 - 1) * look.strength)
    elif look.strength:
        picture = picture * (1 + (tint / tint.mean() - 1) * 0.35 * look.strength)
    warm = np.array([-0.10, 0.0, 0.07], np.float32) * look.warmth * 0.8
    return picture * (1 + warm)


def _compose(behind: Array, product: Product, look: Look, side: int) -> Array:
    """The product in the scene."""
    hardness = {"outdoor": 0.8, "beach": 0.9, "dark": 0.5, "room": 0.45, "wall": 0.5}.get(look.place, 0.15)
    lost = light.shadow(product.alpha, product.foot, side=side, hardness=hardness)
    ambient = camera.soften(behind, max(behind.shape) * 0.08)
    tone = np.clip(ambient / np.maximum(ambient.mean(axis=-1, keepdims=True), 1e-3), 0.6, 1.5)
    scene = behind * (1 - lost[..., None] * (0.92 if look.dark else 0.80)) * (1 + (tone - 1) * lost[..., None] * 0.3)
    colours = _graded(product, ambient, look)
    shine = SHINE.get(look.surface, 0.0)
    if shine > 0.1:
        mirrored, seen = light.reflection(colours, product.alpha, blur=max(behind.shape) * (0.006 - 0.007 * shine))
        scene = mix(scene, mirrored * 0.9, seen[..., None] * shine * 0.75)
    colours = light.wrap(colours, product.alpha, behind)
    return mix(scene, colours, product.alpha[..., None])


def _graded(product: Product, ambient: Array, look: Look) -> Array:
    """The product in the scene's light: a little of its warmth and exposure, darker towards the ground."""
    weight = product.alpha[..., None]
    around = (ambient * weight).sum(axis=(0, 1)) / max(float(weight.sum()), 1.0)
    cast = np.clip(around / max(float(around.mean()), 1e-3), 0.7, 1.4)
    exposure = 0.86 if look.dark else 1.0
    y = np.arange(product.alpha.shape[0], dtype=np.float32)[:, None, None]
    grounded = 1 - 0.12 * smoothstep(product.foot.y - product.foot.down * 2, product.foot.y + product.foot.down, y)
    return product.colours * (1 + (cast - 1) * 0.22) * exposure * grounded


def _finish(picture: Array, look: Look, draw: np.random.Generator) -> Array:
    """Vignette, a gentle shoulder for the highlights, and grain."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    corner = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
    vignette = 1 - (0.05 if look.place == "sweep" else 0.38 if look.dark else 0.16) * corner**1.3
    toned = picture * vignette[..., None]
    toned = np.where(toned > 0.8, 0.8 + 0.2 * np.tanh((toned - 0.8) / 0.2), toned)
    grain = draw.normal(0, 0.006, (height, width, 1)).astype(np.float32)
    return (toned + grain).astype(np.float32)
