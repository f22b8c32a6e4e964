"""Scripted faults: what to do to which request, taken first in, first out.

A fault names a stage (one kind of request, `any`, or `job` for the life of a job) and one action. How an
action is carried out on the wire is delivery's business, what it does to a job is the jobs' business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

STAGES = frozenset(
    {"submit", "status", "status_stream", "result", "cancel", "direct", "stream"}
    | {"token", "initiate", "upload", "multipart", "part", "complete", "put", "download"}
    | {"any", "job"}
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "drop": ("connect", "unread", "before", "after", "half"),
    "garbage": ("html", "truncated", "shape", "empty"),
    "stuck": ("IN_QUEUE", "IN_PROGRESS"),
}
_JOB_ONLY = ("stuck", "fail", "expired", "output")


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault. `times=None` means for ever."""

    stage: str
    """Which kind of request it meets."""
    endpoint: str | None = None
    """Only requests about this endpoint."""
    times: int | None = 1
    skip: int = 0
    """How many matching requests it lets pass first."""
    status: int | None = None
    """Answer this status, with fal's usual body for it unless `body` is given."""
    body: Any = None
    """A string goes out as HTML or plain text, anything else as JSON."""
    headers: dict[str, str] | None = None
    """Added to the answer, whoever gives it."""
    request_id: bool = True
    """False leaves `x-fal-request-id` out, as fal's ingress does."""
    retry_after: str | None = None
    drop: str | None = None
    """Cut it: at `connect`, with the body `unread`, `before` or `after` it takes effect, or at `half`."""
    delay: float = 0.0
    """Seconds before the answer; for a job, how long its model works."""
    accept: bool | None = None
    """Whether the request takes effect before the delay; None leaves it to the action."""
    garbage: str | None = None
    """A 200 with a body that is not the answer."""
    cut: int | None = None
    """Cut a stream after so many events."""
    end: bool = False
    """With `cut`: end the stream cleanly instead."""
    silent: float = 0.0
    """Seconds in which nothing is sent, though the request has taken effect."""
    headers_first: bool = False
    """With `silent`: the headers go out before the silence."""
    redirect: str | None = None
    """Send the caller there: 302 for GET, else 307, unless `status` says otherwise."""
    size: int | None = None
    """Answer with so many bytes."""
    content_type: str | None = None
    """Of a `body` or of the bytes of `size`."""
    stuck: str | None = None
    """The state a job never leaves."""
    fail: dict[str, Any] | None = None
    """How a job fails: `error`, `error_type`, `status` and `body` of its result."""
    expired: bool = False
    """The job's result is no longer there when it is fetched."""
    output: dict[str, Any] | None = None
    """The job's output, in the model's place."""

    @property
    def refuses(self) -> bool:
        """Whether the sandbox answers by itself, without the request taking effect."""
        return self.status is not None or self.redirect is not None or self.size is not None

    @property
    def note(self) -> str:
        """What the journal says about a request that met this fault."""
        named = ("drop", "status", "garbage", "redirect", "cut", "size", "delay", "silent")
        return ", ".join(f"{name} {value}" for name in named if (value := getattr(self, name)) not in (None, 0.0))


_OPTIONS = frozenset(entry.name for entry in fields(Fault))


def fault_of(stage: str, what: dict[str, Any]) -> Fault:
    """The fault these options describe; a ValueError names what is wrong with them."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; one of {', '.join(sorted(STAGES))}")
    if unknown := sorted(set(what) - _OPTIONS):
        raise ValueError(f"unknown fault option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}")
    for name, choices in _CHOICES.items():
        if what.get(name) is not None and what[name] not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {what[name]!r}")
    if misplaced := [name for name in _JOB_ONLY if what.get(name) and stage != "job"]:
        raise ValueError(f"{misplaced[0]} belongs to the stage 'job', not to {stage!r}")
    if what.get("drop") == "connect" and what.get("endpoint"):
        raise ValueError("a CONNECT does not know its endpoint: drop='connect' goes without endpoint=")
    return Fault(stage, **what)


class _Armed:
    """A fault with what is left of its counts."""

    __slots__ = ("fault", "skip", "times")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.skip = fault.skip
        self.times = fault.times

    def hits(self) -> bool:
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    @property
    def spent(self) -> bool:
        return self.times is not None and self.times <= 0


class Faults:
    """The faults still waiting for their request."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        if fault.times is None or fault.times > 0:
            self._armed.append(_Armed(fault))

    def clear(self) -> None:
        self._armed.clear()

    def take(self, stage: str, endpoint: str | None) -> Fault | None:
        """The fault that this request meets, if any."""
        if not self._armed:
            return None
        return self._first(
            lambda fault: (
                fault.drop != "connect"
                and (fault.stage == stage or (fault.stage == "any" and stage != "job"))
                and fault.endpoint in (None, endpoint)
            )
        )

    def take_connect(self, stages: frozenset[str]) -> Fault | None:
        """The fault that a CONNECT to a host which serves these stages meets, if any."""
        if not self._armed:
            return None
        return self._first(lambda fault: fault.drop == "connect" and (fault.stage == "any" or fault.stage in stages))

    def _first(self, meets: Callable[[Fault], bool]) -> Fault | None:
        for armed in self._armed:
            if meets(armed.fault) and armed.hits():
                if armed.spent:
                    self._armed.remove(armed)
                return armed.fault
        return None
