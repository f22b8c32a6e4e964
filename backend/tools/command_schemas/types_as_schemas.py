"""JSON Schema of types: of the TypedDicts of the results, with the string under a field as its description.

`Failed` and `Kept` in the annotations tell which keys a call that succeeded has, and which one that failed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints, is_typeddict

from services import webhooks
from services.batch import journal as batch_journal
from services.batch import results as batch_results
from services.fal import errors, results
from services.fal.errors import FalError
from services.shop import fidelity, judge, listing, listing_writer, picture_check, product_files, shop, text_check
from services.shop import results as shop_results
from services.worker import supervisor

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
MODULES = (
    results,
    product_files,
    picture_check,
    fidelity,
    judge,
    text_check,
    listing_writer,
    listing,
    shop,
    shop_results,
    batch_results,
)
"""Where the types are, none of them twice under one name."""
PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Field(NamedTuple):
    """One key of a TypedDict."""

    name: str
    hint: Any
    description: str
    required: bool

    @property
    def in_successes(self) -> bool:
        return not _is_marked(self.hint, results.IN_FAILURES)

    @property
    def in_failures(self) -> bool:
        """Whether a failed command may have it, beside the keys that it always has."""
        return _is_marked(self.hint, results.IN_FAILURES) or _is_marked(self.hint, results.ALSO_IN_FAILURES)


class Shapes:
    """Makes one schema; the named ones that it refers to are kept for its `$defs`."""

    def __init__(self) -> None:
        self._defs: dict[str, Schema] = {}

    def complete(self, title: str, schema: Schema) -> Schema:
        """`schema` as one that can stand alone."""
        return {"$schema": DIALECT, "title": title, **schema, **({"$defs": self._defs} if self._defs else {})}

    def refer(self, name: str, schema: Schema | None = None) -> Schema:
        """A reference to the schema of that name, which is given or known."""
        if schema is not None:
            self._defs[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    def shape(self, kind: type) -> Schema:
        """A TypedDict as a call that succeeded gives it."""
        fields = [field for field in fields_of(kind) if field.in_successes]
        return {
            **described(inspect.getdoc(kind) if kind.__doc__ else None),
            "type": "object",
            "properties": {field.name: self.value(field) for field in fields},
            **_if_any("required", [field.name for field in fields if field.required]),
            **({} if kind in results.OPEN else {"additionalProperties": False}),
        }

    def value(self, field: Field) -> Schema:
        """The value of one key."""
        schema = self.of(field.hint)
        return schema if schema == NULL else {**described(field.description), **schema}

    def of(self, hint: Any) -> Schema:
        """A type as a call that succeeded gives it."""
        if hint is Any:
            return {}
        if hint in PLAIN:
            return {"type": PLAIN[hint]}
        if hint is results.ErrorType:
            return self.refer("ErrorType", {"type": "string", "enum": error_types()})
        if is_typeddict(hint):
            return self.refer(hint.__name__, None if hint.__name__ in self._defs else self.shape(hint))
        return self._composed(get_origin(hint), get_args(hint))

    def _composed(self, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        if origin is Literal:
            return {"type": "string", "enum": list(arguments)}
        if origin is Annotated:
            return self.of(next((one for one in arguments[1:] if get_origin(one) is Literal), arguments[0]))
        if origin is list:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in (dict, Mapping):
            return {"type": "object", **_if_any("additionalProperties", self.of(arguments[1]))}
        assert origin in (Union, UnionType), origin
        return _any_of([self.of(part) for part in arguments if not _is_marked(part, results.IN_FAILURES)])


def described(text: str | None) -> Schema:
    return _if_any("description", text)


def fields_of(kind: type) -> list[Field]:
    """The keys of a TypedDict: those that are always there, then the others."""
    required: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]
    texts = _texts(kind.__name__)
    # A module may import a type for its annotations only.
    hints = get_type_hints(kind, localns=vars(results) | _types(), include_extras=True).items()
    fields = [Field(name, hint, texts[name], name in required) for name, hint in hints]
    return sorted(fields, key=lambda field: not field.required)


def type_named(name: str) -> Any:
    """A TypedDict by its name."""
    return _types()[name]


@cache
def _types() -> dict[str, Any]:
    return {name: kind for module in MODULES for name, kind in vars(module).items() if is_typeddict(kind)}


def public_types() -> list[Any]:
    """Every TypedDict that a method returns or a command prints, and those inside them."""
    return list(_types().values())


def error_types() -> list[str]:
    """Every `error_type` there is, in the order of the tree; `serve`, webhooks and batches have their own."""
    classes = [
        one
        for module in (errors, supervisor, webhooks, batch_journal)
        for one in vars(module).values()
        if isinstance(one, type)
    ]
    return [*dict.fromkeys(one.error_type for one in classes if issubclass(one, FalError))]


def _is_marked(hint: Any, mark: str) -> bool:
    return get_origin(hint) is Annotated and mark in hint.__metadata__


def _if_any(keyword: str, value: Any) -> Schema:
    return {keyword: value} if value else {}


def _any_of(parts: list[Schema]) -> Schema:
    if len(parts) == 1:
        return parts[0]
    if all(set(part) == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    return {"anyOf": parts}


def _texts(name: str) -> dict[str, str]:
    """The string under every field of a class of MODULES, and of its bases: a TypedDict itself keeps neither."""
    node = _classes()[name]
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in _classes()]
    return {name: text for base in bases for name, text in _texts(base).items()} | dict(_own_texts(node))


def _own_texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            yield field.target.id, str(text.value) if isinstance(text, ast.Constant) else ""


@cache
def _classes() -> dict[str, ast.ClassDef]:
    trees = [ast.parse(inspect.getsource(module)) for module in MODULES]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
