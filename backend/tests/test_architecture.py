"""How the services hang together: imports without circles, own modules at the top, and no ambient state."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in (SOURCE / "services").rglob("*.py")
}
CORE = {name for name in FILES if name.startswith("services.fal.")} | {"services.fal_service", "services.webhooks"}
LATE = {
    # It stands on httpx and fal-client, whose imports take a tenth of a second.
    ("services.fal_service", "services.fal.fal_api"),
    # Only when fal_service.py is run directly.
    ("services.fal_service", "services.fal.smoke_test"),
}


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
    graph = {name: set(imports(tree)) - {name} for name, tree in FILES.items()}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", sorted(CORE))
def test_own_modules_are_imported_at_the_top(name: str) -> None:
    tree = FILES[name]
    late = {
        (name, module)
        for node in tree.body
        if not (isinstance(node, ast.Import | ast.ImportFrom) or _is_for_types(node))
        for module in imports(node)
    }
    assert late <= LATE


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_handed_on_by_ambient_state(name: str) -> None:
    names = {node.id for node in ast.walk(FILES[name]) if isinstance(node, ast.Name)}
    modules = {alias.name for node in ast.walk(FILES[name]) if isinstance(node, ast.Import) for alias in node.names}
    assert not {"ContextVar", "copy_context"} & names
    assert not {"contextvars"} & modules
