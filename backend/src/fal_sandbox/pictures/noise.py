"""Seeded noise fields that repeat without a seam: the raw material of stone, wood, cloth and haze."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fal_sandbox.pictures.arrays import Array, floats


@lru_cache(maxsize=24)
def clouds(size: int, seed: int, roughness: float = 1.8, along: float = 1.0, across: float = 1.0) -> Array:
    """A square field (mean 0, deviation 1) of fractal noise; it tiles.

    The larger `roughness` is, the larger and softer the shapes; `along` (downwards) and `across` stretch them.
    """
    draw = np.random.default_rng([seed, size])
    down = np.fft.fftfreq(size)[:, None] * along * size
    right = np.fft.rfftfreq(size)[None, :] * across * size
    frequency = np.hypot(down, right)
    frequency[0, 0] = 1.0
    phase = draw.uniform(0, 2 * np.pi, frequency.shape)
    spectrum = np.exp(1j * phase) * frequency**-roughness * draw.rayleigh(size=frequency.shape)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    field = floats(field / field.std())
    field.setflags(write=False)  # it is shared by all who ask for the same field
    return field
