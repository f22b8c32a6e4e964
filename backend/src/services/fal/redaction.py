"""Keeps secrets out of everything that is shown.

Keys that were resolved are remembered here, whole and in their two halves, and replaced wherever text leaves
the process: error messages, traces, logs, the worker's output. Nothing is meant to carry them that far; this
is the last line, not the first.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_SHORTEST_SECRET = 6
"""Shorter parts would turn ordinary words into masks."""

_secrets: set[str] = set()
_QUERY = re.compile(r"(https?://[^\s\"'<>?]+)\?[^\s\"'<>]+")


def remember(key: str) -> None:
    """From now on neither `key` nor a half of it (`id:secret`) is shown."""
    _secrets.update(part for part in (key, *key.split(":")) if len(part) >= _SHORTEST_SECRET)


def redact(text: str) -> str:
    """`text` with every remembered secret replaced by `***`."""
    for secret in sorted(_secrets, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def redacted(value: Any) -> Any:
    """`value`, as JSON gives it, with `redact` applied to every text in it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return {redact(str(key)): redacted(item) for key, item in value.items()} if isinstance(value, dict) else value


def for_log(text: str) -> str:
    """`redact`, and the query strings of URLs shortened: a signed URL is a secret too."""
    return redact(_QUERY.sub(r"\1?…", text))


def masked(key: str) -> str:
    """A key as it may be shown: only its length."""
    return f"{MASK} ({len(key)} characters)"
