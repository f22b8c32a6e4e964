"""Settles what is in doubt: asks fal for its past requests, and finds the jobs whose ids nobody was told.

A job that is found is picked up by its id. One that is surely not there is dropped, and may be submitted: surely, since
fal has answered, knows what it was given, and has had SAFE_S to list it. Whether fal's list lags, and whether it holds
jobs that have not ended, is not documented (https://fal.ai/docs/platform-apis/v1/models/requests/by-endpoint).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from services.batch.journal import JobRow, Store
from services.batch.product_journal import input_hash
from services.fal.call import Call
from services.fal.errors import BadOutput
from services.fal.settings import Settings
from services.live.asking import Asker

URL = "https://api.fal.ai/v1/models/requests/by-endpoint"
SAFE_S = 1800.0
"""After how long a job that fal does not list was never there."""
MARGIN_S = 300.0
"""By so much the clocks here and at fal may differ."""
MOST_PAGES = 100
ASK_S = 300.0
"""How long all of the asking may take."""


class Settled(NamedTuple):
    """What came of it, in numbers of jobs."""

    adopted: int
    """Found: they are picked up by their ids."""
    dropped: int
    """Surely never there: they may be submitted."""
    open: int
    """Still in doubt."""


def settle(store: Store, settings: Settings, *, safe_s: float = SAFE_S) -> Settled:
    """Settle all that can be. Raises what asking raises; what was settled by then stays."""
    rows = store.in_doubt_rows()
    counts = {"adopted": 0, "dropped": 0, "open": 0}
    if not rows:
        return Settled(**counts)
    # Two jobs may have been asked the same: what is surely of one of them is not another's.
    taken = {row.request_id for row in rows if row.request_id is not None}
    with contextlib.closing(Asker(settings)) as asker:
        past = _Past(asker, Call(ASK_S))
        for endpoint in {row.endpoint: None for row in rows}:
            theirs = [row for row in rows if row.endpoint == endpoint]
            items = list(past.items(endpoint, min(row.intent_at for row in theirs)))
            for row in theirs:
                counts[_settle(store, row, items, taken, safe_s)] += 1
    return Settled(**counts)


def _settle(store: Store, row: JobRow, items: Sequence[Mapping[str, Any]], taken: set[str], safe_s: float) -> str:
    for item in items:
        request_id = item["request_id"]
        is_free = request_id not in taken and not store.knows(request_id)
        if not (request_id == row.request_id or (row.request_id is None and is_free and _was_given(item, row))):
            continue
        taken.add(request_id)
        store.adopt(row.product, row.step, request_id)
        return "adopted"
    readable = all("json_input" in item for item in items)
    age_s = time.time() - row.intent_at
    if age_s < safe_s or not readable or row.endpoint.startswith("https://"):
        return "open"
    store.drop(row.product, row.step)
    return "dropped"


def _was_given(item: Mapping[str, Any], row: JobRow) -> bool:
    given = item.get("json_input")
    return isinstance(given, dict) and input_hash(given) == row.args_hash


class _Past:
    """fal's list of past requests."""

    def __init__(self, asker: Asker, call: Call) -> None:
        self._asker = asker
        self._call = call

    def items(self, endpoint: str, since: float) -> Iterator[Mapping[str, Any]]:
        """The requests to an endpoint since then, whole or not at all."""
        if endpoint.startswith("https://"):
            return  # a service of the user's own, of which fal knows nothing
        start = datetime.fromtimestamp(since - MARGIN_S, timezone.utc).isoformat(timespec="seconds")
        query = {"endpoint_id": endpoint, "start": start, "limit": "100", "expand": "payloads"}
        for _ in range(MOST_PAGES):
            page = self._page(query)
            yield from page["items"]
            if not page.get("has_more"):
                return
            query["cursor"] = str(page["next_cursor"])
        raise BadOutput(f"fal lists more than {100 * MOST_PAGES:,} requests to {endpoint}.", hint="Settle by hand.")

    def _page(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        raw = self._asker.ask(self._call, "GET", f"{URL}?{urlencode(query)}")
        page = raw.value()
        if raw.status != 200 or not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise BadOutput(
                f"fal did not give the list of past requests (HTTP {raw.status}).",
                hint="Look at https://fal.ai/dashboard/requests, or use --retry_ambiguous.",
            )
        return page
