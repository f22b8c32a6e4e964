"""The fields of fal's answers, each passed on when it is of the kind that fal's documents promise, else as unknown.

So what a caller gets is always of the shapes in `results.py`. Which answer is an error, `answers.py` says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from services.fal.results import Usage


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and abs(value) < math.inf else None  # type: ignore[arg-type,return-value]


def as_whole(value: object) -> int | None:
    number = as_number(value)
    return int(number) if number is not None and number == int(number) else None


_USAGE = {"prompt_tokens": as_whole, "completion_tokens": as_whole, "total_tokens": as_whole, "cost": as_number}


def usage_of(output: Mapping[str, Any]) -> Usage | None:
    """The tokens and the cost that a model's answer tells."""
    usage = output.get("usage")
    if not isinstance(usage, dict):
        return None
    told = {name: value for name, value in usage.items() if name not in _USAGE or _USAGE[name](value) is not None}
    return cast("Usage", told)


def from_sandbox(output: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of an answer that came from the sandbox, not from fal: nothing of one that did not."""
    if output.get("sandbox") is not True:
        return {}
    remarks = output.get("sandbox_remarks")
    known = [remark for remark in remarks if isinstance(remark, str)] if isinstance(remarks, list) else []
    return {"sandbox": True, **({"sandbox_remarks": known} if known else {})}


def job_state(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a job whose status was asked for."""
    logs, metrics, error = status.get("logs"), status.get("metrics"), status.get("error")
    return {
        "status": status["status"],
        "queue_position": as_whole(status.get("queue_position")),
        "logs": [line for line in logs if isinstance(line, dict)] if isinstance(logs, list) else None,
        "metrics": metrics if isinstance(metrics, dict) else None,
        "error": (as_text(error) or json.dumps(error)) if error else None,
        "error_type": as_text(status.get("error_type")),
    }
