"""Sample product photos for names on example.com, so that a copied example works without a file at hand.

The name chooses the product ("mug.jpg", "red-shoe.png"; any name gives something) and its colour. Nobody's photo is
used: `tools/photo_studio` renders each kind of product once, `make photos` does it again. To follow the rays takes
seconds, so what is kept in `photos/` is the light alone, which any colour can be multiplied with:

- `mug.jpg` is the light that reaches the camera when the mug itself is black: the ground, the reflections, the parts
  whose colour belongs to the kind.
- `mug-glaze.jpg` says in grey how much more comes back from the product's own colour where that is white.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from fal_sandbox.phrases import product_kind
from fal_sandbox.pictures import codec
from fal_sandbox.pictures.arrays import Array, floats
from fal_sandbox.pictures.words import Colour

PHOTOS = Path(__file__).resolve().parent / "photos"
BRIGHTEST = 1.4
"""The light that is 255 in the kept pictures; paper is at 0.9, and the film below is white long before 1.4."""
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
    kind = product_kind(name) or "jar"
    return develop(_light(kind) + _light(f"{kind}-glaze") * floats(colour))


def _light(stem: str) -> Array:
    kept = cv2.imdecode(np.fromfile(PHOTOS / f"{stem}.jpg", np.uint8), cv2.IMREAD_COLOR)
    return floats(kept * np.float32(BRIGHTEST / 255))


def develop(light: Array) -> bytes:
    """The JPEG that a camera makes of linear light (height, width, 3): soft highlights, a little blur and grain."""
    toned = np.where(light > 0.75, 0.75 + 0.25 * np.tanh((light - 0.75) / 0.25), light)
    grain = np.random.default_rng(0).normal(0, 0.010, light.shape[:2]).astype(np.float32)
    soft = cv2.GaussianBlur(toned.astype(np.float32), (0, 0), 0.5)
    return codec.encode_jpeg(codec.to_bytes(floats(soft + cv2.GaussianBlur(grain, (0, 0), 0.6)[..., None])))
