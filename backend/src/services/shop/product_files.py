"""The files of one product in one folder: named after it, written completely or not at all."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote, urlsplit

from services.fal.downloads import replacing, safe_name
from services.fal.errors import InvalidInput
from services.fal.image_files import content_type_of, size_of

MAX_NAME = 120
"""Characters of a name; file systems take 255 bytes with what is added."""


class SavedPicture(TypedDict):
    """A picture in a file."""

    path: str
    """Where it was saved."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    width: int | None
    """In pixels; None when its format does not tell them."""
    height: int | None
    """In pixels; None when its format does not tell them."""
    content_type: str
    """Its media type, such as image/jpeg."""
    file_size: int
    """In bytes."""


class CutoutFile(TypedDict, total=False):
    path: str
    """Missing in a failure, when it could not be saved."""
    sha256: str
    """Of the file, in hexadecimal digits."""


class CutoutOnFile(CutoutFile):
    """The product alone."""

    url: str | None
    """Where fal keeps it, when it was made or sent there by this call."""
    width: int | None
    """In pixels."""
    height: int | None
    """In pixels."""
    content_type: str | None
    """Its media type, such as image/png."""
    file_size: int | None
    """In bytes."""


class ProductFiles:
    """Where one product's files go."""

    def __init__(self, directory: str | os.PathLike[str], name: str | None, image: str | os.PathLike[str]) -> None:
        """Raises InvalidInput when the folder cannot be written to: before any money is spent."""
        if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
            raise InvalidInput("directory must be the path of a folder.")
        self.folder = Path(os.fsdecode(os.fspath(directory)))
        self._stem = _stem(name, image)
        self._promised: set[str] = set()
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Permissions do not tell everything (a read-only disk): try it.
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"{str(self.folder)!r} cannot be written to: {reason}.") from error

    def named(self, part: str) -> str:
        return f"{self._stem}-{part}"

    def free(self, part: str, ending: str) -> str:
        """`part`, or with a number, so that no file named after it with this ending is there yet, or was promised."""
        plain = safe_name(part)
        # By the name that a download gets: the client writes it in lower case.
        names = (plain if number == 1 else f"{plain}-{number}" for number in itertools.count(1))
        with self._lock:
            there = {safe_name(Path(name).stem) for name in os.listdir(self.folder)} | self._promised
            free = next(name for name in names if safe_name(self.named(name + ending)) not in there)
            self._promised.add(safe_name(self.named(free + ending)))
        return free

    def write(self, data: bytes, part: str, extension: str) -> SavedPicture:
        return write_picture(self.folder / f"{self.named(part)}.{extension}", data)

    def copy(self, source: str | os.PathLike[str], part: str) -> SavedPicture:
        """A picture that is there already, under this product's name too unless it is in the folder."""
        if os.path.isfile(source) and os.path.samefile(Path(os.fspath(source)).parent, self.folder):
            return picture_facts(Path(os.fspath(source)))
        path = self.folder / f"{self.named(part)}{Path(os.fspath(source)).suffix.lower()}"
        try:
            with replacing(path) as temporary:
                shutil.copyfile(source, temporary)
        except OSError as error:
            raise InvalidInput(
                f"{os.fspath(source)!r} cannot be read: {error.strerror or error}. Check the path."
            ) from error
        return picture_facts(path)


def write_picture(path: Path, data: bytes) -> SavedPicture:
    """Raises InvalidInput when the file cannot be written."""
    try:
        with replacing(path) as temporary:
            Path(temporary).write_bytes(data)
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    return picture_facts(path)


def picture_facts(path: Path) -> SavedPicture:
    """What is told of a picture that is in a file."""
    data = path.read_bytes()
    width, height = size_of(data) or (None, None)
    return {
        "path": str(path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": width,
        "height": height,
        "content_type": content_type_of(data[:64]) or "application/octet-stream",
        "file_size": len(data),
    }


def _stem(name: str | None, image: str | os.PathLike[str]) -> str:
    """The name as given; only what would lead elsewhere, or no file system takes, is replaced."""
    if name is None:
        text = os.fsdecode(os.fspath(image))
        web = text.lower().startswith(("http://", "https://"))
        last = unquote(urlsplit(text).path) if web else "" if text.startswith("data:") else text
        name = Path(last).stem
    plain = re.sub(r'[\x00-\x1f/\\\\:*?"<>|]+', "-", str(name)).strip(" .")
    return plain[:MAX_NAME] or "product"
