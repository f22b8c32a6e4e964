"""The steps of a call that has several: how long each took, and who is told.

An `on_progress` callback gets `{"step", "status": "started" | "done" | "failed", ...}`, one at a time although the
steps run side by side. What the steps do is `product.py`'s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from services.fal.errors import FalError, summary
from services.fal.progress import Progress


class Steps:
    """Records seconds per step in `timings` and tells `on_progress`."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.timings: dict[str, float] = {}
        self.from_sandbox: dict[str, Any] = {}
        """What `fields.from_sandbox` said of the answers so far, each remark once."""
        self._progress = progress
        self._lock = threading.Lock()
        self._began = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str, style: str | None = None) -> Iterator[dict[str, Any]]:
        """One step; what its block puts into the dict it is given goes out with the `done` event."""
        about = {"step": name} if style is None else {"step": name, "style": style}
        made: dict[str, Any] = {}
        self._tell({**about, "status": "started"})
        began = time.monotonic()
        try:
            yield made
        except FalError as error:
            self._tell({**about, "status": "failed", **summary(error)})
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            self.timings[name if style is None else f"{name}:{style}"] = seconds
        self._note(made)
        self._tell({**about, "status": "done", "seconds": seconds, **made})

    def total(self) -> dict[str, float]:
        """The seconds of every step so far, and of the whole."""
        return {**self.timings, "total": round(time.monotonic() - self._began, 3)}

    def _note(self, made: dict[str, Any]) -> None:
        if "sandbox" not in made:
            return
        with self._lock:
            remarks = [*self.from_sandbox.get("sandbox_remarks", ()), *made.get("sandbox_remarks", ())]
            known = {"sandbox_remarks": list(dict.fromkeys(remarks))} if remarks else {}
            self.from_sandbox = {"sandbox": True, **known}

    def _tell(self, event: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress._tell(event)
