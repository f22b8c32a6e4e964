"""Render the project's own photos again: `make photos`, or `PYTHONPATH=src:tools python -m photo_studio`.

Writes the sandbox's sample photos (`src/fal_sandbox/photos`; `samples.py` there says what is in them), and the lamp
and the bottle of `examples/`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fal_sandbox.pictures import camera, surfaces
from fal_sandbox.pictures.arrays import Array, floats
from fal_sandbox.pictures.noise import clouds
from fal_sandbox.pictures.words import Colour
from fal_sandbox.samples import BRIGHTEST, GLAZES, PHOTOS, develop
from photo_studio.props import PROPS, SIZES
from photo_studio.render import expose, photograph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIDE, EXAMPLE_SIDE = 512, 1000
PITCH = 0.24
"""Radians: a little from above, as products are photographed."""
QUALITY = 88


def main() -> None:
    """Write every photo."""
    for kind in PROPS:
        _write_sample(kind)
    lamp = _light("lamp", GLAZES["teal"], _paper(EXAMPLE_SIDE), PITCH)
    (EXAMPLES / "lamp.jpg").write_bytes(develop(lamp))
    bottle = _light("bottle", GLAZES["green"], _table(EXAMPLE_SIDE, "wood", 0.5), 0.5)
    (EXAMPLES / "bottle.jpg").write_bytes(develop(bottle))


def _write_sample(kind: str) -> None:
    """The light with the product black, and what a white one adds; light is linear, so any colour lies between."""
    black, white = (_light(kind, (level, level, level), _paper(SIDE), PITCH) for level in (0.0, 1.0))
    _keep(PHOTOS / f"{kind}.jpg", black)
    _keep(PHOTOS / f"{kind}-glaze.jpg", (white - black).mean(axis=2))


def _light(kind: str, colour: Colour, ground: Array, pitch: float) -> Array:
    height, width = SIZES[kind]
    return expose(photograph(PROPS[kind](colour), ground.shape[0], pitch=pitch, height=height, width=width), ground)


def _keep(path: Path, light: Array) -> None:
    """Full colour resolution: a glaze's edge is as sharp as its product's."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    picture = np.clip(light * (255 / BRIGHTEST), 0, 255).round().astype(np.uint8)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *(sampling if picture.ndim == 3 else [])])


def _paper(side: int) -> Array:
    """Light grey seamless paper, brighter towards the lamp."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    level = 0.90 - 0.05 * x - 0.03 * np.abs(y - 0.6) + 0.003 * clouds(1024, 3, 2.2)[:side, :side]
    return floats(level[..., None] * floats([0.99, 0.995, 1.0]))


def _table(side: int, material: str, pitch: float) -> Array:
    """A table top in perspective that fills the frame."""
    stage = camera.Stage(side, side, pitch, base=0.72, span=side * 0.5)
    return camera.focus(stage, camera.lay(stage, surfaces.tile(material, "mid"), 2.0, 0.25, (0, 0)), 0.02)


if __name__ == "__main__":
    main()
