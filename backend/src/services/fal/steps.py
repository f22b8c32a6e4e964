"""The steps of a call that has several: how long each took, and who is told.

An `on_progress` callback gets `{"step", "status": "started" | "done" | "failed", ...}`, one at a time although the
steps run side by side. What the steps do is `product.py`'s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from services.fal.errors import FalError, summary
from services.fal.stderr_log import logger

Progress = Callable[[dict[str, Any]], None]


class Steps:
    """Records seconds per step in `timings` and tells `on_progress`."""

    def __init__(self, on_progress: Progress | None = None) -> None:
        self.timings: dict[str, float] = {}
        self.from_sandbox: dict[str, Any] = {}
        """What `fields.from_sandbox` said of the answers so far, each remark once."""
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._lock = threading.Lock()

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
        if self._on_progress is None:
            return
        with self._lock:
            try:
                self._on_progress(event)
            except Exception:  # a caller's broken callback must not lose pictures that are paid for
                logger.warning("on_progress raised", exc_info=True)
