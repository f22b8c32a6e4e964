"""Picture files: opened within bounds, with their colour profile, and their colours in sRGB.

Needs the extra `image` (Pillow, numpy).
"""

from __future__ import annotations

import io
import warnings
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageCms

from services.fal.errors import InvalidInput

Pixels: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""Rows, columns and, where there are any, channels."""
MAX_PIXELS = 200_000_000
"""Larger pictures are refused before they are decoded."""


def opened(data: bytes) -> Image.Image:
    """The picture in `data`, decoded. Raises InvalidInput when it is none, is damaged, or has too many pixels."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures by a rule of its own; ours is checked below, before decoding.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(io.BytesIO(data))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput("The file is not a picture that can be opened (JPEG, PNG, WebP, GIF, BMP, TIFF).") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise InvalidInput(f"The picture has {picture.width} x {picture.height} pixels; at most 200 million are read.")
    try:
        picture.load()
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise InvalidInput(f"The picture is damaged: {error}. Export it again.") from error
    return picture


def profile_name(picture: Image.Image) -> str | None:
    """The name in the picture's ICC profile, None without one."""
    data = picture.info.get("icc_profile")
    if not data:
        return None

    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip()
    except (OSError, ValueError, ImageCms.PyCMSError):
        return "unreadable"


def in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """`picture` with its colours in sRGB, without a profile."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(source).lower():
                converted = ImageCms.profileToProfile(
                    picture, source, ImageCms.createProfile("sRGB"), outputMode=picture.mode
                )
                picture = converted or picture
        except (OSError, ValueError, ImageCms.PyCMSError):
            # A profile that cannot be read says nothing: the numbers are taken as sRGB, as viewers do.
            pass
    picture.info.pop("icc_profile", None)
    return picture
