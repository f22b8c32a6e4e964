"""Pictures that an input names: their bytes, or the model-level error fal gives.

A picture is a file of the sandbox's own CDN, a data URI, or a sample photo on one of the sample hosts. Any
other URL fails as one that could not be downloaded, because the sandbox never reaches out.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from sandbox.answers import field_error
from sandbox.hosts import service_of
from sandbox.wire_types import Json

if TYPE_CHECKING:
    from sandbox.state import State

SAMPLES_KEPT = 64
T = TypeVar("T")


class Unusable(Exception):
    """A model-level 422: the input passed the checks, but the model could not work with it."""

    def __init__(self, kind: str, name: str, message: str, given: Json) -> None:
        super().__init__(message)
        self.detail = [field_error(kind, name, message, given)]


async def in_thread(state: State, work: Callable[..., T], *values: Json) -> T:
    """Runs something slow beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(state.executor, work, *values)


async def fetch(state: State, field: str, url: str) -> tuple[str, bytes]:
    """File name and bytes behind a URL; Unusable when there is nothing to download."""
    if url.startswith("data:"):
        return "inline", _inline(field, url)
    parts = urlsplit(url)
    service = service_of(parts.hostname or "", state.settings.hosts)
    if parts.scheme in ("http", "https") and service == "cdn" and (kept := state.files.find(parts.path)):
        return kept.name, kept.data
    if parts.scheme in ("http", "https") and service == "sample":
        return _file_name(parts.path), await sample(state, parts.path)
    raise Unusable("file_download_error", field, "Failed to download the file.", url)


async def fetch_picture(state: State, field: str, url: str) -> tuple[str, bytes]:
    """As `fetch`; Unusable also when the bytes are no picture."""
    name, data = await fetch(state, field, url)
    try:
        await in_thread(state, _size, data)
    except ValueError:
        raise Unusable("image_load_error", field, "Failed to load the image.", url) from None
    return name, data


async def sample(state: State, path: str) -> bytes:
    """The sample photo for a path on a sample host."""
    name = _file_name(path)
    if (kept := state.samples.get(name)) is None:
        kept = await in_thread(state, _sample, name)
        state.samples[name] = kept
        while len(state.samples) > SAMPLES_KEPT:
            state.samples.popitem(last=False)
    return kept


Samples = OrderedDict[str, bytes]


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
    from sandbox.pictures.cutout import picture_size

    return picture_size(data)


def _sample(name: str) -> bytes:
    from sandbox.samples import sample_photo

    return sample_photo(name)
