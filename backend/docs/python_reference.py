"""The reference in docs/python.md: FalClient's signatures and docstrings, and the TypedDicts of its results.

The page's first part is written by hand; everything below MARK is generated. Read with `ast`, so that nothing has to
be imported and annotations stay as their authors wrote them.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

BACKEND = Path(__file__).resolve().parents[1]
PAGE = BACKEND / "docs" / "python.md"
CLIENT = BACKEND / "src" / "services" / "fal_service.py"
SHAPES = BACKEND / "src" / "services" / "fal" / "results.py"
MARK = "<!-- Generated below by docs/python_reference.py: make docs. Do not edit. -->\n"
LISTED = re.compile(r"^- (\w+): ((?:.+\n?(?:  .+\n?)*))", re.MULTILINE)
"""A parameter in a docstring: `- name: what it means`, and indented lines that go on."""
SHARED = "These parameters mean the same in every method:"
"""Stands in FalClient's docstring: the list before it is the constructor's, the one behind it every method's."""
MARKED = ("Failed", "Kept")
"""Markers of results.py around a type: the key is there in failures only, or in failures too."""

FAILURE = "Failure"
"""The part of a result that an error document brings; it is described once, in errors.md."""


class Field(NamedTuple):
    """One key of a TypedDict."""

    name: str
    kind: str
    always: bool
    meaning: str


def page() -> str:
    """The whole text of docs/python.md: what is written by hand, and the reference."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has lost the line that the reference stands below: {MARK.strip()}")
    return written + MARK + "\n" + "\n".join(_reference())


def undocumented() -> list[str]:
    """The parameters of FalClient that no docstring explains, as `method.parameter`."""
    client = _Client()
    return [
        f"{method.name}.{parameter.arg}"
        for method in client.methods
        for parameter, _ in _parameters(method)
        if parameter.arg not in client.meanings(method)
    ]


def _reference() -> Iterator[str]:
    client, shapes = _Client(), _Shapes()
    yield "## Reference\n\n### FalClient\n"
    yield f"`{client.signature(client.constructor, 'FalClient')}`\n"
    intro, rest = client.docstring.split(SHARED)
    yield _without_list(intro) + "\n"
    yield from _table(dict(_parameters(client.constructor)), _listed(intro))
    yield f"\n{ast.get_docstring(client.constructor)}\n\n{_without_list(rest)}\n"
    yield "### Shared parameters\n\nThese mean the same in every method that takes them:\n"
    yield from _shared_table(client)
    for method in client.methods:
        yield from _method(client, shapes, method)
    yield "## Result shapes\n"
    yield "Types are written as in Python. A key with `?` is not always there; the others always are.\n"
    for name in shapes.used_by([method.returns for method in client.methods], ["ProgressEvent"]):
        yield from _shape(shapes, name)


def _method(client: _Client, shapes: _Shapes, method: ast.FunctionDef) -> Iterator[str]:
    yield f"### {method.name}\n"
    if client.is_property(method):
        yield f"`client.{method.name}` ({_source(method.returns)})\n"
    else:
        yield f"`{client.signature(method, f'client.{method.name}')}`\n"
    docstring = ast.get_docstring(method) or ""
    summary, *rest = _without_list(docstring).split("\n\n")
    yield summary + "\n"
    own = _listed(docstring)
    if own:
        yield from _table({given: default for given, default in _parameters(method) if given.arg in own}, own)
        yield ""
    also = [f"`{parameter.arg}`" for parameter, _ in _parameters(method) if parameter.arg not in own]
    if also:
        yield f"{'Also takes' if own else 'Takes'} the [shared parameters](#shared-parameters) {_and(also)}.\n"
    if method.returns is not None and not client.is_property(method):
        yield f"Returns {shapes.linked(_source(method.returns))}.\n"
    yield from (f"{paragraph}\n" for paragraph in rest)


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _table(parameters: Mapping[ast.arg, ast.expr | None], meanings: Mapping[str, str]) -> Iterator[str]:
    yield "| Parameter | Type | Default | Meaning |\n|---|---|---|---|"
    for parameter, default in parameters.items():
        shown = "required" if default is None else f"`{_default(default)}`"
        kind = _cell(_source(parameter.annotation))
        yield f"| `{parameter.arg}` | `{kind}` | {shown} | {_cell(meanings.get(parameter.arg, ''))} |"


def _shared_table(client: _Client) -> Iterator[str]:
    """The shared parameters; defaults stand in the signatures, since they may differ."""
    kinds = {given.arg: _source(given.annotation) for method in client.methods for given, _ in _parameters(method)}
    yield "| Parameter | Type | Meaning |\n|---|---|---|"
    for name, meaning in client.shared.items():
        yield f"| `{name}` | `{_cell(kinds.get(name, ''))}` | {_cell(meaning)} |"
    yield ""


def _parameters(method: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """The parameters but self, with their defaults."""
    given = method.args
    positional = given.args[1:]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    yield from zip(positional, [*missing, *given.defaults], strict=True)
    yield from zip(given.kwonlyargs, given.kw_defaults, strict=True)
    if given.kwarg is not None:
        yield given.kwarg, ast.Constant(None)


def _shape(shapes: _Shapes, name: str) -> Iterator[str]:
    yield f"### {name}\n"
    if not shapes.is_dict(name):
        yield f"{shapes.linked(shapes.alias(name))}\n"
        return
    yield "| Key | Type | Meaning |\n|---|---|---|"
    for field in shapes.fields(name):
        key = field.name if field.always else f"{field.name}?"
        yield f"| `{key}` | {shapes.linked(field.kind)} | {_cell(field.meaning)} |"
    yield ""
    if shapes.may_fail(name):
        yield "On failure it also has the keys of the [error document](errors.md#the-error-document).\n"


def _without_list(docstring: str) -> str:
    """A docstring without its list of parameters, one line a paragraph."""
    paragraphs = LISTED.sub("", docstring).split("\n\n")
    return "\n\n".join(" ".join(text.split()) for text in paragraphs if text.strip())


def _listed(docstring: str) -> dict[str, str]:
    return {name: " ".join(meaning.split()) for name, meaning in LISTED.findall(docstring)}


def _statements(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _source(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node).replace("'", '"')


def _default(node: ast.expr) -> str:
    """A default value; the value of a constant in place of its name."""
    if isinstance(node, ast.Name):
        for path in sorted(SHAPES.parent.glob("*.py")):
            if found := re.search(rf"^{node.id} = (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
                return found[1]
    return _source(node)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


class _Client:
    """FalClient as its source says it."""

    @cached_property
    def _class(self) -> ast.ClassDef:
        return next(node for node in _statements(CLIENT) if isinstance(node, ast.ClassDef) and node.name == "FalClient")

    @cached_property
    def docstring(self) -> str:
        return ast.get_docstring(self._class) or ""

    @cached_property
    def constructor(self) -> ast.FunctionDef:
        return next(node for node in self._class.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")

    @cached_property
    def methods(self) -> list[ast.FunctionDef]:
        """The public ones, in the order of the file, those that take something first."""
        public = [
            node for node in self._class.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        ]
        return sorted(public, key=lambda node: not list(_parameters(node)))

    @cached_property
    def shared(self) -> dict[str, str]:
        """What parameters mean in every method that takes them."""
        return _listed(self.docstring.partition(SHARED)[2])

    def meanings(self, method: ast.FunctionDef) -> dict[str, str]:
        return {**self.shared, **_listed(ast.get_docstring(method) or "")}

    @staticmethod
    def is_property(method: ast.FunctionDef) -> bool:
        return any(_source(decorator) == "property" for decorator in method.decorator_list)

    @staticmethod
    def signature(method: ast.FunctionDef, name: str) -> str:
        """How it is called: names and defaults, without types."""
        words: list[str] = []
        keyword_only = {parameter.arg for parameter in method.args.kwonlyargs}
        for parameter, default in _parameters(method):
            if parameter.arg in keyword_only and "*" not in words:
                words.append("*")
            if parameter is method.args.kwarg:
                words.append(f"**{parameter.arg}")
            else:
                words.append(parameter.arg if default is None else f"{parameter.arg}={_default(default)}")
        return f"{name}({', '.join(words)})"


class _Shapes:
    """The TypedDicts of results.py, and the names that stand for other types there and in fal_service.py."""

    @cached_property
    def _classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in _statements(SHAPES) if isinstance(node, ast.ClassDef)}

    @cached_property
    def _aliases(self) -> dict[str, ast.expr]:
        found: dict[str, ast.expr] = {}
        for node in (*_statements(SHAPES), *_statements(CLIENT)):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                found[node.target.id] = node.value
        return found

    def is_dict(self, name: str) -> bool:
        return name in self._classes

    def alias(self, name: str) -> str:
        return _source(self._plain(self._aliases[name]))

    def fields(self, name: str) -> list[Field]:
        """The keys that are always there first."""
        found = {field.name: field for field in self._fields(name)}
        return sorted(found.values(), key=lambda field: not field.always)

    def may_fail(self, name: str) -> bool:
        bases = [base.id for base in self._classes[name].bases if isinstance(base, ast.Name)]
        return FAILURE in bases or any(self.may_fail(base) for base in bases if base in self._classes)

    def _fields(self, name: str) -> Iterator[Field]:
        shape = self._classes[name]
        for base in shape.bases:
            if isinstance(base, ast.Name) and base.id in self._classes and base.id != FAILURE:
                yield from self._fields(base.id)
        always = not any(word.arg == "total" for word in shape.keywords)
        for node, after in zip(shape.body, [*shape.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                meaning = _text(after)
                if isinstance(node.annotation, ast.Subscript) and _source(node.annotation.value) == "Failed":
                    meaning = f"{meaning} In a failure only.".strip()
                yield Field(node.target.id, _source(self._plain(node.annotation)), always, meaning)

    def _plain(self, annotation: ast.expr) -> ast.expr:
        """Without the markers, and with what the names of strings stand for."""
        aliases, classes = self._aliases, self._classes

        class Plain(ast.NodeTransformer):
            def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
                name = _source(node.value)
                if name in MARKED:
                    return self.visit(node.slice)
                if name == "Annotated" and isinstance(node.slice, ast.Tuple):
                    return self.visit(node.slice.elts[-1])
                if name == "Literal":
                    values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                    return ast.parse(" | ".join(map(ast.unparse, values)), mode="eval").body
                return self.generic_visit(node)

            def visit_Name(self, node: ast.Name) -> ast.AST:
                if node.id in classes or node.id not in aliases:
                    return node
                value = aliases[node.id]
                if isinstance(value, ast.Call):  # NewType("ErrorType", str)
                    return value.args[-1]
                return self.visit(value)

        return Plain().visit(ast.parse(ast.unparse(annotation), mode="eval").body)

    def linked(self, kind: str) -> str:
        """A type as code, linked to the section of the shape in it."""
        named = next((word for word in re.findall(r"\w+", kind) if word in self._classes), None)
        return f"[`{_cell(kind)}`](#{named.lower()})" if named else f"`{_cell(kind)}`"

    def used_by(self, annotations: list[ast.expr | None], others: list[str]) -> list[str]:
        """The shapes that a user meets, those of the results first, then what they consist of."""
        waiting = [word for note in annotations for word in re.findall(r"\w+", _source(note)) if word in self._classes]
        waiting += [name for name in others if name in self._classes or name in self._aliases]
        found: list[str] = []
        while waiting:
            name = waiting.pop(0)
            if name in found:
                continue
            found.append(name)
            kinds = [field.kind for field in self._fields(name)] if self.is_dict(name) else [self.alias(name)]
            waiting += [word for kind in kinds for word in re.findall(r"\w+", kind) if word in self._classes]
        return found


def _text(node: ast.stmt | None) -> str:
    """The string that stands under a field."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return textwrap.dedent(node.value.value).strip()
    return ""
