"""Checks arguments: refuses what is wrong before any request, with an error that says what to do.

A local path is only ever read where a path was asked for; an image URL never is one.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from services.fal.endpoints import ROLES, check_endpoint
from services.fal.errors import InvalidInput
from services.fal.hosts import fault_of
from services.fal.redaction import shown

PRIORITIES = ("latency", "throughput")
MAX_STYLES = 100
MAX_JOBS = 1_000_000
MAX_DATA_URI_BYTES = 10 * 1024 * 1024
"""fal's own limit for inputs given as a data URI."""

_WITH_BLANKS = r"(?i)(https?://[^\s/?#]+)([/?#][^\r\n\t]*)\Z"
_SCHEME = r"(?i)\s*(?:[a-z][a-z0-9+.-]*://|data:)"
_DATA_URI = r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=\s]+\Z"

LENGTH_WORDS = (10, 2000)
"""The least and the most words that a description may be asked for."""
MAX_FACTS_CHARS = 20_000
"""Of facts, as JSON."""
MAX_NUMBER = 10**15
"""Of facts: huge integers cannot be written out, and infinity and NaN are none."""
MAX_SEED = 2**31 - 1
"""Of Bria's endpoints (https://fal.ai/models/fal-ai/bria/background/replace/api)."""
MAX_SIDE = 99_999
MAX_VARIANTS = 4
"""What one job of any of fal's picture endpoints makes at most."""
_SIZE = r"([1-9]\d{0,4})x([1-9]\d{0,4})\Z"


class PictureOptions(NamedTuple):
    """What a picture is to be like, apart from its prompt."""

    num_images: int
    """How many variants are made."""
    others: Mapping[str, Any]
    """The other options that were given, by the names that the methods have for them."""


class Description(NamedTuple):
    """What a product's description is to be like."""

    language: str
    tone: str | None = None
    length: int | None = None
    """About how many words it has; None: two sentences."""
    facts: Mapping[str, Any] | None = None
    """What is known of the product, apart from its categories."""


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
    if (found := re.match(_WITH_BLANKS, url)) is not None:
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
    if not re.match(_DATA_URI, url):
        raise InvalidInput(f"{name} must look like data:image/png;base64,... when it is a data URI.")
    if len(url) > MAX_DATA_URI_BYTES:
        raise InvalidInput(f"{name} is a data URI of more than 10 MiB, which fal refuses. Upload the file instead.")
    return url


def _because(url: str) -> str:
    looks_like_one = url.lower().startswith(("http://", "https://"))
    return f", since {fault}" if looks_like_one and (fault := fault_of(url)) else ""


def is_url(value: object) -> bool:
    """Whether `value` is meant as a URL where a local path may stand too: it begins with a scheme."""
    return isinstance(value, str) and re.match(_SCHEME, value) is not None


def image_urls(value: object, name: str = "image_urls") -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidInput(f"{name} must be a list of image URLs.")
    return [image_url(item, name) for item in value]


def endpoints(value: object) -> list[str]:
    """Ids of endpoints of fal's."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InvalidInput("endpoints must be a non-empty list of ids, such as bria/replace-background.")
    return list(dict.fromkeys(check_endpoint(text(item, "endpoints"), "endpoints", "text") for item in value))


def jobs(value: object) -> dict[str, int]:
    """Numbers of jobs by role."""
    if not isinstance(value, Mapping) or not set(value) <= set(ROLES):
        raise InvalidInput(f"jobs must map roles to numbers of jobs ({', '.join(ROLES)}), such as {{'text': 1}}.")
    return {role: _whole(count, f"jobs[{role!r}]", 0, MAX_JOBS) for role, count in value.items()}


def known(options: Mapping[str, object], method: FunctionType) -> None:
    """Raises InvalidInput for a name that is no argument of `method`."""
    code = method.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    for name in options:
        if name not in names:
            raise InvalidInput(f"{method.__name__} has no argument {name!r}. It has {', '.join(names)}.")


def folder(value: object, name: str) -> Path:
    """A directory, which need not be there yet."""
    if not isinstance(value, str | os.PathLike) or not isinstance(path := os.fspath(value), str) or not path:
        raise InvalidInput(f"{name} must be the path of a directory, not {value!r}.")
    if "\0" in path:
        raise InvalidInput(f"{name} must not contain a null character.")
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


def length(value: object) -> int:
    """How many words a description is to have."""
    least, most = LENGTH_WORDS
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"length must be a whole number of words from {least} to {most:,}, not {value!r}.")
    return value


def facts(value: object) -> dict[str, Any]:
    """What is known of a product, as names and values: texts, numbers, true or false, or lists of them."""
    if not isinstance(value, Mapping) or not value:
        raise InvalidInput('facts must be a non-empty object, such as {"material": "ceramic", "size": "350 ml"}.')
    known = {text(name, "a fact's name"): _fact(name, item) for name, item in value.items()}
    if len(json.dumps(known, ensure_ascii=False)) > MAX_FACTS_CHARS:
        raise InvalidInput(f"facts have more than {MAX_FACTS_CHARS:,} characters. Shorten them.")
    return known


def _fact(name: str, value: object) -> Any:
    if isinstance(value, str):
        return text(value, f"facts[{name!r}]")
    if isinstance(value, bool | int | float) and -MAX_NUMBER < value < MAX_NUMBER:
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes) and _are_plain(value):
        return [_fact(name, item) for item in value]
    raise InvalidInput(f"facts[{name!r}] must be a string, a number, true or false, or a list of these.")


def _are_plain(items: Sequence[object]) -> bool:
    return bool(items) and all(isinstance(item, str | bool | int | float) for item in items)


def description(language: object, tone: object, length_words: object, known: object) -> Description:
    return Description(
        text(language, "language"),
        optional_text(tone, "tone"),
        None if length_words is None else length(length_words),
        None if known is None else facts(known),
    )


def styles(value: object) -> list[Style]:
    """Styles given as `{"name", "description"}` or as the name of a default one; None means the default three."""
    if value is None:
        return list(DEFAULT_STYLES)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InvalidInput('styles must be a non-empty list, such as [{"name": ..., "description": ...}].')
    if len(value) > MAX_STYLES:
        raise InvalidInput(f"styles must contain at most {MAX_STYLES} styles, not {len(value)}.")
    return [_style(item) for item in value]


def picture_options(
    *,
    seed: object,
    num_images: object,
    negative_prompt: object,
    aspect_ratio: object,
    resolution: object,
    image_size: object,
    original_quality: object,
    placement: object,
    ref_image_url: object = None,
) -> PictureOptions:
    """The options of a picture, checked as far as they are alike for every endpoint."""
    given = {
        "seed": None if seed is None else _whole(seed, "seed", 0, MAX_SEED),
        "negative_prompt": optional_text(negative_prompt, "negative_prompt"),
        "aspect_ratio": optional_text(aspect_ratio, "aspect_ratio"),
        "resolution": optional_text(resolution, "resolution"),
        "image_size": None if image_size is None else _image_size(image_size),
        "original_quality": None if original_quality is None else flag(original_quality, "original_quality"),
        "placement": optional_text(placement, "placement"),
        "ref_image_url": None if ref_image_url is None else image_url(ref_image_url, "ref_image_url"),
    }
    count = _whole(num_images, "num_images", 1, MAX_VARIANTS)
    return PictureOptions(count, {name: value for name, value in given.items() if value is not None})


def _whole(value: object, name: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidInput(f"{name} must be a whole number from {least} to {most}, not {shown(repr(value), 100)}.")
    return value


def _image_size(value: object) -> tuple[int, int] | str:
    """A width and a height, or the name that an endpoint has for them, such as square_hd."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return _whole(value[0], "image_size[0]", 1, MAX_SIDE), _whole(value[1], "image_size[1]", 1, MAX_SIDE)
    if not isinstance(value, str):
        raise InvalidInput(f"image_size must be a width and a height, such as 1000x800, not {shown(repr(value), 100)}.")
    size = re.match(_SIZE, value)
    return (int(size[1]), int(size[2])) if size else text(value, "image_size")


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
