"""Scripted faults: which request to disturb and how, first in, first out.

A fault names a stage (one kind of request, `any`, or `job` for the life of a job) and one action. How an
action is carried out on the wire is delivery's business, what it does to a job is the jobs' business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fal_sandbox.options import Options, options_of

JOB_STAGES = frozenset({"submit", "status", "status_stream", "result", "cancel", "direct", "stream", "any", "job"})
"""The stages whose requests are about one endpoint."""
STAGES = JOB_STAGES | {"token", "initiate", "upload", "multipart", "part", "complete", "put", "download", "platform"}
EVENT_STAGES = frozenset({"stream", "status_stream", "direct", "any"})
"""The stages that answer with events, or may."""
OF_JOBS = frozenset({"stuck", "fail", "expired", "output", "ignores_cancel"})
OF_BOTH = frozenset({"stage", "endpoint", "times", "skip", "delay"})
ANSWERS = frozenset({"status", "body", "headers", "retry_after", "garbage", "cut", "silent", "redirect", "size"})
"""What needs an answer that goes out."""


def _on_one_line(text: str) -> str:
    if any(not " " <= letter <= "\xff" or letter == "\x7f" for letter in text):
        raise ValueError("a header takes printable Latin-1 characters only")
    return text


HeaderText = Annotated[str, AfterValidator(_on_one_line)]
Status = Annotated[int, Field(ge=200, le=599)]
Seconds = Annotated[float, Field(ge=0)]


class Failure(Options):
    """How a job fails, and what its result then is."""

    error: str = "Runner disconnected"
    error_type: str | None = None
    status: Status | None = None
    body: Any = None


class Fault(Options):
    """One scripted fault. `times=None` means for ever."""

    stage: str
    """Which kind of request it meets."""
    endpoint: str | None = Field(default=None, min_length=1)
    """Only requests about this endpoint."""
    times: int | None = Field(default=1, ge=1)
    skip: int = Field(default=0, ge=0)
    """How many matching requests it lets pass first."""
    status: Status | None = None
    """Answer this status, with fal's usual body for it unless `body` is given."""
    body: Any = None
    """A string goes out as HTML or plain text, anything else as JSON."""
    headers: dict[HeaderText, HeaderText] | None = None
    """Added to the answer, whoever gives it."""
    request_id: bool = True
    """False leaves `x-fal-request-id` out, as fal's ingress does."""
    retry_after: HeaderText | None = None
    drop: Literal["connect", "unread", "before", "after", "half"] | None = None
    """Cut it: at `connect`, with the body `unread`, `before` or `after` it takes effect, or at `half`."""
    delay: Seconds = 0.0
    """Seconds before the answer; for a job, how long its model works."""
    accept: bool | None = None
    """Whether the request takes effect before the delay; None leaves it to the action."""
    garbage: Literal["html", "truncated", "shape", "empty"] | None = None
    """A 200 with a body that is not the answer."""
    cut: int | None = Field(default=None, ge=0)
    """Cut a stream after so many events."""
    end: bool = False
    """With `cut`: end the stream cleanly instead."""
    silent: Seconds = 0.0
    """Seconds in which nothing is sent, though the request has taken effect."""
    headers_first: bool = False
    """With `silent`: the headers go out before the silence."""
    redirect: HeaderText | None = Field(default=None, min_length=1)
    """Send the caller there: 302 for GET, else 307, unless `status` says otherwise."""
    size: int | None = Field(default=None, ge=0)
    """Answer with so many bytes."""
    content_type: HeaderText | None = Field(default=None, min_length=1)
    """Of a `body` or of the bytes of `size`."""
    stuck: Literal["IN_QUEUE", "IN_PROGRESS"] | None = None
    """The state a job never leaves."""
    fail: Failure | None = None
    """How a job fails: `error`, `error_type`, `status` and `body` of its result."""
    expired: bool = False
    """The job's result is no longer there when it is fetched."""
    output: dict[str, Any] | None = None
    """The job's output, in the model's place."""
    ignores_cancel: bool = False
    """The application has no cancel handler: a running job goes on to its end after a cancel."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Fault:
        named = frozenset(
            name for name in type(self).model_fields if getattr(self, name) != type(self).model_fields[name].default
        )
        for wrong, why in (*_misplaced(self, named), *_contradictions(self, named)):
            if wrong:
                raise ValueError(why)
        return self

    @property
    def refuses(self) -> bool:
        """Whether the sandbox answers by itself, without the request taking effect."""
        return self.status is not None or self.redirect is not None or self.size is not None

    @property
    def note(self) -> str:
        """What the journal says about a request that met this fault."""
        named = ("drop", "status", "garbage", "redirect", "cut", "size", "delay", "silent")
        return ", ".join(f"{name} {value}" for name in named if (value := getattr(self, name)) not in (None, 0.0))


Rule = tuple[bool, str]


def _misplaced(fault: Fault, named: frozenset[str]) -> tuple[Rule, ...]:
    """What the stage of a fault does not have."""
    stage, of_jobs, of_requests = fault.stage, named & OF_JOBS, named - OF_JOBS - OF_BOTH
    return (
        (stage not in STAGES, f"unknown stage {stage!r}; one of {', '.join(sorted(STAGES))}"),
        (bool(of_jobs) and stage != "job", f"{_first(of_jobs)} belongs to the stage 'job', not to {stage!r}"),
        (bool(of_requests) and stage == "job", f"{_first(of_requests)} belongs to requests, not to the stage 'job'"),
        (
            fault.drop == "connect" and fault.endpoint is not None,
            "a CONNECT does not know its endpoint: drop='connect' goes without endpoint=",
        ),
        (
            fault.endpoint is not None and stage not in JOB_STAGES,
            f"a request of the stage {stage!r} is about no endpoint: leave endpoint= out",
        ),
        (
            fault.cut is not None and stage not in EVENT_STAGES,
            f"cut needs a stream of events, which {stage!r} does not answer with",
        ),
        (not named - {"stage", "endpoint", "times", "skip"}, f"a fault at {stage!r} needs something to do"),
    )


def _contradictions(fault: Fault, named: frozenset[str]) -> tuple[Rule, ...]:
    """Options of which one would undo or never reach the other."""
    answered = named & ANSWERS
    return (
        (fault.end and fault.cut is None, "end goes with cut"),
        (fault.headers_first and not fault.silent, "headers_first goes with silent"),
        ("body" in named and fault.status is None, "body goes with status"),
        (len(named & {"body", "size", "redirect"}) > 1, "body, size and redirect are answers of their own: name one"),
        (
            fault.accept is not None and not (fault.refuses or fault.delay or fault.silent),
            "accept goes with delay, silent, status, redirect or size",
        ),
        (
            fault.content_type is not None and "body" not in named and fault.size is None,
            "content_type goes with body or size",
        ),
        (
            fault.redirect is not None and fault.status is not None and not 300 <= fault.status < 400,
            "a redirect has a status of 300 to 399",
        ),
        (
            fault.drop not in (None, "half") and bool(answered),
            f"drop={fault.drop!r} sends no answer: leave {_first(answered)} out",
        ),
        (fault.drop in ("connect", "unread") and bool(fault.delay), f"drop={fault.drop!r} does not wait"),
        (fault.garbage is not None and fault.refuses, "garbage is a 200 of its own: leave status, redirect, size out"),
        (fault.fail is not None and fault.output is not None, "a job fails or has an output, not both"),
        (
            fault.stuck is not None and bool(named & {"fail", "expired", "delay"}),
            "a job that is stuck never comes to its end: leave fail, expired and delay out",
        ),
        (fault.stuck == "IN_QUEUE" and fault.output is not None, "a job that waits in the queue has no output"),
    )


def _first(names: frozenset[str]) -> str:
    return min(names, default="")


def fault_of(stage: str, what: dict[str, Any]) -> Fault:
    """The fault these options describe; a ValueError names what is wrong with them."""
    return options_of(Fault, "fault option", {**what, "stage": stage})


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
