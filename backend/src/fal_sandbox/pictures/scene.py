"""A new background for a product: `words.py` reads the prompt, this module puts the picture together.

The order is a photographer's: camera and scene (`setting.py`), the product in its place (`placing.py`), its shadow
and reflection (`light.py`); then the finish over everything (vignette, tone, grain), which makes it one photograph.
The same photo, prompt and seed give the same picture.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import cv2
import numpy as np

from fal_sandbox.pictures import camera, codec, light, setting
from fal_sandbox.pictures.arrays import Array, floats, grid, mix, smoothstep
from fal_sandbox.pictures.camera import Stage
from fal_sandbox.pictures.cutout import Made, cut_pixels
from fal_sandbox.pictures.placing import Cut, Product, frame_size, light_side, place, trim
from fal_sandbox.pictures.words import Look, read

LARGEST_SIDE = 1024
HARDNESS = {"outdoor": 0.8, "beach": 0.9, "dark": 0.5, "room": 0.55, "wall": 0.5}
"""Of the shadows: a big studio lamp is 0, bare sun 1."""


def replace_background(photo: bytes, prompt: str, seed: int = 0) -> Made:
    """The photo's product in the scene the prompt describes, as PNG.

    A photo with a transparent background is taken as cut out already. ValueError when the bytes are no picture.
    """
    cut, remark = _cut(photo)
    draw, look = _draw(prompt, seed), read(prompt)
    product, stage = place(cut, *frame_size(*cut.frame))
    side = light_side(product, draw)
    behind = setting.paint(stage, look, side, draw)
    picture = _finish(_compose(behind, product, look, side), look, draw)
    return Made(codec.encode_png(codec.to_bytes(picture)), remark)


def generic_picture(width: int, height: int, prompt: str, seed: int) -> bytes:
    """An empty scene of exactly this size, as PNG."""
    draw, look = _draw(prompt, seed), read(prompt)
    scale = min(1.0, LARGEST_SIDE / max(width, height))
    small = max(16, round(width * scale)), max(16, round(height * scale))
    stage = Stage(*small, pitch=0.24, base=0.8, span=0.42 * min(small))
    picture = setting.paint(stage, look, int(draw.choice([-1, 1])), draw)
    if small != (width, height):
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return codec.encode_png(codec.to_bytes(_finish(picture, look, draw)))


@lru_cache(maxsize=4)
def _cut(photo: bytes) -> tuple[Cut, str | None]:
    """The photo's product, and what there is to say about it.

    Kept, because one photo is usually put before several backgrounds in a row.
    """
    pixels = codec.decode(photo)
    height, width = pixels.shape[:2]
    scale = 1.25 * LARGEST_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    cut, remark = cut_pixels(pixels)
    return trim(cut), remark


def _draw(prompt: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _compose(behind: Array, product: Product, look: Look, side: int) -> Array:
    """The product in the scene."""
    hardness = HARDNESS.get(look.place, 0.15)
    lost = light.shadow(product.alpha, product.foot, side=side, hardness=hardness)
    scene = behind * (1 - lost[..., None] * (0.94 if look.dark else 0.80))
    ambient = camera.soften(behind, max(behind.shape) * 0.08)
    colours = _graded(product, ambient, look, side)
    # What lies flat hides its own mirror image.
    seen_flat = 0.0 if product.foot.lies else float(np.cos(product.foot.pitch))
    shine = setting.SHINE.get(look.surface, 0.0) * seen_flat**4
    if shine > 0.05:
        blur = max(behind.shape) * (0.006 - 0.006 * shine)
        mirrored, seen = light.reflection(colours, product.alpha, product.foot, blur=blur)
        scene = mix(scene, mirrored * 0.9, seen[..., None] * shine * 0.8)
    return mix(scene, light.wrap(colours, product.alpha, behind), product.alpha[..., None])


def _graded(product: Product, ambient: Array, look: Look, side: int) -> Array:
    """The product in the scene's light: a little of its warmth, darker to the ground and away from the light."""
    weight = product.alpha[..., None]
    around = (ambient * weight).sum(axis=(0, 1)) / max(float(weight.sum()), 1.0)
    warmth = np.clip(around / max(float(around.mean()), 1e-3), 0.7, 1.4)
    y, x = grid(*weight.shape[:2])
    foot = product.foot
    grounded = 1 - 0.12 * smoothstep(foot.y - foot.down * 2, foot.y + foot.down, y)
    across = np.clip((x - foot.x) / max(product.half_width, 1.0), -1, 1) * side
    shaded = 1 + across * (0.16 if look.dark else 0.06) - (0.10 if look.dark else 0.0)
    return floats(product.colours * (1 + (warmth - 1) * 0.22) * (grounded * shaded)[..., None])


def _finish(picture: Array, look: Look, draw: np.random.Generator) -> Array:
    """Vignette, a gentle shoulder for the highlights, and grain."""
    height, width = picture.shape[:2]
    y, x = grid(height, width)
    corner = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2
    vignette = 1 - (0.05 if look.place == "sweep" else 0.34 if look.dark else 0.16) * corner**1.3
    toned = picture * vignette[..., None]
    toned = np.where(toned > 0.8, 0.8 + 0.2 * np.tanh((toned - 0.8) / 0.2), toned)
    grain = draw.standard_normal((height, width, 1), dtype=np.float32) * np.float32(0.006)
    return floats(toned + grain)
