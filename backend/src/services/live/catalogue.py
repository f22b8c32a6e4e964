"""The free half of a live run: fal's catalogue with its OpenAPI documents, and lists of models.

Source: https://fal.ai/docs/api-reference/platform-apis
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from services.fal.call import Call
from services.fal.endpoints import BY_HAND, CHAINS
from services.fal.errors import DeadlineExceeded, FalError
from services.fal.prices import API
from services.fal.settings import Settings
from services.live.asking import Asker, Raw, reason_of
from services.live.inputs import INPUTS, compare, inputs_of
from services.live.recordings import Recordings
from services.live.shapes import Difference

MODEL_LIST = "https://openrouter.ai/api/v1/models"
"""Public, and read without a key: the language models that fal passes questions on to."""


class Checked(NamedTuple):
    """What the catalogue says of one endpoint."""

    endpoint: str
    verdict: str
    """same, differs, gone or unread."""
    differences: list[Difference]
    also: list[str]
    """Inputs beside ours."""
    inputs: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        return {
            "endpoint": self.endpoint,
            "verdict": self.verdict,
            "differences": [one.text for one in self.differences],
            "also": self.also,
        }


def endpoints_of(settings: Settings) -> list[str]:
    """Every endpoint of the tables, and those that were set by hand."""
    rows = (row.path for row in (*(row for chain in CHAINS.values() for row in chain), *BY_HAND))
    own = (path for path in settings.endpoints.values() if "://" not in path)
    return list(dict.fromkeys((*rows, *own)))


def catalogue_url(endpoint: str) -> str:
    return f"{API}/models?endpoint_id={quote(endpoint)}&expand=openapi-3.0"


def check_endpoint(call: Call, asker: Asker, recordings: Recordings, endpoint: str) -> tuple[Checked, Raw | None]:
    """Compare the catalogue's OpenAPI document of one endpoint with our row for it."""
    try:
        raw = asker.ask(call, "GET", catalogue_url(endpoint))
    except DeadlineExceeded:
        raise
    except FalError as error:
        return _unread(endpoint, reason_of(error)), None
    checked = _checked(endpoint, raw)
    recordings.keep_inputs(endpoint, raw, checked.inputs)
    return checked, raw


def _unread(endpoint: str, why: str) -> Checked:
    return Checked(endpoint, "unread", [Difference(why, True)], [], {})


def _checked(endpoint: str, raw: Raw) -> Checked:
    value = raw.value()
    models = value.get("models") if isinstance(value, dict) else None
    if raw.status == 404 or (raw.status == 200 and models == []):
        return Checked(endpoint, "gone", [Difference("the catalogue does not list it", True)], [], {})
    model = models[0] if raw.status == 200 and isinstance(models, list) and isinstance(models[0], dict) else {}
    read = inputs_of(model.get("openapi"))
    if read is None:
        return _unread(endpoint, f"status {raw.status}, and no OpenAPI document with inputs")
    metadata = model.get("metadata")
    state = metadata.get("status", "active") if isinstance(metadata, dict) else "active"
    found = [] if state == "active" else [Difference(f"the catalogue calls it {str(state)[:40]}", True)]
    differing, also = compare(INPUTS[endpoint], read) if endpoint in INPUTS else ([], [])
    found += differing
    return Checked(endpoint, "differs" if found else "same", found, also, read)


def listed_models(call: Call, asker: Asker) -> dict[str, str | None] | None:
    """The language models that OpenRouter offers, and when each ends; None when the list cannot be read."""
    try:
        raw = asker.ask(call, "GET", MODEL_LIST)
    except DeadlineExceeded:
        raise
    except FalError:
        return None
    value = raw.value()
    rows = value.get("data") if raw.status == 200 and isinstance(value, dict) else None
    if not isinstance(rows, list):
        return None
    found: dict[str, str | None] = {}
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            ends = row.get("expiration_date")
            found[row["id"]] = ends if isinstance(ends, str) else None
    return found
