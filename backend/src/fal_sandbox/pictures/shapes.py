"""Recognises a product by its outline: a bottle is a bottle, whatever its file is called.

An outline is compared with those of the sandbox's own samples. Most products of the world are none of these, and
then nothing is said.
"""

from __future__ import annotations

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array

GRID = 16
"""An outline is so many cells wide and high, whatever its proportions."""
ALIKE = 0.87
"""The share of both outlines that is common to them."""
LIGHT_ALIKE = 0.6
"""The correlation of how light they are inside; asked where an outline alone, such as a circle, says little."""
MOST_STRETCHED = 1.3

Template = tuple[str, float, str, str]
"""Kind of product, width by height, the rows of the outline as hexadecimal bits, and the light inside (0 to f)."""

# Made by `template` from the photos of examples/ and from `samples.sample_photo` of every kind.
TEMPLATES: tuple[Template, ...] = (
    (
        "mug",
        1.08,
        "03c0 07f0 1ffc 3ffc 7ffc 7ffe fffe ffff ffff ffff ffff 7ffe 7ffe 3ffc 1ff8 07e0",
        "246767bcdca7777846768daabbcd87787766ca999abcc9886566d976679bda87"
        "6556c7577769d8877544b8999998c57864555caaaaab7558545645acccb74556"
        "6465442343345556644322322353455555321541115525552432242111962554"
        "33432111117435537154311111124524a313511112344225ba21123444421146",
    ),
    (
        "lamp",
        0.71,
        "1ff8 3ffc 3ffc 7ffe 7ffe 7ffe ffff ffff 3ffc 07e0 0ff0 0ff0 0ff0 07e0 0ff0 07e0",
        "",
    ),
    (
        "bottle",
        0.42,
        "07e0 07e0 07e0 07e0 1ff8 7ffe ffff ffff ffff ffff ffff ffff ffff 7ffe 7ffe 1ffc",
        "",
    ),
    (
        "mug",
        1.13,
        "7fe0 fff0 fff0 fff8 fffc fff6 fff3 fff3 fff3 fff3 fff6 7ffe 7ff0 7ff0 3fe0 1fc0",
        "",
    ),
    (
        "shoe",
        2.2,
        "2000 7800 ff00 ff80 ffc0 ffe0 fffc fffe fffe fffe ffff 7fff ffff ffff fffe 7ffe",
        "",
    ),
    (
        "bottle",
        0.41,
        "07e0 07e0 07e0 07e0 1ff8 7ffe ffff ffff ffff ffff ffff ffff ffff ffff ffff 3ffe",
        "",
    ),
    (
        "lamp",
        0.71,
        "1ff8 3ffc 3ffc 7ffc 7ffe 7ffe ffff ffff 7ffc 07e0 0ff0 0ff0 0ff0 07e0 0ff0 07e0",
        "",
    ),
    (
        "bag",
        1.13,
        "03c0 0420 0000 0810 7ffe 7ffe 7ffe 7ffe 7ffe 7ffe 7ffe 7ffe ffff ffff ffff 7ffe",
        "",
    ),
    (
        "watch",
        0.9,
        "0fc0 0fc0 0fc0 0fe0 1fe0 3ff0 7ff8 7ffc fffc ffff fffe fffc 7ffc 7ff8 3ff0 0fc0",
        "",
    ),
    (
        "chair",
        0.8,
        "7fc0 ffc0 ffc0 ffc0 4040 4040 7ff0 7ffe 7ffe 4e42 4402 8402 8401 0401 0400 0000",
        "",
    ),
    (
        "shirt",
        1.58,
        "01f0 3ffe ffff ffff ffff 7ffe ffff ffff ffff 7ffe ffff ffff 7fff 3ffe 1fe0 1f00",
        "",
    ),
    (
        "vase",
        0.63,
        "0ff0 07e0 07e0 07e0 0ff0 1ff8 3ffc 7ffe ffff ffff ffff ffff 7ffe 3ffc 1ff8 0ff0",
        "",
    ),
    (
        "headphones",
        1.13,
        "03c0 0c30 1818 300c 2004 2004 2004 6006 700e f00f f81f f81f f81f f81f 700e 4006",
        "",
    ),
)


def kind_of(picture: Array, mask: Array) -> str:
    """The product in a BGR picture, as `phrases.PRODUCT_WORDS` calls it, or nothing."""
    traced = _trace(picture, mask)
    if traced is None:
        return ""
    best, kind = ALIKE, ""
    for name, ratio, outline, light in TEMPLATES:
        known = np.array([[bit == "1" for bit in f"{int(row, 16):0{GRID}b}"] for row in outline.split()])
        inside = np.array([int(level, 16) for level in light], np.float32).reshape(GRID, GRID) if light else None
        for cells, levels in (traced[:2], (traced[0][:, ::-1], traced[1][:, ::-1])):
            alike = float((cells & known).sum() / (cells | known).sum())
            if alike > best and _similar(traced[2] / ratio) and _same_light(levels, inside, cells & known):
                best, kind = alike, name
    return kind


def template(kind: str, picture: Array, mask: Array, *, with_light: bool = False) -> Template:
    """The outline of a product as TEMPLATES keeps it."""
    traced = _trace(picture, mask)
    if traced is None:
        raise ValueError("there is no object")
    cells, levels, ratio = traced
    rows = " ".join(f"{int(''.join('01'[int(cell)] for cell in row), 2):04x}" for row in cells)
    light = "".join(f"{round(float(level) / 17):x}" for level in levels.ravel()) if with_light else ""
    return kind, round(ratio, 2), rows, light


def _trace(picture: Array, mask: Array) -> tuple[Array, Array, float] | None:
    """Which cells the object fills, how light they are (0 to 255), and its width by its height."""
    rows, columns = np.flatnonzero((mask > 0).any(axis=1)), np.flatnonzero((mask > 0).any(axis=0))
    if len(rows) < GRID or len(columns) < GRID:
        return None
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    size = mask.shape[1], mask.shape[0]
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    filled = cv2.resize(np.ascontiguousarray(mask[box]), (GRID, GRID), interpolation=cv2.INTER_AREA) > 127
    light = cv2.resize(np.ascontiguousarray(grey[box]), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return filled, light, len(columns) / len(rows)


def _similar(stretch: float) -> bool:
    return 1 / MOST_STRETCHED < stretch < MOST_STRETCHED


def _same_light(levels: Array, inside: Array | None, common: Array) -> bool:
    if inside is None:
        return True
    return float(np.corrcoef(levels[common].astype(np.float32), inside[common])[0, 1]) > LIGHT_ALIKE
