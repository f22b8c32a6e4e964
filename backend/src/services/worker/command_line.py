"""Makes the command line from the command table, and reads what a user wrote on it.

argparse names the options and writes the help. Values are handed to it joined to their option (`--name=value`) and
after a mark, so that a value may begin with a dash, or be `--`, which argparse drops.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from services.fal.errors import InvalidInput
from services.worker import early_signals
from services.worker.commands import COMMANDS, ENV_FILE, TIMEOUT, Command
from services.worker.options import FALSE, TRUE, Option, parse_value, read_json_options, require, utf8

_MARK = "\0"
"""In front of every value; no argument of a process can hold it."""


class HelpWanted(Exception):
    """`--help` was asked for; its argument is the text."""


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        said = message.replace(_MARK, "")
        raise InvalidInput(f"{said[:1].upper()}{said[1:]}.", hint=f"See {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        raise HelpWanted(self.format_help().rstrip())


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or of command `only`; "" means all, but without their options."""
    parser = _Parser(
        prog="fal_worker.py",
        description="Text, product analysis and product pictures on fal. Prints one JSON document.",
        allow_abbrev=False,
    )
    _add(parser, ENV_FILE)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if only in (None, "", name):
            row = commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        if only in (None, name):
            for option in command.all_options:
                _add(row, option)
            if not command.is_program:
                note = "read the options as one JSON object from standard input"
                row.add_argument("--json", metavar="-", type=_unmarked, help=note)
    return parser


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    dashed = f"--{option.name.replace('_', '-')}"
    note = f" (required{f', or --{option.instead}' if option.instead else ''})" if option.required else ""
    extra: dict[str, Any] = {"nargs": "?", "const": "true"} if option.kind == "flag" else {"type": _unmarked}
    parser.add_argument(
        *dict.fromkeys((f"--{option.name}", dashed)),
        dest=option.name,
        metavar="true|false" if option.kind == "flag" else option.kind.upper().rstrip("S"),
        action="append" if option.kind == "texts" else "store",
        help=(option.help + note).replace("%", "%%"),
        **extra,
    )


def _unmarked(value: str) -> str:
    return value.removeprefix(_MARK)


def parse(argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The name of the command, and its options. Raises InvalidInput, or HelpWanted."""
    before, words = early_signals.split([utf8(word) for word in argv])
    name = words[0] if words and words[0] in COMMANDS else ""
    if name:
        words[1:1] = before
    found = vars(build_parser(name).parse_args(_joined(words, name)))
    name = found.pop("command")
    command = COMMANDS[name]
    source = found.pop("json", None)
    values = _from_argv(command, found)
    if source is not None:
        if source != "-":
            raise InvalidInput("--json accepts only -, which reads the options from standard input.")
        values = {**read_json_options(command.all_options, timeout_s=_timeout_s(values)), **values}
    require(command.options, values)
    return name, values


def _timeout_s(values: Mapping[str, Any]) -> float:
    """How long standard input may take: as long as the command, as far as that is known before the input is read."""
    from services.fal.settings import DEFAULT_TIMEOUT_S, check_timeout

    named = values.get(TIMEOUT.name, os.environ.get("FAL_TIMEOUT_S", "").strip())
    return check_timeout(named, TIMEOUT.name) if named != "" else DEFAULT_TIMEOUT_S


def _from_argv(command: Command, found: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in command.all_options:
        given = found.get(option.name)
        if isinstance(given, list):
            values[option.name] = [parse_value(option, text) for text in given]
        elif given is not None:
            values[option.name] = parse_value(option, given)
    return values


def _joined(words: Sequence[str], command: str) -> list[str]:
    """The words with every value joined to its option."""
    if not command:
        return list(words)
    options = COMMANDS[command].all_options
    kinds = {option.name: option.kind for option in options} | {"json": "text"}
    first = next((option for option in options if option.first), None)
    if first is not None and first.name in map(_name, words[1:]):
        first = None
    joined = [command]
    rest = iter(words[1:])
    flag = False
    for word in rest:
        kind = kinds.get(_name(word)) if word.startswith("--") else None
        name, equals, value = word.partition("=")
        if first is not None and not word.startswith("-") and not (flag and word.lower() in (*TRUE, *FALSE)):
            joined.append(f"--{first.name}={_MARK}{word}")
            first = None
        elif kind is None or kind == "flag":
            joined.append(word)
        elif (text := value if equals else next(rest, None)) is not None:
            joined.append(f"{name}={_MARK}{text}")
        else:
            joined.append(word)
        flag = kind == "flag" and not equals
    return joined


def _name(word: str) -> str:
    """The option that a word names."""
    return word.partition("=")[0].removeprefix("--").replace("-", "_") if word.startswith("--") else ""
