"""The files of the CDN and unfinished uploads, bounded in bytes: the oldest are dropped first.

A file is kept as the chunks it came in, so a large one is never copied. Who may upload and what the routes
look like is storage_api's business.
"""

from __future__ import annotations

import random
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fal_sandbox.host_names import CDN_HOST

KEPT_BYTES = 1024 * 1024 * 1024
OPEN_UPLOADS = 10_000
FOLDER = "/files/sandbox/"

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Kept:
    """One file."""

    name: str
    content_type: str
    chunks: tuple[bytes, ...]
    size: int
    etag: str

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)


@dataclass(slots=True)
class Upload:
    """One file whose bytes are still to come, at once or in parts."""

    path: str
    name: str
    content_type: str
    parts: dict[int, Kept] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())


class UploadError(ValueError):
    """A part is missing or is not the one that was sent."""


class Files:
    """Everything under https://v3.fal.media/files/."""

    def __init__(self, source: random.Random, limit_bytes: int = KEPT_BYTES) -> None:
        self._random = source
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._uploads.clear()
        self._bytes = 0

    def find(self, path: str) -> Kept | None:
        return self._kept.get(path)

    def keep(self, chunks: Sequence[bytes], name: str, content_type: str) -> str:
        """Keeps a new file and returns its URL."""
        path = self._new_path(name)
        self._put(path, self._file(chunks, name, content_type))
        return url_of(path)

    def begin(self, name: str, content_type: str) -> tuple[str, Upload]:
        """Opens an upload and returns its id with it."""
        while len(self._uploads) >= OPEN_UPLOADS:
            self._forget_upload(next(iter(self._uploads)))
        upload_id = self._new_id()
        self._uploads[upload_id] = Upload(self._new_path(name), name, content_type)
        return upload_id, self._uploads[upload_id]

    def upload(self, upload_id: str) -> Upload | None:
        return self._uploads.get(upload_id)

    def add_part(self, upload: Upload, number: int, chunks: Sequence[bytes]) -> str:
        """Keeps one part and returns its ETag; a part sent twice replaces the first."""
        part = self._file(chunks, str(number), upload.content_type)
        self._bytes += part.size - (upload.parts[number].size if number in upload.parts else 0)
        upload.parts[number] = part
        self._make_room()
        return part.etag

    def complete(self, upload_id: str, listed: Mapping[int, str]) -> str:
        """Puts the listed parts together into the file and returns its URL."""
        upload = self._uploads[upload_id]
        _check_parts(upload, listed)
        parts = [upload.parts[number] for number in sorted(listed)]
        self._forget_upload(upload_id)
        chunks = tuple(chunk for part in parts for chunk in part.chunks)
        self._put(upload.path, self._file(chunks, upload.name, upload.content_type))
        return url_of(upload.path)

    def fill(self, upload_id: str, chunks: Sequence[bytes]) -> None:
        """Ends an upload whose bytes come at once; sent again, they replace the first."""
        upload = self._uploads[upload_id]
        self._put(upload.path, self._file(chunks, upload.name, upload.content_type))

    def _file(self, chunks: Sequence[bytes], name: str, content_type: str) -> Kept:
        size = sum(map(len, chunks))
        return Kept(name, content_type, tuple(chunks), size, f'"{self._random.getrandbits(64):016x}-{size}"')

    def _put(self, path: str, kept: Kept) -> None:
        self._bytes += kept.size - (self._kept[path].size if path in self._kept else 0)
        self._kept[path] = kept
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes > self._limit_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].size
        while self._bytes > self._limit_bytes and len(self._uploads) > 1:
            self._forget_upload(next(iter(self._uploads)))

    def _forget_upload(self, upload_id: str) -> None:
        self._bytes -= self._uploads.pop(upload_id).size

    def _new_id(self) -> str:
        return f"{self._random.getrandbits(96):024x}"

    def _new_path(self, name: str) -> str:
        return f"{FOLDER}{self._new_id()}_{_ODD.sub('_', name)[-100:] or 'file'}"


def url_of(path: str) -> str:
    """The public URL of a path."""
    return f"https://{CDN_HOST}{path}"


def _check_parts(upload: Upload, listed: Mapping[int, str]) -> None:
    if sorted(listed) != list(range(1, len(upload.parts) + 1)) or not listed:
        raise UploadError(f"parts 1 to {max(1, len(upload.parts))} expected, {sorted(listed)} listed")
    for number, etag in listed.items():
        if number not in upload.parts or etag.strip('"') != upload.parts[number].etag.strip('"'):
            raise UploadError(f"part {number} is missing or has another ETag")
