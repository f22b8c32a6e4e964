"""Runs one command to its one JSON document, whatever happens to it: errors, signals, a closed pipe.

The command works in a thread of its own; the main thread only waits, so a signal is acted on at once: it stops the
call, whose threads then cancel their jobs at fal, and whatever is not done within the grace is left to the exit of the
process. It needs no thread beside that one, since a small container may not have another.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from services.fal.call import PAUSED_S, Call, new_call
from services.fal.errors import Cancelled, DeadlineExceeded, FalError, InternalError, as_fal_error, report
from services.fal.settings import MAX_TIMEOUT_S
from services.worker import early_signals
from services.worker.commands import Command
from services.worker.output import JsonStdout, rendered

if TYPE_CHECKING:
    from services.fal_service import FalClient

GRACE_S = 1.6
"""How long a command may take to cancel its jobs after its deadline, a signal, or a pause that lasted longer than
either: a moment for the answer to a submit, and one for the cancel. Within 2 s of the signal all is over."""
LOOK_S = 0.1
"""How often the main thread looks at the clock and at the reader of the document."""
NO_THREAD_HINT = "Nothing was sent to fal. Allow the process more threads (ulimit -u, the container's pids limit)."


class Made:
    """What a command of several steps has made, as its progress tells it: printed even when the command hangs."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        if event.get("status") != "done":
            return
        if event["step"] == "picture" and "image" in event:
            images = [*self.document.get("images", ()), event["image"]]
            self.document |= {"images": images, "total_generated": len(images)}
        self.document |= {name: event[name] for name in KEPT.get(event["step"], ()) if name in event}

    def beside(self, failed: Mapping[str, Any]) -> dict[str, Any]:
        """`failed` with what was made, as far as it is the command's to tell."""
        return {**failed, **{name: value for name, value in self.document.items() if name in failed}}


KEPT = {"upload": ("image_url",), "analysis": ("categories",), "description": ("description",)}


class Running:
    """One command on its way."""

    def __init__(self, command: Command, values: Mapping[str, Any], out: JsonStdout) -> None:
        self._command = command
        self._values = values
        self._out = out
        self._call = Call(MAX_TIMEOUT_S)
        self._made = Made()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._answered = False
        self._succeeded = False
        """Whether all that it had to print is printed, and no error."""
        self._limit: tuple[float, FalError] = (math.inf, Cancelled(""))
        """When the main thread answers in the command's place, by the monotonic clock, and what."""

    def exit_code(self) -> int:
        """Run the command; 0 when its whole document is printed and carries no error, else 1."""
        with on_signal(self.stop):
            early_signals.disarm()
            try:
                threading.Thread(target=self._work, name="fal-command", daemon=True).start()
            except RuntimeError as error:
                self._answer(failure(self._command, no_thread(error)))
            else:
                self._wait()
        return 0 if self._succeeded else 1

    def stop(self, cause: str) -> None:
        """Cancel the command, also from a signal handler."""
        self._give_up_after(GRACE_S, Cancelled(f"The command was ended by {cause} and could not be tidied up."))
        self._call.cancel()

    def _wait(self) -> None:
        clock = PausingClock()
        while not self._over.wait(LOOK_S):
            limit, error = self._limit
            if (woke_at := clock.woke_at()) is not None:
                limit = max(limit, woke_at + GRACE_S)
                self._limit = (limit, error)
            if time.monotonic() >= limit:
                self._answer(self._made.beside(failure(self._command, error)))
                return
            if not self._call.cancelled and self._out.reader_has_left():
                # A parent that was killed can send no signal; its job at fal would go on for nobody.
                self.stop("the end of its reader")

    def _give_up_after(self, seconds: float, error: FalError) -> None:
        self._limit = min(self._limit, (time.monotonic() + seconds, error), key=lambda limit: limit[0])

    def _work(self) -> None:
        try:
            with self._call.resumed():
                self._run()
        except BaseException as error:
            self._answer(failure(self._command, error))
        finally:
            self._over.set()

    def _run(self) -> None:
        if self._command.local is not None:
            self._answer(self._command.local(self._values))
            return
        with _make_client(self._values) as client, new_call(client.timeout):
            self._give_up_after(client.timeout + GRACE_S, late(client.timeout))
            if self._command.streamer is not None:
                lines = self._command.streamer(client, self._values, self._made.note)
                self._succeeded = all(self._write(rendered(line)) for line in lines)
                self._answered = True
            elif self._command.handler is not None:
                self._answer(self._command.handler(client, self._values, self._made.note))

    def _answer(self, document: Mapping[str, Any]) -> None:
        """Print the command's one document, unless it has been answered."""
        text = rendered(document)
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._succeeded = self._write(text) and document.get("error") is None

    def _write(self, text: str) -> bool:
        """Whether all of it was printed."""
        try:
            self._out.write_text(text)
        except OSError:
            # Nobody reads any more: there is no one to tell, and nothing more worth paying for.
            self._answered = True
            self._call.cancel()
            return False
        return True


class PausingClock:
    """Notices that the process was paused (SIGSTOP, Ctrl-Z, a frozen container) while it looked every LOOK_S."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()

    def woke_at(self) -> float | None:
        """When the process went on, if it was paused since the last look."""
        now = time.monotonic()
        before, self._looked_at = self._looked_at, now
        return now if now - before > LOOK_S + PAUSED_S else None


def failure(command: Command, error: BaseException) -> dict[str, Any]:
    """The document of a command that raised `error`."""
    return {**command.when_failed, **report(as_fal_error(error))}


def no_thread(error: RuntimeError) -> InternalError:
    """For a command that could not begin."""
    return InternalError(f"The machine has no thread left for the call ({error}).", retryable=True, hint=NO_THREAD_HINT)


def late(timeout_s: float) -> DeadlineExceeded:
    """For what no deadline reaches from inside, such as a disk: the process does not wait for it."""
    return DeadlineExceeded(f"The command took longer than its {timeout_s:g} seconds.", hint="Raise --timeout.")


def _make_client(values: Mapping[str, Any]) -> FalClient:
    from services.fal_service import FalClient

    return FalClient(timeout=values.get("timeout"), env_file=values.get("env_file"))


@contextlib.contextmanager
def on_signal(stop: Callable[[str], object]) -> Iterator[None]:
    """While this lasts, the signals that end a worker call `stop` with their name; only once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            stop(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in early_signals.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
