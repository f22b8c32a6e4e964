"""The list of modules in docs/architecture.md: what each one is for, in the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]
PAGE = BACKEND / "docs" / "architecture.md"
SRC = BACKEND / "src"
MARK = "<!-- Generated below by docs/module_list.py: make docs. Do not edit. -->\n"
SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[A-Z`]|\s*$)", re.DOTALL)


def page() -> str:
    """The whole text of docs/architecture.md: what is written by hand, and the list."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has lost the line that the list stands below: {MARK.strip()}")
    return f"{written}{MARK}\n## Every module\n\n" + "\n".join(_list())


def _list() -> Iterator[str]:
    for folder in sorted({path.parent for path in SRC.rglob("*.py") if "__pycache__" not in path.parts}):
        rows = [(path, _first_sentence(path)) for path in sorted(folder.glob("*.py"))]
        yield f"### {folder.relative_to(SRC)}/\n\n| Module | What it is for |\n|---|---|"
        yield from (f"| `{path.name}` | {text} |" for path, text in rows if text)
        yield ""


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    found = SENTENCE.match(docstring.partition("\n\n")[0])
    return " ".join(found[1].split()).replace("|", "\\|") if found else ""
