"""What each step of a product took and cost, as tables of the report page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.page_look import html_text
from services.worker.report_html import dollars, number

STAGES = {
    "upload": "Upload",
    "analysis": "Analysis",
    "cutout": "Cut-out",
    "prompt": "Prompt",
    "picture": "Picture",
    "description": "Description",
    "original": "Original photo",
    "download": "Download",
    "fidelity": "Comparison with the product",
    "check": "Checks",
    "packshot": "Packshots",
    "listing": "Texts for the shop",
    "text": "Text",
}
"""What the steps are called on the page, in the order in which they are shown."""


def timings(timings: Mapping[str, Any], styles: list[object]) -> str:
    known = {key: seconds for key, value in timings.items() if (seconds := number(value)) is not None}
    total = known.pop("total", None)
    longest = max([*known.values(), total or 0.0], default=0.0)
    if not known or longest <= 0:
        return '<p class="note">No times are known.</p>'
    rows = [_bar(step_name(*_split(key)), known[key] / longest, known[key]) for key in _in_order(known, styles)]
    foot = "" if total is None else f"<tfoot>{_bar('Total', total / longest, total)}</tfoot>"
    note = "Steps run side by side where they can."
    if total is not None and total < (together := sum(known.values())):
        note = f"Steps run side by side, so the total is less than their sum of {together:.2f} s."
    return f"<table><caption>{note}</caption><tbody>{''.join(rows)}</tbody>{foot}</table>"


def cost(document: Mapping[str, Any]) -> str:
    """What was spent, job by job; nothing when the document does not speak of it."""
    if "cost_usd" not in document:
        return ""
    rows = [row for row in document.get("costs") or () if isinstance(row, Mapping)]
    body = f"<tbody>{''.join(map(_spent, rows))}</tbody>" if rows else ""
    total = f'<tr><th scope="row">Total</th><td>{dollars(document["cost_usd"])}</td></tr>'
    return (
        '<section class="cost"><h2>Cost</h2><table class="amounts"><caption>US dollars, as far as prices are known.'
        f"</caption>{body}<tfoot>{total}</tfoot></table></section>"
    )


def _spent(row: Mapping[str, Any]) -> str:
    endpoint = f"<small>{html_text(row['endpoint'])}</small>" if row.get("endpoint") else ""
    label = step_name(str(row.get("step") or ""), row.get("style"))
    return f'<tr><th scope="row">{label}{endpoint}</th><td>{dollars(row.get("cost_usd"))}</td></tr>'


def _in_order(timings: Mapping[str, float], styles: list[object]) -> list[str]:
    """The steps by stage, then by style; they are known in the order in which they ended."""
    stages = list(STAGES)

    def rank(key: str) -> tuple[int, int]:
        stage, style = _split(key)
        known = style in styles
        return stages.index(stage) if stage in stages else len(stages), styles.index(style) if known else len(styles)

    return sorted(timings, key=rank)


def _split(key: str) -> tuple[str, str]:
    stage, _, style = key.partition(":")
    return stage, style


def step_name(stage: str, style: object) -> str:
    named = f' <span dir="auto">{html_text(style)}</span>' if style else ""
    return html_text(STAGES.get(stage, stage)) + named


def _bar(label: str, share: float, seconds: float) -> str:
    return f'<tr><th scope="row">{label}</th><td style="--share:{share:.4f}">{seconds:.2f} s</td></tr>'
