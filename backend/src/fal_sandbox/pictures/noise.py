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
    down = floats(np.fft.fftfreq(size, 1 / (size * along)))[:, None]
    right = floats(np.fft.rfftfreq(size, 1 / (size * across)))[None, :]
    squared = down**2 + right**2
    squared[0, 0] = 1.0
    phase = floats(draw.uniform(0, 2 * np.pi, squared.shape))
    strength = squared ** np.float32(-roughness / 2) * floats(draw.rayleigh(size=squared.shape))
    strength[0, 0] = 0
    spectrum = np.empty(squared.shape, np.complex64)
    spectrum.real, spectrum.imag = strength * np.cos(phase), strength * np.sin(phase)
    field = np.fft.irfft2(spectrum, s=(size, size))
    field = floats(field / field.std())
    field.setflags(write=False)  # it is shared by all who ask for the same field
    return field
