"""One call of a user: its deadline, stop button, progress and cost limit.

A call is made at the door (a public method of FalClient, or the worker) and handed on to everything that waits: a
read, a write, a pause, a place in the queue of model calls. So one deadline covers all of it. It is stopped from
another thread by `cancel`: what only waits is woken at once by shutting its socket down, while a submit is left a
moment to learn the id of its job, which can then be cancelled at fal. A submit has no idempotency key at fal, and a
job whose id nobody knows runs and is billed (https://fal.ai/docs/documentation/model-apis/inference/queue).
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import itertools
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Generic, TypeVar

from services.fal.costs import Costs, check_max_usd
from services.fal.errors import Cancelled, DeadlineExceeded, InvalidInput
from services.fal.journal import JobKey, Journal
from services.fal.progress import Progress

T = TypeVar("T")

SUBMIT_GRACE_S = 0.8
"""How long a submit that was sent may go on after its call was cancelled or its deadline passed, to learn the id of
its job. With CLEANUP_S it is below the 2 s within which a command that got a signal has ended."""
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

    def __init__(
        self,
        timeout_s: float,
        *,
        parent: Call | None = None,
        progress: Progress | None = None,
        costs: Costs | None = None,
        max_usd: float | None = None,
        journal: Journal | None = None,
        part: str = "",
    ) -> None:
        """A part of `parent` has the earlier of both deadlines, is stopped with it, and tells its progress and costs.

        `max_usd` is what it may cost, in US dollars. `journal` remembers the jobs of the call, by default where its
        parent's are remembered. There, `part` tells the jobs of this part from those of others that do the same, such
        as texts in another language.
        """
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s >= 0:
            raise InvalidInput(f"timeout_s must be a number of seconds, not {timeout_s!r}.")
        inherited = Progress() if parent is None else parent.progress
        self.progress: Progress = progress if progress is not None else inherited
        if costs is None:
            costs = Costs() if parent is None else parent.costs
        self.costs: Costs = costs if max_usd is None else Costs(costs, max_usd=check_max_usd(max_usd))
        self.journal: Journal | None = parent.journal if journal is None and parent is not None else journal
        self._part: str = ("" if parent is None else parent._part) + (f"{part}/" if part else "")
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        if parent is not None and parent.deadline < self.deadline:
            self.deadline, self.timeout_s = parent.deadline, parent.timeout_s
        self.began: float = time.monotonic() if parent is None else parent.began
        """When the outermost call around it began."""
        self.winds_down = False
        """Whether it is asked to begin nothing more, and to end what runs. Only a batch of many calls looks at it."""
        self._stopped = threading.Event()
        self._stopped_at: float | None = None
        self._lock = threading.Lock()
        # Weak: a long call of the user's must not keep every call that was ever made within it.
        self._children: weakref.WeakSet[Call] = weakref.WeakSet()
        self._requests: set[RequestInFlight] = set()
        self.submit: RequestInFlight | None = None
        """The submit that is on its way, or whose answer is being read."""
        if parent is not None:
            with parent._lock:
                parent._children.add(self)
            # After it was added: a cancel in between reaches it either way.
            if parent.cancelled:
                self.cancel()

    def __enter__(self) -> Call:
        """For the block, the end of the interpreter waits until this call is cancelled."""
        _open.add(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _open.discard(self)

    def key_of(self, key: JobKey) -> JobKey:
        """What the journal knows a job of this call by."""
        return key._replace(step=self._part + key.step)

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
        # First, so that a child that is made meanwhile sees it.
        self.interrupt()
        self._stopped.set()
        with self._lock:
            children, requests = list(self._children), list(self._requests)
        for child in children:
            child.cancel()
        for request in requests:
            request.interrupt()

    @contextlib.contextmanager
    def sending(self, request: RequestInFlight) -> Iterator[None]:
        """While this lasts, `cancel` reaches `request`."""
        with self._lock:
            self._requests.add(request)
        try:
            self.check()
            yield
        finally:
            request.end()
            with self._lock:
                self._requests.discard(request)


_open: set[Call] = set()
"""The calls of this process that are not over."""


@atexit.register
def _cancel_what_is_open() -> None:
    """At the interpreter's end a daemon thread may be in the middle of a call: its job is cancelled first."""
    # Nobody waits for daemon threads (https://docs.python.org/3/library/threading.html#thread-objects), and a job that
    # is not cancelled goes on at fal.
    until = time.monotonic() + SUBMIT_GRACE_S + CLEANUP_S
    for call in list(_open):
        call.cancel()
    while _open and time.monotonic() < until:
        time.sleep(0.01)


class RequestInFlight:
    """One HTTP request on its way: whether any of it was sent, how long it may wait, the socket it waits on."""

    def __init__(self, call: Call, host: str, *, paid: bool, public_only: bool) -> None:
        self.call = call
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

    def left(self) -> float:
        """Seconds that this request may still wait, above 0 or not. Raises Cancelled, DeadlineExceeded."""
        now = time.monotonic()
        if self.paid and self.sent:
            return self._left_for_answer(now)
        left = self.call.check()
        return left if self.until is None else min(left, self.until - now)

    def _left_for_answer(self, now: float) -> float:
        """How long the answer to a submit may still be waited for: a moment longer than its call.

        The moment begins when the end of the call is noticed: a process that was paused wakes long after it.
        """
        if self.until is None:
            if now < (over_at := self.call.over_at()):
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
            # `close` would not wake a thread that waits in recv, `shutdown` does (man 2 shutdown). The plain socket's
            # own method: an SSL object's sets state that the reading thread uses
            # (https://github.com/python/cpython/blob/3.12/Lib/ssl.py, SSLSocket.shutdown).
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Slots:
    """Places for so many at once; the call that began first is served first, so that none is overtaken for ever."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._waiting: list[tuple[float, int, threading.Lock]] = []

    @contextlib.contextmanager
    def one(self, call: Call) -> Iterator[None]:
        """A place for a call, which waits no longer than it may. Raises Cancelled, DeadlineExceeded."""
        self._acquire(call)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, call: Call) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            # A lock for each: a Condition would wake whichever thread waited longest, not the oldest call's.
            turn = threading.Lock()
            turn.acquire()
            waiter = (call.began, next(self._count), turn)
            heapq.heappush(self._waiting, waiter)
        try:
            # Looked at in steps: a cancel shuts sockets down, and there is none here.
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

    def __init__(self, action: Callable[[], T], *, name: str = "fal-task") -> None:
        self._action = action
        self._value: T
        self._error: BaseException | None = None
        self._begun = threading.Lock()
        self._over = threading.Event()
        thread = threading.Thread(target=self._begin, name=name, daemon=True)
        self._thread: threading.Thread | None = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None  # no thread to be had: it runs in the thread that asks for its result

    def _begin(self) -> None:
        if self._begun.acquire(blocking=False):
            self._run()

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


class Tasks:
    """Tasks of one group, which can be stopped together."""

    def __init__(self, call: Call) -> None:
        self.call = Call(call.timeout_s, parent=call)
        """What the tasks work for: their part of the call around them."""
        self._tasks: list[Task[Any]] = []

    def start(self, action: Callable[[], T]) -> Task[T]:
        task = Task(action)
        self._tasks.append(task)
        return task

    def join(self) -> None:
        for task in self._tasks:
            task.wait()


@contextlib.contextmanager
def side_by_side(call: Call) -> Iterator[Tasks]:
    """A group of tasks that are all over when the block ends; an error in the block stops them.

    How many jobs run at fal at once is decided by the client's slots in `jobs.py`, not by the number of threads.
    """
    group = Tasks(call)
    try:
        yield group
    except BaseException:
        group.call.cancel()
        raise
    finally:
        group.join()


@contextlib.contextmanager
def ctrl_c_waits_for_submit(call: Call) -> Iterator[None]:
    """Ctrl-C in the main thread waits while a submit is on its way: its job must be known to be cancelled.

    The call is cancelled then, and KeyboardInterrupt follows when the block is over. A handler of the user's own
    stays: what it raises is its business.
    """
    # Only the main thread may set handlers (https://docs.python.org/3/library/signal.html#signals-and-threads).
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    pressed = False

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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent_process)
