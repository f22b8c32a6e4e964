"""The JSON object that a prompt asks for by example, or that a JSON Schema describes."""

from __future__ import annotations

import json
import re

from fal_sandbox.wire_types import Json

TYPE_NAME = r"(?:string|text|str|number|integer|int|float|boolean|bool|any)"
_BARE_LIST = re.compile(rf"(?<=[:,\[])\s*{TYPE_NAME}\s*\[\s*\]")
_BARE_TYPE = re.compile(rf"(?<=[:,\[])\s*({TYPE_NAME})\s*(?=[,}}\]])")
_BARE_DOTS = re.compile(r"(?<=[:\[])\s*(?:\.\.\.|…)\s*(?=[,}\]])")
_MORE = re.compile(r",\s*(?:\.\.\.|…)\s*(?=[}\]])")
_LAST_COMMA = re.compile(r",\s*(?=[}\]])")
_STRING = re.compile(r'("(?:[^"\\]|\\.)*")')
MOST_STARTS = 50
MOST_LETTERS = 20_000
DEEPEST = 8
_EXAMPLES: dict[str, Json] = {"number": 1, "integer": 1, "int": 1, "float": 1.0, "boolean": True, "bool": True}


class Fixed(str):
    """A text of an example that must stay as it is: one of the choices that a schema leaves."""


def example_in(asked: str) -> Json:
    """The first JSON object or list of a text that holds something to fill in; None when there is none.

    An example may be sketched: `string[]`, a type's bare name, or dots for "and so on" stand where values go.
    """
    text = asked[:MOST_LETTERS]
    starts = [match.start() for match in re.finditer(r"[{\[]", text)][:MOST_STARTS]
    for start in starts:
        for spelled in (text[start:], _written_out(text[start:])):
            try:
                example, _ = json.JSONDecoder().raw_decode(spelled)
            except (ValueError, RecursionError):
                continue
            if _names_something(example):
                return example
    return None


def example_of(schema: Json, root: Json = None, depth: int = 0) -> Json:
    """A value of the shape that a JSON Schema describes; texts are empty, for the caller to fill in."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > DEEPEST:
        return ""
    if "$ref" in schema:
        return example_of(_referred(schema["$ref"], root), root, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return example_of(schema[name][0], root, depth + 1)
    if "const" in schema or schema.get("enum"):
        chosen = schema["const"] if "const" in schema else schema["enum"][0]
        return Fixed(chosen) if isinstance(chosen, str) else chosen
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: example_of(below, root, depth + 1) for name, below in schema.get("properties", {}).items()}
    if kind == "array":
        fewest = max(1, int(schema.get("minItems", 1)))
        return [example_of(schema.get("items", {}), root, depth + 1) for _ in range(min(fewest, 20))]
    if kind in ("number", "integer"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(str(kind), "")


def _referred(path: Json, root: Json) -> Json:
    found = root
    for part in str(path).removeprefix("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    return found


def _names_something(example: Json) -> bool:
    if isinstance(example, dict):
        return bool(example)
    return isinstance(example, list) and any(isinstance(item, dict) and item for item in example)


def _written_out(text: str) -> str:
    """The text with what is only sketched outside of its strings put into JSON."""
    pieces = _STRING.split(text)
    # A piece between two strings, seen with its neighbours: what follows a colon, and what comes before a bracket.
    for place in range(0, len(pieces), 2):
        piece = _BARE_LIST.sub(' [""]', pieces[place])
        piece = _BARE_TYPE.sub(lambda match: f" {json.dumps(_EXAMPLES.get(match[1], ''))}", piece)
        piece = _MORE.sub("", _BARE_DOTS.sub(' ""', piece))
        pieces[place] = _LAST_COMMA.sub("", piece)
    return "".join(pieces)
