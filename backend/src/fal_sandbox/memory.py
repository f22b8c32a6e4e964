"""The state of the sandbox at one moment: settings, jobs, files, counters and scripts.

Lives on one loop's thread: only `changed` may be used from outside. What acts on it stands in runner, webhooks
and state.
"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from fal_sandbox.bell import TowerBell
from fal_sandbox.faults import Faults
from fal_sandbox.files import Files
from fal_sandbox.job_store import Jobs
from fal_sandbox.ledger import Ledger
from fal_sandbox.options import Options, options_of
from fal_sandbox.refusals import is_gone_model
from fal_sandbox.request_journal import Journal
from fal_sandbox.script import Script

THREADS = 2
GONE = ("", "404", "410", "deprecated")
"""The ways in which an endpoint may be gone."""
MISBEHAVIOUR = ("label", "redraw", "move", "jitter", "rescale", "tint", "crop")
"""What a picture model may do to a product, see `pictures.misbehaviour`."""


def _listed(given: Any) -> Any:
    """One name stands for a list of one, and JSON has lists where Python has tuples."""
    return (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given


def _is_gone(entry: str) -> str:
    name, _, how = entry.partition("=")
    if not name or how not in GONE:
        raise ValueError("an endpoint is gone as id, id=404, id=410 or id=deprecated")
    return entry


def _is_misbehaviour(entry: str) -> str:
    how, _, times = entry.partition("=")
    if how not in MISBEHAVIOUR or not (times.isdigit() or "=" not in entry):
        raise ValueError(f"a picture model misbehaves as HOW or HOW=N, HOW one of {', '.join(MISBEHAVIOUR)}")
    return entry


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Settings(Options):
    """What can be set at the start and changed while the sandbox runs."""

    latency: float = Field(default=0.0, ge=0)
    """Seconds a model works."""
    queue: float = Field(default=0.0, ge=0)
    """Seconds a job waits in the queue."""
    any_endpoint: bool = False
    """Whether unknown endpoints answer with a generic picture."""
    hosts: Names = ()
    """More host names; they serve sample photos."""
    keepalive_s: float = Field(default=75.0, ge=0)
    """How long an idle connection stays open; counts for connections opened from then on."""
    gone: Annotated[tuple[Annotated[str, AfterValidator(_is_gone)], ...], BeforeValidator(_listed)] = ()
    """Endpoints that are gone: `id` (404), `id=410` or `id=deprecated` (422)."""
    gone_models: Annotated[tuple[Annotated[str, AfterValidator(is_gone_model)], ...], BeforeValidator(_listed)] = ()
    """Models that are gone: `M` or `M=HOW`, HOW one of `refusals.HOW`."""
    must_reason: Names = ()
    """Models that refuse to be asked without `reasoning`."""
    requests_lag: float = Field(default=0.0, ge=0)
    """Seconds until a job that was accepted stands in the list of past requests. Whether fal's list lags, and whether
    it holds jobs that have not ended, is not known."""
    in_place: bool = False
    """Whether products stay where they stood, pixel by pixel; else they are placed and lit anew."""
    misbehave: Annotated[tuple[Annotated[str, AfterValidator(_is_misbehaviour)], ...], BeforeValidator(_listed)] = ()
    """What picture models do to products that stay in place: `HOW`, or `HOW=N` for N pictures; one after the other."""
    seed: int = 0
    """Where ids and unset picture seeds start from."""

    def changed(self, what: dict[str, Any]) -> Settings:
        """These settings with some replaced; a ValueError names one that is unknown or does not fit."""
        options_of(Settings, "setting", what)
        return options_of(Settings, "setting", {**dict(self), **what})


class Memory:
    """One sandbox's memory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.random = random.Random(settings.seed)
        self.upload_token = f"sandbox-cdn-token-{self.random.getrandbits(64):016x}"
        self.ca_pem = b""
        """The certificate of the CA, once there is one; never its key."""
        self.changed = TowerBell()
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="sandbox-models")
        self.faults = Faults()
        self.files = Files(self.random)
        self.jobs = Jobs()
        self.journal = Journal()
        self.ledger = Ledger()
        self.script = Script()
        self.products_changed = 0
        """Pictures that were changed by `misbehave`."""

    def misbehaviour(self) -> str | None:
        """What the next picture's product suffers, if anything."""
        before = 0
        for entry in self.settings.misbehave:
            how, _, times = entry.partition("=")
            before += int(times) if times else sys.maxsize
            if self.products_changed < before:
                self.products_changed += 1
                return how
        return None

    def new_id(self) -> str:
        """A request id: a version-4 UUID from the seeded source."""
        digits = f"{self.random.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def file(self, url: str) -> bytes:
        """The bytes of a file of the CDN; a KeyError when there is none."""
        if (kept := self.files.find(urlsplit(url).path)) is None:
            raise KeyError(f"no file at {url}")
        return kept.data

    def clear(self) -> None:
        """As new, but for settings, ids and the upload token: clients may still hold those."""
        self.jobs.clear()
        self.faults.clear()
        self.files.clear()
        self.journal.clear()
        self.ledger.clear()
        self.script.clear()
        self.products_changed = 0
