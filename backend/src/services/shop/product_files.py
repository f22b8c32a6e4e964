"""The files of one product in one folder: named after it, whole or not at all, and told with their size and hash."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote, urlsplit

from services.fal.downloads import replacing, safe_name
from services.fal.errors import InvalidInput

CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
MAX_NAME = 120
"""Characters of a name; file systems take 255 bytes with what is added."""


class SavedPicture(TypedDict):
    """A picture in a file."""

    path: str
    """Where it was saved."""
    sha256: str
    """Of the file, in hexadecimal digits."""
    width: int
    """In pixels."""
    height: int
    """In pixels."""
    content_type: str
    """Its media type, such as image/jpeg."""
    file_size: int
    """In bytes."""


class ProductFiles:
    """Where one product's files go."""

    def __init__(self, directory: str | os.PathLike[str], name: str | None, image: str | os.PathLike[str]) -> None:
        """Raises InvalidInput when the folder cannot be written to: before any money is spent."""
        if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
            raise InvalidInput("directory must be the path of a folder.")
        self.folder = Path(os.fsdecode(os.fspath(directory)))
        self._stem = _stem(name, image)
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
        """`part`, or with a number, so that no file named after it with this ending is there yet."""
        plain = safe_name(part)
        # By the name that a download gets: the client writes it in lower case.
        there = {safe_name(Path(name).stem) for name in os.listdir(self.folder)}
        names = (plain if number == 1 else f"{plain}-{number}" for number in itertools.count(1))
        return next(name for name in names if safe_name(self.named(name + ending)) not in there)

    def write(self, data: bytes, part: str, extension: str) -> SavedPicture:
        path = self.folder / f"{self.named(part)}.{extension}"
        try:
            with replacing(path) as temporary:
                Path(temporary).write_bytes(data)
        except OSError as error:
            raise InvalidInput(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
        return self.take(path)

    def copy(self, source: str | os.PathLike[str], part: str) -> SavedPicture:
        """A picture that is there already, under this product's name too."""
        path = self.folder / f"{self.named(part)}{Path(os.fspath(source)).suffix.lower()}"
        try:
            if not (path.exists() and os.path.samefile(source, path)):
                with replacing(path) as temporary:
                    shutil.copyfile(source, temporary)
        except OSError as error:
            raise InvalidInput(
                f"{os.fspath(source)!r} cannot be read: {error.strerror or error}. Check the path."
            ) from error
        return self.take(path)

    def take(self, path: Path) -> SavedPicture:
        """What is told of a file that is there."""
        from services.shop.picture_file import opened

        data = path.read_bytes()
        picture = opened(data)
        return {
            "path": str(path),
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": picture.width,
            "height": picture.height,
            "content_type": CONTENT_TYPES.get(picture.format or "", "application/octet-stream"),
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
