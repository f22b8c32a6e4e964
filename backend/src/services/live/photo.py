"""A test photo, a mug on a light table in 512 x 512 pixels, painted here so that no file has to be shipped."""

from __future__ import annotations

import struct
import zlib
from functools import cache

SIDE = 512
WALL, TABLE, MUG, SHADE, INSIDE = (236, 238, 240), (205, 198, 188), (196, 48, 42), (150, 30, 28), (92, 20, 20)


@cache
def mug_png() -> bytes:
    """The bytes of the PNG, painted once per process, in about 0.15 s."""
    rows = b"".join(b"\0" + b"".join(bytes(_colour(x, y)) for x in range(SIDE)) for y in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _colour(x: int, y: int) -> tuple[int, int, int]:
    if ((x - 240) / 90) ** 2 + ((y - 160) / 18) ** 2 < 1:
        return INSIDE
    round_below = ((x - 240) / 90) ** 2 + ((y - 380) / 18) ** 2 < 1
    if 150 <= x <= 330 and (160 <= y <= 380 or round_below):
        return SHADE if x > 290 else MUG
    handle = ((x - 330) / 60) ** 2 + ((y - 265) / 75) ** 2
    if x > 325 and 0.45 < handle < 1:
        return SHADE
    return TABLE if y > 330 else WALL
