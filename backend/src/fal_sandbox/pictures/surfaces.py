"""Materials seen from straight above, as square tiles that repeat without a seam.

`camera.py` lays them out in perspective; light and blur come later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, grid, mix, smoothstep
from fal_sandbox.pictures.noise import clouds

SIZE = 1024
WOODS = {
    "light": ((0.55, 0.71, 0.84), (0.29, 0.44, 0.58)),
    "mid": ((0.36, 0.52, 0.67), (0.14, 0.24, 0.37)),
    "dark": ((0.14, 0.19, 0.26), (0.035, 0.05, 0.078)),
}
"""The lightest and the darkest colour of the grain: oak, cherry, walnut."""


@lru_cache(maxsize=16)
def tile(material: str, tone: str) -> Array:
    """The material's tile: SIZE by SIZE, BGR floats; `tone` is light, mid or dark."""
    painted = np.clip(MATERIALS[material](tone), 0.0, 1.0).astype(np.float32)
    painted.setflags(write=False)  # it is shared by all who ask for it
    return painted


@lru_cache(maxsize=2)
def pattern(name: str) -> Array:
    """Light that falls on a table through something, as a tile of one channel: "leaves", or the "panes" of a window."""
    painted = _leaves() if name == "leaves" else _panes()
    painted.setflags(write=False)
    return painted


def _leaves() -> Array:
    """Sun between leaves: round, soft spots of two sizes."""
    broad = smoothstep(-0.3, 0.9, clouds(SIZE, 91, 1.9))
    spots = smoothstep(0.1, 0.9, clouds(SIZE, 92, 1.45))
    return cv2.GaussianBlur(broad * (0.35 + 0.65 * spots), (0, 0), 7.0)


def _panes() -> Array:
    """Window light: tall panes between dark bars."""
    y, x = grid(SIZE, SIZE) / SIZE
    across, down = (x * 3) % 1.0, (y * 2) % 1.0
    bar = 0.5 - np.abs(across - 0.5), 0.5 - np.abs(down - 0.5)
    lit = smoothstep(0.06, 0.12, bar[0]) * smoothstep(0.03, 0.08, bar[1])
    lit *= smoothstep(0.5, 0.62, ((x * 1) % 1.0)) * smoothstep(1.0, 0.94, x) + smoothstep(0.34, 0.30, x)
    return cv2.GaussianBlur(lit.astype(np.float32), (0, 0), 9.0)


def _colour(blue: float, green: float, red: float) -> Array:
    return np.array([blue, green, red], np.float32)


def _warped(field: Array, seed: int, strength: float) -> Array:
    """The field pushed about by slow noise, which turns straight shapes into natural ones."""
    y, x = grid(SIZE, SIZE)
    x = x + clouds(SIZE, seed, 2.2) * strength
    y = y + clouds(SIZE, seed + 1, 2.2) * strength
    return cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _veins(seed: int, *kinds: tuple[float, float]) -> list[Array]:
    """Lines that wander slowly, as minerals do, and fade in and out along their way; one picture of them for each kind
    of a thickness and a strength.

    The field is smooth: where a rough one changes its sign the line is jagged and branches, like lightning.
    """
    field = _warped(clouds(SIZE, seed, 3.4), seed + 10, 90.0)
    slope = np.hypot(cv2.Sobel(field, cv2.CV_32F, 1, 0), cv2.Sobel(field, cv2.CV_32F, 0, 1)) / 8 + 1e-3
    distance = np.abs(field) / slope
    width = 0.6 + smoothstep(-1.0, 2.0, clouds(SIZE, seed + 30, 2.6))
    fading = smoothstep(-0.8, 1.6, clouds(SIZE, seed + 20, 2.4))
    return [np.exp(-distance / (thick * width)) * fading * strength for thick, strength in kinds]


def _marble(tone: str) -> Array:
    cloud = smoothstep(-1.6, 2.2, _warped(clouds(SIZE, 3, 1.9), 31, 90.0))
    fine = clouds(SIZE, 4, 1.1)[..., None] * 0.006
    (first, broad), (second,), (third, broader) = (
        _veins(5, (2.0, 0.7), (16.0, 0.45)),
        _veins(6, (1.2, 0.5)),
        _veins(7, (1.0, 0.4), (24.0, 0.3)),
    )
    veins, haze = np.clip(first + second + third, 0, 1), np.clip(broad + broader, 0, 1)
    if tone == "dark":
        base = mix(_colour(0.045, 0.045, 0.048), _colour(0.12, 0.115, 0.115), cloud)
        return mix(base, _colour(0.34, 0.38, 0.41), np.maximum(veins * 0.55, haze * 0.3)) + fine
    base = mix(_colour(0.93, 0.935, 0.94), _colour(0.80, 0.805, 0.81), cloud * 0.8)
    return mix(base, _colour(0.45, 0.46, 0.48), np.maximum(veins * 0.7, haze * 0.4)) + fine


def _wood(tone: str) -> Array:
    """Five planks side by side, grain running down the tile."""
    planks = 5
    width = SIZE / planks
    y, x = grid(SIZE, SIZE)
    plank = np.floor(x / width).astype(int)
    draw = np.random.default_rng(11)
    shift = draw.uniform(0, SIZE, planks).astype(np.float32)[plank]
    grain = _grain(x, (y + shift) % SIZE, shift)
    odd = draw.normal(0, 1, planks).astype(np.float32)[plank]
    light, deep = (_colour(*colour) for colour in WOODS[tone])
    board = mix(light, deep, np.clip(0.42 + 0.24 * grain + 0.10 * odd, 0, 1))
    return board * _joints(x, y, width)[..., None]


def _grain(x: Array, y: Array, shift: Array) -> Array:
    """Year rings cut lengthwise, fibres and pores; mean about 0."""
    slow = clouds(SIZE, 12, 2.4, along=5.0)
    bend = cv2.remap(slow, x + shift, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    rings = np.sin(x / SIZE * 2 * np.pi * 14 + bend * 9.0)
    rings = np.sign(rings) * np.abs(rings) ** 0.8
    fibres = cv2.remap(clouds(SIZE, 13, 0.55, along=40.0), x + shift, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    patches = cv2.remap(clouds(SIZE, 14, 1.9, along=3.0), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return floats(rings * 0.45 + fibres * 0.8 + patches * 0.5)


def _joints(x: Array, y: Array, width: float) -> Array:
    """Thin gaps between the boards, deeper in some places, and edges a little worn."""
    gap = np.abs((x / width + 0.5) % 1.0 - 0.5) * width
    nearest = gap + clouds(SIZE, 15, 1.2, along=6.0) * 0.5
    depth = 0.50 + 0.14 * clouds(SIZE, 16, 1.6, along=4.0)
    return 1.0 - depth * smoothstep(2.6, 0.4, nearest) - 0.10 * smoothstep(12.0, 2.0, nearest)


def _stone(tone: str) -> Array:
    rough = clouds(SIZE, 21, 1.25)
    relief = cv2.Sobel(rough, cv2.CV_32F, 1, 1) * 0.9
    broad = clouds(SIZE, 22, 2.0)
    pores = smoothstep(1.5, 2.6, clouds(SIZE, 23, 0.7))
    level = 0.70 + 0.035 * rough + 0.045 * broad + 0.02 * relief - 0.16 * pores
    if tone == "dark":
        level = level * 0.24
    return level[..., None] * _colour(0.93, 0.97, 1.0)


def _plaster(tone: str) -> Array:
    level = 0.84 + 0.012 * clouds(SIZE, 25, 1.3) + 0.02 * clouds(SIZE, 26, 2.0)
    return (level * (0.18 if tone == "dark" else 1.0))[..., None] * _colour(0.96, 0.985, 1.0)


def _cloth(tone: str) -> Array:
    """A plain weave with uneven threads and slow folds."""
    y, x = grid(SIZE, SIZE)
    threads = 2 * np.pi / 8
    over = np.sin(x * threads) * np.sin(y * threads)
    uneven = clouds(SIZE, 41, 0.7, along=30.0) + clouds(SIZE, 42, 0.7, across=30.0)
    level = 0.78 + 0.03 * over + 0.028 * uneven + 0.02 * clouds(SIZE, 43, 2.2)
    return floats((level * (0.25 if tone == "dark" else 1.0))[..., None] * _colour(0.90, 0.96, 1.0))


def _sand(tone: str) -> Array:
    y = grid(SIZE, SIZE)[0]
    ripples = np.sin(y / SIZE * 2 * np.pi * 10 + clouds(SIZE, 51, 2.3) * 2.5)
    grains = clouds(SIZE, 52, 0.2)
    level = 0.88 + 0.025 * ripples + 0.05 * grains + 0.02 * clouds(SIZE, 53, 1.6)
    return floats((level * (0.3 if tone == "dark" else 1.0))[..., None] * _colour(0.74, 0.89, 1.0))


def _gloss(tone: str) -> Array:
    level = (0.085 if tone == "dark" else 0.86) + 0.002 * clouds(SIZE, 61, 1.0)
    return level[..., None] * _colour(1.0, 1.0, 1.0)


MATERIALS: dict[str, Callable[[str], Array]] = {
    "marble": _marble,
    "wood": _wood,
    "stone": _stone,
    "plaster": _plaster,
    "cloth": _cloth,
    "sand": _sand,
    "gloss": _gloss,
}
