"""Verdicts on the report page: pictures and texts checked against rules, and the product compared with its photo."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from services.page_look import html_text
from services.worker.report_html import about, number, plural

VERDICTS = {
    "pass": ("✓", "Passes"),
    "warn": ("!", "Passes with a warning"),
    "fail": ("✕", "Fails"),
    "not_checked": ("–", "Not checked"),
}
"""The mark and the words of each verdict."""
SHOWN = ("fail", "warn")
"""What is seen without being asked for."""
RULES = {"rgb": "RGB", "dpi": "DPI", "real_item": "True to the item", "rights": "Rights"}
"""Rules whose label is not just their key."""
ORIGINS = {
    "trainedAlgorithmicMedia": "made by a model",
    "compositeWithTrainedAlgorithmicMedia": "composite with a part made by a model",
    "compositeSynthetic": "composite with a synthetic part",
    "algorithmicMedia": "made by an algorithm",
}
"""IPTC's words for where a picture comes from, in plain ones."""
_ADDRESS = re.compile(r"https?://([^/\s]+)\S*")
LOCKED = "The product's original pixels were put back."


def checks_of(results: Sequence[Mapping[str, Any]]) -> str:
    """One block per place: its verdict, the rules that are broken, and all others on request."""
    return "".join(_check(result) for result in results)


def fidelity_of(image: Mapping[str, Any]) -> str:
    """Whether the product in a picture is the product of the photo."""
    found = image.get("fidelity")
    known: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    verdict = known.get("verdict") or image.get("verdict")
    if verdict is None:
        return ""
    score = number(known.get("score"))
    said = LOCKED if image.get("locked") else str(known.get("reason") or "")
    told = f'<p dir="auto">{html_text(said)}</p>' if said else ""
    line = about(["" if score is None else f"score {score:.2f} of 1", _attempts(image)])
    return f'<div class="check">{_headline(verdict, "True to the product")}{told}{line}</div>'


def origin_of(image: Mapping[str, Any]) -> str:
    """What the file says of how it was made."""
    word = image.get("digital_source_type")
    return f"The file says: {ORIGINS.get(str(word), str(word))}" if word else ""


def _attempts(image: Mapping[str, Any]) -> str:
    count = number(image.get("attempts")) or 1
    return f"{count:.0f} pictures were paid for" if count > 1 else ""


def _check(result: Mapping[str, Any]) -> str:
    rules = [rule for rule in result.get("rules") or () if isinstance(rule, Mapping)]
    seen = [rule for rule in rules if rule.get("verdict") in SHOWN]
    others = [rule for rule in rules if rule.get("verdict") not in SHOWN]
    told = f'<ul class="rules">{"".join(map(_rule, seen))}</ul>' if seen else ""
    headline = _headline(result.get("verdict"), result.get("place"))
    return f'<div class="check">{headline}{told}{_others(others, len(seen), result.get("date"))}</div>'


def _headline(verdict: object, subject: object) -> str:
    mark, words = VERDICTS.get(str(verdict), ("?", str(verdict)))
    kind = str(verdict) if verdict in VERDICTS else "not_checked"
    return (
        f'<p class="verdict {kind}"><span class="mark" aria-hidden="true">{mark}</span> '
        f'<span dir="auto">{html_text(subject)}</span> <strong>{html_text(words)}</strong></p>'
    )


def _others(rules: Sequence[Mapping[str, Any]], seen: int, day: object) -> str:
    if not rules:
        return ""
    what = f"{len(rules)} {'other ' if seen else ''}{plural(len(rules), 'rule')}{f' of {day}' if day else ''}"
    return f'<details><summary>{html_text(what)}</summary><ul class="rules">{"".join(map(_rule, rules))}</ul></details>'


def _rule(rule: Mapping[str, Any]) -> str:
    verdict = str(rule.get("verdict"))
    mark, words = VERDICTS.get(verdict, ("?", verdict))
    kind = verdict if verdict in VERDICTS else "not_checked"
    reason = html_text(rule.get("reason") or "")
    label = " ".join(filter(None, [_words(rule.get("field")), _words(rule.get("rule"))]))
    return (
        f'<li class="{kind}"><span class="mark" role="img" aria-label="{html_text(words)}">{html_text(mark)}</span>'
        f'<div><p><strong>{html_text(label)}:</strong> <span dir="auto">{reason}</span></p>'
        f"{about(_facts(rule))}</div></li>"
    )


def _facts(rule: Mapping[str, Any]) -> list[str]:
    measured, limit = _value(rule.get("measured")), limits(rule.get("limit"))
    unit = f" {_words(rule['unit']).lower()}" if rule.get("unit") and measured else ""
    return [
        f"measured {measured}{unit}" if measured else "",
        f"asked {limit}" if limit else "",
        # The whole address is in the document: here it would be longer than all else.
        _ADDRESS.sub(r"\1", str(rule.get("source") or "")),
    ]


def limits(limit: object) -> str:
    """What a place asks, in words: "at least 500", "0.75 to 1.33", "JPEG or PNG"; empty for a plain yes."""
    if isinstance(limit, Sequence) and not isinstance(limit, str):
        if len(limit) == 2 and not any(isinstance(end, str) for end in limit):
            return _range(*limit)
        return " or ".join(_value(one) for one in limit)
    return _value(limit)


def _range(least: object, most: object) -> str:
    if least == most:
        return "" if least is None else f"exactly {_value(least)}"
    if most is None:
        return f"at least {_value(least)}"
    return f"at most {_value(most)}" if least is None else f"{_value(least)} to {_value(most)}"


def _value(value: object) -> str:
    """A measured value as it is read; empty for what says nothing by itself."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(filter(None, (_value(one) for one in value)))
    if isinstance(value, float):
        return f"{round(value, 4):,}".removesuffix(".0")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(key: object) -> str:
    if not key:
        return ""
    return RULES.get(str(key)) or str(key).replace("_", " ").capitalize()
