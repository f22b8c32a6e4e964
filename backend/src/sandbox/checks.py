"""The field checks of an endpoint, with the messages pydantic gives them, since fal's models check with it.

As there, a number may come as a string that spells it, `null` stands for "not given" where a field is
optional, and unknown fields pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.wire_types import Json

Kind = Literal["string", "integer", "number", "boolean", "object", "strings"]


@dataclass(frozen=True, slots=True)
class Field:
    """One input field of an endpoint."""

    name: str
    kind: Kind = "string"
    required: bool = False
    default: Any = None
    low: float | None = None
    high: float | None = None
    one_of: tuple[str, ...] = ()


class Invalid(Exception):
    """The input does not fit; carries fal's `detail` list."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


class _Wrong(Exception):
    def __init__(self, kind: str, message: str, **ctx: Json) -> None:
        super().__init__(message)
        self.kind, self.message, self.ctx = kind, message, ctx


def check(fields: tuple[Field, ...], given: Json) -> dict[str, Any]:
    """The input with defaults filled in; raises Invalid with every error at once."""
    if not isinstance(given, dict):
        raise Invalid([_error(["body"], "model_attributes_type", "Input should be a valid dictionary", given)])
    values, errors = dict(given), []
    for field in fields:
        try:
            values[field.name] = _value(field, given)
        except _Wrong as wrong:
            blamed = given if wrong.kind == "missing" else given[field.name]
            errors.append(_error(["body", field.name], wrong.kind, wrong.message, blamed, wrong.ctx))
    if errors:
        raise Invalid(errors)
    return values


def refuse(name: str, message: str, given: Json = None) -> Invalid:
    """An error that concerns several fields at once."""
    return Invalid([_error(["body", name], "value_error", f"Value error, {message}", given)])


def _error(loc: list[str], kind: str, message: str, given: Json, ctx: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {"loc": loc, "msg": message, "type": kind, "input": given}
    return {**error, "ctx": ctx} if ctx else error


def _value(field: Field, given: dict[str, Any]) -> Json:
    if field.name not in given:
        if field.required:
            raise _Wrong("missing", "Field required")
        return field.default
    if given[field.name] is None and not field.required:
        return field.default
    value = _READERS[field.kind](given[field.name])
    _check_range(field, value)
    return value


def _check_range(field: Field, value: Json) -> None:
    if field.low is not None and value < field.low:
        raise _Wrong("greater_than_equal", f"Input should be greater than or equal to {field.low:g}", ge=field.low)
    if field.high is not None and value > field.high:
        raise _Wrong("less_than_equal", f"Input should be less than or equal to {field.high:g}", le=field.high)
    if field.one_of and value not in field.one_of:
        expected = " or ".join(f"'{choice}'" for choice in field.one_of)
        raise _Wrong("literal_error", f"Input should be {expected}", expected=expected)


def _string(value: Json) -> str:
    if not isinstance(value, str):
        raise _Wrong("string_type", "Input should be a valid string")
    return value


def _integer(value: Json) -> int:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, float):
        raise _Wrong("int_from_float", "Input should be a valid integer, got a number with a fractional part")
    try:
        return int(_string(value))
    except (_Wrong, ValueError):
        raise _Wrong("int_type", "Input should be a valid integer") from None


def _number(value: Json) -> float:
    if isinstance(value, (int, float)):
        return value
    try:
        return float(_string(value))
    except (_Wrong, ValueError):
        raise _Wrong("float_type", "Input should be a valid number") from None


def _boolean(value: Json) -> bool:
    if isinstance(value, bool):
        return value
    spelled = {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
    if spelled is None:
        raise _Wrong("bool_type", "Input should be a valid boolean")
    return spelled


def _object(value: Json) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("dict_type", "Input should be a valid dictionary")
    return value


def _strings(value: Json) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Wrong("list_type", "Input should be a valid list of strings")
    return value


_READERS: dict[Kind, Callable[[Any], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "object": _object,
    "strings": _strings,
}
