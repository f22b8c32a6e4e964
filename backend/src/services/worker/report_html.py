"""HTML building blocks of the report page: small lines, numbers, amounts."""

from __future__ import annotations

import math
from typing import Any

from services.page_look import html_text

LEAST_USD = 0.0001
"""Less is not told more exactly."""


def about(parts: list[Any]) -> str:
    """One small line with what is known of `parts`; nothing when nothing is."""
    known = " · ".join(html_text(part) for part in parts if part)
    return f'<p class="about">{known}</p>' if known else ""


def plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def number(value: object) -> float | None:
    """`value` when it is a finite number that is not negative."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and math.isfinite(value) and value >= 0 else None  # type: ignore[arg-type,operator]


def file_size(size: float | None) -> str:
    if size is None:
        return ""
    return f"{max(size, 1000) / 1000:.0f} kB" if size < 999_500 else f"{size / 1_000_000:.1f} MB"


def dollars(value: object) -> str:
    """US dollars with two to four decimals; "not known" when there is no number."""
    known = number(value)
    if known is None:
        return "not known"
    if 0 < known < LEAST_USD:
        return f"under ${LEAST_USD}"
    cents, rest = f"{known:.4f}"[:-2], f"{known:.4f}"[-2:].rstrip("0")
    return f"${cents}{rest}"
