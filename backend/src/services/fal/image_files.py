"""The user's picture files: recognised by their first bytes, read, and made smaller on request.

A file's name says nothing about its kind. Making a photo smaller needs Pillow (the extra `image`), which is imported
only then. What a large photo needs in memory is bounded: Pillow itself would read whatever it is given.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from services.fal.call import Call
from services.fal.errors import FalError, InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SLICE_ABOVE_BYTES = 100 * 1024 * 1024
"""Larger files are read in slices: so fal-client uploads them."""
MAX_SIDE = 4096
"""Pixels of the longer side."""
MAX_BYTES = 8_000_000
JPEG_QUALITY = 92
MAX_PIXELS = 128_000_000
"""Of a picture that has to be read whole, at 4 bytes a pixel, and up to twice: about a gigabyte of memory. A JPEG that
is not progressive is read at a fraction of its size, at most 8,192 pixels a side, whatever its own."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Those whose channels have 8 bits or fewer: others would have to be guessed at."""
BRIA_KINDS = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif")
"""Kinds that Bria's endpoints take (https://fal.ai/models/fal-ai/bria/background/remove/api)."""
BRIA_MAX_BYTES = 12_000_000
HEAD_BYTES = 256
"""So many are enough."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    # BigTIFF
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "image/heic"),
}
"""Of files that are made of ISO boxes (ISO/IEC 23008-12, AV1 Image File Format)."""
_ANY_CODEC = (b"mif1", b"mif2", b"msf1")


def content_type_of(head: bytes) -> str | None:
    """The content type of the picture that begins with `head`, at least HEAD_BYTES of it; None for anything else."""
    for magic, content_type in _MAGIC:
        if head.startswith(magic):
            return content_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    # A text may begin with "BM"; in a bitmap the reserved field stands there, which is zero.
    if head[:2] == b"BM" and head[6:8] == b"\x00\x00":
        return "image/bmp"
    return _content_type_of_boxes(head) if head[4:8] == b"ftyp" else None


def _content_type_of_boxes(head: bytes) -> str | None:
    """By the major brand, else by those that the file is compatible with."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    if brands[0] not in _BRANDS and not any(brand in _ANY_CODEC for brand in brands):
        return None  # a film, perhaps
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "image/heif")


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segments that hold a JPEG's size (ITU T.81, table B.1)."""


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as the header tells them, of a PNG, JPEG, GIF or WebP; None for anything else."""
    kind = content_type_of(data[:HEAD_BYTES])
    if kind == "image/png" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if kind == "image/gif" and len(data) >= 10:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    if kind == "image/webp" and len(data) >= 30:
        return _size_of_webp(data)
    return _size_of_jpeg(data) if kind == "image/jpeg" else None


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    """Of one of the three kinds of RFC 9649."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        # A marker may have fill bytes in front of it; a few stand alone, without a length.
        alone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


class LocalImage(NamedTuple):
    """A picture file of the user's, read and recognised."""

    data: Any
    """bytes, or the `Slices` of a large file."""
    content_type: str
    file_name: str
    """In ASCII, for a header."""


def local_image(path: object, name: str = "file_path") -> LocalImage:
    """Read a picture file. Raises InvalidInput when it is missing, empty, unreadable or no picture."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InvalidInput(f"{name} must be the path of a picture file.")
    shown = repr(os.fspath(path))
    try:
        data = _read(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInput(f"{name} {shown} cannot be read: {reason}. Check the path.") from error
    content_type = content_type_of(data[:HEAD_BYTES])
    if content_type is None:
        raise InvalidInput(f"{name} {shown} is not a picture (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC).")
    return LocalImage(data, content_type, _header_name(path))


def _read(path: str | os.PathLike[str]) -> Any:
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise ValueError("it is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not an ordinary file")
    if found.st_size == 0:
        raise ValueError("it is empty")
    with open(path, "rb") as file:
        return file.read() if found.st_size <= SLICE_ABOVE_BYTES else Slices(path, found.st_size)


class Slices:
    """A large file as something to slice, read when it is: a memory map of it would kill us when it is cut short."""

    def __init__(self, path: str | os.PathLike[str], size: int) -> None:
        self._path = path
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise InvalidInput(f"The file cannot be read any more: {error.strerror}.") from error
        if len(data) < stop - start:
            raise InvalidInput("The file became shorter during the upload. Upload it again once it is complete.")
        return data


def _header_name(path: str | os.PathLike[str]) -> str:
    import unicodedata

    name = os.path.basename(os.fsdecode(os.fsencode(path)))
    plain = (unicodedata.normalize("NFKD", part).encode("ascii", "ignore").decode() for part in os.path.splitext(name))
    stem, extension = (re.sub(r"[^\w.-]+", "_", part).strip("._") for part in plain)
    return f"{stem or 'picture'}.{extension}" if extension else stem or "picture"


# Smaller


def shrunk(call: Call, image: LocalImage | str) -> LocalImage:
    """`image` itself when it is small enough, else a JPEG of it, upright, or a PNG when parts are transparent.

    Raises InvalidInput for a URL, and when Pillow is missing or cannot read the picture.
    """
    if isinstance(image, str):
        raise InvalidInput("shrink works on local photos only. Omit it for a URL.")
    try:
        return _reencoded(call, image, only_large=True)
    except ImportError as error:
        raise InvalidInput(
            "shrink needs Pillow, which is not installed. Install it (pip install pillow), or omit shrink."
        ) from error
    except _UnreadableError as error:
        raise InvalidInput(
            f"shrink cannot read this {image.content_type} picture: {error}. Convert it, or omit shrink."
        ) from error


def for_bria(call: Call, image: LocalImage) -> LocalImage:
    """`image` itself when Bria's endpoints take it, else a JPEG or a PNG of it, as `shrunk` makes them.

    Raises InvalidInput when Pillow is missing or cannot read the picture: fal would refuse it only after the upload.
    """
    if image.content_type not in BRIA_KINDS:
        why = f"Bria's endpoints take no {image.content_type} files"
    elif len(image.data) > BRIA_MAX_BYTES:
        why = f"Bria's endpoints take no files of more than {BRIA_MAX_BYTES // 1_000_000} MB"
    else:
        return image
    try:
        return _reencoded(call, image, only_large=False)
    except ImportError as error:
        raise InvalidInput(
            f"{why}, and converting this one needs Pillow, which is not installed. Install it (pip install pillow), "
            "or convert the file to JPEG or PNG."
        ) from error
    except _UnreadableError as error:
        raise InvalidInput(
            f"{why}, and Pillow cannot convert this one: {error}. Convert the file to JPEG or PNG."
        ) from error


class _UnreadableError(Exception):
    """Why Pillow cannot read a picture."""


def _reencoded(call: Call, image: LocalImage, *, only_large: bool) -> LocalImage:
    """`image` as a JPEG or PNG within MAX_SIDE and MAX_BYTES; with `only_large`, itself when it is within them already.

    Raises ImportError without Pillow, and _UnreadableError.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with _opened(image) as opened:
            if only_large and len(image.data) <= MAX_BYTES and max(opened.size) <= MAX_SIDE:
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
            smaller = _encoded(call, picture if clear else picture.convert("RGB"), profile)
    except FalError:
        raise
    except Exception as error:  # decoders raise whatever they like, RuntimeError and warnings too
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        why = "Pillow does not know its format" if unknown else str(error).rstrip(".")
        raise _UnreadableError(why) from error
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
    """Have a JPEG decoded at the smallest scale that is enough. Raises ValueError when that takes too much memory."""
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


def _encoded(call: Call, picture: Image, profile: bytes | None) -> bytes:
    """The picture as a file of at most MAX_BYTES."""
    while True:
        call.check()
        file = io.BytesIO()
        kind = "PNG" if picture.mode == "RGBA" else "JPEG"
        picture.save(file, kind, quality=JPEG_QUALITY, icc_profile=profile)
        if file.tell() <= MAX_BYTES:
            return file.getvalue()
        scale = min(0.95, math.sqrt(MAX_BYTES / file.tell()))
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
