"""A smaller copy of a photo that is larger than a model uses; made only when it was asked for.

Needs Pillow (the extra `image`), which is imported only here. Which files are pictures is `checks.py`'s to say.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from services.fal.call import current_call
from services.fal.checks import LocalImage
from services.fal.errors import FalError, InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 4096
"""Pixels of the longer side."""
MAX_BYTES = 8_000_000
JPEG_QUALITY = 92
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Those whose channels have 8 bits or fewer: others would have to be guessed at."""


def shrunk(image: LocalImage | str) -> LocalImage:
    """`image` itself when it is small enough, else a JPEG of it, upright, or a PNG when parts are transparent.

    Raises InvalidInput for a URL, and when Pillow is missing or cannot read the picture.
    """
    if isinstance(image, str):
        raise InvalidInput("shrink is for a local photo. Leave it out for a URL.")
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise InvalidInput(
            "shrink needs Pillow, which is not installed. Install it (pip install pillow), or leave shrink out."
        ) from error
    data = image.data[:]
    try:
        with PIL.Image.open(io.BytesIO(data)) as opened:
            if len(data) <= MAX_BYTES and max(opened.size) <= MAX_SIDE:
                return image
            if opened.mode not in _MODES:
                raise ValueError(f"its pixels are of the kind {opened.mode}")
            profile = opened.info.get("icc_profile") if opened.mode.startswith(("RGB", "P")) else None
            # A JPEG is left as it is here, since it can be read at a fraction of its size.
            picture = opened if opened.format == "JPEG" else _plain(opened)
            clear = picture.mode == "RGBA"
            picture.thumbnail((MAX_SIDE, MAX_SIDE), PIL.Image.Resampling.LANCZOS)
            picture = PIL.ImageOps.exif_transpose(picture)
            smaller = _encoded(picture if clear else picture.convert("RGB"), profile)
    except FalError:
        raise
    except Exception as error:  # decoders raise whatever they like, RuntimeError and warnings too
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        why = "Pillow does not know its format" if unknown else str(error).rstrip(".")
        raise InvalidInput(
            f"shrink cannot read this {image.content_type} picture: {why}. Convert it, or leave shrink out."
        ) from error
    kind = "png" if clear else "jpeg"
    return LocalImage(smaller, f"image/{kind}", f"{image.file_name.rpartition('.')[0] or image.file_name}.{kind}")


def _plain(picture: Image) -> Image:
    """The picture as RGB, or as RGBA when parts of it are transparent: an alpha channel alone says nothing."""
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        opaque = layered.getchannel("A").getextrema() == (255, 255)
        return layered.convert("RGB") if opaque else layered
    return picture.convert("RGB")


def _encoded(picture: Image, profile: bytes | None) -> bytes:
    """The picture as a file of at most MAX_BYTES."""
    while True:
        current_call().check()
        file = io.BytesIO()
        kind = "PNG" if picture.mode == "RGBA" else "JPEG"
        picture.save(file, kind, quality=JPEG_QUALITY, icc_profile=profile)
        if file.tell() <= MAX_BYTES:
            return file.getvalue()
        scale = min(0.95, math.sqrt(MAX_BYTES / file.tell()))
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
