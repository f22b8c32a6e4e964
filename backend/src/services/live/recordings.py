"""Recordings of requests and answers: one JSON file for each fact, masked and bounded in size.

They are how somebody without a key sees fal: the sandbox is compared with them, in shape and not in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from services.fal.errors import InvalidInput
from services.fal.redaction import redacted
from services.live.asking import Raw
from services.live.facts import Fact
from services.live.shapes import cut_to, fal_headers, mismatches, shape_of

MAX_TEXT = 500
"""Characters of one text that are kept."""
MAX_ITEMS = 20
"""Items of one list that are kept."""
MAX_DEPTH = 12
MAX_BODY = 64 * 1024
"""Characters of a whole body that are kept: one that is longer even so is only counted."""
SHOWN_HEADERS = frozenset(
    {
        "content-type",
        "retry-after",
        "x-fal-billable-units",
        "x-fal-error-type",
        "x-fal-needs-retry",
        "x-fal-request-id",
        "x-fal-request-timeout-type",
        "x-fal-sandbox",
        "x-fal-served-from",
    }
)
"""Those whose values are kept. Of all others only the name is: a value may say whose account it is."""
SECRET_KEYS = ("token", "signature", "current_balance", "username")


class Recordings:
    """A folder of recordings; without a folder nothing is kept."""

    def __init__(self, folder: str | None) -> None:
        """Raises InvalidInput when the folder cannot be written in, before anything was asked."""
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                probe = self.folder / ".writable"
                probe.write_bytes(b"")
                probe.unlink()
            except OSError as error:
                raise InvalidInput(
                    f"The folder {folder!r} cannot be written to ({error.strerror}).", hint="Name another --recordings."
                ) from error

    def keep(self, fact: Fact, raw: Raw) -> None:
        """Write what an answer looked like."""
        value = cut_to([fact.documented] if fact.events else fact.documented, raw.value())
        shape = {"status": raw.status, "headers": fal_headers(raw.headers), "body": shape_of(value)}
        self._write(fact.name, {**_of_exchange(raw, value), "shape": shape})

    def keep_inputs(self, endpoint: str, raw: Raw, inputs: Mapping[str, Any] | None) -> None:
        """Write what the catalogue says an endpoint takes, without the rest of its long document."""
        about = {"status": raw.status, "headers": _headers(raw)}
        self._write(f"catalogue {endpoint}", {"endpoint": endpoint, "answer": about, "inputs": bounded(inputs)})

    def _write(self, fact: str, what: Mapping[str, Any]) -> None:
        if self.folder is None:
            return
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        document = redacted({"fact": fact, "recorded_at": at, **what})
        path = self.folder / f"{re.sub('[^a-z0-9.]+', '-', fact.lower())}.json"
        try:
            path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InvalidInput(f"{path} cannot be written ({error}).", hint="Name another --recordings.") from error


def _of_exchange(raw: Raw, value: Any) -> dict[str, Any]:
    body = f"({len(raw.body)} bytes that are not JSON)" if value is None else bounded(value)
    if len(json.dumps(body, default=str)) > MAX_BODY:
        body = f"({len(raw.body)} bytes of JSON)"
    return {
        "from": "the sandbox" if raw.from_sandbox else "fal",
        "request": {"method": raw.method, "url": raw.url, "body": bounded(raw.sent)},
        "answer": {"status": raw.status, "headers": _headers(raw), "body": body},
    }


def _headers(raw: Raw) -> dict[str, str]:
    return {name: value[:MAX_TEXT] if name in SHOWN_HEADERS else "…" for name, value in raw.headers.items()}


def bounded(value: Any, depth: int = 0) -> Any:
    """`value` with its long texts and lists cut, and without what only its owner may see."""
    if depth > MAX_DEPTH:
        return "…"
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… ({len(value)} characters)"
    if isinstance(value, list):
        return [bounded(item, depth + 1) for item in value[:MAX_ITEMS]]
    if isinstance(value, dict):
        return {
            str(name)[:MAX_TEXT]: "***" if name in SECRET_KEYS else bounded(item, depth + 1)
            for name, item in value.items()
        }
    return value


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The recordings in a folder, by their facts. Raises ValueError, naming the file, for one that is none."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found[str(document["fact"])] = document
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a recording ({error}).") from error
    return found


def disagreements(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """How the sandbox's recording of a fact (`ours`) differs from the one of fal (`theirs`)."""
    if "inputs" in theirs:
        yield from _other_inputs(theirs["inputs"] or {}, ours["inputs"] or {})
        return
    of_fal, of_sandbox = theirs["shape"], ours["shape"]
    if of_fal["status"] != of_sandbox["status"]:
        yield f"status {of_fal['status']}, at the sandbox {of_sandbox['status']}"
        return
    yield from (f"the sandbox has no header {name}" for name in of_fal["headers"] if name not in of_sandbox["headers"])
    yield from mismatches(of_fal["body"], of_sandbox["body"])


def _other_inputs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for name in {**theirs, **ours}:
        if name not in ours:
            yield f"the sandbox has no input {name}"
        elif name not in theirs:
            yield f"only the sandbox has the input {name}"
        else:
            for part, value in theirs[name].items():
                if ours[name].get(part) != value:
                    yield f"{name}: {part} is {value!r}, at the sandbox {ours[name].get(part)!r}"
