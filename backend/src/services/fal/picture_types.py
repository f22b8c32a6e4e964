"""What kind of picture a file is, by its first bytes; its name says nothing."""

from __future__ import annotations

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
