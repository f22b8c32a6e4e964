"""One call of the user's: how long it may still take, and how it is stopped.

Everything that waits (a read, a write, a pause, a place in the queue of model calls) asks the current call how
long it may wait, so that one deadline covers all of it. A call is stopped from another thread by `cancel`:
what only waits is woken at once by shutting its socket down, while a submit is left a moment to learn the id of
its job, which can then be cancelled at fal. What is sent over those sockets is `transport.py`'s.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

from services.fal.errors import Cancelled, DeadlineExceeded, InternalError

SUBMIT_GRACE_S = 0.8
"""How long a submit that was sent may go on after its call was cancelled, to learn its job's id."""
CLEANUP_S = 0.7
"""How long cancelling a job at fal may take when its call is over."""

DEADLINE_SLACK_S = 0.005
"""A socket's time-out may fire a little early: this close to the deadline counts as past it."""


class Call:
    """A deadline and a stop button, shared by everything that one user call does."""

    def __init__(self, timeout_s: float, parent: Call | None = None) -> None:
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        if parent is not None and parent.deadline < self.deadline:
            self.deadline, self.timeout_s = parent.deadline, parent.timeout_s
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._parent = parent
        self._children: set[Call] = set()
        self._exchanges: set[Exchange] = set()

    @classmethod
    def within_current(cls, timeout_s: float) -> Call:
        """A new call, part of the one that this thread works for, if any."""
        return cls(timeout_s, parent=_current.get())

    def remaining(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        return self._stopped.is_set()

    def check(self) -> float:
        """Seconds until the deadline; raises Cancelled or DeadlineExceeded when this call must not go on."""
        if self.cancelled:
            raise Cancelled("The call was cancelled.")
        remaining = self.remaining()
        if remaining <= DEADLINE_SLACK_S:
            raise DeadlineExceeded(
                f"The call took longer than its {self.timeout_s:g} seconds.",
                hint="Raise --timeout or FAL_TIMEOUT_S when fal needs longer.",
            )
        return remaining

    def sleep(self, seconds: float) -> None:
        """Pause, but not past the deadline, and not when the call is cancelled meanwhile."""
        self._stopped.wait(min(seconds, self.remaining()))
        self.check()

    def acquire(self, slots: threading.Semaphore) -> None:
        """Take one of `slots`, waiting in steps so that a cancelled call is noticed."""
        while not slots.acquire(timeout=min(0.05, self.remaining())):
            self.check()

    def cancel(self) -> None:
        """Stop this call from another thread. Its own threads then cancel their jobs and raise Cancelled."""
        self._stopped.set()
        with self._lock:
            children, exchanges = list(self._children), list(self._exchanges)
        for child in children:
            child.cancel()
        for exchange in exchanges:
            exchange.interrupt()

    @contextlib.contextmanager
    def open(self, exchange: Exchange) -> Iterator[None]:
        """While this lasts, `cancel` reaches `exchange`."""
        with self._lock:
            self._exchanges.add(exchange)
        try:
            self.check()
            yield
        finally:
            exchange.end()
            with self._lock:
                self._exchanges.discard(exchange)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Call]:
        """While this lasts, the call is stopped together with the one around it."""
        parent = self._parent
        if parent is None:
            yield self
            return
        with parent._lock:
            parent._children.add(self)
        try:
            if parent.cancelled:
                self.cancel()
            yield self
        finally:
            with parent._lock:
                parent._children.discard(self)

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Make this the current call of this thread."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Call | None] = ContextVar("current_call", default=None)


def current_call() -> Call:
    """The call that this thread works for."""
    call = _current.get()
    if call is None:
        raise InternalError("A request was made outside a call.")
    return call


@contextlib.contextmanager
def new_call(timeout_s: float) -> Iterator[Call]:
    """Begin a call; inside another one its deadline is the earlier of the two."""
    call = Call.within_current(timeout_s)
    with call.begun(), call.resumed():
        yield call


@contextlib.contextmanager
def cleanup() -> Iterator[Call]:
    """A short call of its own, for what must still be done when the current one is over."""
    call = Call(CLEANUP_S)
    with call.resumed():
        yield call


class Exchange:
    """One request on its way: whether any of it was sent, and the socket it waits on."""

    def __init__(self, host: str, *, paid: bool, public_only: bool = False) -> None:
        self.host = host
        self.paid = paid
        """Whether fal may start, and bill, a job for it."""
        self.public_only = public_only
        """Whether it may be sent to public addresses only."""
        self.peer = host
        """The name under which `host` is tried now."""
        self.sending = False
        """Whether any byte of it may have been handed to a connection to `peer`."""
        self.sent = False
        """Whether it surely was."""
        self.until: float | None = None
        """When it must be over, by the monotonic clock, when that is earlier than its call's deadline."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._shut = False
        self._timer: threading.Timer | None = None

    def interrupt(self) -> None:
        """Wake the thread that waits on this request; a submit that was sent gets its moment first."""
        with self._lock:
            if not (self.paid and self.sending):
                self._shut = True
                self._shut_socket()
                return
        self._timer = threading.Timer(SUBMIT_GRACE_S, self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    def begin_sending(self) -> None:
        """From now on a submit gets its moment; one that was interrupted before finds its socket shut."""
        with self._lock:
            self.sending = True

    def end(self) -> None:
        """The request is over: its socket may serve another one now."""
        self.use(None)
        if self._timer is not None:
            self._timer.cancel()

    def use(self, sock: socket.socket | None) -> None:
        """The socket that the request waits on now."""
        with self._lock:
            self._socket = sock
            if self._shut:
                self._shut_socket()

    def _shut_down(self) -> None:
        with self._lock:
            self._shut = True
            self._shut_socket()

    def _shut_socket(self) -> None:
        if self._socket is not None:
            # The plain socket's own method: an SSL object's would race with the thread that reads from it.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)
