"""The worker: FalClient's jobs as commands that print one JSON document, for Node, shells and scripts.

This is the entry; the commands stand in `worker/commands.py`, their options are read by `worker/command_line.py`, and
how one is run, `worker/run.py` knows. `--help` and wrong options load nothing that talks to fal.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import os
    import sys

    source = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    # The script's own folder stands first there, but not under -P and -I.
    sys.path[: not getattr(sys.flags, "safe_path", False)] = [source]
    # `services` is a namespace package: without this, a program's own services/__init__.py on the path would win.
    services = sys.modules["services"] = type(sys)("services")
    services.__path__ = [os.path.join(source, "services")]
    from services.worker import early_signals

    early_signals.install()

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from services.fal.errors import as_fal_error, report
from services.worker import early_signals
from services.worker.command_line import HelpWanted, build_parser, parse
from services.worker.output import JsonStdout

__all__ = ["build_parser", "main", "script"]

FLUSH_S = 0.1
OPTIONAL = ("httpx._main", "anyio", "trio")
"""httpx's own command line, with click, rich and pygments, and httpcore's event loops: both do without."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; prints its JSON document, returns 0, or 1 when the document carries an error."""
    words = sys.argv[1:] if argv is None else argv
    with JsonStdout() as out:
        try:
            command, values = parse(words)
            if command.program is not None:
                return command.program(values, out)
            from services.worker.run import Running

            return Running(command, values, out).exit_code()
        except HelpWanted as asked:
            return _printed(out.write_text, str(asked), 0)
        except Exception as error:
            document = report(as_fal_error(error))
            if list(words[:1]) == [early_signals.SERVE]:
                from services.worker.jsonrpc import CALL_FAILED, error_reply

                return _printed(out.write_text, error_reply(None, CALL_FAILED, document), 1)
            return _printed(out.write, document, 1)


def _printed(write: Callable[[Any], None], document: object, code: int) -> int:
    early_signals.let_end()
    try:
        write(document)
    except OSError:
        return 1
    return code


def script() -> NoReturn:
    """`main` as a process of its own: this file run directly, and the installed command `fal-worker`."""
    early_signals.install()
    # Looking for cycles among what the imports make takes 7 % of a short command, and finds none.
    gc.disable()
    # What is None there is not installed, for whoever imports it.
    sys.modules.update(dict.fromkeys(OPTIONAL, cast("Any", None)))
    code = main()
    # A stderr that nobody reads may hold whoever flushes it.
    flushing = threading.Thread(target=_flush_stderr, daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread to be had, and the document is printed
        flushing.start()
        flushing.join(FLUSH_S)
    # Nothing is left to tidy up; a thread that still waits on the network must not hold the process, and what a
    # library in C has left in its buffer must not follow the document.
    os._exit(code)


def _flush_stderr() -> None:
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.flush()


if __name__ == "__main__":
    script()
