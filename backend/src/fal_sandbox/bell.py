"""A bell that is rung on every change, so that others can wait for it without polling."""

from __future__ import annotations

import asyncio
import threading


class Bell:
    """For waiters on the sandbox's own loop."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """True when the bell rang, False when `timeout_s` passed first."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            rang, _ = await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            if not waiter.done():
                waiter.cancel()
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return bool(rang)


class TowerBell:
    """For waiters in other threads: counts the strokes, so that none is missed between two looks."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._strokes = 0

    def ring(self) -> None:
        with self._condition:
            self._strokes += 1
            self._condition.notify_all()

    @property
    def strokes(self) -> int:
        return self._strokes

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Waits for a stroke later than number `seen`."""
        with self._condition:
            return self._condition.wait_for(lambda: self._strokes != seen, timeout_s)
