"""The progress of a call: its steps, its jobs' places in fal's queue, and their log lines.

A `Progress` is part of a call. Whoever waits for a job hands each of its statuses over; whoever works in steps runs
them through `step`. Both reach the listener of the call and those of the calls around it, one event at a time although
the steps run side by side. The events are `results.ProgressEvent`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from services.fal.errors import FalError, summary
from services.fal.log import logger, show

if TYPE_CHECKING:
    from services.fal.results import ProgressEvent

T = TypeVar("T")


class Progress:
    """The progress of one call: seconds per step in `timings`, events to whoever listens."""

    def __init__(
        self,
        on_event: Callable[[ProgressEvent], None] | None = None,
        *,
        with_logs: bool = False,
        to_stderr: bool = True,
        parent: Progress | None = None,
    ) -> None:
        """`with_logs` asks fal for log lines and shows them, with the places, on stderr, unless `to_stderr` is False
        here or in a parent. Events go to `on_event` and on to `parent`."""
        self.timings: dict[str, float] = {}
        self.from_sandbox: dict[str, Any] = {}
        """What `responses.from_sandbox` said of the answers so far, each remark once."""
        self.with_logs: bool = with_logs or (parent is not None and parent.with_logs)
        """Whether fal is asked for the log lines of jobs."""
        self._on_event = on_event
        self._to_stderr: bool = to_stderr and (parent is None or parent._to_stderr)
        self._parent = parent
        self._is_heard: bool = on_event is not None or (parent is not None and parent._is_heard)
        self._began = time.monotonic()
        self._seen: set[tuple[str, str, str]] = set()
        self._seeing = threading.Lock()
        # A listener may itself call methods of the client, whose events come back to it.
        self._telling = threading.RLock()

    def step(
        self,
        name: str,
        action: Callable[[], T],
        made: Callable[[T], Mapping[str, Any]] = lambda value: {},
        *,
        style: str | None = None,
        further: Callable[[T], Sequence[Mapping[str, Any]]] = lambda value: (),
    ) -> T:
        """Run one step; `made` tells its value in the event at its end, `further` in more such events."""
        about = {"step": name} if style is None else {"step": name, "style": style}
        self.tell({**about, "status": "started"})
        began = time.monotonic()
        try:
            value = action()
        except FalError as error:
            self.tell({**about, "status": "failed", **summary(error)})
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            self.timings[name if style is None else f"{name}:{style}"] = seconds
        for told in (made(value), *further(value)):
            self._note(told)
            self.tell({**about, "status": "done", "seconds": seconds, **told})
        return value

    def total(self) -> dict[str, float]:
        """The seconds of every step so far, and of the whole."""
        return {**self.timings, "total": round(time.monotonic() - self._began, 3)}

    def status(self, request_id: str, status: Mapping[str, Any]) -> None:
        """Tell what is new in a job's status: its place in the queue, and its log when that was asked for."""
        if not (self.with_logs or self._is_heard):
            return
        position = 0 if status.get("status") == "IN_PROGRESS" else status.get("queue_position")
        if isinstance(position, int) and self._is_new(request_id, "queue", f"position {position}"):
            self._show(f"queue position {position}")
            self.tell({"step": "queue", "queue_position": position, "request_id": request_id})
        logs = status.get("logs")
        for entry in logs if self.with_logs and isinstance(logs, list) else []:
            if isinstance(entry, dict):
                at, message = str(entry.get("timestamp", "")), str(entry.get("message", ""))
                if self._is_new(request_id, at, message):
                    self._show(f"{at} {message}")
                    self.tell({"step": "log", "timestamp": at, "message": message, "request_id": request_id})

    def _note(self, told: Mapping[str, Any]) -> None:
        if "sandbox" not in told:
            return
        with self._seeing:
            remarks = [*self.from_sandbox.get("sandbox_remarks", ()), *told.get("sandbox_remarks", ())]
            known = {"sandbox_remarks": list(dict.fromkeys(remarks))} if remarks else {}
            self.from_sandbox = {"sandbox": True, **known}

    def _is_new(self, request_id: str, at: str, text: str) -> bool:
        line = (request_id, at, text)
        with self._seeing:
            new = line not in self._seen
            self._seen.add(line)
        return new

    def _show(self, line: str) -> None:
        if self.with_logs and self._to_stderr:
            show(f"fal: {line}".replace("\n", "\\n"))

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell an event to the listeners, this one first."""
        if self._on_event is not None:
            with self._telling:
                try:
                    self._on_event(cast("ProgressEvent", event))
                except Exception:  # a listener that is broken must not lose pictures that are paid for
                    logger.warning("on_progress raised", exc_info=True)
        if self._parent is not None:
            self._parent.tell(event)
