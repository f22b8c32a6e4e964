"""A one-shot command: the supervisor's case of one call, whose document goes to standard output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from services.fal import log
from services.fal.progress import Progress
from services.fal_service import FalClient
from services.worker import early_signals
from services.worker.commands import ENV_FILE, TIMEOUT, Command, Document, Values
from services.worker.output import JsonStdout, rendered
from services.worker.supervisor import ALL_OVER, Invocation, Supervisor, on_signal


def run(command: Command, values: Values, out: JsonStdout) -> int:
    """Run the command; 0 when its whole document is printed and carries no error, else 1."""
    log.to_stderr()
    supervisor = Supervisor(out, _own_client, ends_when_idle=True)
    invocation = OneShot(command, values, out)
    with on_signal(supervisor.ends.put):
        early_signals.disarm()
        supervisor.start(invocation)
        if supervisor.watch() != ALL_OVER:
            supervisor.close()
    return 0 if invocation.succeeded else 1


class OneShot(Invocation):
    """A command that was called on the command line."""

    def __init__(self, command: Command, values: Values, out: JsonStdout) -> None:
        super().__init__(None, command, values)
        self._out = out
        self._last_line: Document | None = None
        self._is_broken = False
        """Whether nothing more can be printed."""
        self.succeeded = False
        """Whether all that it had to print is printed, and no error."""

    def progress(self) -> Progress:
        return Progress(self.made.note)

    def send_line(self, line: Document) -> None:
        # It raises when nobody reads any more: there is no one to tell, and nothing more worth paying for.
        self._print(rendered(line))
        self._last_line = line

    def text_of(self, document: Mapping[str, Any]) -> str:
        return "" if document is self._last_line else rendered(document)

    def send_answer(self, text: str, *, failed: bool) -> None:
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
