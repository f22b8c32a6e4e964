"""Saves pictures that models made: from fal's hosts only, checked, and whole or not at all.

A file is written under a temporary name beside its place and renamed when it is complete. The key never goes along.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from services.fal.call import Call
from services.fal.errors import BadOutput, InvalidInput
from services.fal.hosts import WebUrl, is_file_host, parse
from services.fal.image_files import content_type_of
from services.fal.redaction import shown

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi

MAX_NAME_BYTES = 200
"""File systems take 255; the temporary name and the extension are longer."""
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
}


class Downloads:
    """Files of one client's results."""

    def __init__(self, api: FalApi, more_hosts: frozenset[str]) -> None:
        self._api = api
        self._more_hosts = more_hosts

    def save(self, call: Call, url: str, directory: Path, name: str) -> Path:
        """Store the picture at `url` as `name` with its extension in `directory`; the path it got.

        Raises InvalidInput for a URL that is not downloaded from, BadOutput for what is not a picture, NotFound
        when it has expired, Unreachable when it cannot be had.
        """
        data = _data_uri(url) if url.startswith("data:") else self._api.download(call, self._checked(url))
        extension = _extension(data)
        try:
            return _write(data, directory, safe_name(name) + extension)
        except OSError as error:
            raise InvalidInput(f"{str(directory)!r} cannot be written to: {error.strerror or error}.") from error

    def _checked(self, url: str) -> WebUrl:
        try:
            parts = parse(url)
        except ValueError as error:
            raise _refused(f"{shown(url, 100)!r}, since {error}") from error
        if not parts.is_plain_https or not (is_file_host(parts.host) or parts.host in self._more_hosts):
            raise _refused(repr(shown(parts.host, 100)))
        return parts


def _refused(place: str) -> InvalidInput:
    return InvalidInput(
        f"Pictures are downloaded over https from fal's own hosts only, not from {place}.",
        hint="Name the host in FAL_DOWNLOAD_HOSTS if you trust it.",
    )


def safe_name(name: str) -> str:
    """`name` as a file name of letters, digits, dashes and underscores: it can lead nowhere else."""
    # Lower case leaves a dot of its own of the Turkish İ.
    lower = unicodedata.normalize("NFC", name).lower().replace("\N{COMBINING DOT ABOVE}", "")
    plain = re.sub(r"[^\w-]+", "-", lower).strip("-")
    return plain[:80].encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore") or "picture"


def _extension(data: bytes) -> str:
    """By the first bytes: servers label pictures as anything, and error pages as pictures."""
    if not data:
        raise BadOutput("The download is empty, not a picture.", retryable=False)
    kind = content_type_of(data[:64])
    if kind not in EXTENSIONS:
        what = "a web page" if data.lstrip()[:1] == b"<" else kind or "something else"
        raise BadOutput(f"The download is not a picture (PNG, JPEG, WebP, GIF, AVIF) but {what}.", retryable=False)
    return EXTENSIONS[kind]


def _data_uri(url: str) -> bytes:
    head, _, body = url.partition(",")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else b""
    except ValueError as error:
        raise BadOutput("The picture's data URI is not valid base64.", retryable=False) from error


def _write(data: bytes, directory: Path, name: str) -> Path:
    name = os.fsdecode(name.encode("utf-8"))  # as this process's locale spells it
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A file beside `path`, which takes its place when the block ends well; else nothing of it is left."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
