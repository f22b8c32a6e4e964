"""The supervisor begins, watches, stops and answers the calls of a worker: many for `serve`, one for a one-shot
command.

A call runs in a daemon thread of its own. The main thread only watches: it notices a signal, a reader that has gone, a
call that waits too long for a place, and a call that is not over when its grace is, which it answers in the call's
place. So a one-shot command needs one thread beside the main one, and a small container may not have more.

A call's deadline counts from the moment it gets a place and its client is known. Stopping a call makes its threads
cancel their jobs at fal; what is not done within the grace is left to the exit of the process.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from services.fal.call import PAUSED_S, Call
from services.fal.errors import Cancelled, DeadlineExceeded, FalError, InternalError, as_fal_error, report
from services.fal.progress import Progress
from services.fal.settings import MAX_TIMEOUT_S, check_timeout
from services.worker import early_signals
from services.worker.command import MAX_USD, TIMEOUT, Command, Document, Values
from services.worker.output import JsonStdout

if TYPE_CHECKING:
    from services.fal_service import FalClient

GRACE_S = 1.6
"""How long a command may take to cancel its jobs after its deadline, a signal, or a pause that lasted longer than
either: a moment for the answer to a submit, and one for the cancel. Within 2 s of the signal all is over."""
LOOK_S = 0.1
"""How often the main thread looks at the clock and at the reader of the answers while a call is open."""
IDLE_LOOK_S = 1.0
"""How often it looks at the reader otherwise."""
REFUSED_AT_ONCE = 1000
"""Calls whose refusals may hold up the replies of others for a moment."""
NO_THREAD_HINT = "Nothing was sent to fal. Allow the process more threads (ulimit -u, the container's pids limit)."

NOBODY_READS = "the end of its reader"
ALL_OVER = "all calls are over"
LOOK = "look"
"""Not an end: the main thread looks at once."""


class Busy(FalError):
    """More calls wait than --max_pending allows, or one waited longer than --queue_timeout."""

    error_type = "busy"
    default_retryable = True


class Made:
    """What a command of several steps has made, as its progress tells it: printed even when the command hangs."""

    KEPT: Mapping[str, tuple[str, ...]] = {
        "upload": ("image_url",),
        "analysis": ("categories",),
        "cutout": ("cutout",),
        "description": ("description",),
    }

    def __init__(self) -> None:
        self.document: Document = {}

    def note(self, event: Mapping[str, Any]) -> None:
        if event.get("status") != "done":
            return
        if event["step"] == "picture" and "image" in event:
            images = [*self.document.get("images", ()), event["image"]]
            self.document |= {"images": images, "total_generated": len(images)}
        self.document |= {name: event[name] for name in self.KEPT.get(event["step"], ()) if name in event}

    def beside(self, failed: Mapping[str, Any]) -> Document:
        """`failed` with what was made, under the keys that the command has."""
        return {**failed, **{name: value for name, value in self.document.items() if name in failed}}


class Invocation(ABC):
    """One call of a command, from its arrival to its one answer; a subclass knows how to send that."""

    def __init__(self, key: Any, command: Command, values: Values) -> None:
        self.key = key
        """What it is known by while it is open."""
        self.command = command
        self.values = values
        self.arrived_at = time.monotonic()
        self.call: Call | None = None
        """Set when it gets a place: until then its time does not run."""
        self.timeout_s = MAX_TIMEOUT_S
        self.limit = math.inf
        """When it is answered at the latest once it runs, by the monotonic clock."""
        self.answered = False
        self.made = Made()

    def within(self) -> Call:
        """The call that it runs in."""
        assert self.call is not None
        return self.call

    def begin(self) -> None:
        """It has a place. How long it may take is known when its client is."""
        self.call = Call(math.inf if self.command.resumes else MAX_TIMEOUT_S, progress=self.progress())

    def run(self, client: FalClient) -> Document:
        """Run the command with a client that is bound to its call: its document, or the last line of its stream."""
        command = self.command
        if command.handler is not None:
            return command.handler(client, self.values)
        result = getattr(client, command.method)(**command.arguments(self.values))
        if not command.streams:
            return command.document(result)
        line: Document = {}
        with contextlib.closing(result):
            for event in result:
                line = command.document(event)
                self.send_line(line)
        return line

    @abstractmethod
    def progress(self) -> Progress:
        """The progress of its call; it notes what was made."""

    @abstractmethod
    def send_line(self, line: Document) -> None:
        """Send one line of a stream."""

    @abstractmethod
    def text_of(self, document: Mapping[str, Any]) -> str:
        """The text of its answer with that document, which for a stream is its last line. Raises RecursionError."""

    def text_of_failure(self, error: BaseException) -> str:
        """The text of its answer when it failed."""
        return self.text_of(self.made.beside({**failure(self.command, error), **self.spent()}))

    def spent(self) -> Document:
        """What its jobs have cost so far, when there were any, as its result tells it."""
        costs = None if self.call is None else self.call.costs
        if costs is None or not costs.has_jobs:
            return {}
        return costs.told() if self.command.tells_jobs else {"cost_usd": costs.total()}

    @abstractmethod
    def send_answer(self, text: str, *, failed: bool) -> None:
        """Send its answer; called once."""


ClientFor = Callable[[Values], contextlib.AbstractContextManager["FalClient"]]


class Supervisor:
    """All open calls of a process: at most `concurrency` run, at most `max_pending` wait."""

    def __init__(
        self,
        out: JsonStdout,
        client_for: ClientFor,
        *,
        concurrency: int = 1,
        max_pending: int = 0,
        queue_timeout_s: float | None = None,
        ends_when_idle: bool = False,
        wait_for_room: Callable[[], None] = lambda: None,
        together: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        """`wait_for_room` is called between two calls: while nobody reads the answers, no more are made. `together`
        surrounds answers that may leave as one. The main thread calls `on_look` every LOOK_S."""
        self._out = out
        self._client_for = client_for
        self._concurrency = concurrency
        self._max_pending = max_pending
        self._queue_timeout_s = queue_timeout_s
        self._ends_when_idle = ends_when_idle
        self._wait_for_room = wait_for_room
        self._together = together
        self._on_look = on_look
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Why the worker ends; a signal handler may put into it at any moment."""
        self._lock = threading.RLock()
        self._all_answered = threading.Condition(self._lock)
        self._open: dict[Any, Invocation] = {}
        """Those that are not answered."""
        self._waiting: OrderedDict[Any, Invocation] = OrderedDict()
        """In the order of their arrival."""
        self._running: set[Invocation] = set()
        self._places = 0
        """How many places are taken; a call that hangs has given its own back."""
        self._being_answered = 0
        self._closed = False

    def counts(self) -> dict[str, int]:
        with self._lock:
            return {"running": self._places, "waiting": len(self._waiting)}

    def is_open(self, key: Any) -> bool:
        with self._lock:
            return key in self._open

    # What begins and stops calls

    def start(self, invocation: Invocation) -> None:
        """Run it, or let it wait for a place. Raises Busy, and Cancelled after `close`."""
        with self._lock:
            if self._closed:
                raise _ending()
            if self._places >= self._concurrency and len(self._waiting) >= self._max_pending:
                raise Busy(
                    f"{self._places} calls are running and {len(self._waiting)} are waiting. "
                    "The worker accepts no more.",
                    hint="Call again later, or raise --max_pending. Nothing was sent to fal.",
                )
            was_idle = not self._open
            self._open[invocation.key] = invocation
            self._waiting[invocation.key] = invocation
            self._fill()
        if was_idle:
            self.ends.put(LOOK)

    def cancel(self, key: Any) -> bool:
        """Stop a call: one that waits is answered at once, one that runs when its jobs are cancelled."""
        with self._lock:
            invocation = self._open.get(key)
            if invocation is None:
                return False
            if invocation.call is None:
                self._refuse(invocation, Cancelled("The call was cancelled before it began. Nothing was sent to fal."))
                return True
            self._end_within_grace(invocation)
        invocation.call.cancel()
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
        for invocation in running:
            invocation.within().cancel()
        error = _ending()
        while self._waiting:
            with self._lock, self._together():
                for waiting in list(itertools.islice(self._waiting.values(), REFUSED_AT_ONCE)):
                    self._refuse(waiting, error)
        clock = PausingClock()
        with self._lock:
            while (self._open or self._being_answered) and time.monotonic() < until:
                self._all_answered.wait(LOOK_S)
                if (woke_at := clock.woke_at(LOOK_S)) is not None:
                    until = woke_at + GRACE_S
            given_up = list(self._running)
        for invocation in given_up:
            self._give_up(invocation)

    @contextlib.contextmanager
    def while_open(self, invocation: Invocation) -> Iterator[bool]:
        """Whether it is unanswered, which it stays for the block."""
        with self._lock:
            yield not invocation.answered

    # What the main thread does

    def watch(self) -> str:
        """Answer the calls that cannot answer for themselves, until something ends the worker: the reason."""
        clock = PausingClock()
        while True:
            look_s = LOOK_S if self._open or self._places else IDLE_LOOK_S
            with contextlib.suppress(queue.Empty):
                if (reason := self.ends.get(timeout=look_s)) != LOOK:
                    return reason
            if self._ends_when_idle and not self._places:
                return ALL_OVER
            if self._out.reader_has_left():
                # A parent that was killed can send no signal; its jobs at fal would go on for nobody.
                return NOBODY_READS
            self._on_look()
            self._look(clock.woke_at(look_s))

    def _look(self, woke_at: float | None) -> None:
        now = time.monotonic()
        with self._lock:
            for invocation in self._running if woke_at is not None else ():
                invocation.limit = max(invocation.limit, now + GRACE_S)
            late = [invocation for invocation in self._running if invocation.limit <= now]
        for invocation in late:
            self._give_up(invocation)
        self._refuse_late(now)

    def _refuse_late(self, now: float) -> None:
        """Answer the calls that waited for a place for too long."""
        if (queue_timeout_s := self._queue_timeout_s) is None:
            return
        with self._lock:
            while (first := next(iter(self._waiting.values()), None)) and first.arrived_at + queue_timeout_s <= now:
                self._refuse(first, _never_began(queue_timeout_s))

    def _give_up(self, invocation: Invocation) -> None:
        """Answer it in its place; what its thread still does goes on without one."""
        stopped = invocation.within().cancelled
        why = Cancelled("The call was cancelled, but its jobs may not all have been cancelled in time.")
        self._refuse(invocation, why if stopped else _late(invocation.timeout_s))
        invocation.within().cancel()
        with self._lock:
            if invocation in self._running:
                self._running.discard(invocation)
                self._places -= 1
                self._fill()
        self._wake_when_idle()

    # The places

    def _fill(self) -> None:
        while self._places < self._concurrency and (invocation := self._next()) is not None:
            thread = threading.Thread(target=self._work, args=(invocation,), name="fal-call", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._running.discard(invocation)
                if not self._places:
                    self._refuse(invocation, _no_thread(error))
                    continue
                # It gets the next place that there is.
                invocation.call = None
                self._waiting[invocation.key] = invocation
                self._waiting.move_to_end(invocation.key, last=False)
                return
            self._places += 1

    def _next(self) -> Invocation | None:
        if self._closed or not self._waiting:
            return None
        _, invocation = self._waiting.popitem(last=False)
        invocation.begin()
        self._running.add(invocation)
        return invocation

    def _work(self, invocation: Invocation | None) -> None:
        """Run one call, and the ones that wait after it, in one place."""
        while invocation is not None:
            self._run(invocation)
            with self._lock:
                if invocation not in self._running:
                    return  # it was given up, and its place with it
                self._running.discard(invocation)
            self._wait_for_room()
            with self._lock:
                invocation = self._next()
                self._places -= invocation is None
        self._wake_when_idle()

    def _run(self, invocation: Invocation) -> None:
        """Run one call to its answer."""
        try:
            if (local := invocation.command.local_for(invocation.values)) is not None:
                self._answer(invocation, local(invocation.values))
                return
            with self._client_for(invocation.values) as client:
                self._begin_deadline(invocation, client)
                self._answer(invocation, invocation.run(client.within(invocation.within())))
        except BaseException as error:
            self._refuse(invocation, error)

    def _begin_deadline(self, invocation: Invocation, client: FalClient) -> None:
        """Its client is known, and with it how long it may take. Raises InvalidInput."""
        if invocation.command.resumes:
            return
        named = invocation.values.get(TIMEOUT.name)
        invocation.timeout_s = client.timeout if named is None else check_timeout(named)
        with self._lock:
            invocation.call = call = Call(
                invocation.timeout_s, parent=invocation.call, max_usd=invocation.values.get(MAX_USD.name)
            )
            invocation.limit = min(invocation.limit, call.deadline + GRACE_S)

    def _answer(self, invocation: Invocation, document: Mapping[str, Any]) -> None:
        self._send(invocation, invocation.text_of(document), failed=document.get("error") is not None)

    def _refuse(self, invocation: Invocation, error: BaseException) -> None:
        self._send(invocation, invocation.text_of_failure(error), failed=True)

    def _send(self, invocation: Invocation, text: str, *, failed: bool) -> None:
        """Answer it, unless it has been answered. It is not open any more when its answer is read."""
        with self._lock:
            if invocation.answered:
                return
            invocation.answered = True
            self._being_answered += 1
            del self._open[invocation.key]
            self._waiting.pop(invocation.key, None)
        try:
            # Without the lock: a one-shot command's may wait for its reader.
            invocation.send_answer(text, failed=failed)
        finally:
            with self._lock:
                self._being_answered -= 1
                self._all_answered.notify_all()

    def _end_within_grace(self, invocation: Invocation) -> None:
        invocation.limit = min(invocation.limit, time.monotonic() + GRACE_S)

    def _wake_when_idle(self) -> None:
        if self._ends_when_idle and not self._places:
            self.ends.put(LOOK)


class PausingClock:
    """Notices that the process was paused (SIGSTOP, Ctrl-Z, a frozen container) between two looks."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()

    def woke_at(self, look_s: float) -> float | None:
        """When the process went on, if it was paused since the last look, which was to be `look_s` ago."""
        now = time.monotonic()
        before, self._looked_at = self._looked_at, now
        return now if now - before > look_s + PAUSED_S else None


def failure(command: Command, error: BaseException) -> Document:
    """The document of a command that raised `error`."""
    return {**command.when_failed, **report(as_fal_error(error))}


def _no_thread(error: RuntimeError) -> InternalError:
    return InternalError(f"No thread could be started for the call ({error}).", retryable=True, hint=NO_THREAD_HINT)


def _late(timeout_s: float) -> DeadlineExceeded:
    """For what no deadline reaches from inside, such as a disk: the process does not wait for it."""
    return DeadlineExceeded(f"The command took longer than its {timeout_s:g} seconds.", hint="Raise --timeout.")


def _ending() -> Cancelled:
    return Cancelled("The worker is ending. The call did not begin, and nothing was sent to fal.", retryable=True)


def _never_began(queue_timeout_s: float) -> Busy:
    return Busy(
        f"The call waited {queue_timeout_s:g} seconds for a place in the worker. Nothing was sent to fal.",
        hint="Call again later, or raise --queue_timeout or --concurrency.",
    )


@contextlib.contextmanager
def on_signal(stop: Callable[[str], object]) -> Iterator[None]:
    """While this lasts, the signals that end a worker call `stop` with their name."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in early_signals.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
