"""Holds what the worker really printed against the schemas that `fal_worker.py schema` gives for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from services.worker import early_signals
from services.worker.commands import COMMANDS
from services.worker.schemas import schemas

NO_OWN_KEYS = "any-llm-submit"
"""A command whose failure is an error document and nothing else, as before a command is known."""


@cache
def validator(command: str, part: str) -> Draft202012Validator:
    """For the options, result or failure of a command."""
    return Draft202012Validator(all_schemas()["commands"][command][part])


@cache
def all_schemas() -> dict[str, Any]:
    """Read once: they are 400 KB."""
    return schemas()


def assert_true_to_schema(argv: Sequence[str], code: int, *documents: Any) -> None:
    """What the worker printed for `argv` (several lines, when it streams) before it ended with `code`."""
    _, words = early_signals.split(list(argv))
    command = words[0] if words and words[0] in COMMANDS else NO_OWN_KEYS
    *lines, last = documents
    for line in lines:
        assert_valid(command, "result", line)
    assert_valid(command, "failure" if code else "result", last)


def assert_output_is_true(argv: Sequence[str], code: int, out: bytes | str | None) -> None:
    """The same for what a process or `main` printed, when that is JSON and not help or nothing."""
    lines = (out.encode() if isinstance(out, str) else out or b"").splitlines()
    if lines and lines[0].startswith(b"{"):
        assert_true_to_schema(argv, code, *map(json.loads, lines))


def assert_valid(command: str, part: str, document: Any) -> None:
    """`document` is what the schema of the command says: its options, result or failure."""
    found = [f"{error.json_path}: {error.message[:300]}" for error in validator(command, part).iter_errors(document)]
    assert found == [], f"{part} of {command}: {document}"
