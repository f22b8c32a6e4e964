"""One attempt at one product: it is made within a call of its own, and what came of it becomes its line of the results.

What is in doubt makes a product "ambiguous", what failed "failed"; siblings go on in both cases. A product whose jobs
were held back, since the run ends, is not over: it has no line, and waits for the next run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from services.batch.journal import Product, ProductState
from services.batch.product_journal import ProductJournal
from services.batch.recipe import Recipe
from services.fal.call import Call
from services.fal.errors import FalError, as_fal_error, summary
from services.fal_service import FalClient

UNUSABLE = ("bad_output", "not_found")
"""Errors of a result that is there and of no use: a retry of the product makes it anew."""
HARMLESS_STAGES = ("prompt",)
"""A prompt that failed is replaced by a plain one, and the picture is made."""


class Outcome(NamedTuple):
    """What came of an attempt."""

    state: ProductState
    line: dict[str, Any]
    unusable: list[str]
    """The request ids of jobs whose results cannot be used."""
    error: FalError | None = None
    """What was raised."""

    def as_bytes(self) -> bytes:
        return json.dumps(self.line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def attempt(
    client: FalClient, call: Call, journal: ProductJournal, recipe: Recipe, product: Product, folder: Path
) -> Outcome | None:
    """Make a product. None: it is not over, and waits for the next run."""
    began = time.monotonic()
    document: Mapping[str, Any] | None = None
    failure: dict[str, Any] = {}
    failed: FalError | None = None
    try:
        with call:
            document = recipe.make(client.within(call), {**recipe.options, **product.input}, folder)
    except Exception as error:
        failed = as_fal_error(error)
        document, failure = failed.partial or None, summary(failed)
    found = dict(document or {})
    found.pop("trace", None)
    failure = failure or _failure_in(found)
    if failure and (journal.held or call.cancelled):
        return None
    state: ProductState = "ambiguous" if journal.in_doubt_steps else "failed" if failure else "done"
    line = {
        "key": product.key,
        "line": product.line,
        "status": state,
        "result": found or None,
        "error": failure.get("error"),
        "error_type": failure.get("error_type"),
        "hint": failure.get("hint"),
        "attempts": product.attempts,
        "seconds": round(time.monotonic() - began, 3),
        "cost_usd": journal.cost_usd,
    }
    return Outcome(state, line, list(_unusable(found, failure)), failed)


def _failure_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """The failure that a document tells: its own, or that of the first step that left something out."""
    if document.get("error") is not None:
        return dict(document)
    rows = [row for row in document.get("errors") or () if row["stage"] not in HARMLESS_STAGES]
    return {"hint": None, **rows[0]} if rows else {}


def _unusable(document: Mapping[str, Any], failure: Mapping[str, Any]) -> Iterator[str]:
    for row in (failure, *(document.get("errors") or ())):
        if row.get("error_type") in UNUSABLE and row.get("request_id"):
            yield row["request_id"]
