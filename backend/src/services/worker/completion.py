"""Completion of commands and options in bash and zsh, by argcomplete (the extra `completion`).

Loaded only when a shell asks for it (the variable _ARGCOMPLETE). See docs/worker.md for how a shell is told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from services.worker.command_line import build_parser
from services.worker.commands import COMMANDS

WORDS: Mapping[str, Sequence[str]] = {
    "name": tuple(COMMANDS),
    "json": ("-",),
    "priority": ("latency", "throughput"),
    "language": ("Turkish", "English", "German"),
}
"""What an option's value may be; other options that take no path get no proposals, rather than file names."""


def complete() -> None:
    """Print what may stand at the cursor, and end the process."""
    import argcomplete

    parser = build_parser()
    for action in _actions(parser):
        if action.metavar == "true|false":
            action.completer = _always("true", "false")  # type: ignore[attr-defined]
        elif action.metavar != "PATH":
            action.completer = _always(*WORDS.get(action.dest, ()))  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of the parser and of its commands."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for command in action.choices.values() for inner in _actions(command)]
        elif action.option_strings and action.nargs != 0:
            found.append(action)
    return found


def _always(*words: str) -> Callable[..., Sequence[str]]:
    return lambda **_: words
