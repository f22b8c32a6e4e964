"""Bytes to pixels and back: the only module that knows about file formats.

What the pixels show is the business of the other modules.
"""

from __future__ import annotations

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array

JPEG_MAGIC = b"\xff\xd8\xff"
LARGEST_PIXELS = 120_000_000

# A broken upload is an answer to its sender (ValueError), not news for the terminal.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes) -> Array:
    """The picture as BGRA, upright; ValueError when the bytes are no picture that OpenCV can read."""
    if not data:
        raise ValueError("no picture: the file is empty")
    # IMREAD_COLOR turns a JPEG upright (EXIF) but drops alpha, which a JPEG does not have anyway.
    flag = cv2.IMREAD_COLOR if data.startswith(JPEG_MAGIC) else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise ValueError("no picture: the bytes cannot be decoded") from error
    if pixels is None or pixels.size == 0:
        raise ValueError("no picture: the bytes cannot be decoded")
    if pixels.shape[0] * pixels.shape[1] > LARGEST_PIXELS:
        raise ValueError("the picture is too large")
    return _bgra(_eight_bits(pixels))


def encode_png(pixels: Array) -> bytes:
    """BGR or BGRA, 8 bits, as a PNG file: quick to write, since grain compresses badly anyway."""
    return _encode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def encode_jpeg(pixels: Array, quality: int = 92) -> bytes:
    """BGR, 8 bits, as a JPEG file."""
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])


def to_bytes(picture: Array) -> Array:
    """A picture of floats (0 black, 1 white) as 8 bits; what is brighter or darker is clipped."""
    return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)


def _encode(suffix: str, pixels: Array, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"the picture cannot be written as {suffix}")
    return data.tobytes()


def _eight_bits(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return to_bytes(pixels.astype(np.float32))


def _bgra(pixels: Array) -> Array:
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGRA)
    channels = pixels.shape[2]
    if channels == 4:
        return pixels
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA)
    grey = cv2.cvtColor(pixels[..., 0], cv2.COLOR_GRAY2BGRA)
    if channels == 2:
        grey[..., 3] = pixels[..., 1]
    return grey
