"""The calls that a persistent worker has taken and not answered: some run, some wait, and each is answered once.

A call runs in a daemon thread within its own `Call`, so its deadline and its stop button reach everything it does. Its
deadline counts from the moment when it gets a place; how long it may wait for one has a limit of its own, or none. One
more thread answers the calls that cannot answer for themselves: those that waited too long, and those that are not over
when their grace is. What a call does, and what its reply looks like, is `serve.py`'s.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from services.fal.call import Call
from services.fal.errors import Cancelled, FalError
from services.worker.commands import Command
from services.worker.jsonrpc import Id, Reply
from services.worker.run import GRACE_S, LOOK_S, Made, PausingClock, late, no_thread

REFUSED_AT_ONCE = 1000
"""Calls whose refusals may hold up the replies of others for a moment."""


class Busy(FalError):
    """More calls wait, or one waited longer, than the worker was told to allow."""

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
        self.timeout_s = timeout_s
        self.reply = reply
        self.arrived_at = time.monotonic()
        self.call: Call | None = None
        """Set when it gets a place: until then its time does not run."""
        self.limit = 0.0
        """When it is answered at the latest once it runs, by the monotonic clock."""
        self.answered = False
        self.made = Made()

    def begin(self) -> None:
        self.call = Call(self.timeout_s)
        self.limit = self.call.deadline + GRACE_S

    def within(self) -> Call:
        """The call that it runs in."""
        assert self.call is not None
        return self.call


class Calls:
    """All open calls: at most `concurrency` run, at most `max_pending` wait."""

    def __init__(
        self,
        work: Callable[[OpenCall], str],
        failed: Callable[[OpenCall, FalError], str],
        pause: Callable[[], None],
        together: Callable[[], contextlib.AbstractContextManager[None]],
        *,
        concurrency: int,
        max_pending: int,
        queue_timeout_s: float | None,
    ) -> None:
        self._work = work
        """Runs a call and gives its reply; never raises."""
        self._failed = failed
        """The reply to a call that did not get so far."""
        self._pause = pause
        """Called between two calls: while nobody reads the replies, no more are made."""
        self._together = together
        """Around replies that may leave as one."""
        self._concurrency = concurrency
        self._max_pending = max_pending
        self._queue_timeout_s = queue_timeout_s
        self._lock = threading.RLock()
        self._alarm = threading.Condition(self._lock)
        self._all_answered = threading.Condition(self._lock)
        self._open: dict[Id, OpenCall] = {}
        self._waiting: OrderedDict[Id, OpenCall] = OrderedDict()
        """In the order of their arrival."""
        self._running: set[OpenCall] = set()
        self._places = 0
        """How many places are taken; a call that hangs has given its own back."""
        self._closed = False
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
            self._alarm.notify_all()
            self._fill()

    def cancel(self, call_id: Id) -> bool:
        """Stop a call: one that waits is answered at once, one that runs when its jobs are cancelled."""
        with self._lock:
            call = self._open.get(call_id)
            if call is None:
                return False
            if call.call is None:
                self._refuse(call, Cancelled("The call was cancelled before it began. Nothing was sent to fal."))
                return True
            self._hasten(call)
        call.call.cancel()
        return True

    def take_no_more(self) -> None:
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Take no more, stop all calls, and wait until each is answered, but no longer than the grace.

        Those that run come first: what they do costs money, what waits costs only an answer.
        """
        until = time.monotonic() + GRACE_S + LOOK_S
        with self._lock:
            self._closed = True
            running = list(self._running)
            for call in running:
                self._hasten(call)
        for call in running:
            call.within().cancel()
        error = _ending()
        while self._waiting:
            with self._lock, self._together():
                for waiting in list(itertools.islice(self._waiting.values(), REFUSED_AT_ONCE)):
                    self._refuse(waiting, error)
        clock = PausingClock()
        with self._lock:
            while self._open and time.monotonic() < until:
                self._all_answered.wait(LOOK_S)
                if (woke_at := clock.woke_at()) is not None:
                    until = woke_at + GRACE_S
            for call in list(self._running):
                self._give_up(call)

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
                self._running.discard(call)
                if self._places == 0:
                    self._refuse(call, no_thread(error))
                    continue
                # It gets the next place that there is.
                call.call = None
                self._waiting[call.call_id] = call
                self._waiting.move_to_end(call.call_id, last=False)
                return
            self._places += 1

    def _next(self) -> OpenCall | None:
        if self._closed or not self._waiting:
            return None
        _, call = self._waiting.popitem(last=False)
        call.begin()
        self._running.add(call)
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
        self._running.discard(call)
        call.reply(reply)
        if not self._open:
            self._all_answered.notify_all()
        return True

    def _refuse(self, call: OpenCall, error: FalError) -> None:
        with self._lock:
            self._answer(call, self._failed(call, error))

    # The clock

    def _hasten(self, call: OpenCall) -> None:
        call.limit = min(call.limit, time.monotonic() + GRACE_S)

    def _watch(self) -> None:
        clock = PausingClock()
        with self._lock:
            while True:
                self._alarm.wait(LOOK_S if self._open else None)
                if (woke_at := clock.woke_at()) is not None:
                    for call in self._running:
                        call.limit = max(call.limit, woke_at + GRACE_S)
                now = time.monotonic()
                for call in [call for call in self._running if call.limit <= now]:
                    self._give_up(call)
                self._refuse_late(now)

    def _refuse_late(self, now: float) -> None:
        """Answer the calls that waited for a place for too long."""
        if (queue_timeout_s := self._queue_timeout_s) is None:
            return
        while (call := next(iter(self._waiting.values()), None)) and call.arrived_at + queue_timeout_s <= now:
            self._refuse(call, _never_began(queue_timeout_s))

    def _give_up(self, call: OpenCall) -> None:
        stopped = call.within().cancelled
        why = Cancelled("The call was cancelled and could not be tidied up in time.")
        self._refuse(call, why if stopped else late(call.timeout_s))
        # What its thread still does goes on without a place; the next call need not wait for it.
        call.within().cancel()
        self._places -= 1
        self._fill()


def _ending() -> Cancelled:
    return Cancelled("The worker is ending: the call was not begun and nothing was sent to fal.", retryable=True)


def _never_began(queue_timeout_s: float) -> Busy:
    return Busy(
        f"The call waited {queue_timeout_s:g} seconds for a place in the worker. Nothing was sent to fal.",
        hint="Call again later, or raise --queue_timeout or --concurrency.",
    )
