"""The brake of a run: pauses or stops the submits of all its products."""

from __future__ import annotations

import threading
import time

from services.fal.errors import Cancelled, FalError

LONGEST_LOOK_S = 0.5
"""How long a thread waits for the brake before it looks again."""
FIRST_PAUSE_S = 2.0
MOST_PAUSE_S = 60.0
"""Of a pause because fal limits the rate, or is not to be had; it doubles until fal takes a job again."""
MOST_PAUSES = 8
"""About four minutes: whoever resumes the batch later loses nothing."""


class Held(Cancelled):
    """No job is submitted any more: the product is made when the batch is resumed."""


class Brake:
    """One for all threads of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: FalError | None = None
        self._stopped = threading.Event()
        self._pauses = 0
        """One after the other, without a job that fal took between them."""
        self._paused_until = 0.0

    @property
    def reason(self) -> FalError | None:
        """Why nothing more is submitted; the first reason that there was."""
        return self._reason

    def stop(self, reason: FalError) -> None:
        """Submit nothing more."""
        with self._lock:
            self._reason = self._reason or reason
        self._stopped.set()

    def wait(self, seconds: float) -> None:
        """Pause, but not after `stop`."""
        self._stopped.wait(seconds)

    def check(self) -> None:
        """Raises Held after `stop`."""
        if self._reason is not None:
            raise Held("The batch is ending, so the job was not submitted.") from self._reason

    def pause_s(self) -> float:
        """How long to wait before the next look, 0.0 when jobs may be submitted."""
        return min(max(self._paused_until - time.monotonic(), 0.0), LONGEST_LOOK_S)

    def trouble(self, error: FalError) -> None:
        """fal refuses jobs for the rate, or is not to be had: pause, and stop when that does not help.

        What fails in the same moment makes one pause.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._paused_until:
                return
            self._pauses += 1
            self._paused_until = now + min(FIRST_PAUSE_S * 2.0 ** (self._pauses - 1), MOST_PAUSE_S)
            is_over = self._pauses > MOST_PAUSES
        if is_over:
            self.stop(error)

    def accepted(self) -> None:
        """fal took a job."""
        self._pauses = 0
