"""The calls that a persistent worker has taken and not answered: some run, some wait, and each is answered once.

A call runs in a daemon thread within its own `Call`, so its deadline and its stop button reach everything it does. Its
deadline counts from its arrival. One more thread answers the calls that cannot answer for themselves: those whose time
passes while they wait, and those that are not over when their grace is. What a call does, and what its reply looks
like, is `serve.py`'s.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from services.fal.call import Call
from services.fal.errors import Cancelled, DeadlineExceeded, FalError, InternalError
from services.worker.commands import Command
from services.worker.jsonrpc import Id, Reply
from services.worker.run import GRACE_S, OVERTIME_S, late


class Busy(FalError):
    """More calls wait than the worker was told to let wait."""

    error_type = "busy"
    default_retryable = True


class OpenCall:
    """One call from its arrival to its reply."""

    def __init__(
        self, call_id: Id, command: Command, values: Mapping[str, Any], timeout_s: float, reply: Reply
    ) -> None:
        self.call_id = call_id
        self.command = command
        self.values = values
        self.reply = reply
        self.call = Call(timeout_s)
        self.limit = self.call.deadline
        """When it is answered at the latest, by the monotonic clock."""
        self.running = False
        self.answered = False


class Calls:
    """All open calls: at most `concurrency` run, at most `max_pending` wait."""

    def __init__(
        self,
        work: Callable[[OpenCall], str],
        failed: Callable[[OpenCall, FalError], str],
        pause: Callable[[], None],
        *,
        concurrency: int,
        max_pending: int,
    ) -> None:
        self._work = work
        """Runs a call and gives its reply; never raises."""
        self._failed = failed
        """The reply to a call that did not get so far."""
        self._pause = pause
        """Called between two calls: while nobody reads the replies, no more are made."""
        self._concurrency = concurrency
        self._max_pending = max_pending
        self._lock = threading.RLock()
        self._alarm = threading.Condition(self._lock)
        self._all_answered = threading.Condition(self._lock)
        self._open: dict[Id, OpenCall] = {}
        self._waiting: OrderedDict[Id, OpenCall] = OrderedDict()
        self._places = 0
        """How many places are taken; a call that hangs has given its own back."""
        self._closed = False
        self._wake_at = math.inf
        threading.Thread(target=self._watch, name="fal-watch", daemon=True).start()

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {"running": self._places, "waiting": len(self._waiting)}

    def is_open(self, call_id: Id | None) -> bool:
        with self._lock:
            return call_id in self._open

    def add(self, call: OpenCall) -> None:
        """Run the call, or let it wait for a place. Raises Busy, and Cancelled after `close`."""
        with self._lock:
            if self._closed:
                raise _ending()
            if self._places >= self._concurrency and len(self._waiting) >= self._max_pending:
                raise Busy(
                    f"{self._places} calls run and {len(self._waiting)} wait: no more are taken.",
                    hint="Call again later, or raise --max_pending. Nothing was sent to fal.",
                )
            self._open[call.call_id] = call
            self._waiting[call.call_id] = call
            self._watch_for(call.limit)
            self._fill()

    def cancel(self, call_id: Id) -> bool:
        """Stop a call: one that waits is answered at once, one that runs when its jobs are cancelled."""
        with self._lock:
            call = self._open.get(call_id)
            if call is None:
                return False
            if not call.running:
                self._refuse(call, Cancelled("The call was cancelled before it began. Nothing was sent to fal."))
                return True
            self._hasten(call)
        call.call.cancel()
        return True

    def take_no_more(self) -> None:
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Take no more, stop all calls, and wait until each is answered, which takes no longer than the grace."""
        with self._lock:
            self._closed = True
            for call in list(self._waiting.values()):
                self._refuse(call, _ending())
            running = list(self._open.values())
            for call in running:
                self._hasten(call)
        for call in running:
            call.call.cancel()
        with self._lock:
            self._all_answered.wait_for(lambda: not self._open, GRACE_S + 0.1)

    @contextlib.contextmanager
    def while_open(self, call: OpenCall) -> Iterator[bool]:
        """Whether the call is unanswered, which it stays for the block."""
        with self._lock:
            yield not call.answered

    # The places

    def _fill(self) -> None:
        while self._places < self._concurrency and (call := self._next()) is not None:
            thread = threading.Thread(target=self._run, args=(call,), name="fal-call", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._refuse(call, InternalError(f"The machine has no thread left for the call: {error}."))
            else:
                self._places += 1

    def _next(self) -> OpenCall | None:
        if not self._waiting:
            return None
        _, call = self._waiting.popitem(last=False)
        call.running = True
        call.limit += OVERTIME_S
        return call

    def _run(self, call: OpenCall | None) -> None:
        """Run one call, and the ones that wait after it, in one place."""
        while call is not None:
            reply = self._work(call)
            with self._lock:
                if not self._answer(call, reply):
                    return  # it was given up, and its place with it
            self._pause()
            with self._lock:
                call = self._next()
                self._places -= call is None

    def _answer(self, call: OpenCall, reply: str) -> bool:
        if call.answered:
            return False
        call.answered = True
        del self._open[call.call_id]
        self._waiting.pop(call.call_id, None)
        call.reply(reply)
        if not self._open:
            self._all_answered.notify_all()
        return True

    def _refuse(self, call: OpenCall, error: FalError) -> None:
        self._answer(call, self._failed(call, error))

    # The clock

    def _hasten(self, call: OpenCall) -> None:
        call.limit = min(call.limit, time.monotonic() + GRACE_S)
        self._watch_for(call.limit)

    def _watch_for(self, limit: float) -> None:
        if limit < self._wake_at:
            self._wake_at = limit
            self._alarm.notify_all()

    def _watch(self) -> None:
        with self._lock:
            while True:
                now = time.monotonic()
                for call in [call for call in self._open.values() if call.limit <= now]:
                    self._give_up(call)
                self._wake_at = min((call.limit for call in self._open.values()), default=math.inf)
                self._alarm.wait(None if self._wake_at == math.inf else max(0.0, self._wake_at - time.monotonic()))

    def _give_up(self, call: OpenCall) -> None:
        if not call.running:
            self._refuse(call, _never_began(call.call.timeout_s))
            return
        stopped = call.call.cancelled
        why = Cancelled("The call was cancelled and could not be tidied up in time.")
        self._refuse(call, why if stopped else late(call.call.timeout_s))
        # What its thread still does goes on without a place; the next call need not wait for it.
        call.call.cancel()
        self._places -= 1
        self._fill()


def _ending() -> Cancelled:
    return Cancelled("The worker is ending: the call was not begun and nothing was sent to fal.", retryable=True)


def _never_began(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The call waited its {timeout_s:g} seconds for a place in the worker. Nothing was sent to fal.",
        hint="Raise its timeout, or --concurrency.",
    )
