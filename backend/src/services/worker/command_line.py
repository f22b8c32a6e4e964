"""Builds the command line from the command table, and parses it.

argparse names the options and writes the help. Values are handed to it joined to their option (`--name=value`) and
after a mark, so that a value may begin with a dash, or be `--`, which argparse drops.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from services.fal.errors import InvalidInput
from services.fal.redaction import shown
from services.worker import early_signals
from services.worker.command import ENV_FILE, TIMEOUT, Command
from services.worker.commands import COMMANDS
from services.worker.options import FALSE, TRUE, Option, parse_value, read_json_options, require, utf8

_MARK = "\0"
"""In front of every value; no argument of a process can hold it."""
LIKE = 0.7
"""From what likeness on, of 1, a name may be what a misspelt word meant."""
MAX_SUGGESTIONS = 4


class HelpWanted(Exception):
    """`--help` or `--version` was asked for; its argument is the text."""


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of printing and exiting."""

    def __init__(self, command: str = "", **settings: Any) -> None:
        """`command` is the one whose options it reads."""
        super().__init__(**settings)
        self.command = command
        self.color = False  # since Python 3.14 a terminal on stderr would colour the help that goes into a pipe

    def error(self, message: str) -> NoReturn:
        said = message.replace(_MARK, "")
        raise InvalidInput(f"{said[:1].upper()}{said[1:]}.", hint=f"See {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        raise HelpWanted(self.format_help().rstrip())

    def format_help(self) -> str:
        if self.command:
            from services.worker.examples import EXAMPLES

            # What is required may also come by --json, so argparse does not demand it. Its usage tells it.
            required = {option.name for option in COMMANDS[self.command].options if option.required}
            for action in self._actions:
                action.required = action.dest in required
            self.epilog = f"example:\n  {self.prog} {EXAMPLES[self.command]}".rstrip()
        return super().format_help()


def program_name() -> str:
    """What the program is called: fal_worker.py when it is run as a file, else the installed command."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name if name == "fal_worker.py" else "fal-worker"


def build_parser(*, with_options: bool = True) -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog=program_name(),
        description="Text, product analysis and product pictures on fal. Prints one JSON document.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _add(parser, ENV_FILE)
    commands = parser.add_subparsers(dest="_command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        row = commands.add_parser(name, help=command.help, **_about(name))
        if with_options:
            _add_options(row, command)
    return parser


def _parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command, as it is among all of them."""
    parser = _Parser(prog=f"{program_name()} {name}", **_about(name))
    _add_options(parser, COMMANDS[name])
    return parser


def _about(name: str) -> dict[str, Any]:
    return {
        "command": name,
        "description": COMMANDS[name].help,
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    for option in command.options_in_argv:
        _add(parser, option)
    if not command.is_program:
        note = "read the options as one JSON object from standard input"
        parser.add_argument("--json", metavar="-", type=_unmarked, help=note)


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    dashed = f"--{option.name.replace('_', '-')}"
    others = "".join(f", or --{name}" for name in option.instead)
    note = f" (required{others})" if option.required else ""
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
    if not words or words[0] not in COMMANDS:
        _refuse(words)
    name, command = words[0], COMMANDS[words[0]]
    parsed, unknown = _parser_of(name).parse_known_args(_joined(command, [*before, *words[1:]]))
    found = vars(parsed)
    if unknown:
        raise _unknown(command, name, [word.replace(_MARK, "") for word in unknown])
    source = found.pop("json", None)
    values = _from_argv(command, found)
    if source is not None:
        if source != "-":
            raise InvalidInput("--json accepts only -, which reads the options from standard input.")
        values = {**read_json_options(command.all_options, timeout_s=_timeout_s(values)), **values}
    require(command.options, values, _help_of(name))
    return name, values


def _refuse(words: Sequence[str]) -> NoReturn:
    """Raises for words that begin with no command; HelpWanted for `--help` and `--version`."""
    if not words:
        raise InvalidInput("The following arguments are required: COMMAND.", hint=_help_of())
    word = words[0]
    if word in ("-h", "--help"):
        raise HelpWanted(build_parser(with_options=False).format_help().rstrip())
    if word == "--version":
        from services.worker.version import version

        raise HelpWanted(f"{program_name()} {version()}")
    if word.startswith("-"):
        raise InvalidInput(f"A COMMAND must stand before {word.partition('=')[0][:100]}.", hint=_help_of())
    similar = _similar(word, COMMANDS)
    hint = _help_of(similar[0] if len(similar) == 1 else "")
    raise InvalidInput(f"There is no command {shown(word, 100)!r}.{_did_you_mean(similar)}", hint=hint)


def _unknown(command: Command, name: str, words: Sequence[str]) -> InvalidInput:
    """The error for the words that argparse could not place."""
    word = words[0]
    if word == "--":
        said = f"Remove the word --: what stands behind it ({shown(' '.join(words[1:]), 100)}) is not read."
        return InvalidInput(said, hint=_help_of(name))
    if not word.startswith("-"):
        said = f"{shown(word, 100)!r} belongs to no option. Quote a value that contains spaces."
        return InvalidInput(said, hint=_help_of(name))
    options = [f"--{option.name}" for option in command.options_in_argv] + ["--json"] * (not command.is_program)
    option = word.partition("=")[0][:100]
    similar = _similar(f"--{option.strip('-').replace('-', '_')}", options)
    return InvalidInput(f"{name} has no option {option}.{_did_you_mean(similar)}", hint=_help_of(name))


def _help_of(name: str = "") -> str:
    return f"See {' '.join(filter(None, (program_name(), name, '--help')))}."


def _did_you_mean(names: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}?" if names else ""


def _similar(word: str, names: Iterable[str]) -> list[str]:
    """The names that look most like a word: by their letters, or because they begin with it."""
    import difflib

    likeness = difflib.SequenceMatcher(b=word.lower())

    def like(text: str) -> float:
        likeness.set_seq1(text)
        return likeness.ratio()

    scores = {name: max(like(name), like(name[: len(word)])) for name in names if len(word.strip("-")) > 1}
    best = max(scores.values(), default=0.0)
    return [name for name, score in scores.items() if score >= max(LIKE, best - 0.05)][:MAX_SUGGESTIONS]


def _timeout_s(values: Mapping[str, Any]) -> float:
    """How long standard input may take: as long as the command, as far as that is known before the input is read."""
    from services.fal.settings import DEFAULT_TIMEOUT_S, check_timeout

    named = values.get(TIMEOUT.name, os.environ.get("FAL_TIMEOUT_S", "").strip())
    return check_timeout(named, TIMEOUT.name) if named != "" else DEFAULT_TIMEOUT_S


def _from_argv(command: Command, found: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in command.options_in_argv:
        given = found.get(option.name)
        if isinstance(given, list):
            values[option.name] = [parse_value(option, text) for text in given]
        elif given is not None:
            values[option.name] = parse_value(option, given)
    return values


def _joined(command: Command, words: Sequence[str]) -> list[str]:
    """The words behind the command with every value joined to its option."""
    options = command.options_in_argv
    kinds = {option.name: option.kind for option in options} | {"json": "text"}
    first = next((option for option in options if option.first), None)
    if first is not None and first.name in map(_name, words):
        first = None
    joined: list[str] = []
    rest = iter(words)
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
