"""Runs one command to its one JSON document, whatever happens to it: errors, signals, a closed pipe.

The command works in a thread of its own; the main thread only waits, so a signal is acted on at once: it stops the
call, whose threads then cancel their jobs at fal, and whatever is not done within the grace is left to the exit of the
process.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from services.fal.call import Call, new_call
from services.fal.errors import Cancelled, DeadlineExceeded, FalError, as_fal_error, report
from services.fal.settings import MAX_TIMEOUT_S
from services.worker import early_signals
from services.worker.commands import Command
from services.worker.output import JsonStdout, rendered

if TYPE_CHECKING:
    from services.fal_service import FalClient

OVERTIME_S = 0.8
"""How long after its deadline a command may still cancel its jobs."""
GRACE_S = 1.6
"""How long a stopped command may take to cancel its jobs: within 2 s of the signal all is over."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Running:
    """One command on its way."""

    def __init__(self, command: Command, values: Mapping[str, Any], out: JsonStdout) -> None:
        self._command = command
        self._values = values
        self._out = out
        self._call = Call(MAX_TIMEOUT_S)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._answered = False
        self._failed = False
        self._last_word: threading.Timer | None = None
        self._thread = threading.Thread(target=self._work, name="fal-command", daemon=True)

    def exit_code(self) -> int:
        """Run the command; 1 when its document carries an error, else 0."""
        with on_signal(self.stop):
            early_signals.disarm()
            self._thread.start()
            threading.Thread(target=self._watch_reader, name="fal-reader", daemon=True).start()
            self._over.wait()
            if self._last_word is not None:
                self._last_word.cancel()
        return 1 if self._failed else 0

    def stop(self, cause: str) -> None:
        """Cancel the command, also from a signal handler."""
        self._call.cancel()
        self._give_up_after(GRACE_S, Cancelled(f"The command was ended by {cause} and could not be tidied up."))

    def _watch_reader(self) -> None:
        # A parent that was killed can send no signal; its job at fal would go on for nobody.
        if self._out.wait_for_the_reader_to_leave():
            self.stop("the end of its reader")

    def _give_up_after(self, seconds: float, error: FalError) -> None:
        if self._last_word is not None:
            self._last_word.cancel()
        self._last_word = threading.Timer(seconds, self._give_up, args=(error,))
        self._last_word.daemon = True
        self._last_word.start()

    def _give_up(self, error: FalError) -> None:
        self._answer(failure(self._command, error))
        self._over.set()

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
            self._give_up_after(client.timeout + OVERTIME_S, late(client.timeout))
            if self._command.streamer is not None:
                for line in self._command.streamer(client, self._values, _ignore):
                    self._write(rendered(line))
                self._answered = True
            elif self._command.handler is not None:
                self._answer(self._command.handler(client, self._values, _ignore))

    def _answer(self, document: Mapping[str, Any]) -> None:
        """Print the command's one document, unless it has been answered."""
        text = rendered(document)
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._failed = document.get("error") is not None
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._out.write_text(text)
        except OSError:
            # Nobody reads any more: there is no one to tell, and nothing more worth paying for.
            self._answered = self._failed = True
            self._call.cancel()


def failure(command: Command, error: BaseException) -> dict[str, Any]:
    """The document of a command that raised `error`."""
    return {**command.when_failed, **report(as_fal_error(error))}


def late(timeout_s: float) -> DeadlineExceeded:
    """For what no deadline reaches from inside, such as a disk: the process does not wait for it."""
    return DeadlineExceeded(f"The command took longer than its {timeout_s:g} seconds.", hint="Raise --timeout.")


def _make_client(values: Mapping[str, Any]) -> FalClient:
    from services.fal_service import FalClient

    return FalClient(timeout=values.get("timeout"), env_file=values.get("env_file"))


def _ignore(event: Mapping[str, Any]) -> None:
    """The one-shot commands print no progress."""


@contextlib.contextmanager
def on_signal(stop: Callable[[str], object]) -> Iterator[None]:
    """While this lasts, SIGTERM and SIGINT call `stop` with the signal's name; only once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            stop(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
