"""A one-shot command: the supervisor's case of one call, whose document goes to standard output."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from services.fal import log
from services.fal.progress import Progress
from services.fal_service import FalClient
from services.worker import early_signals
from services.worker.command import ENV_FILE, PROGRESS, TIMEOUT, TRACE, Document, Values
from services.worker.commands import COMMANDS
from services.worker.output import JsonStdout, rendered, stderr_is_terminal
from services.worker.supervisor import ALL_OVER, NOBODY_READS, Invocation, Supervisor, on_signal

if TYPE_CHECKING:
    from services.worker.terminal import Display

WINDS_DOWN = "Ending: no more jobs are sent, and those that run have 10 s. Once more, and it ends at once."


def run(name: str, values: Values, out: JsonStdout) -> int:
    """Run the command; 0 when its whole document is printed and carries no error, else 1."""
    log.to_stderr()
    with _display(name, values, out) as display:
        on_look = display.look if display is not None else _nothing
        supervisor = Supervisor(out, _own_client, ends_when_idle=True, on_look=on_look)
        invocation = OneShot(name, values, out, display)
        with on_signal(supervisor.ends.put):
            early_signals.disarm()
            supervisor.start(invocation)
            reason = supervisor.watch()
            if reason not in (ALL_OVER, NOBODY_READS) and COMMANDS[name].resumes:
                # What it began may end; the next signal ends it at once.
                invocation.within().winds_down = True
                if display is not None:
                    log.show(WINDS_DOWN)
                reason = supervisor.watch()
            if reason != ALL_OVER:
                supervisor.close()
    return 0 if invocation.succeeded else 1


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _display(name: str, values: Values, out: JsonStdout) -> Iterator[Display | None]:
    """What tells a person of the command, if there is one and it takes long enough."""
    is_local = COMMANDS[name].local_for(values) is not None
    if is_local or not values.get(PROGRESS.name, _is_long(name) or stderr_is_terminal()):
        yield None
        return
    display = _made(name, tells_error=not out.is_terminal)
    with display.shown():
        yield display


def _is_long(name: str) -> bool:
    """Whether a command takes so long that it is told of on a pipe too."""
    return COMMANDS[name].resumes


def _made(name: str, *, tells_error: bool) -> Display:
    if _is_long(name):
        from services.worker.batch_meter import Meter

        return Meter(tells_error=tells_error)
    from services.worker.terminal import Steps

    return Steps(name, tells_error=tells_error)


class OneShot(Invocation):
    """A command that was called on the command line."""

    def __init__(self, name: str, values: Values, out: JsonStdout, display: Display | None) -> None:
        super().__init__(None, COMMANDS[name], values)
        self._out = out
        self._display = display
        self._error: str | None = None
        self._last_line: Document | None = None
        self._is_broken = False
        """Whether nothing more can be printed."""
        self.succeeded = False
        """Whether all that it had to print is printed, and no error."""

    def progress(self) -> Progress:
        return Progress(self._note, to_stderr=self._display is None)

    def _note(self, event: Mapping[str, Any]) -> None:
        self.made.note(event)
        if self._display is not None:
            self._display.on_event(event)

    def send_line(self, line: Document) -> None:
        if self._display is not None and self._out.is_terminal:
            self._display.hide()
        # It raises when nobody reads any more: there is no one to tell, and nothing more worth paying for.
        self._print(self._rendered(line))
        self._last_line = line

    def text_of(self, document: Mapping[str, Any]) -> str:
        if self._display is not None:
            from services.worker.terminal import error_of

            self._error = error_of(document)
        return "" if document is self._last_line else self._rendered(document)

    def _rendered(self, document: Mapping[str, Any]) -> str:
        if not self._out.is_terminal:
            return rendered(document)
        from services.worker.terminal import document_text

        with_trace = self.values.get(TRACE.name, log.logger.isEnabledFor(logging.INFO))
        return document_text(document, with_trace=with_trace, in_one_line=self.command.streams)

    def send_answer(self, text: str, *, failed: bool) -> None:
        if self._display is not None:
            self._display.finish(self._error)
        if text and not self._is_broken:
            with contextlib.suppress(OSError):
                self._print(text)
        self.succeeded = not failed and not self._is_broken

    def _print(self, text: str) -> None:
        self._is_broken = True
        self._out.write_text(text)
        self._is_broken = False


@contextlib.contextmanager
def _own_client(values: Values) -> Iterator[FalClient]:
    with FalClient(timeout=values.get(TIMEOUT.name), env_file=values.get(ENV_FILE.name)) as client:
        yield client
