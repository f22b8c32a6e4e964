"""Everything the sandbox knows at one moment, and the operations that its two doors for control share.

Lives on one loop's thread: only `changed` may be used from outside. The doors are `server.Sandbox` and
control_api.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sandbox.bell import TowerBell
from sandbox.faults import Faults, fault_of
from sandbox.files import Files
from sandbox.jobs import Jobs
from sandbox.journal import Journal
from sandbox.ledger import Ledger
from sandbox.refusals import gone
from sandbox.runner import Runner
from sandbox.script import Script
from sandbox.webhooks import Webhooks
from sandbox.wire_types import Json

THREADS = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set at the start and changed while the sandbox runs."""

    latency: float = 0.0
    """Seconds a model works."""
    queue: float = 0.0
    """Seconds a job waits in the queue."""
    any_endpoint: bool = False
    """Whether unknown endpoints answer with a generic picture."""
    hosts: tuple[str, ...] = ()
    """More host names; they serve sample photos."""
    keepalive_s: float = 75.0
    """How long an idle connection stays open; counts for connections opened from then on."""
    gone: tuple[str, ...] = ()
    """Endpoints that are gone: `id` (404), `id=410` or `id=deprecated` (422)."""
    gone_models: tuple[str, ...] = ()
    """Models that are gone: `M` or `M=HOW`, HOW one of `refusals.HOW`."""
    must_reason: tuple[str, ...] = ()
    """Models that refuse to be asked without `reasoning`."""
    seed: int = 0
    """Where ids and unset picture seeds start from."""

    def changed(self, what: dict[str, Any]) -> Settings:
        """These settings with some replaced; a ValueError names an unknown one."""
        if unknown := sorted(set(what) - set(_READ)):
            raise ValueError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(_READ))}")
        return replace(self, **{name: _READ[name](value) for name, value in what.items()})


def _names(given: Json) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(map(str, given))


def _gone_models(given: Json) -> tuple[str, ...]:
    entries = _names(given)
    for entry in entries:
        gone(entry)
    return entries


_READ: dict[str, Callable[[Json], Json]] = {
    "latency": float,
    "queue": float,
    "any_endpoint": bool,
    "hosts": _names,
    "keepalive_s": float,
    "gone": _names,
    "gone_models": _gone_models,
    "must_reason": _names,
    "seed": int,
}


class State:
    """One sandbox's memory."""

    def __init__(self, settings: Settings) -> None:
        self._at_start = settings
        self.settings = settings
        self.random = random.Random(settings.seed)
        self.upload_token = f"sandbox-cdn-token-{self.random.getrandbits(64):016x}"
        self.changed = TowerBell()
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="sandbox-models")
        self.faults = Faults()
        self.files = Files(self.random)
        self.jobs = Jobs()
        self.runner = Runner(self)
        self.journal = Journal()
        self.ledger = Ledger()
        self.script = Script()
        self.webhooks = Webhooks(self)

    def new_id(self) -> str:
        """A request id: a version-4 UUID from the seeded source."""
        digits = f"{self.random.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def view(self) -> dict[str, Any]:
        """The ledger as a dict."""
        return self.ledger.view(self.jobs, len(self.files))

    def configure(self, **what: Json) -> None:
        self.settings = self.settings.changed(what)

    def fault(self, stage: str, **what: Json) -> None:
        self.faults.add(fault_of(stage, what))

    def say(self, text: str, endpoint: str | None = None, times: int | None = 1) -> None:
        self.script.add(text, endpoint, times)

    def file(self, url: str) -> bytes:
        """The bytes of a file of the CDN; a KeyError when there is none."""
        if (kept := self.files.find(urlsplit(url).path)) is None:
            raise KeyError(f"no file at {url}")
        return kept.data

    def reset(self) -> None:
        """As new, but for ids and the upload token: clients may still hold those."""
        self.runner.cancel_all()
        self.jobs.clear()
        self.webhooks.clear()
        self.faults.clear()
        self.files.clear()
        self.journal.clear()
        self.ledger.clear()
        self.script.clear()
        self.settings = self._at_start
        self.changed.ring()

    async def close(self) -> None:
        """Ends what still runs; nothing waits for a thread that is painting."""
        self.runner.cancel_all()
        await self.webhooks.close()
        self.executor.shutdown(wait=False, cancel_futures=True)
