"""How the services hang together: imports without circles, own modules at the top, and no ambient state."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in (SOURCE / "services").rglob("*.py")}
CORE = {name for name in FILES if name.startswith("services.fal.")} | {"services.fal_service", "services.webhooks"}
LATE = {
    # It stands on httpx and fal-client, whose imports take a tenth of a second.
    ("services.fal_service", "services.fal.fal_api"),
    # Only when fal_service.py is run directly.
    ("services.fal_service", "services.fal.smoke_test"),
}


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """The own modules that a tree imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                name for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names)) if name in FILES
            )


def test_no_module_imports_itself_by_way_of_others_not_even_late_or_for_its_types() -> None:
    graph = {name: set(imports(tree_of(name))) - {name} for name in FILES}
    assert list(TopologicalSorter(graph).static_order())


def test_own_modules_are_imported_at_the_top() -> None:
    late = {
        (name, module)
        for name in CORE
        for node in tree_of(name).body
        if not (isinstance(node, ast.Import | ast.ImportFrom) or _is_for_types(node))
        for module in imports(node)
    }
    assert late <= LATE


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_nothing_is_handed_on_by_ambient_state() -> None:
    assert [name for name in FILES if _is_ambient(tree_of(name))] == []


def _is_ambient(tree: ast.Module) -> bool:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return bool({"ContextVar", "copy_context"} & names or "contextvars" in modules)
