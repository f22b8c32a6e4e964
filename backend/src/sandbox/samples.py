"""Sample product photos for names on example.com, so that a copied example works without a file at hand.

The name chooses the product ("mug.jpg", "red-shoe.png"; any name gives something) and its colour. The pictures
are rendered by `pictures/render.py`; nobody's photo is used. The rendered photos of `examples/` are made again by
`PYTHONPATH=src python -m sandbox.samples examples`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

from sandbox.phrases import product_kind
from sandbox.pictures import camera, codec, render, surfaces
from sandbox.pictures.arrays import Array, floats
from sandbox.pictures.noise import clouds
from sandbox.pictures.props import PROPS, SIZES
from sandbox.pictures.words import Colour

SIDE, EXAMPLE_SIDE = 512, 1000
PITCH = 0.24
"""Radians: a little from above, as products are photographed."""
GLAZES: dict[str, Colour] = {
    "red": (0.16, 0.14, 0.62),
    "blue": (0.55, 0.34, 0.16),
    "green": (0.26, 0.42, 0.22),
    "teal": (0.46, 0.46, 0.12),
    "orange": (0.16, 0.40, 0.84),
    "yellow": (0.18, 0.62, 0.86),
    "pink": (0.60, 0.50, 0.84),
    "brown": (0.16, 0.26, 0.42),
    "beige": (0.58, 0.70, 0.78),
    "black": (0.07, 0.065, 0.065),
    "white": (0.84, 0.86, 0.87),
    "grey": (0.46, 0.46, 0.46),
}
USUAL = ("red", "blue", "green", "teal", "orange", "brown")
"""What stands out on a light background."""


@lru_cache(maxsize=64)
def sample_photo(name: str) -> bytes:
    """A JPEG of a product on a plain, light background; the same name gives the same bytes."""
    digest = hashlib.sha256(name.encode()).digest()
    named = [word for word in re.findall(r"[a-z]+", name.lower()) if word in GLAZES]
    colour = GLAZES[named[0] if named else USUAL[digest[0] % len(USUAL)]]
    return _photo(product_kind(name), colour, _paper(SIDE), PITCH)


def _photo(kind: str, colour: Colour, ground: Array, pitch: float) -> bytes:
    height, width = SIZES[kind]
    side = ground.shape[0]
    shot = render.photograph(PROPS[kind](colour), side, pitch=pitch, height=height, width=width)
    return codec.encode_jpeg(codec.to_bytes(render.compose(shot, ground)))


def _paper(side: int) -> Array:
    """Light grey seamless paper, brighter towards the lamp."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    level = 0.90 - 0.05 * x - 0.03 * np.abs(y - 0.6) + 0.003 * clouds(1024, 3, 2.2)[:side, :side]
    return floats(level[..., None] * floats([0.99, 0.995, 1.0]))


def _table(side: int, material: str, pitch: float) -> Array:
    """A table top in perspective that fills the frame."""
    stage = camera.Stage(side, side, pitch, base=0.72, span=side * 0.5)
    return camera.focus(stage, camera.lay(stage, surfaces.tile(material, "mid"), 2.0, 0.25, (0, 0)), 0.02)


def write_examples(folder: Path) -> None:
    """The two rendered photos of the examples folder."""
    plain = _photo("lamp", GLAZES["teal"], _paper(EXAMPLE_SIDE), PITCH)
    (folder / "lamp.jpg").write_bytes(plain)
    textured = _photo("bottle", GLAZES["green"], _table(EXAMPLE_SIDE, "wood", 0.5), 0.5)
    (folder / "bottle.jpg").write_bytes(textured)


if __name__ == "__main__":
    write_examples(Path(sys.argv[1]))
