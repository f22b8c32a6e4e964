"""Keeps secrets out of all output.

Keys that were resolved are remembered here, whole and in their two halves, as they are and as they are written in
JSON, URLs, HTML and base64. They are replaced in every answer as it comes in (a peer may echo what it was sent) and
once more wherever text leaves the process: error messages, traces, logs, the worker's output. Text is masked before
it is cut: the part of a key that a cut leaves could not be recognised any more.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST_SECRET = 6
"""Shorter parts would turn ordinary words into masks."""

_secrets: set[str] = set()
"""Every spelling of every key."""
_URL_PASSWORD = r"(://[^\s/:@]*):[^\s/@]+@"
_QUERY = r"(https?://[^\s\"'<>?]+)\?[^\s\"'<>]+"


class Secret(str):
    """A key, which no traceback with the values of variables shows: its repr is masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked(self))


def remember(key: str) -> Secret:
    """From now on neither `key` nor a half of it (`id:secret`) is shown."""
    for part in (key, *key.split(":")):
        if len(part) >= _SHORTEST_SECRET:
            _secrets.update(_spellings(part))
    return Secret(key)


def _spellings(secret: str) -> Iterator[str]:
    """`secret` as it may be written: plain, escaped, and inside a longer text in base64."""
    yield secret
    quoted = quote(secret, safe="")
    yield from (quoted, quote_plus(secret), re.sub("%..", lambda code: code[0].lower(), quoted))
    yield from (json.dumps(secret)[1:-1], repr(secret)[1:-1], secret.replace("/", r"\/"))
    yield json.dumps(json.dumps(secret)[1:-1])[1:-1]
    if any(letter in secret for letter in "&<>\"'"):
        import html  # its table of entities takes a millisecond, and hardly any key needs it

        yield from (html.escape(secret), html.escape(secret, quote=False))
    for before in range(3):
        # The first and the last letters depend on what stands beside the secret.
        code = base64.b64encode(bytes(before) + secret.encode()).decode().rstrip("=")
        whole = (before + len(secret)) * 8 // 6
        inner = code[(0, 2, 3)[before] : whole]
        if len(inner) >= _SHORTEST_SECRET:
            yield from (inner, inner.replace("+", "-").replace("/", "_"))


def is_clean(text: str) -> bool:
    """Whether no secret is in `text`."""
    return not any(secret in text for secret in _secrets)


def redact(text: str) -> str:
    """`text` with every remembered secret replaced by `***`."""
    found = [secret for secret in _secrets if secret in text]
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def shown(text: object, limit: int) -> str:
    """The beginning of `text`, for a message; without the password in a URL."""
    return redact(re.sub(_URL_PASSWORD, rf"\1:{MASK}@", str(text)))[:limit]


def redacted(value: Any) -> Any:
    """`value`, as JSON gives it, with `redact` applied to every text in it; itself where there is nothing to mask."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        items = [redacted(item) for item in value]
        return value if items == value else items
    if isinstance(value, dict):
        members = {redact(str(key)): redacted(item) for key, item in value.items()}
        return value if members == value else members
    return value


def redacted_body(body: bytes) -> bytes:
    """The body of an answer, masked also where JSON escapes hide a secret; byte for byte the same without one."""
    if b"\\" in body:
        try:
            value = json.loads(body)
            masked_value = redacted(value)
        except (ValueError, RecursionError):
            pass
        else:
            return body if masked_value == value else json.dumps(masked_value).encode()
    found = [secret for one in _secrets if (secret := one.encode()) in body]
    for secret in sorted(found, key=len, reverse=True):
        body = body.replace(secret, MASK.encode())
    return body


def settled(text: str) -> str:
    """`text`, of which more is to come, without an end that may be the beginning of a secret."""
    longest, first_letters = max(map(len, _secrets), default=0), {secret[0] for secret in _secrets}
    for start in range(max(0, len(text) - longest + 1), len(text)):
        if text[start] in first_letters and any(secret.startswith(text[start:]) for secret in _secrets):
            return text[:start]
    return text


def for_log(text: str) -> str:
    """`redact`, and the query strings of URLs shortened: a signed URL is a secret too."""
    return redact(re.sub(_QUERY, r"\1?…", redact(text)))


def masked(key: str) -> str:
    """A key as it may be shown: only its length."""
    return f"{MASK} ({len(key)} characters)"
