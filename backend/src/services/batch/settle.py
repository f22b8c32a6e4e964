"""Settles jobs in doubt: searches fal's list of past requests for jobs whose ids were never received.

A job that is found is picked up by its id. One that is surely not there is dropped, and may be submitted. Clocks here
prove nothing: one that was set between two runs would make a job that fal has look absent, and it would be paid twice.
So what is sure follows from the order of the journal and from fal's own clock:

- fal's list was read from before the job on: from the moment at which fal took another job of this batch, which was
  accepted before this one was recorded. That *witness* must be listed with the input that it was given, as the journal
  knows it, so that the job would have been recognized too.
- fal has had SAFE_S to list it, since a moment at which its submit was surely over: that of a listed job which was
  recorded after that, or of fal's answer when it was looked for first.

Otherwise it stays in doubt. Whether fal's list lags, and whether it holds jobs that have not ended, is not documented
(https://fal.ai/docs/platform-apis/v1/models/requests/by-endpoint), hence SAFE_S.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from services.batch.journal import JobRow, Store
from services.batch.product_journal import input_hash
from services.fal.call import Call
from services.fal.errors import BadOutput
from services.fal.responses import http_date
from services.fal.settings import Settings
from services.live.asking import Asker

URL = "https://api.fal.ai/v1/models/requests/by-endpoint"
SAFE_S = 1800.0
"""How long fal has for listing a job."""
MARGIN_S = 60.0
"""How far the clocks of fal's own machines may differ."""
UNSURE_S = 3600.0
"""How long before the local time of the intent the list is read from if nothing better is known."""
MOST_PAGES = 500
ASK_S = 1800.0
"""How long all requests together may take."""

NOT_YET = "fal does not list {} yet; settle again half an hour later."
NO_WITNESS = (
    "fal does not list {}, but no job before it proves that the list goes back so far; only --retry_ambiguous goes on."
)
UNREADABLE = "fal's list does not say what {} was given, or at what time; only --retry_ambiguous goes on."
NOT_AT_FAL = "fal knows nothing of a service of your own, which may have done {}; only --retry_ambiguous goes on."


class Settled(NamedTuple):
    """The outcome, in numbers of jobs."""

    adopted: int
    """Found: they are picked up by their ids."""
    dropped: int
    """Surely never there: they may be submitted."""
    open: int
    """Still in doubt."""
    why_open: str | None
    """Why, and what to do."""


def settle(store: Store, settings: Settings, within: Call | None = None) -> Settled:
    """Settle all that can be. Raises what asking raises; what was settled by then stays."""
    rows = store.in_doubt_rows()
    # Two jobs may have been asked the same: what is surely of one of them is not another's.
    taken = {row.request_id for row in rows if row.request_id is not None}
    said: list[str] = []
    with contextlib.closing(Asker(settings)) as asker:
        past = _Past(asker, Call(ASK_S, parent=within))
        for endpoint in {row.endpoint: None for row in rows}:
            said += _settle_all(store, past, [row for row in rows if row.endpoint == endpoint], taken)
    open_for = [why for why in said if why not in ("adopted", "dropped")]
    why = " ".join(one.format(_counted(open_for.count(one))) for one in dict.fromkeys(open_for))
    return Settled(said.count("adopted"), said.count("dropped"), len(open_for), why or None)


def _counted(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs:,} jobs"


def _settle_all(store: Store, past: _Past, rows: Sequence[JobRow], taken: set[str]) -> Iterator[str]:
    """What came of each of the jobs on one endpoint, or why it stays open."""
    endpoint = rows[0].endpoint
    if endpoint.startswith("https://"):
        yield from (NOT_AT_FAL for _ in rows)
        return
    earlier = [past.witnessed_at(store.neighbours(row).before) for row in rows]
    starts = (row.intent_at - UNSURE_S if at is None else at - MARGIN_S for row, at in zip(rows, earlier, strict=True))
    listed = past.requests(endpoint, min(starts))
    for row, at in zip(rows, earlier, strict=True):
        found = next((one for one in listed.items.values() if _is_it(store, row, one, taken)), None)
        if found is None:
            yield _settle_absent(store, row, listed, is_covered=at is not None)
        else:
            taken.add(found.request_id)
            store.adopt(row.product, row.step, found.request_id)
            yield "adopted"


def _is_it(store: Store, row: JobRow, item: _Item, taken: set[str]) -> bool:
    if row.request_id is not None:
        return item.request_id == row.request_id
    return item.args_hash == row.args_hash and item.request_id not in taken and not store.knows(item.request_id)


def _settle_absent(store: Store, row: JobRow, listed: _Listed, *, is_covered: bool) -> str:
    if listed.answered_at is None or any(item.args_hash is None for item in listed.items.values()):
        return UNREADABLE
    after = (listed.items.get(str(other.request_id)) for other in store.neighbours(row).after)
    moments = [row.over_by, listed.answered_at, *(item.sent_at for item in after if item is not None)]
    over_by = min(moment for moment in moments if moment is not None)
    if listed.answered_at - over_by < SAFE_S:
        store.over_by(row.product, row.step, over_by)
        return NOT_YET if is_covered else NO_WITNESS
    if not is_covered:
        return NO_WITNESS
    store.drop(row.product, row.step)
    return "dropped"


class _Item(NamedTuple):
    """One request in fal's list."""

    request_id: str
    args_hash: str | None
    """Of what it was given; None when that is not told."""
    sent_at: float | None
    """When fal took it: Unix time, by fal's clock."""


class _Listed(NamedTuple):
    """fal's list of the requests to one endpoint."""

    items: Mapping[str, _Item]
    answered_at: float | None
    """When fal answered: Unix time, by fal's clock. None when it does not tell."""


class _Past:
    """fal's past requests."""

    def __init__(self, asker: Asker, call: Call) -> None:
        self._asker = asker
        self._call = call
        self._witnesses: dict[str, float | None] = {}

    def witnessed_at(self, jobs: Sequence[JobRow]) -> float | None:
        """When fal took the first of these jobs that it lists with what the job was given."""
        moments = (self._witnessed_at(job, str(job.request_id)) for job in jobs)
        return next((moment for moment in moments if moment is not None), None)

    def _witnessed_at(self, job: JobRow, request_id: str) -> float | None:
        if request_id not in self._witnesses:
            page = self._page({"endpoint_id": job.endpoint, "request_id": request_id, "expand": "payloads"})[0]
            wanted = (request_id, job.args_hash)
            moments = [item.sent_at for item in map(_item, page["items"]) if item[:2] == wanted]
            self._witnesses[request_id] = next(iter(moments), None)
        return self._witnesses[request_id]

    def requests(self, endpoint: str, since: float) -> _Listed:
        """The requests to an endpoint since then, whole or not at all."""
        start = datetime.fromtimestamp(since, timezone.utc).isoformat(timespec="seconds")
        query = {"endpoint_id": endpoint, "start": start, "limit": "100", "expand": "payloads"}
        items: dict[str, _Item] = {}
        began_at: float | None = None
        for number in range(MOST_PAGES):
            page, answered_at = self._page(query)
            if number == 0:
                began_at = answered_at
            items.update({item.request_id: item for item in map(_item, page["items"])})
            if not page.get("has_more"):
                return _Listed(items, began_at)
            query["cursor"] = str(page["next_cursor"])
        raise BadOutput(f"fal lists more than {100 * MOST_PAGES:,} requests to {endpoint}.", hint="Settle by hand.")

    def _page(self, query: Mapping[str, str]) -> tuple[Mapping[str, Any], float | None]:
        """A page of the list, and when fal answered, by its own clock."""
        raw = self._asker.ask(self._call, "GET", f"{URL}?{urlencode(query)}")
        page = raw.value()
        items = page.get("items") if isinstance(page, dict) else None
        if raw.status != 200 or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise BadOutput(
                f"fal did not give the list of past requests (HTTP {raw.status}).",
                hint="Look at https://fal.ai/dashboard/requests, or use --retry_ambiguous.",
            )
        return page, http_date(raw.headers.get("date", ""))


def _item(item: Mapping[str, Any]) -> _Item:
    given = item.get("json_input")
    return _Item(
        str(item.get("request_id")),
        input_hash(given) if isinstance(given, dict) else None,
        _moment(item.get("sent_at")),
    )


def _moment(written: object) -> float | None:
    try:
        read = datetime.fromisoformat(str(written).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()
