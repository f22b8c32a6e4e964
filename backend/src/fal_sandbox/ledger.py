"""The ledger: how many jobs were accepted, how they ended, and what fal would have billed.

It counts on its own, so the figures stay right when old jobs are no longer kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fal_sandbox.job_store import Job


@dataclass(slots=True)
class Ledger:
    """The figures since the start or the last reset."""

    accepted: int = 0
    billable: int = 0
    cancelled: int = 0
    failed: int = 0
    completed: int = 0
    units: int = 0
    most_running: int = 0
    """How many were running at once, at most."""

    @property
    def running(self) -> int:
        """Accepted and not ended, waiting ones included."""
        return self.accepted - self.cancelled - self.failed - self.completed

    def count_accepted(self) -> None:
        self.accepted += 1
        self.most_running = max(self.most_running, self.running)

    def count_end(self, job: Job) -> None:
        """Books a job that has just ended."""
        if job.outcome == "ok":
            self.completed += 1
        elif job.outcome == "cancelled":
            self.cancelled += 1
        else:
            self.failed += 1
        if job.billable:
            self.billable += 1
            self.units += job.units

    def clear(self) -> None:
        self.accepted = self.billable = self.cancelled = self.failed = self.completed = self.units = 0
        self.most_running = 0

    def view(self, jobs: Iterable[Job], files: int) -> dict[str, Any]:
        """The figures with the jobs that are still kept, oldest first."""
        return {
            "accepted": self.accepted,
            "billable": self.billable,
            "cancelled": self.cancelled,
            "failed": self.failed,
            "completed": self.completed,
            "running": self.running,
            "most_running": self.most_running,
            "units": self.units,
            "jobs": [_entry(job) for job in jobs],
            "files": files,
        }


def _entry(job: Job) -> dict[str, Any]:
    return {
        "request_id": job.request_id,
        "endpoint": job.endpoint,
        "kind": job.kind,
        "state": job.state,
        "outcome": job.outcome,
        "billable": job.billable,
        "units": job.units,
        "input": job.given,
        "headers": job.headers,
        "cancel_requests": job.cancel_requests,
        "webhook_url": job.webhook_url,
        "webhook": job.webhook,
    }
