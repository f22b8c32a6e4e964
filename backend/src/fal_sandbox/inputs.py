"""Pictures that an input names: their bytes, or the model-level error fal gives.

A picture is a file of the sandbox's own CDN, a data URI, or a sample photo on one of the sample hosts. Any
other URL fails as one that could not be downloaded, because the sandbox never reaches out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from fal_sandbox.host_names import service_of
from fal_sandbox.memory import Memory
from fal_sandbox.replies import field_error
from fal_sandbox.wire_types import Json

SAMPLES_KEPT = 64
T = TypeVar("T")


class Unusable(Exception):
    """A model-level 422: the input passed the checks, but the model could not work with it."""

    def __init__(self, kind: str, name: str, message: str, given: Json) -> None:
        super().__init__(message)
        self.detail = [field_error(kind, name, message, given)]


async def in_thread(state: Memory, work: Callable[..., T], *values: Json) -> T:
    """Runs something slow beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(state.executor, work, *values)


async def fetch(state: Memory, field: str, url: str) -> tuple[str, bytes]:
    """File name and bytes behind a URL; Unusable when there is nothing to download."""
    if url.startswith("data:"):
        return "inline", _inline(field, url)
    scheme, host, path = _split(url)
    service = service_of(host, state.settings.hosts) if scheme in ("http", "https") else None
    if service == "cdn" and (kept := state.files.find(path)) is not None:
        return kept.name, kept.data
    if service == "sample":
        return _file_name(path), await sample(state, path)
    raise Unusable("file_download_error", field, "Failed to download the file.", url)


async def fetch_picture(state: Memory, field: str, url: str) -> tuple[str, bytes]:
    """As `fetch`; Unusable also when the bytes are no picture."""
    name, data = await fetch(state, field, url)
    try:
        await in_thread(state, _size, data)
    except ValueError:
        raise Unusable("image_load_error", field, "Failed to load the image.", url) from None
    return name, data


async def sample(state: Memory, path: str) -> bytes:
    """The sample photo for a path on a sample host."""
    return await in_thread(state, _sample, _file_name(path))


def _split(url: str) -> tuple[str, str, str]:
    """Scheme, host name and decoded path; nothing of a URL that is none."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", unquote(parts.path)
    except ValueError:
        return "", "", ""


def _file_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "sample.jpg"


def _inline(field: str, url: str) -> bytes:
    head, comma, payload = url.partition(",")
    try:
        data = base64.b64decode(payload, validate=True) if head.endswith(";base64") else unquote_to_bytes(payload)
    except (binascii.Error, ValueError):
        data = b""
    if not comma or not data:
        raise Unusable("file_download_error", field, "Failed to decode the data URI.", url[:100])
    return data


def _size(data: bytes) -> tuple[int, int]:
    from fal_sandbox.pictures.cutout import picture_size

    return picture_size(data)


@lru_cache(maxsize=SAMPLES_KEPT)
def _sample(name: str) -> bytes:
    from fal_sandbox.samples import sample_photo

    return sample_photo(name)
