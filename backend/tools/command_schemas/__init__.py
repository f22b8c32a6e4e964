"""Makes the JSON Schemas (2020-12) of what the commands take and print: `worker/schemas.json`.

They are strict: a key that is not named is refused. Options are described as they are documented; the worker is more
lenient: it also takes dashes for underscores, JSON that is written as a text, and styles in small letters. Made from
the option rows of `worker/commands.py` and the TypedDicts of `fal/results.py` and of `shop` by docs/generate.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from command_schemas.types_as_schemas import Schema, Shapes, described, fields_of, type_named
from services.fal import results
from services.fal.arguments import DEFAULT_STYLES, MAX_STYLES, PRIORITIES
from services.fal.costs import MAX_USD
from services.fal.responses import REQUEST_ID
from services.fal.settings import MAX_TIMEOUT_S
from services.live.budget import MAX_SPEND_USD
from services.worker.command import Command
from services.worker.commands import COMMANDS
from services.worker.options import Option

DESCRIBED = [name for name, command in COMMANDS.items() if command.result]
"""The commands that print documents."""
TEXT: Schema = {"type": "string"}
WRITTEN: Schema = {"type": "string", "pattern": r"\S"}
KINDS: Mapping[str, Schema] = {
    "text": WRITTEN,
    "path": WRITTEN,
    "texts": WRITTEN,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "json": {},
}
"""What the value of an option is, by its kind."""
STYLE: Schema = {
    "type": "object",
    "properties": {"name": WRITTEN, "description": WRITTEN},
    "required": ["name", "description"],
    "additionalProperties": False,
}
STYLES: Schema = {
    "type": "array",
    "items": {"anyOf": [{"type": "string", "enum": [style.name for style in DEFAULT_STYLES]}, STYLE]},
    "minItems": 1,
    "maxItems": MAX_STYLES,
}
ANY_CATEGORIES: Schema = {
    "type": "object",
    "propertyNames": {"pattern": r"\S"},
    "additionalProperties": TEXT,
    "minProperties": 1,
}
FACT: Schema = {"type": ["string", "number", "boolean"], "pattern": r"\S"}
FACTS: Schema = {
    "type": "object",
    "additionalProperties": {"anyOf": [FACT, {"type": "array", "items": FACT, "minItems": 1}]},
    "minProperties": 1,
}
WEB_URL = r"[Hh][Tt][Tt][Pp][Ss]?://[^\s/?#]\S*"
LIMITS: Mapping[str, Schema] = {
    "temperature": {"minimum": 0, "maximum": 2},
    "max_tokens": {"minimum": 1},
    "timeout": {"exclusiveMinimum": 0, "maximum": int(MAX_TIMEOUT_S)},
    "spend": {"exclusiveMinimum": 0, "maximum": int(MAX_SPEND_USD)},
    "max_usd": {"exclusiveMinimum": 0, "maximum": int(MAX_USD)},
    "options": {"type": "object"},
    "priority": {"type": "string", "enum": [*PRIORITIES]},
    "request_id": {"pattern": f"^{REQUEST_ID}$"},
    "webhook_url": {"pattern": rf"^\s*{WEB_URL}\s*$"},
    "image_url": {"pattern": rf"^\s*(?:{WEB_URL}\s*$|data:image/)"},
    "styles": STYLES,
    "facts": FACTS,
    "fill": {"minimum": 0.05, "maximum": 1},
    "margin": {"minimum": 0, "maximum": 0.475},
    "size": {"pattern": r"^\s*[0-9]{2,5}\s*[xX×*]\s*[0-9]{2,5}\s*$"},
    "length": {"minimum": 10, "maximum": 2000},
    "on": {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
}
"""What FalClient demands of an option beyond its kind, by the option's name."""
ALSO_FAILURES: Mapping[str, type] = {"any-llm-status": results.FailedStatus}
"""What a command that exits with 1 may print in place of an error document."""


def all_schemas() -> dict[str, Any]:
    """The document of the command `schema`."""
    return {"commands": {name: _of_command(name) for name in DESCRIBED}, "progress": progress_schema()}


def _of_command(name: str) -> dict[str, Any]:
    command = COMMANDS[name]
    return {
        "description": command.help,
        "options": options_schema(name, command),
        "result": result_schema(command),
        "failure": failure_schema(name, command),
    }


def options_schema(name: str, command: Command) -> Schema:
    """What `--json -` takes."""
    shapes = Shapes()
    schema: Schema = {
        "type": "object",
        "properties": {option.name: _value(option, shapes) for option in command.all_options},
        "additionalProperties": False,
    }
    if required := [option.name for option in command.all_options if option.required and not option.instead]:
        schema["required"] = required
    for option in command.all_options:
        if option.required and option.instead:
            schema["anyOf"] = [_given(name) for name in (option.name, *option.instead)]
    if needs := [option for option in command.all_options if option.needs]:
        others = {option.name: option for option in command.all_options}
        schema["dependentSchemas"] = {option.name: _needs(option, others) for option in needs}
    return shapes.complete(f"Options of {name}", schema)


def _value(option: Option, shapes: Shapes) -> Schema:
    schema = {**KINDS[option.kind], **LIMITS.get(option.name, {})}
    if option.kind == "texts":
        schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    elif option.name == "categories":
        schema = {"anyOf": [shapes.of(results.Categories), ANY_CATEGORIES]}
    elif option.first and option.kind == "text":
        schema = shapes.refer("Command", {"type": "string", "enum": DESCRIBED})
    return {**described(option.help), **(schema if option.required and not option.instead else _or_null(schema))}


def _given(name: str) -> Schema:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _needs(option: Option, others: Mapping[str, Option]) -> Schema:
    """An option that is given, or switched on, demands another one."""
    given = {"const": True} if option.kind == "flag" else {"not": {"type": "null"}}
    needed = {"const": True} if others[option.needs].kind == "flag" else {"type": "string"}
    return {
        "if": {"properties": {option.name: given}},
        "then": {"properties": {option.needs: needed}, "required": [option.needs]},
    }


def _or_null(schema: Schema) -> Schema:
    """An option that is null is not given."""
    if "enum" in schema or "type" not in schema:
        return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def result_schema(command: Command) -> Schema:
    """What the command prints when it succeeds; one line, when it prints several."""
    shapes = Shapes()
    return shapes.complete(command.result, shapes.shape(type_named(command.result)))


def failure_schema(name: str, command: Command) -> Schema:
    """What it prints when it fails: an error document and, when it had begun, keys of its own."""
    shapes = Shapes()
    shared = {field.name for field in fields_of(results.ErrorDocument)}
    schema: Schema = {
        "type": "object",
        "allOf": [shapes.of(results.ErrorDocument)],
        "properties": {
            field.name: {**described(field.description), **_or_empty(shapes.of(field.hint), command, field.name)}
            for field in fields_of(type_named(command.result))
            if field.name in command.when_failed or (field.in_failures and field.name not in shared)
        },
        "unevaluatedProperties": False,
    }
    if name in ALSO_FAILURES:
        schema = {"anyOf": [schema, shapes.of(ALSO_FAILURES[name])]}
    return shapes.complete(f"Failure of {name}", schema)


def _or_empty(schema: Schema, command: Command, key: str) -> Schema:
    """With the value that a failed command has in place of what it did not make."""
    empty = command.when_failed.get(key, ...)
    may_be_null = "null" in schema.get("type", ()) or {"type": "null"} in schema.get("anyOf", ())
    if (empty is None and not may_be_null) or (empty == {} and "$ref" in schema):
        return {"anyOf": [schema, {"const": empty}]}
    return schema


def progress_schema() -> Schema:
    """What `serve` tells of a call while it runs."""
    shapes = Shapes()
    return shapes.complete("ProgressEvent", shapes.of(results.ProgressEvent))
