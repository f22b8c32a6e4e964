"""The host names that the sandbox answers for, and the fal service behind each.

Anything not named here is foreign: the proxy refuses it, because the sandbox never reaches out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

Service = Literal["queue", "direct", "rest", "cdn", "bucket", "sample", "platform", "other"]

CDN_HOST = "v3.fal.media"
BUCKET_HOST = "storage.googleapis.com"

_EXACT: dict[str, Service] = {
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "fal.run": "direct",
    "falrun.com": "direct",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "fal.media": "cdn",
    BUCKET_HOST: "bucket",
    "example.com": "sample",
    "api.fal.ai": "platform",
    "fal.ai": "other",
}
_SUFFIXES: tuple[tuple[str, Service], ...] = (
    (".fal.media", "cdn"),
    (".example.com", "sample"),
    (".fal.run", "other"),
    (".falrun.com", "other"),
    (".fal.ai", "other"),
)


_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def is_name(host: str) -> bool:
    """Whether this can be the name of a host: labels of letters, digits and hyphens."""
    host = host.lower().removesuffix(".")
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def service_of(host: str, extra: Collection[str] = ()) -> Service | None:
    """The service behind a host name, or None for a foreign one; `extra` names serve sample photos."""
    host = host.lower().rstrip(".")
    if (known := _EXACT.get(host)) is not None:
        return known
    for suffix, service in _SUFFIXES:
        if host.endswith(suffix):
            return service
    return "sample" if any(_fits(host, name.lower()) for name in extra) else None


def _fits(host: str, name: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name
