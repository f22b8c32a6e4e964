"""The request journal: one row per request, in the order of arrival, bounded.

A key never gets in: the row keeps the scheme of an `Authorization` header and drops the rest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TypedDict

KEPT_ROWS = 100_000


class Row(TypedDict):
    """One request."""

    at: float
    """Seconds since the start."""
    stage: str
    method: str
    host: str
    path: str
    query: str
    status: int | None
    """None while it is open, and when the connection was cut."""
    headers: dict[str, str | None]
    bytes: int
    request_id: str | None
    note: str
    """What the sandbox did to it: the fault it met, `refused`, `dropped`; else empty."""


class Journal:
    """The rows since the start or the last reset."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._rows: deque[Row] = deque(maxlen=KEPT_ROWS)

    def clear(self) -> None:
        self._rows.clear()

    def row(
        self,
        stage: str,
        method: str,
        host: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Row:
        """A row that is not in the journal yet; the caller fills in what becomes known later."""
        return {
            "at": round(time.monotonic() - self._started, 6),
            "stage": stage,
            "method": method,
            "host": host,
            "path": path,
            "query": query,
            "status": None,
            "headers": _without_key(headers or {}),
            "bytes": 0,
            "request_id": None,
            "note": "",
        }

    def add(self, row: Row) -> Row:
        self._rows.append(row)
        return row

    def rows(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._rows]


def _without_key(headers: Mapping[str, str]) -> dict[str, str | None]:
    kept: dict[str, str | None] = {name.lower(): value for name, value in headers.items()}
    given = kept.get("authorization")
    kept["authorization"] = None if given is None else (given.partition(" ")[0] if " " in given else "?")
    return kept
