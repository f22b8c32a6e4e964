"""The keys of products, and the folders that are named after them.

Two keys never share a folder: what no file system takes is escaped, in a way that can be undone, and keys that differ
in case or in the spelling of an accent only are refused, since some file systems take them for one
(https://learn.microsoft.com/windows/win32/fileio/naming-a-file, https://developer.apple.com/documentation/foundation/file_system).
"""

from __future__ import annotations

import re
import unicodedata

from services.fal.errors import InvalidInput
from services.fal.redaction import shown

MAX_FOLDER_BYTES = 200
"""File systems take 255."""
_ESCAPED = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]|^[. ~]|[. ]\Z')
"""Also a dot at an end: ".." is another folder, ".x" is hidden, and Windows drops the last one."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(?=\.|\Z)", re.IGNORECASE)
"""Names that Windows keeps for itself, whatever their extension."""
OWN_NAMES = re.compile(r"(batch\.|results\.|index\.)", re.IGNORECASE)
"""Files of the batch itself stand beside the folders."""


def folder_of(key: str) -> str:
    """The name of the folder of a product."""
    plain = unicodedata.normalize("NFC", key)
    name = _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", plain)
    if _DEVICES.match(name) or OWN_NAMES.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def checked_key(value: object) -> str:
    """A key as it is used: spelled in NFC, since the next manifest, or the names of photos that were copied by
    another system, may spell the same key otherwise. Raises InvalidInput for what can be none."""
    key = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    key = unicodedata.normalize("NFC", key)
    if not key:
        raise InvalidInput("key must be a non-empty string, such as a SKU.")
    try:
        size = len(folder_of(key).encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The key {shown(ascii(key), 100)} is not valid Unicode.") from error
    if size > MAX_FOLDER_BYTES:
        raise InvalidInput(f"The key {shown(key, 60)!r} is too long for the name of a folder. Shorten it.")
    return key


def same_folder(key: str) -> str:
    """What two keys have in common whose folders some file system takes for one."""
    return unicodedata.normalize("NFC", folder_of(key).casefold())
