"""The worker: FalClient's jobs as commands that print one JSON document, for Node, shells and scripts.

This is the entry; the commands stand in `worker/commands.py`, their options are read by `worker/command_line.py`, and
how one is run, `worker/run.py` knows. `--help` and wrong options load nothing that talks to fal.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import os
    import sys

    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    from services.worker import early_signals

    early_signals.install()

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from services.fal.errors import as_fal_error, report
from services.worker.command_line import HelpWanted, build_parser, parse
from services.worker.output import JsonStdout

__all__ = ["build_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; prints its JSON document, returns 0, or 1 when the document carries an error."""
    with JsonStdout() as out:
        try:
            command, values = parse(sys.argv[1:] if argv is None else argv)
            from services.worker.run import Running

            return Running(command, values, out).exit_code()
        except HelpWanted as asked:
            return _printed(out.write_text, str(asked), 0)
        except Exception as error:
            return _printed(out.write, report(as_fal_error(error)), 1)


def _printed(write: Callable[[Any], None], document: object, code: int) -> int:
    try:
        write(document)
    except OSError:
        return 1
    return code


if __name__ == "__main__":
    code = main()
    if sys.stderr is not None:
        sys.stderr.flush()
    # Nothing is left to tidy up, and a thread that still waits on the network must not hold the process.
    os._exit(code)
