"""One call of the user's: how long it may still take, and how it is stopped.

Everything that waits (a read, a write, a pause, a place in the queue of model calls) asks the current call how
long it may wait, so that one deadline covers all of it. A call is stopped from another thread by `cancel`:
what only waits is woken at once by shutting its socket down, while a submit is left a moment to learn the id of
its job, which can then be cancelled at fal. What is sent over those sockets is `transport.py`'s.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import heapq
import itertools
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, Generic, TypeVar

from services.fal.errors import Cancelled, DeadlineExceeded, InternalError
from services.fal.progress import Progress

T = TypeVar("T")

SUBMIT_GRACE_S = 0.8
"""How long a submit that was sent may go on after its call was cancelled or its deadline passed, to learn the id of
its job."""
CLEANUP_S = 0.7
"""How long cancelling a job at fal may take when its call is over."""

PAUSED_S = 0.5
"""A wait that ends so much later than it should: the process was paused (SIGSTOP, Ctrl-Z, a frozen container)."""
LOOK_S = 0.05
"""How often who waits for a place looks whether its call is still wanted."""

DEADLINE_SLACK_S = 0.005
"""A socket's time-out may fire a little early: this close to the deadline counts as past it."""


class Call:
    """A deadline and a stop button, shared by everything that one user call does."""

    def __init__(self, timeout_s: float, *, parent: Call | None = None, progress: Progress | None = None) -> None:
        """A part of `parent` has the earlier of both deadlines, is stopped with it, and tells its progress."""
        inherited = Progress() if parent is None else parent.progress
        self.progress: Progress = progress if progress is not None else inherited
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        if parent is not None and parent.deadline < self.deadline:
            self.deadline, self.timeout_s = parent.deadline, parent.timeout_s
        self.began: float = time.monotonic() if parent is None else parent.began
        """When the outermost call around it began."""
        self._stopped = threading.Event()
        self._stopped_at: float | None = None
        self._lock = threading.Lock()
        self._children: weakref.WeakSet[Call] = weakref.WeakSet()
        self._exchanges: set[Exchange] = set()
        self.submit: Exchange | None = None
        """The submit that is on its way, or whose answer is being read."""
        if parent is not None:
            with parent._lock:
                parent._children.add(self)
            if parent.cancelled:
                self.cancel()

    @classmethod
    def within_current(cls, timeout_s: float) -> Call:
        """A new call, part of the one that this thread works for, if any."""
        return cls(timeout_s, parent=_current.get())

    def remaining(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def cancelled(self) -> bool:
        return self._stopped_at is not None

    def over_at(self) -> float:
        """When this call ends, or ended, by the monotonic clock."""
        stopped_at = self._stopped_at
        return self.deadline if stopped_at is None else min(stopped_at, self.deadline)

    def interrupt(self) -> None:
        """`cancel` for a signal handler in the call's own thread: takes no lock, which that thread may hold."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

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
        self.check()
        self._stopped.wait(min(seconds, self.remaining()))
        self.check()

    def cancel(self) -> None:
        """Stop this call from another thread. Its own threads then cancel their jobs and raise Cancelled."""
        self.interrupt()
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
def new_call(timeout_s: float, parent: Call | None = None, progress: Progress | None = None) -> Iterator[Call]:
    """Begin a call; inside another one its deadline is the earlier of the two."""
    call = Call(timeout_s, parent=parent or _current.get(), progress=progress)
    _open.add(call)
    try:
        with call.resumed():
            yield call
    finally:
        _open.discard(call)


_open: set[Call] = set()
"""The calls of this process that are not over."""


@atexit.register
def _cancel_what_is_open() -> None:
    """At the interpreter's end a daemon thread may be in the middle of a call: its job is cancelled first."""
    until = time.monotonic() + SUBMIT_GRACE_S + CLEANUP_S
    for call in list(_open):
        call.cancel()
    while _open and time.monotonic() < until:
        time.sleep(0.01)


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
        self.reading = False
        """Whether the answer to a submit is waited for, which ends by itself."""
        self.until: float | None = None
        """When it must be over, by the monotonic clock, when that is earlier than its call's deadline."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._shut = False
        self._timer: threading.Timer | None = None

    def interrupt(self) -> None:
        """Wake the thread that waits on this request; a submit that was sent gets its moment, which it takes itself."""
        with self._lock:
            if not (self.paid and self.sending):
                self._shut = True
                self._shut_socket()
                return
        if not self.reading:
            # No step ends a write that nobody takes.
            timer = threading.Timer(SUBMIT_GRACE_S, self._shut_down)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # no thread to be had: the call's deadline ends it
                timer.start()
                self._timer = timer

    def left_for_answer(self, call: Call, now: float) -> float:
        """How long the answer to a submit may still be waited for: a moment longer than its call.

        The moment begins when the end of the call is noticed: a process that was paused wakes long after it.
        """
        if self.until is None:
            if now < (over_at := call.over_at()):
                return over_at + SUBMIT_GRACE_S - now
            self.until = now + SUBMIT_GRACE_S
        return self.until - now

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


class Slots:
    """Places for so many at once; the call that began first is served first, so that none is overtaken for ever."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._waiting: list[tuple[float, int, threading.Lock]] = []

    @contextlib.contextmanager
    def one(self, call: Call | None = None) -> Iterator[None]:
        """A place for a call, which waits no longer than it may. Raises Cancelled, DeadlineExceeded."""
        self._acquire(current_call() if call is None else call)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, call: Call) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            waiter = (call.began, next(self._count), turn)
            heapq.heappush(self._waiting, waiter)
        try:
            while not turn.acquire(timeout=min(LOOK_S, call.remaining())):
                call.check()
        except BaseException:
            self._leave(waiter)
            raise

    def _leave(self, waiter: tuple[float, int, threading.Lock]) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
                return
        self._release()  # its turn came at that very moment

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].release()
            else:
                self._free += 1


class Task(Generic[T]):
    """One step that runs beside others."""

    def __init__(self, action: Callable[[], T]) -> None:
        self._action = action
        self._value: T
        self._error: BaseException | None = None
        self._context = contextvars.copy_context()
        self._begun = threading.Lock()
        self._over = threading.Event()
        thread = threading.Thread(target=self._begin, name="fal-task", daemon=True)
        self._thread: threading.Thread | None = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None  # no thread to be had: it runs in the thread that asks for its result

    def _begin(self) -> None:
        if self._begun.acquire(blocking=False):
            self._context.run(self._run)

    def _run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()

    def result(self) -> T:
        """Wait for the step; its value, or its error raised here."""
        if self._thread is None:
            self._begin()
        self._over.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, when it was begun; whether it is."""
        begun = self._thread is not None or self._begun.locked()
        return self._over.wait(timeout_s) if begun else True


class Parallel:
    """Tasks of one group, which can be stopped together."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._tasks: list[Task[Any]] = []

    def start(self, action: Callable[[], T]) -> Task[T]:
        task = Task(action)
        self._tasks.append(task)
        return task

    def stop(self) -> None:
        """Cancel what the tasks still do."""
        self._call.cancel()

    def join(self) -> None:
        for task in self._tasks:
            task.wait()


@contextlib.contextmanager
def parallel() -> Iterator[Parallel]:
    """A group of tasks that are all over when the block ends; an error in the block stops them."""
    with new_call(current_call().timeout_s) as call:
        group = Parallel(call)
        try:
            yield group
        except BaseException:
            group.stop()
            raise
        finally:
            group.join()


@contextlib.contextmanager
def ctrl_c_waits_for_submit() -> Iterator[None]:
    """Ctrl-C in the main thread waits while a submit is on its way: its job must be known to be cancelled.

    The call is cancelled then, and KeyboardInterrupt follows when the block is over. A handler of the user's own
    stays: what it raises is its business.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    call, pressed = current_call(), False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if call.submit is None or not call.submit.sending or pressed:
            raise KeyboardInterrupt
        pressed = True
        call.interrupt()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if pressed:
            raise KeyboardInterrupt


def _forget_parent_process() -> None:
    """In the child of a fork: the call in whose middle it was made is the parent's."""
    _open.clear()
    _current.set(None)
    current_exchange.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent_process)
