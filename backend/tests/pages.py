"""The README and the pages of docs/, taken apart: their blocks of code, sections and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BACKEND = Path(__file__).resolve().parents[1]
ROOT = BACKEND.parent
DOCS = BACKEND / "docs"
README = ROOT / "README.md"
CONTRIBUTING = BACKEND / "CONTRIBUTING.md"
PAGES = (README, CONTRIBUTING, *sorted(DOCS.glob("*.md")))


class Block(NamedTuple):
    language: str
    code: str
    line: int


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path, *languages: str) -> list[Block]:
    return [block for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    language: str | None = None
    code: list[str] = []
    start = 0
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        if not line.startswith("```") and language is not None:
            code.append(line)
        elif line.startswith("```") and language is None:
            language, code, start = line[3:], [], number
        elif language is not None:
            yield Block(language, "\n".join(code) + "\n", start)
            language = None


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks_of(page, language)]


def section(page: Path, title: str) -> str:
    """The text under the first heading that begins with `title`, up to the next heading of its level or above."""
    found: list[str] = []
    level = 0
    fenced = False
    for line in text_of(page).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.*)", line)
        if heading and found and len(heading[1]) <= level:
            break
        if heading and not found and heading[2].startswith(title):
            level = len(heading[1])
        if level:
            found.append(line)
    assert found, f"{page.name} has no heading {title!r}"
    return "".join(found)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of the tables in `text`."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text_of(page))
