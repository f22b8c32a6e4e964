"""The options of the commands, as data, and how their values are read from argv or from JSON.

An option's value is data: it may begin with a dash, and neither abbreviations nor `@file` mean anything. The command
line and `--json -` give the same dict, from option name to Python value. FalClient checks what a value may be beyond
its type, for every caller alike.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from services.fal.errors import DeadlineExceeded, FalError, InvalidInput

MAX_JSON_BYTES = 64 * 1024 * 1024
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


class Option(NamedTuple):
    """One option: its name as the user writes it after `--`, and what its value is."""

    name: str
    kind: str
    """text, path, integer, number, flag, json, or texts (may be given several times)."""
    help: str
    required: bool = False
    first: bool = False
    """Whether its value may be the bare word after the command."""
    needs: str = ""
    """Another option that it requires."""
    argument: str = ""
    """What FalClient's method calls it, when that is not its name."""
    instead: tuple[str, ...] = ()
    """Other options that will do when this one is required."""

    @property
    def name_or_others(self) -> str:
        return " or ".join(f"--{name}" for name in (self.name, *self.instead))


def _parse_integer(text: str) -> int:
    return int(text)


def _parse_flag(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ValueError(text)


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "text": str,
    "texts": str,
    "path": str,
    "integer": _parse_integer,
    "number": float,
    "flag": _parse_flag,
    "json": json.loads,
}
WANTED = {
    "text": "a string",
    "texts": "a string",
    "path": "a path",
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "json": 'JSON, such as ["Studio"] or {"material": "oak"}',
}


def parse_value(option: Option, text: str) -> Any:
    """The value of one option as written on the command line."""
    try:
        value = PARSERS[option.kind](text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"--{option.name} must be {WANTED[option.kind]}, not {text[:200]!r}.") from error
    return _native_path(value) if option.kind == "path" else value


def read_json_options(
    options: Sequence[Option], stdin: Any = None, *, timeout_s: float | None = None
) -> dict[str, Any]:
    """The options in the JSON object on standard input. Raises DeadlineExceeded when that does not end in time."""
    source = sys.stdin if stdin is None else stdin
    try:
        data = _read_in_time(getattr(source, "buffer", source), timeout_s) if source is not None else b""
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        document = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FalError):
            raise
        raise InvalidInput("--json - requires one JSON object in UTF-8 on standard input.") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"--json - requires one JSON object on standard input, not {_type_name(document)}.")
    return values_of(options, document)


def _read_in_time(source: Any, timeout_s: float | None) -> Any:
    """All of `source`, read by a thread of its own: nothing ends a read of a pipe that stays open."""
    done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def read() -> None:
        try:
            done.put((source.read(MAX_JSON_BYTES + 1), None))
        except Exception as error:
            done.put((None, error))

    try:
        threading.Thread(target=read, name="fal-stdin", daemon=True).start()
    except RuntimeError:
        read()  # no thread to be had
    try:
        data, error = done.get(timeout=timeout_s)
    except queue.Empty:
        raise DeadlineExceeded(
            f"Standard input did not end within {timeout_s:g} seconds.",
            hint="Close standard input after the JSON object.",
        ) from None
    if error is not None:
        raise error
    if len(data) > MAX_JSON_BYTES:
        raise InvalidInput(f"The JSON on standard input must not be larger than {MAX_JSON_BYTES // 1024**2} MiB.")
    return data


def values_of(options: Sequence[Option], document: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a JSON object, each checked against its kind; null means not given."""
    known = {option.name: option for option in options}
    values: dict[str, Any] = {}
    for key, value in document.items():
        option = known.get(str(key).replace("-", "_"))
        if option is None:
            raise InvalidInput(f"The command has no option {str(key)[:100]!r}. It has {', '.join(sorted(known))}.")
        if value is not None:
            values[option.name] = _json_value(option, value)
    return values


def require(options: Sequence[Option], values: Mapping[str, Any], hint: str = "See --help.") -> None:
    """Raises InvalidInput when an option is missing that the command or another option requires."""
    missing = [option for option in options if option.required and not {option.name, *option.instead} & set(values)]
    if missing:
        names = ", ".join(option.name_or_others for option in missing)
        raise InvalidInput(f"The command requires {names}.", hint=hint)
    for option in options:
        if option.needs and values.get(option.name) and not values.get(option.needs):
            raise InvalidInput(f"--{option.name} requires --{option.needs}.")


def _json_value(option: Option, value: Any) -> Any:
    if option.kind == "texts":
        return _texts(option, value)
    if option.kind == "json":
        return parse_value(option, value) if isinstance(value, str) else value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "text": isinstance(value, str),
        "path": isinstance(value, str),
        "integer": number and (isinstance(value, int) or value.is_integer()),
        "number": number,
        "flag": isinstance(value, bool),
    }
    if not fits[option.kind]:
        raise InvalidInput(f"{option.name} must be {WANTED[option.kind]}, not {_type_name(value)}.")
    if option.kind == "integer":
        return int(value)
    return _native_path(value) if option.kind == "path" else value


def _texts(option: Option, value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise InvalidInput(f"{option.name} must be a string or a list of strings, not {_type_name(value)}.")
    return values


def utf8(argument: str) -> str:
    """An argument as the caller meant it: UTF-8, whatever the locale made of its bytes."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError as error:
        raise InvalidInput(f"The argument {ascii(argument)[:200]} is not valid UTF-8.") from error


def _native_path(path: str) -> str:
    """A UTF-8 path as this process's locale spells it, so that the file is found under every locale."""
    try:
        return os.fsdecode(path.encode("utf-8"))
    except UnicodeError as error:
        raise InvalidInput(f"The path {ascii(path)[:200]} is not valid Unicode.") from error


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else "null")
