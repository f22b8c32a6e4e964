"""Downloads pictures: from fal's hosts only, checked, and completely or not at all.

A file is written under a temporary name beside its place and renamed when it is complete. The key never goes along.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from services.fal.call import LOOK_S, Call, Slots, Task, side_by_side
from services.fal.errors import BadOutput, FalError, InvalidInput
from services.fal.hosts import WebUrl, is_file_host, parse
from services.fal.image_files import content_type_of, size_of
from services.fal.redaction import shown

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi

T = TypeVar("T")
MAX_NAME_BYTES = 200
"""File systems take 255; the temporary name and the extension are longer."""
AT_ONCE = 8
"""Downloads side by side."""
SAVE_S = 1.0
"""How much longer than its call the download of a paid picture may take: within the grace in which a command ends."""
MAX_STEM = 48
"""Characters of what the files of a result are named after; what follows it must not be cut off."""
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
}


class PaidDownloads:
    """Downloads of what a call has paid for, while it goes on and a moment longer: also when it is cancelled, takes too
    long or fails after that."""

    def __init__(self, call: Call) -> None:
        self._paid_by = call
        # Not a part of it, with which the downloads would be stopped at once.
        self.call = Call(call.remaining() + SAVE_S)
        """What the downloads are parts of."""
        self._places = Slots(AT_ONCE)

    def start(self, download: Callable[[], T]) -> Task[T]:
        def in_place() -> T:
            with self._places.one(self.call):
                return download()

        return Task(in_place)

    def result(self, task: Task[T]) -> T:
        """Wait for a download, which is stopped a moment after its call was; its value, or its error raised here."""
        while not task.wait(LOOK_S):
            if self._paid_by.cancelled and self._paid_by.over_at() + SAVE_S <= time.monotonic():
                self.call.cancel()
        return task.result()


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

    def save_result(self, call: Call, result: Mapping[str, Any], directory: Path, name: str | None) -> dict[str, Any]:
        """`result` with its pictures saved. Raises the first error; its `partial` is the result as far as it is."""
        saved = copy.deepcopy(dict(result))
        first: FalError | None = None
        with side_by_side(call) as tasks:
            started = [
                (picture, tasks.start(partial(self.save, tasks.call, url, directory, _joined(name, part))))
                for picture, url, part in _pictures_in(saved)
            ]
            for picture, task in started:
                try:
                    picture |= file_facts(task.result())
                except FalError as error:
                    first = first or error
        if first is not None:
            raise first.but(partial=saved) from first
        return saved

    def _checked(self, url: str) -> WebUrl:
        try:
            parts = parse(url)
        except ValueError as error:
            raise _refused(f"{shown(url, 100)!r}, since {error}") from error
        if not parts.is_plain_https or not (is_file_host(parts.host) or parts.host in self._more_hosts):
            raise _refused(repr(shown(parts.host, 100)))
        return parts


def _pictures_in(result: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The pictures of a result: where their facts go, their URL, and their part of the name."""
    for key, part in (("image", "picture"), ("cutout", "cutout")):
        if isinstance(picture := result.get(key), dict) and picture.get("url"):
            yield picture, picture["url"], part
    for number, picture in enumerate(result.get("images") or (), start=1):
        yield picture, picture["image_url"], f"{number}-{picture['style_name']}"


def _joined(name: str | None, part: str) -> str:
    return f"{safe_name(name)[:MAX_STEM]}-{part}" if name else part


def _refused(place: str) -> InvalidInput:
    return InvalidInput(
        f"Pictures are downloaded over https from fal's own hosts only, not from {place}.",
        hint="Name the host in FAL_DOWNLOAD_HOSTS if you trust it.",
    )


def safe_name(name: str) -> str:
    """`name` as a file name, as it is given but for what would lead elsewhere or no file system takes."""
    plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]+', "-", unicodedata.normalize("NFC", name)).strip(" .-")
    return plain[:80].encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .-") or "picture"


def file_facts(path: Path) -> dict[str, Any]:
    """What is told of a saved picture: `path`, `sha256` and, where its format tells them, `width` and `height`."""
    data = path.read_bytes()
    size = size_of(data)
    measured = {} if size is None else {"width": size[0], "height": size[1]}
    return {"path": str(path), "sha256": hashlib.sha256(data).hexdigest(), **measured}


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
