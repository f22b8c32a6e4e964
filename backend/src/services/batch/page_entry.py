"""What the page of a batch shows of one product: part of its line in results.jsonl, as plain text and checked links.

Everything here comes from models, marketplaces' rules and file names. It is cut to what a person reads, and the page
sets it as text only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, TypedDict
from urllib.parse import quote

from services.batch.keys import folder_of
from services.fal.categories import UNKNOWN
from services.page_look import legible
from services.shop.languages import language_code

MAX_TEXT = 4000
"""Characters of one text; results.jsonl has all."""
BAD = ("fail", "warn")
"""The verdicts that are told; what passed, or cannot be checked, is not."""

State = Literal["done", "incomplete", "failed", "ambiguous"]


class Remark(TypedDict):
    """What a check says of a picture or a text."""

    verdict: str
    text: str


class Picture(TypedDict):
    """A picture in a file."""

    src: str
    """Relative to the page."""
    name: str
    width: int
    """In pixels; 0 when it is not known."""
    height: int
    remarks: list[Remark]


class Text(TypedDict):
    """A text for the shop."""

    name: str
    lang: str
    """ISO 639-1; empty when it is not known."""
    title: str
    points: list[str]
    body: str
    remarks: list[Remark]


class Problem(TypedDict):
    """Something that the product lacks, and why."""

    what: str
    error: str
    hint: str


class Entry(TypedDict):
    """One product on the page."""

    key: str
    line: int
    """Of the manifest."""
    state: State
    """As in results.jsonl; `incomplete` for a product that is done, but lacks something or breaks a rule."""
    kind: str
    pictures: list[Picture]
    texts: list[Text]
    problems: list[Problem]
    seconds: float | None
    attempts: int
    cost_usd: float | None
    report: str | None
    """The link to the product's own page."""


def entry_of(row: Mapping[str, Any]) -> Entry:
    """For one line of results.jsonl. A picture that is not in the product's own folder is not shown."""
    folder = folder_of(str(row.get("key")))
    result = _mapping(row.get("result"))
    pictures, texts, problems = [*_pictures(result, folder)], [*_texts(result)], [*_problems(row, result)]
    remarks = [remark for part in (*pictures, *texts) for remark in part["remarks"]]
    has_failed = any(remark["verdict"] == "fail" for remark in remarks)
    state = str(row.get("status"))
    return {
        "key": _text(row.get("key")),
        "line": int(_number(row.get("line")) or 0),
        "state": "incomplete" if state == "done" and (problems or has_failed) else _state(state),
        "kind": " · ".join(_kinds(_mapping(result.get("categories")))),
        "pictures": pictures,
        "texts": texts,
        "problems": problems,
        "seconds": _number(row.get("seconds")),
        "attempts": int(_number(row.get("attempts")) or 0),
        "cost_usd": _number(row.get("cost_usd")),
        "report": _link(result.get("report_path"), folder),
    }


def _state(name: str) -> State:
    if name not in ("done", "failed", "ambiguous"):
        raise ValueError(f"{name!r} is no state of a product that has ended.")
    return name  # type: ignore[return-value]


def _kinds(categories: Mapping[str, Any]) -> Iterator[str]:
    for name in ("main_product_type", "subcategory"):
        if categories.get(name) not in (None, "", UNKNOWN):
            yield _text(categories[name])


def _pictures(result: Mapping[str, Any], folder: str) -> Iterator[Picture]:
    seen: set[str] = set()
    for name, picture in _saved(result):
        src = _link(picture.get("path"), folder)
        if src is not None and src not in seen:
            seen.add(src)
            size = [int(_number(picture.get(side)) or 0) for side in ("width", "height")]
            yield {"src": src, "name": name, "width": size[0], "height": size[1], "remarks": _remarks(picture)}


def _saved(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The pictures of any command's document, named."""
    if result.get("original_path"):
        yield "Original", {"path": result["original_path"]}
    for key, name in (("cutout", "Cut-out"), ("image", "Picture")):
        yield name, _mapping(result.get(key))
    for key in ("images", "packshots"):
        for picture in _list(result.get(key)):
            yield _text(picture.get("style_name") or picture.get("place") or "Picture"), picture


def _remarks(checked: Mapping[str, Any]) -> list[Remark]:
    """What is wrong with a picture or a text, in the words of its checks, each once."""
    found: dict[str, str] = {}
    for check in [*_list(checked.get("checks")), _mapping(checked.get("check"))]:
        for rule in _list(check.get("rules")):
            if rule.get("verdict") in BAD:
                # A packshot is named after its place.
                place = "" if check.get("place") == checked.get("place") else f"{check.get('place')}: "
                found[_text(f"{place}{rule.get('reason')}")] = str(rule["verdict"])
    fidelity = _mapping(checked.get("fidelity"))
    if fidelity.get("verdict") in BAD:
        found[_text(f"fidelity: {fidelity.get('reason')}")] = str(fidelity["verdict"])
    return [{"verdict": verdict, "text": text} for text, verdict in found.items()]


def _texts(result: Mapping[str, Any]) -> Iterator[Text]:
    for key, name in (("description", "Description"), ("output", "Text")):
        if result.get(key):
            yield {"name": name, "lang": "", "title": "", "points": [], "body": _text(result[key]), "remarks": []}
    listings = [*_list(result.get("listings")), *_list(_mapping(result.get("listing")).get("listings"))]
    for listing in listings:
        yield {
            "name": _text(f"Listing, {listing.get('language')}"),
            "lang": language_code(listing.get("language")),
            "title": _text(listing.get("title") or ""),
            "points": [_text(point) for point in _sequence(listing.get("bullets"))],
            "body": _text(listing.get("description") or ""),
            "remarks": _remarks(listing),
        }


def _problems(row: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[Problem]:
    errors = _list(result.get("errors"))
    # A product fails with the error of its first step that did.
    if row.get("error") and row["error"] not in [error.get("error") for error in errors]:
        yield {"what": "", "error": _text(row["error"]), "hint": _text(row.get("hint") or "")}
    for error in errors:
        what = " ".join(str(error[key]) for key in ("stage", "style") if error.get(key))
        what = what[:1].upper() + what[1:]
        yield {"what": _text(what), "error": _text(error.get("error")), "hint": _text(error.get("hint") or "")}


def _link(path: object, folder: str) -> str | None:
    """The URL, relative to the page, of a file in the product's folder; None for others, which no page should open.

    By the two last parts of its path: the rest depends on where the batch was started from.
    """
    parts = PurePath(path).parts if isinstance(path, str) else ()
    if len(parts) < 2 or parts[-2] != folder or parts[-1] == os.pardir or "\0" in parts[-1]:
        return None
    return quote(f"{folder}/{parts[-1]}", errors="replace")


def _text(value: object) -> str:
    text = legible(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _number(value: object) -> float | None:
    """A number that is not negative; JSON has no others but those that Python adds to it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < float("inf") else None  # type: ignore[operator,return-value]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _list(value: object) -> list[Mapping[str, Any]]:
    return [item for item in _sequence(value) if isinstance(item, Mapping)]
