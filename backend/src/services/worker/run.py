"""Runs one command to its one JSON document, whatever happens to it: errors, signals, a closed pipe.

The command works in a thread of its own; the main thread only waits, so a signal is acted on at once: it stops the
call, whose threads then cancel their jobs at fal, and whatever is not done within the grace is left to the exit of the
process.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from services.fal.call import Call
from services.fal.errors import Cancelled, as_fal_error, report
from services.fal.settings import MAX_TIMEOUT_S
from services.worker.commands import Command
from services.worker.output import JsonStdout

if TYPE_CHECKING:
    from services.fal_service import FalClient

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
        self._thread = threading.Thread(target=self._work, name="fal-command", daemon=True)

    def exit_code(self) -> int:
        """Run the command; 1 when its document carries an error, else 0."""
        with _on_signal(self.stop):
            self._thread.start()
            self._over.wait()
        return 1 if self._failed else 0

    def stop(self, signal_name: str) -> None:
        """Cancel the command from a signal handler."""
        self._call.cancel()
        timer = threading.Timer(GRACE_S, self._give_up, args=(signal_name,))
        timer.daemon = True
        timer.start()

    def _give_up(self, signal_name: str) -> None:
        self._answer(self._failure(Cancelled(f"The command was ended by {signal_name} and could not be tidied up.")))
        self._over.set()

    def _work(self) -> None:
        try:
            with self._call.resumed():
                self._run()
        except BaseException as error:
            self._answer(self._failure(error))
        finally:
            self._over.set()

    def _run(self) -> None:
        client = _make_client(self._values)
        try:
            if self._command.streamer is not None:
                for line in self._command.streamer(client, self._values, _ignore):
                    self._write(line)
                self._answered = True
            elif self._command.handler is not None:
                self._answer(self._command.handler(client, self._values, _ignore))
        finally:
            client.close()

    def _failure(self, error: BaseException) -> dict[str, Any]:
        return {**self._command.when_failed, **report(as_fal_error(error))}

    def _answer(self, document: Mapping[str, Any]) -> None:
        """Print the command's one document, unless it has been answered."""
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._failed = document.get("error") is not None
        self._write(document)

    def _write(self, document: Mapping[str, Any]) -> None:
        try:
            self._out.write(document)
        except OSError:
            # Nobody reads any more: there is no one to tell, and nothing more worth paying for.
            self._answered = self._failed = True
            self._call.cancel()


def _make_client(values: Mapping[str, Any]) -> FalClient:
    from services.fal_service import FalClient

    return FalClient(env_file=values.get("env_file"))


def _ignore(event: Mapping[str, Any]) -> None:
    """The one-shot commands print no progress."""


@contextlib.contextmanager
def _on_signal(stop: Any) -> Iterator[None]:
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


def progress_line(event: Mapping[str, Any]) -> None:
    """One progress event as a line on stderr."""
    sys.stderr.write(f"{event['step']}: {event['status']}\n")
