"""A picture's width and height, read from the first bytes of the file where the format allows it.

PNG, JPEG (turned upright as EXIF says), GIF and WebP; anything else is decoded.
"""

from __future__ import annotations

import struct

from fal_sandbox.pictures import codec

SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""


def picture_size(data: bytes) -> tuple[int, int]:
    """(width, height); ValueError when the bytes are no picture."""
    try:
        size = _png(data) or _gif(data) or _webp(data) or _jpeg(data)
    except (struct.error, IndexError) as error:
        raise ValueError("no picture: the file ends inside its header") from error
    if size is None:
        height, width = codec.decode(data).shape[:2]
        return width, height
    if min(size) < 1:
        raise ValueError("no picture: its header gives no size")
    return size


def _png(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> tuple[int, int] | None:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return _u24(data, 24) + 1, _u24(data, 27) + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _u24(data: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", data, at)
    return int(low) | int(high) << 16


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments up to the frame header (SOF); an EXIF segment comes before it."""
    if not data.startswith(codec.JPEG_MAGIC):
        return None
    at, orientation = 2, 1
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return (height, width) if orientation in SIDEWAYS else (width, height)
        if marker == 0xDA:
            raise ValueError("no picture: the JPEG has no frame")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(data[at + 10 : at + 2 + length])
        at += 1 if marker == 0xFF else 2 + length


def _orientation(exif: bytes) -> int:
    """The orientation tag (0x0112) of the first directory; 1 (upright) when it is missing or broken."""
    order = "<" if exif[:2] == b"II" else ">"
    try:
        first = struct.unpack_from(order + "I", exif, 4)[0]
        for index in range(struct.unpack_from(order + "H", exif, first)[0]):
            tag, value = struct.unpack_from(order + "H6xH", exif, first + 2 + 12 * index)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        pass
    return 1
