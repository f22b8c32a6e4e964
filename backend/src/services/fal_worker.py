"""The worker: FalClient's jobs as commands that print one JSON document, for Node, shells and scripts.

Here are the parser and the entry; the commands stand in `worker/commands.py`, how one is run in `worker/run.py`.
`--help` and wrong options load nothing that talks to fal.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import os
    import sys

    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from services.fal.errors import FalError, InvalidInput, report
from services.worker.commands import COMMANDS, Command
from services.worker.options import Option, parse_value, read_json_options, utf8
from services.worker.output import JsonStdout


class _Parser(argparse.ArgumentParser):
    """argparse that raises InvalidInput instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message[:1].upper()}{message[1:]}.", hint=f"See {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        raise _Help(self.format_help().rstrip())


class _Help(Exception):
    """`--help` was asked for; its argument is the text."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, made from the command table."""
    parser = _Parser(
        prog="fal_worker.py",
        description="Text, product analysis and product pictures on fal. Prints one JSON document.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        row = commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        for option in command.all_options:
            _add(row, option)
        row.add_argument("--json", metavar="-", help="read the options as one JSON object from standard input")
    return parser


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    note = " (required)" if option.required else ""
    dashed = f"--{option.name.replace('_', '-')}"
    names = list(dict.fromkeys((f"--{option.name}", dashed)))
    extra: dict[str, Any] = {"nargs": "?", "const": "true"} if option.kind == "flag" else {}
    parser.add_argument(
        *names,
        dest=option.name,
        metavar=option.kind.upper().rstrip("S") if option.kind != "flag" else "true|false",
        action="append" if option.kind == "texts" else "store",
        help=(option.help + note).replace("%", "%%"),
        **extra,
    )


def parse(argv: Sequence[str]) -> tuple[Command, dict[str, Any]]:
    """The command and its options. Raises InvalidInput, or _Help when help was asked for."""
    words = [utf8(word) for word in argv]
    found = vars(build_parser().parse_args(_joined(words)))
    command = COMMANDS[found.pop("command")]
    source = found.pop("json")
    values = _from_argv(command, found)
    if source is not None:
        if source != "-":
            raise InvalidInput("--json takes - only: the options come from standard input.")
        values = {**read_json_options(command.all_options), **values}
    missing = [option.name for option in command.options if option.required and option.name not in values]
    if missing:
        raise InvalidInput(f"Missing: {', '.join(f'--{name}' for name in missing)}.")
    return command, values


def _from_argv(command: Command, found: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in command.all_options:
        given = found.get(option.name)
        if isinstance(given, list):
            values[option.name] = [parse_value(option, text) for text in given]
        elif given is not None:
            values[option.name] = parse_value(option, given)
    return values


def _joined(words: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`, so that a value which begins with a dash stays a value."""
    command = COMMANDS.get(next((word for word in words if not word.startswith("-")), ""))
    if command is None:
        return list(words)
    kinds = {option.name: option.kind for option in command.all_options} | {"json": "text"}
    joined: list[str] = []
    rest = iter(words)
    for word in rest:
        kind = kinds.get(word[2:].replace("-", "_")) if word.startswith("--") else None
        if kind is None or kind == "flag":
            joined.append(word)
        else:
            value = next(rest, None)
            joined.append(word if value is None else f"{word}={value}")
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; prints its JSON document, returns 0, or 1 when the document carries an error."""
    with JsonStdout() as out:
        try:
            command, values = parse(sys.argv[1:] if argv is None else argv)
        except _Help as asked:
            return _print(out.write_text, str(asked), 0)
        except FalError as error:
            return _print(out.write, report(error), 1)
        from services.worker.run import Running

        return Running(command, values, out).exit_code()


def _print(write: Any, document: Any, code: int) -> int:
    try:
        write(document)
    except OSError:
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
