"""docs/listing.md is true: its blocks run here, against the sandbox, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.shop.text_units import NAMES, length

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "listing.md"


def test_the_blocks_run_and_print_what_they_say(box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```") / 2 == 3
    namespace: dict[str, Any] = {"__name__": "listing_md"}
    printed: list[str] = []
    for code in blocks:
        exec(compile(code, DOCUMENT.name, "exec"), namespace)
        printed += capsys.readouterr().out.splitlines()
        for expected in re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE):
            assert expected in printed
    assert [line.split()[0] for line in printed[:2]] == ["Turkish", "English"]


def test_the_table_of_units_counts_right() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text, re.MULTILINE))
    assert {unit: int(number) for unit, number in rows.items()} == {unit: length("👩‍👩‍👧 anne", unit) for unit in NAMES}
