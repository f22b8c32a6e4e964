"""One attempt at one product: it runs within its own call, and its outcome becomes a line of results.jsonl.

What is in doubt makes a product "ambiguous", what failed "failed"; siblings go on in both cases. A product whose jobs
were held back, since the run ends, is not over: it has no line, and waits for the next run.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from services.batch.journal import Product, ProductState
from services.batch.product_journal import ProductJournal
from services.batch.recipe import Recipe
from services.fal.call import Call
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BalanceExhausted,
    BudgetExceeded,
    FalError,
    FalUnavailable,
    RateLimited,
    Unreachable,
    as_fal_error,
    summary,
)
from services.fal_service import FalClient

UNUSABLE = ("bad_output", "not_found")
"""Errors of a result that is there and of no use: a retry of the product makes it anew."""
CONCERN_ALL = {
    kind.error_type: kind
    for kind in (AuthError, BalanceExhausted, BudgetExceeded, FalUnavailable, RateLimited, Unreachable)
}
"""Errors that the next product would meet too."""
HARMLESS_STAGES = ("prompt", "original")
"""A prompt that failed is replaced by a plain one, and the picture is made. The original is where the user has it."""


class Outcome(NamedTuple):
    """What came of an attempt."""

    state: ProductState
    line: dict[str, Any]
    unusable: list[str]
    """The request ids of jobs whose results cannot be used."""
    error: FalError | None
    """What kept it from being done."""

    def as_bytes(self) -> bytes:
        return json.dumps(self.line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def attempt(
    client: FalClient, call: Call, journal: ProductJournal, recipe: Recipe, product: Product, folder: Path
) -> Outcome | None:
    """Make a product. None: it is not over, and waits for the next run."""
    began = time.monotonic()
    document: Mapping[str, Any] | None = None
    failure: dict[str, Any] = {}
    try:
        with call:
            document = recipe.make(client.within(call), {**recipe.options, **product.input}, folder)
    except Exception as error:
        raised = as_fal_error(error)
        document, failure = raised.partial or None, summary(raised)
    found = dict(document or {})
    found.pop("trace", None)
    failure = failure or _failure_in(found)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        folder.rmdir()
    # A job that was held back may be one that the product was made without, such as a prompt.
    if journal.held or (failure and call.cancelled):
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
    return Outcome(state, line, list(_unusable(found, failure)), _error_in(failure))


def _failure_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """The failure that a document tells: its own, or that of the first step that left something out."""
    if document.get("error") is not None:
        return dict(document)
    for row in document.get("errors") or ():
        if row["stage"] not in HARMLESS_STAGES or row["error_type"] == AmbiguousSubmit.error_type:
            return {"hint": None, **row}
    return {}


def _error_in(failure: Mapping[str, Any]) -> FalError | None:
    """A failure as the error that it was, for those kinds that concern the whole run."""
    kind = CONCERN_ALL.get(failure.get("error_type", ""))
    return None if kind is None else kind(str(failure["error"]))


def _unusable(document: Mapping[str, Any], failure: Mapping[str, Any]) -> Iterator[str]:
    for row in (failure, *(document.get("errors") or ())):
        if row.get("error_type") in UNUSABLE and row.get("request_id"):
            yield row["request_id"]
