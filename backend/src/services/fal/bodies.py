"""The bodies of answers: unpacked, and bounded in size both as they come and unpacked.

httpx would unpack whatever an answer says it is, several times over, into memory without bound.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from services.fal.errors import BadOutput

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""An answer in JSON; it may hold a picture as a data URI."""
MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""One event of a stream; those of a text hold all of it so far."""
_PIECE_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class Corrupt(ValueError):
    """The packed body broke off or was damaged on its way."""


def whole(chunks: Iterable[bytes], encoding: str, limit: int) -> bytes:
    """A body, unpacked. Raises BadOutput when it is too large, Corrupt."""
    return b"".join(_bounded(unpacked(_bounded(chunks, limit), encoding), limit))


def unpacked(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """`chunks` as they come, unpacked in small pieces. Raises BadOutput for a packing that was not asked for."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        yield from chunks
    elif kind in ("gzip", "x-gzip"):
        yield from _gunzipped(chunks)
    else:
        raise BadOutput(f"The answer is packed as {kind[:40]!r}, which was not asked for.", retryable=False)


def events_bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The body of an event stream. Raises BadOutput when one event, or one line of it, is too large."""
    size, before = 0, b""
    for chunk in chunks:
        seen = before + chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        ended = seen.rfind(b"\n\n")
        size = size + len(chunk) if ended < 0 else len(seen) - ended - 2
        if size > MAX_EVENT_BYTES:
            raise BadOutput(f"An event of the stream is larger than {_mib(MAX_EVENT_BYTES)}.", retryable=False)
        before = seen[-1:]
        yield chunk


def _bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise BadOutput(f"The answer is larger than {_mib(limit)}.", retryable=False)
        yield chunk


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    unpack, empty = zlib.decompressobj(_GZIP), True
    try:
        for chunk in chunks:
            packed = chunk
            empty = empty and not packed
            while packed:
                if unpack.eof:  # several gzip files in a row are one body
                    unpack = zlib.decompressobj(_GZIP)
                if piece := unpack.decompress(packed, _PIECE_BYTES):
                    yield piece
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    except zlib.error as error:
        raise Corrupt(str(error)) from error
    if not (unpack.eof or empty):
        raise Corrupt("the packed body broke off")


def _mib(size: int) -> str:
    return f"{size // 1024 // 1024} MiB"
