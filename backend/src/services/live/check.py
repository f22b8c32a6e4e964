"""`doctor --live`: does fal behave as this library expects? Free reads first, then, when it may spend, one of each.

It tells on stderr what it does and what it found, and gives all of it in the command's document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

from services.fal.call import Call
from services.fal.doctor import KEY_CHECK
from services.fal.endpoints import CHAINS, MODEL_CHAINS, chain_for
from services.fal.errors import BadOutput, DeadlineExceeded, FalError, report
from services.fal.log import show
from services.fal.model_ends import ends_on
from services.fal.prices import Price, prices_in, prices_url
from services.fal.settings import check_timeout
from services.live.asking import Asker, reason_of
from services.live.budget import Budget, check_spend
from services.live.catalogue import MODEL_LIST, Checked, check_endpoint, endpoints_of, listed_models
from services.live.facts import FACTS
from services.live.probes import STEPS, Facts, Probes, needed_usd
from services.live.recordings import Recordings

if TYPE_CHECKING:
    from services.fal_service import FalClient

WRONG_KEY = "bad:nobody-has-this-key"
CELL = 70
"""Letters of what is documented, in the table on stderr."""
HINT = "Run it again with --recordings DIR and send us the folder: keys and tokens are masked in it."


def examine_live(
    client: FalClient, spend: float | None, recordings: str | None, timeout: float | None
) -> dict[str, Any]:
    """The document of `doctor`, and what a live run found under `live`; with `error` when that matters.

    `spend` is in US dollars; without it nothing is spent. Raises DeadlineExceeded, Cancelled with what was found by
    then in `partial`, and InvalidInput, before anything is sent, for options that make no sense.
    """
    allowed = None if spend is None else check_spend(spend)
    folder = Recordings(recordings)
    with Call(client.timeout if timeout is None else check_timeout(timeout), parent=client.call) as call:
        client = client.within(call)
        document = client.doctor()
        if document["error"] is not None:
            return dict(document)
        run = _Run(call, client, folder)
        try:
            run.read()
            if allowed is not None:
                run.spend(allowed)
        except FalError as error:
            error.partial = {**document, "live": run.found()}
            raise
        finally:
            run.close()
            for line in run.table():
                show(line)
        wrong = run.wrong()
        failure = BadOutput(
            f"fal does not behave as this library expects: {'; '.join(wrong)}.", retryable=False, hint=HINT
        )
        return {**document, "live": run.found(), **(report(failure) if wrong else {})}


class _Run:
    """One live run, and what it has found so far."""

    def __init__(self, call: Call, client: FalClient, recordings: Recordings) -> None:
        self._call = call
        self._client = client
        self._settings = client.settings
        self._recordings = recordings
        self._asker = Asker(client.settings)
        self._facts = Facts(recordings)
        self._checked: list[Checked] = []
        self._prices: dict[str, Price] = {}
        self._listed: dict[str, str | None] | None = None
        self._needed_usd: float | None = None
        self._budget: Budget | None = None
        self._uncancelled: list[str] = []

    def close(self) -> None:
        self._asker.close()

    def read(self) -> None:
        """What is free: the catalogue, prices, the answer to a wrong key, the list of models."""
        endpoints = endpoints_of(self._settings)
        show(f"reading what fal's catalogue says of {len(endpoints)} endpoints ...")
        for endpoint in endpoints:
            checked, raw = check_endpoint(self._call, self._asker, self._recordings, endpoint)
            self._checked.append(checked)
            if raw is not None and checked.verdict != "gone" and "catalogue" not in self._facts.seen:
                self._facts.see("catalogue", raw)
        there = [row.endpoint for row in self._checked if row.verdict != "gone"]
        self._read_fact("prices", prices_url(there))
        self._read_fact("wrong key", KEY_CHECK, {"Authorization": f"Key {WRONG_KEY}"})
        self._listed = listed_models(self._call, self._asker)

    def _read_fact(self, name: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        try:
            raw = self._asker.ask(self._call, "GET", url, headers=headers)
        except DeadlineExceeded:
            raise
        except FalError as error:
            self._facts.miss(reason_of(error), name, failed=True)
            return
        self._facts.see(name, raw)
        self._prices |= prices_in(raw.value()) if name == "prices" else {}

    def spend(self, allowed_usd: float) -> None:
        """One of each, for at most so much."""
        self._needed_usd = needed_usd(self._prices)
        self._budget = Budget(allowed_usd, self._needed_usd)
        show(f"trying one of each: this costs up to ${self._needed_usd:.3f}, of ${allowed_usd:.3f} allowed")
        probes = Probes(
            self._call,
            self._asker,
            self._client,
            self._facts,
            self._budget,
            self._prices,
            datetime.now(timezone.utc).date(),
        )
        try:
            probes.run(lambda line: show(f"  {line}"))
        finally:
            probes.jobs.cancel_open()
            self._uncancelled = probes.jobs.left
            for step_facts, _ in STEPS:
                self._facts.miss("the run ended before it", *step_facts, failed=True)

    def wrong(self) -> list[str]:
        """What the library relies on and does not find."""
        facts = [f"{name} ({seen.text})" for name, seen in self._facts.seen.items() if seen.matters]
        endpoints = [f"{row.endpoint} ({_verdict(row)})" for row in self._checked if self._matters(row)]
        chains = {**MODEL_CHAINS, **self._settings.models}
        unlisted = {row["model"] for row in self._models() if row["listed"] is False}
        models = [f"no default model of {job} is listed" for job, chain in chains.items() if unlisted.issuperset(chain)]
        return [*endpoints, *models, *facts]

    def _matters(self, row: Checked) -> bool:
        if row.verdict != "gone":
            return any(one.matters for one in row.differences)
        # Those behind the first of a chain are there for the day on which it is gone, and so are those used by hand.
        return any(chain_for(job, self._settings.endpoints.get(job))[0].path == row.endpoint for job in CHAINS)

    def found(self) -> dict[str, Any]:
        """The value of `live`."""
        return {
            "endpoints": [self._endpoint(row) for row in self._checked],
            "models": list(self._models()),
            "facts": [self._fact(name) for name in self._names()],
            "needed_usd": None if self._needed_usd is None else round(self._needed_usd, 6),
            "spent_usd": 0.0 if self._budget is None else round(self._budget.spent_usd, 6),
            "jobs_left": self._uncancelled,
            "recordings": None if self._recordings.folder is None else str(self._recordings.folder),
        }

    def _endpoint(self, row: Checked) -> dict[str, Any]:
        price = self._prices.get(row.endpoint)
        return {
            **row.row(),
            "matters": self._matters(row),
            "price_usd": None if price is None else price.usd,
            "unit": None if price is None else price.unit,
        }

    def _models(self) -> Iterator[dict[str, Any]]:
        chains = {**MODEL_CHAINS, **self._settings.models}
        for model in dict.fromkeys(model for chain in chains.values() for model in chain):
            ends = None if self._listed is None else self._listed.get(model)
            known: date | None = ends_on(model)
            yield {
                "model": model,
                "listed": None if self._listed is None else model in self._listed,
                "ends_on": ends if ends is not None or known is None else known.isoformat(),
            }

    def _names(self) -> list[str]:
        return [name for name in FACTS if name in self._facts.seen]

    def _fact(self, name: str) -> dict[str, Any]:
        fact, seen = FACTS[name], self._facts.seen[name]
        return {
            "fact": name,
            "documented": fact.outline,
            "sandbox": fact.sandbox,
            "live": seen.text,
            "seen": seen.differences is not None,
            "matters": seen.matters,
            "source": fact.source,
        }

    def table(self) -> Iterator[str]:
        """What was found, as lines of a table."""
        for row in self._checked:
            yield f"{row.endpoint:34} {_verdict(row)}"
        for model in self._models():
            listed = {None: "not read", True: "listed", False: "not listed"}[model["listed"]]
            ends = f", ends on {model['ends_on']}" if model["ends_on"] else ""
            yield f"{model['model']:34} {listed} at {MODEL_LIST}{ends}"
        rows = [("fact", "documented", "sandbox", "live")]
        rows += [
            (one["fact"], _cut(one["documented"]), one["sandbox"], one["live"])
            for one in map(self._fact, self._names())
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for cells in rows:
            yield "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[3]])
        if self._budget is not None:
            yield f"spent: at most ${self._budget.spent_usd:.3f}"
        yield from (
            f"request {request_id} could not be cancelled and may be billed" for request_id in self._uncancelled
        )


def _verdict(row: Checked) -> str:
    told = "; ".join(one.text for one in row.differences)
    return f"{row.verdict}: {told}" if told and row.verdict != "gone" else row.verdict


def _cut(text: str) -> str:
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"
