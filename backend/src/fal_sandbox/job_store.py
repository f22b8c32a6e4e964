"""The jobs, bounded in number and bytes: the oldest finished ones are dropped first.

What happens to a job is runner's business, what is said about it over HTTP that of queue_api and direct_api.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fal_sandbox.bell import Bell
from fal_sandbox.endpoint_ids import app_of
from fal_sandbox.faults import Fault
from fal_sandbox.replies import Reply

KEPT_JOBS = 10_000
KEPT_BYTES = 1024 * 1024 * 1024
"""Of inputs and results together: both may hold pictures as data URIs."""

Phase = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
Outcome = Literal["ok", "error", "cancelled"]


@dataclass(slots=True, eq=False)
class Job:
    """One accepted request."""

    request_id: str
    endpoint: str
    kind: Literal["queue", "direct", "stream"]
    given: Any
    """The input as it came."""
    headers: dict[str, str] = field(default_factory=dict)
    """The headers by which a caller says how fal is to treat the job, by their names in lower case."""
    size: int = 0
    """Bytes of the input as it came, later of the result too."""
    start_within_s: float = math.inf
    webhook_url: str | None = None
    plan: Fault | None = None
    state: Phase = "IN_QUEUE"
    outcome: Outcome | None = None
    billable: bool = False
    units: int = 0
    cancel_requests: int = 0
    webhook: str | None = None
    """How the delivery stands: pending, delivered, failed, dropped."""
    draft: dict[str, Any] | None = None
    """The output as soon as it is computed; a stream shows it before the job has ended."""
    result: Reply | None = None
    error: str | None = None
    error_type: str | None = None
    sent_at: float = field(default_factory=time.time)
    """Unix time, as `ended_at`."""
    ended_at: float | None = None
    started_at: float = 0.0
    inference_s: float | None = None
    log_lines: list[tuple[float, str]] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)
    """Rings on every change."""
    life: asyncio.Task[None] | None = None

    @property
    def app(self) -> str:
        return app_of(self.endpoint)

    @property
    def ended(self) -> bool:
        return self.state == "COMPLETED"

    async def end(self) -> None:
        """Waits until the job has ended."""
        while not self.ended:
            await self.bell.wait()


class Jobs:
    """Every job that is still kept, oldest first, and who waits in which queue."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Job] = OrderedDict()
        self._ended: deque[str] = deque()
        self._waiting: dict[str, dict[str, Job]] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[Job]:
        return iter(self._kept.values())

    def find(self, request_id: str) -> Job | None:
        return self._kept.get(request_id)

    def clear(self) -> None:
        self._kept.clear()
        self._ended.clear()
        self._waiting.clear()
        self._bytes = 0

    def add(self, job: Job) -> None:
        self._kept[job.request_id] = job
        self._bytes += job.size
        if job.kind == "queue":
            self._waiting.setdefault(job.app, {})[job.request_id] = job

    def waiting(self, app: str) -> int:
        """How many jobs of an application are in the queue."""
        return len(self._waiting.get(app, ()))

    def position(self, job: Job) -> int:
        """How many jobs of the same application wait before this one."""
        for position, request_id in enumerate(self._waiting.get(job.app, ())):
            if request_id == job.request_id:
                return position
        return 0

    def leave_queue(self, job: Job) -> None:
        """Those behind it move up."""
        queue = self._waiting.get(job.app, {})
        if queue.pop(job.request_id, None) is not None:
            for behind in queue.values():
                behind.bell.ring()

    def note_end(self, job: Job) -> None:
        """An ended job may be forgotten when room is needed."""
        job.ended_at = time.time()
        if job.result is not None and isinstance(job.result.body, bytes):
            job.size += len(job.result.body)
            self._bytes += len(job.result.body)
        self._ended.append(job.request_id)
        while self._ended and (len(self._kept) > KEPT_JOBS or self._bytes > KEPT_BYTES):
            self._bytes -= self._kept.pop(self._ended.popleft()).size
