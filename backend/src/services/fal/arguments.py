"""What callers may pass: whatever is wrong is refused here, before any request, by an error that says what to do.

A local path is only ever read where a path was asked for; an image URL never is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from services.fal.errors import InvalidInput
from services.fal.hosts import fault_of
from services.fal.redaction import shown

PRIORITIES = ("latency", "throughput")
MAX_STYLES = 100
MAX_DATA_URI_BYTES = 10 * 1024 * 1024
"""fal's own limit for inputs given as a data URI."""

_WITH_BLANKS = re.compile(r"(https?://[^\s/?#]+)([/?#][^\r\n\t]*)\Z", re.IGNORECASE)
_SCHEME = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=\s]+\Z")


class Style(NamedTuple):
    """A background style: its name, and what a prompt is written from."""

    name: str
    description: str


DEFAULT_STYLES = (
    Style("Studio", "Clean white studio background for e-commerce, seamless backdrop, soft even light"),
    Style(
        "Lifestyle",
        "Natural lifestyle setting, cozy living room with a wooden table and daylight from a window",
    ),
    Style("Premium", "Premium dark and dramatic setting, polished dark marble surface, spotlight, luxury mood"),
)


def text(value: object, name: str) -> str:
    """`value` when it is a string that is not blank and can be sent as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{name} must be a non-empty string.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} contains a lone surrogate, which has no UTF-8. Pass valid Unicode.") from error
    return value


def string(value: object, name: str) -> str:
    """`value` when it is a string, which may be empty."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a string, not {shown(repr(value), 100)}.")
    return value


def optional_text(value: object, name: str) -> str | None:
    return None if value is None else text(value, name)


def temperature(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 2:  # type: ignore[operator]
        raise InvalidInput(f"temperature must be a number from 0 to 2, not {value!r}.")
    return float(value)  # type: ignore[arg-type]


def max_tokens(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"max_tokens must be a whole number of at least 1, not {value!r}.")
    return value


def priority(value: object) -> str:
    if value not in PRIORITIES:
        raise InvalidInput(f"priority must be one of {', '.join(PRIORITIES)}, not {value!r}.")
    return str(value)


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false, not {value!r}.")
    return value


def web_url(value: object, name: str) -> str:
    """`value` when it is an http(s) URL with a host and one meaning only; blanks in its path are encoded."""
    url = text(value, name).strip()
    if (found := _WITH_BLANKS.match(url)) is not None:
        url = found[1] + found[2].replace(" ", "%20")
    fault = fault_of(url)
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if fault or not good:
        why = fault or "its host or its port is missing or wrong"
        raise InvalidInput(f"{name} must be an http:// or https:// URL, but {why}: {shown(url, 200)!r}.")
    return url


def image_url(value: object, name: str = "image_url") -> str:
    """`value` when it is an http(s) URL or a data URI of an image; a local path is refused, not read."""
    url = text(value, name).strip()
    if not url.startswith("data:"):
        try:
            return web_url(url, name)
        except InvalidInput as error:
            raise InvalidInput(
                f"{name} must be an http(s) URL or a data URI of an image, not {shown(url, 200)!r}{_because(url)}. "
                "Upload a local file first (upload_file, or the command upload-file)."
            ) from error
    if not _DATA_URI.match(url):
        raise InvalidInput(f"{name} must look like data:image/png;base64,... when it is a data URI.")
    if len(url) > MAX_DATA_URI_BYTES:
        raise InvalidInput(f"{name} is a data URI of more than 10 MiB, which fal refuses. Upload the file instead.")
    return url


def _because(url: str) -> str:
    looks_like_one = url.lower().startswith(("http://", "https://"))
    return f", since {fault}" if looks_like_one and (fault := fault_of(url)) else ""


def is_url(value: object) -> bool:
    """Whether `value` is meant as a URL where a local path may stand too: it begins with a scheme."""
    return isinstance(value, str) and _SCHEME.match(value) is not None


def image_urls(value: object, name: str = "image_urls") -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidInput(f"{name} must be a list of image URLs.")
    return [image_url(item, name) for item in value]


def folder(value: object, name: str) -> Path:
    """A directory, which need not be there yet."""
    if not isinstance(value, str | os.PathLike) or not isinstance(path := os.fspath(value), str) or not path:
        raise InvalidInput(f"{name} must be the path of a directory, not {value!r}.")
    if "\0" in path:
        raise InvalidInput(f"{name} must not hold a null character.")
    return Path(path)


def categories(value: object) -> dict[str, str]:
    """Product categories: a mapping of names to strings, as `analyze_product_image` returns them."""
    if not isinstance(value, Mapping) or not value:
        raise InvalidInput(
            'categories must be a non-empty JSON object of strings, such as analyze-product returns under "categories".'
        )
    for key, item in value.items():
        if not isinstance(item, str):
            raise InvalidInput(f"Every value in categories must be a string, but {key!r} holds {type(item).__name__}.")
        text(key, "a category's name")
        if item.strip():
            text(item, f"categories[{key!r}]")
    return dict(value)


def styles(value: object) -> list[Style]:
    """Styles given as `{"name", "description"}` or as the name of a default one; None means the default three."""
    if value is None:
        return list(DEFAULT_STYLES)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InvalidInput('styles must be a list and not empty, such as [{"name": ..., "description": ...}].')
    if len(value) > MAX_STYLES:
        raise InvalidInput(f"styles must hold at most {MAX_STYLES} styles, not {len(value)}.")
    return [_style(item) for item in value]


def _style(item: object) -> Style:
    if isinstance(item, str):
        return _default_style(item)
    if not isinstance(item, Mapping) or not {"name", "description"} <= set(item):
        raise InvalidInput(f'Each style needs "name" and "description": {shown(item, 200)!r} lacks one of them.')
    if unknown := set(item) - {"name", "description"}:
        raise InvalidInput(f"A style takes only name and description, not {', '.join(sorted(map(repr, unknown)))}.")
    return Style(text(item["name"], "a style's name"), text(item["description"], "a style's description"))


def _default_style(name: str) -> Style:
    for style in DEFAULT_STYLES:
        if style.name.lower() == name.strip().lower():
            return style
    known = ", ".join(style.name for style in DEFAULT_STYLES)
    raise InvalidInput(
        f"Unknown style {shown(name, 100)!r}. Known: {known}. Other styles need a name and a description."
    )
