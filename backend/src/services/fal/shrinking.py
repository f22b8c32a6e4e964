"""A smaller copy of a photo that is larger than a model uses; made only when it was asked for.

Needs Pillow (the extra `image`), which is imported only here. Which files are pictures is `checks.py`'s to say.
"""

from __future__ import annotations

import io
import math
from typing import IO, TYPE_CHECKING, cast

from services.fal.call import current_call
from services.fal.checks import LocalImage, Slices
from services.fal.errors import FalError, InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_SIDE = 4096
"""Pixels of the longer side."""
MAX_BYTES = 8_000_000
JPEG_QUALITY = 92
MAX_PIXELS = 128_000_000
"""Of a picture that has to be read whole, at 4 bytes a pixel, and up to twice: about a gigabyte of memory. A JPEG that
is not progressive is read at a fraction of its size, at most 8,192 pixels a side, whatever its own."""
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
    try:
        with _opened(image) as opened:
            if len(image.data) <= MAX_BYTES and max(opened.size) <= MAX_SIDE:
                return image
            if opened.mode not in _MODES:
                raise ValueError(f"its pixels are of the kind {opened.mode}")
            _draft(opened)
            profile = opened.info.get("icc_profile") if opened.mode.startswith(("RGB", "P")) else None
            # A JPEG is left as it is here: it has no transparent parts.
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


def _opened(image: LocalImage) -> ImageFile:
    """The picture, none of its pixels read yet: PIL.Image.open refuses large ones whatever they need."""
    import PIL.Image

    PIL.Image.init()
    file = cast("IO[bytes]", _File(image.data))
    if image.content_type == "image/jpeg":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(file)  # not the factory, which looks for further pictures in it
    kind = image.content_type.removeprefix("image/").upper()
    plugin = PIL.Image.OPEN.get("HEIF" if kind == "HEIC" else kind)
    if plugin is None:
        raise PIL.UnidentifiedImageError
    return plugin[0](file, "")


def _draft(opened: ImageFile) -> None:
    """Have a JPEG read at the smallest scale that is enough. Raises ValueError for what would need too much memory."""
    scale = MAX_SIDE / max(opened.size)
    read_whole = opened.format != "JPEG" or "progressive" in opened.info
    if read_whole and math.prod(opened.size) > MAX_PIXELS:
        what = "progressive JPEG" if opened.format == "JPEG" else opened.format
        raise ValueError(
            f"it has {math.prod(opened.size) / 1e6:.0f} million pixels, and a {what} can be made smaller up to "
            f"{MAX_PIXELS / 1e6:.0f} million; only a JPEG that is not progressive may have more"
        )
    if scale < 1:
        opened.draft(None, (max(1, int(opened.width * scale)), max(1, int(opened.height * scale))))


def _plain(picture: Image) -> Image:
    """The picture as RGB, or as RGBA when parts of it are transparent: an alpha channel alone says nothing."""
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        opaque = layered.getchannel("A").getextrema() == (255, 255)
        return layered.convert("RGB") if opaque else layered
    return picture if picture.mode == "RGB" else picture.convert("RGB")


class _File(io.RawIOBase):
    """A picture's bytes as a file, of which no more is in memory than was read last."""

    def __init__(self, data: bytes | Slices) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._data) if size is None or size < 0 else self._at + size
        part = self._data[self._at : end] if self._at < len(self._data) else b""
        self._at += len(part)
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


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
