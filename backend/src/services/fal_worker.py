"""The worker: FalClient's jobs as commands that print one JSON document, for Node, shells and scripts.

This is the entry. The table of commands is `worker/commands.py`, `worker/command_line.py` reads their options, and
`worker/supervisor.py` runs them. `--help` and wrong options load nothing that talks to fal.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import gc
    import os
    import sys

    # Looking for cycles among what the imports make takes 7 % of a short command, and finds none.
    gc.disable()
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
from typing import Any, NoReturn

from services.fal.errors import as_fal_error, report
from services.worker import early_signals
from services.worker.command_line import HelpWanted, build_parser, parse
from services.worker.output import JsonStdout, rendered, stderr_is_terminal

__all__ = ["build_parser", "main", "script"]

FLUSH_S = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; prints its JSON document, returns 0, or 1 when the document carries an error."""
    words = sys.argv[1:] if argv is None else list(argv)
    with JsonStdout() as out:
        try:
            name, values = parse(words)
            return _run(name, values, out)
        except HelpWanted as asked:
            return _printed(out.write_text, str(asked), 0)
        except Exception as error:
            document = report(as_fal_error(error))
            if early_signals.split(words)[1][:1] == [early_signals.SERVE]:
                from services.worker.jsonrpc import CALL_FAILED, error_reply

                return _printed(out.write_text, error_reply(None, CALL_FAILED, document), 1)
            return _printed(out.write_text, _error_text(document, words, out), 1)


def _run(name: str, values: dict[str, Any], out: JsonStdout) -> int:
    # Help and wrong options need none of these, and the programs not each other.
    if name == early_signals.SERVE:
        from services.worker.serve import serve

        return serve(values, out)
    if name == "webhook-listen":
        from services.worker.webhook_listen import listen

        return listen(values, out)
    from services.worker.one_shot import run

    return run(name, values, out)


def _error_text(document: dict[str, Any], words: list[str], out: JsonStdout) -> str:
    """The text of an error from before the command began; a terminal that does not get the document is told it too."""
    if not out.is_terminal and not stderr_is_terminal():
        return rendered(document)
    from services.worker.terminal import document_text, say_error

    if not out.is_terminal:
        say_error(str(document["error"]))
        return rendered(document)
    return document_text(document, with_trace="--trace" in words or bool(os.environ.get("FAL_LOG")))


def _printed(write: Callable[[Any], None], document: object, code: int) -> int:
    early_signals.let_end()
    try:
        write(document)
    except OSError:
        return 1
    return code


class _Unneeded:
    """Has httpx do without its own command line (click, rich, pygments), httpcore without anyio, trio and HTTP/2, and
    shutil without the formats of archives that nobody opens here.

    They import them wherever they are installed, and do without them elsewhere; only asynchronous clients need an
    event loop. They are a tenth of a short command's time. See httpx/__init__.py, httpcore/_synchronization.py,
    httpcore/_sync/http2.py and https://docs.python.org/3/library/shutil.html#archiving-operations.
    Others may have them: PgQueuer does.
    """

    NAMES = ("httpx._main", "anyio", "trio", "h2", "bz2", "lzma")

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.NAMES and _importer().split(".")[0] in ("httpx", "httpcore", "shutil"):
            raise ModuleNotFoundError(f"{name} is not used by fal_worker.py.", name=name)


def _importer() -> str:
    """The module whose import statement is being run."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def script() -> NoReturn:
    """`main` as a process of its own: this file run directly, and the installed command `fal-worker`."""
    early_signals.install()
    if "_ARGCOMPLETE" in os.environ:
        from services.worker.completion import complete

        complete()
    gc.disable()  # as above; the installed command begins here
    sys.meta_path.insert(0, _Unneeded())
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
