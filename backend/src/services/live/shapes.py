"""The shape of an answer: its status, the names of its headers, its keys and their types.

A shape is data. A text names a type ("string", "integer", "number", "boolean", "null", "array", "object", "any"), or
several ("string|null"), the only texts that there may be ("=IN_QUEUE|IN_PROGRESS"), or words in a text
("~in progress"). A dict is an object: a key with "?" at its end may be absent, and one with "*" is documented, though
the library does without it. A list of one shape is an array. A tuple holds shapes of which one fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Shape = Any

MAX_DEPTH = 12
MAX_ITEMS = 200
"""How much of an answer is looked at."""
IGNORED_KEYS = ("sandbox", "sandbox_remarks")
"""By which the sandbox says that it is one."""
FAL_HEADER = "x-fal-"
IGNORED_HEADERS = ("x-fal-sandbox",)
NAMES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}


class Difference(NamedTuple):
    """Something that is not as it was expected."""

    text: str
    matters: bool
    """Whether the library relies on it."""
    is_new: bool = False
    """Whether it is something more, and all that was expected is there."""


def differences(shape: Shape, value: Any, where: str = "", *, relied: bool = True) -> list[Difference]:
    """What of `value` does not fit `shape`; `where` is the path to it."""
    if isinstance(shape, tuple):
        fitting = [one for one in shape if _is_kind(one, value)] or shape
        found = [differences(one, value, where, relied=relied) for one in fitting]
        return min(found, key=lambda one: (any(row.matters for row in one), len(one)))
    if isinstance(shape, dict):
        return _of_object(shape, value, where, relied)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [Difference(f"{where or 'the body'} is {type_of(value)}, not array", relied)]
        rows = [row for item in value for row in differences(shape[0], item, f"{where}[]", relied=relied)]
        return list(dict.fromkeys(rows))
    return _of_type(shape, value, where or "the body", relied)


def _is_kind(shape: Shape, value: Any) -> bool:
    """Whether a value is an object, an array or a plain value, as the shape is."""
    kinds: Mapping[type, bool] = {dict: isinstance(shape, dict), list: isinstance(shape, list)}
    return kinds.get(type(value), isinstance(shape, str))


def _of_object(shape: Mapping[str, Shape], value: Any, where: str, relied: bool) -> list[Difference]:
    if not isinstance(value, dict):
        return [Difference(f"{where or 'the body'} is {type_of(value)}, not object", relied)]
    found: list[Difference] = []
    for named, inner in shape.items():
        name = named.rstrip("?*")
        path, needed = f"{where}.{name}".lstrip("."), relied and name == named
        if name in value:
            found += differences(inner, value[name], path, relied=needed)
        elif not named.endswith("?"):
            found.append(Difference(f"no {path}", needed))
    known = {name.rstrip("?*") for name in shape} | set(IGNORED_KEYS)
    more = [name for name in list(value)[:MAX_ITEMS] if name not in known]
    return [*found, *(Difference(f"{where}.{name}".lstrip(".")[:100], False, is_new=True) for name in more)]


def _of_type(shape: str, value: Any, where: str, relied: bool) -> list[Difference]:
    if shape.startswith("="):
        if value in shape[1:].split("|"):
            return []
        return [Difference(f"{where} is {str(value)[:60]!r}, not {shape[1:].replace('|', ' or ')}", relied)]
    if shape.startswith("~"):
        found = isinstance(value, str) and shape[1:] in value.lower()
        return [] if found else [Difference(f"{where} is {str(value)[:60]!r}, without {shape[1:]!r}", relied)]
    kind, wanted = type_of(value), shape.split("|")
    if kind in wanted or "any" in wanted or (kind == "integer" and "number" in wanted):
        return []
    return [Difference(f"{where} is {kind}, not {' or '.join(wanted)}", relied)]


def type_of(value: Any) -> str:
    return NAMES.get(type(value), type(value).__name__)


def outline(shape: Shape) -> str:
    """A shape in one line."""
    if isinstance(shape, tuple):
        return " or ".join(map(outline, shape))
    if isinstance(shape, dict):
        return "{" + ", ".join(shape) + "}"
    return f"[{outline(shape[0])}]" if isinstance(shape, list) else str(shape)


def shape_of(value: Any, depth: int = 0) -> Shape:
    """The shape of one value, without the marks of the sandbox; an array has the shapes of its items, each once."""
    if depth > MAX_DEPTH:
        return "any"
    if isinstance(value, dict):
        return {name: shape_of(item, depth + 1) for name, item in value.items() if name not in IGNORED_KEYS}
    if isinstance(value, list):
        shapes: list[Shape] = []
        for item in value[:MAX_ITEMS]:
            if (shape := shape_of(item, depth + 1)) not in shapes:
                shapes.append(shape)
        return shapes
    return type_of(value)


def cut_to(shape: Shape, value: Any) -> Any:
    """`value` without the insides of what `shape` calls an object and no more."""
    if shape == "object" and isinstance(value, dict):
        return {}
    if isinstance(shape, dict) and isinstance(value, dict):
        inner = {name.rstrip("?*"): one for name, one in shape.items()}
        return {name: cut_to(inner.get(name, "any"), item) for name, item in value.items()}
    if isinstance(shape, list) and isinstance(value, list):
        return [cut_to(shape[0], item) for item in value]
    return value


def fal_headers(names: Mapping[str, Any]) -> list[str]:
    """The headers that are fal's own: those of proxies and content networks on the way are nobody's promise."""
    return sorted(name for name in names if name.startswith(FAL_HEADER) and name not in IGNORED_HEADERS)


def mismatches(one: Shape, other: Shape, where: str = "") -> Iterator[str]:
    """How two shapes of `shape_of` differ: the first was recorded at fal, the second at the sandbox.

    A null says nothing of the type that is there at other times, and an empty array nothing of its items.
    """
    if {"null", "any"} & {_plain(one), _plain(other)} or {_plain(one), _plain(other)} == {"integer", "number"}:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            path = f"{where}.{name}".lstrip(".")
            if name not in other:
                yield f"the sandbox has no {path}"
            elif name not in one:
                yield f"only the sandbox has {path}"
            else:
                yield from mismatches(one[name], other[name], path)
    elif isinstance(one, list) and isinstance(other, list):
        for item in one if other else ():
            found = [list(mismatches(item, candidate, f"{where}[]")) for candidate in other]
            yield from min(found, key=len)
    elif one != other:
        yield f"{where or 'the body'} is {_plain(one)}, at the sandbox {_plain(other)}"


def _plain(shape: Shape) -> str:
    return "object" if isinstance(shape, dict) else "array" if isinstance(shape, list) else str(shape)
