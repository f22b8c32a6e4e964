"""The page of `workflow --save_dir out --report`: one HTML file with the original, the pictures and the texts.

It is self-contained: pictures are embedded, nothing is loaded, no script runs, and a policy in its head holds it to
that. Every text is escaped, and only checked URLs become links. See `saved_files.py` for the pictures and the page as
files.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.fal.arguments import image_url
from services.fal.categories import UNKNOWN
from services.fal.errors import InvalidInput
from services.fal.image_files import local_image
from services.page_look import SANDBOX, html_text
from services.worker.report_page import PAGE, STYLE

STAGES = {
    "upload": "Upload",
    "analysis": "Analysis",
    "cutout": "Cut-out",
    "prompt": "Prompt",
    "picture": "Picture",
    "description": "Description",
    "download": "Download",
}
"""What the steps are called on the page, in the order in which they are shown."""
LABELS = {
    "main_product_type": "Product type",
    "style_design": "Style and design",
    "season_occasion": "Season and occasion",
    "industrial_type": "Industry",
}
"""Categories whose label is not just their key."""
LANGUAGES: Mapping[str, str] = dict(
    re.findall(
        r"(\w+):(\w+)",
        "arabic:ar azerbaijani:az bulgarian:bg chinese:zh czech:cs danish:da dutch:nl english:en finnish:fi french:fr "
        "german:de greek:el hebrew:he hindi:hi hungarian:hu indonesian:id italian:it japanese:ja korean:ko "
        "kurdish:ku norwegian:no persian:fa polish:pl portuguese:pt romanian:ro russian:ru spanish:es swedish:sv "
        "turkish:tr türkçe:tr ukrainian:uk urdu:ur vietnamese:vi",
    )
)
"""The codes of common languages, by the names that users give them."""
NOT_SHOWN = ("image/tiff", "image/heic", "image/heif")
"""Picture formats that most browsers do not show."""
BESIDE_ORIGINAL = 3
"""So many pictures stand beside the original; more get the whole width below it."""


def page(document: Mapping[str, Any], original: Path | None) -> str:
    """The page for one workflow result.

    `document` is a WorkflowResult whose images carry `path` where they were saved, and that may name the `language`
    of its description. A picture that was not saved is linked by its URL. `original`: the saved photo, or None when
    it could not be saved; then the document's `image_url` is linked.
    """
    product, kind = _names(document.get("categories") or {})
    images, errors = list(document.get("images") or []), list(document.get("errors") or [])
    styles = [*(image.get("style_name") for image in images), *(error.get("style") for error in errors)]
    return PAGE.substitute(
        style=STYLE,
        title=html_text(f"{product} ({kind})" if kind else product),
        band=_band(document),
        header=_header(document, product, kind),
        layout="sheet" if len(images) <= BESIDE_ORIGINAL else "sheet many",
        original=_original(document, original, product),
        results=_results(images, product),
        description=_description(document),
        categories=_categories(document.get("categories") or {}),
        errors=_errors(errors),
        timings=_timings(document.get("timings") or {}, styles),
        footer=_footer(images),
    )


def _band(document: Mapping[str, Any]) -> str:
    """Says aloud that the sandbox answered, and what it says about its pictures."""
    if document.get("sandbox") is not True:
        return ""
    remarks = "".join(f"<p>{html_text(remark)}</p>" for remark in document.get("sandbox_remarks") or ())
    return f'<aside class="band" aria-label="Sandbox"><p>{SANDBOX}</p>{remarks}</aside>\n'


def _names(categories: Mapping[str, Any]) -> tuple[str, str]:
    """What the product is called, and what kind of thing it is; the second may be empty."""
    given = [str(categories.get(key) or UNKNOWN) for key in ("subcategory", "main_product_type")]
    known = list(dict.fromkeys(name for name in given if name != UNKNOWN))
    return (known[0] if known else "Product"), (known[1] if len(known) > 1 else "")


def _header(document: Mapping[str, Any], product: str, kind: str) -> str:
    made, asked = document.get("total_generated") or 0, document.get("total_requested") or 0
    pictures = f"{made} {_plural(made, 'picture')}" if made == asked else f"{made} of {asked} pictures"
    total = _number((document.get("timings") or {}).get("total"))
    took = "" if total is None else f" in {total:.1f} s"
    errors = len(document.get("errors") or [])
    problems = f' · <a href="#problems">{errors} {_plural(errors, "problem")}</a>' if errors else ""
    eyebrow = f'<p dir="auto">{html_text(kind)}</p>' if kind else ""
    names = f'<hgroup>{eyebrow}<h1 dir="auto">{html_text(product)}</h1></hgroup>'
    return f"{names}<p>{html_text(pictures + took)}{problems}</p>"


def _original(document: Mapping[str, Any], original: Path | None, product: str) -> str:
    about = "" if original is None else _about([original.name, _file_size(_size_of(original))])
    picture = _picture(original, document.get("image_url"), f"Original photo: {product}")
    return picture + about


def _results(images: list[Mapping[str, Any]], product: str) -> str:
    if not images:
        return '<p class="missing">No picture was made.</p>'
    return f'<ul class="cards">{"".join(_card(image, product) for image in images)}</ul>'


def _card(image: Mapping[str, Any], product: str) -> str:
    name, path = str(image.get("style_name") or "Picture"), image.get("path")
    file = None if path is None else Path(path)
    width, height = _number(image.get("width")), _number(image.get("height"))
    size = _number(image.get("file_size")) if file is None else _size_of(file)
    about = _about([f"{width:.0f} × {height:.0f} px" if width and height else "", _file_size(size)])
    picture = _picture(file, image.get("image_url"), f"{product}, {name}: {image.get('style_description') or ''}")
    prompt = image.get("prompt")
    more = f'<details><summary>Prompt</summary><p dir="auto">{html_text(prompt)}</p></details>' if prompt else ""
    return f'<li><h3 dir="auto">{html_text(name)}</h3>{about}{picture}{more}</li>'


def _picture(file: Path | None, url: object, alt: str) -> str:
    """The picture in `file`, or in `url` when that holds it; else a link to `url`."""
    source = _embedded(file)
    checked = _checked(url)
    if source is None and checked is not None and checked.startswith("data:"):
        source = checked
    if source is not None:
        return f'<img src="{html_text(source)}" alt="{html_text(alt)}">'
    what = "This picture was not saved." if file is None else f"{file.name} cannot be shown here."
    return f'<p class="missing">{html_text(what)} {_link(checked)}</p>'


def _embedded(file: Path | None) -> str | None:
    """A picture file as a data URI; None when it cannot be read or browsers do not show it."""
    if file is None:
        return None
    try:
        image = local_image(file)
    except InvalidInput:
        return None
    if image.content_type in NOT_SHOWN:
        return None
    return f"data:{image.content_type};base64,{base64.b64encode(image.data).decode('ascii')}"


def _checked(url: object) -> str | None:
    """`url` when it is an http(s) URL or a data URI of an image."""
    try:
        return image_url(url)
    except InvalidInput:
        return None


def _link(url: str | None) -> str:
    if url is None:
        return ""
    host = urlsplit(url).hostname
    return f'<a href="{html_text(url)}" rel="noreferrer">Open it at {html_text(host)}</a>'


def _description(document: Mapping[str, Any]) -> str:
    text, language = document.get("description"), str(document.get("language") or "")
    if not text:
        return '<p class="note">No description was written.</p>'
    # An unknown language is told by an empty lang: without it the text would count as English.
    name = language.strip().casefold()
    code = LANGUAGES.get(name, name if name in LANGUAGES.values() else "")
    return f'<blockquote lang="{code}" dir="auto"><p>{html_text(text)}</p></blockquote>{_about([language])}'


def _categories(categories: Mapping[str, Any]) -> str:
    if not categories:
        return '<p class="note">No categories were found.</p>'
    return f"<dl>{''.join(_category(str(key), value) for key, value in categories.items())}</dl>"


def _category(key: str, value: object) -> str:
    label = LABELS.get(key) or key.replace("_", " ").capitalize()
    unknown = ' class="note"' if value == UNKNOWN else ""
    return f'<div><dt>{html_text(label)}</dt><dd{unknown} dir="auto">{html_text(value)}</dd></div>'


def _errors(errors: list[Mapping[str, Any]]) -> str:
    if not errors:
        return ""
    items = "".join(_error(error) for error in errors)
    return f'<section class="problems" id="problems"><h2>Problems</h2><ul>{items}</ul></section>'


def _error(error: Mapping[str, Any]) -> str:
    stage = str(error.get("stage") or "")
    message, request_id = str(error.get("error")), error.get("request_id")
    about = [
        error.get("error_type"),
        "may work when tried again" if error.get("retryable") else "",
        f"request id {request_id}" if request_id and str(request_id) not in message else "",
    ]
    told = f'<p dir="auto">{html_text(message)}</p>{_about(about)}'
    return f"<li><h3>{_step(stage, error.get('style'))}</h3>{told}</li>"


def _timings(timings: Mapping[str, Any], styles: list[object]) -> str:
    known = {key: seconds for key, value in timings.items() if (seconds := _number(value)) is not None}
    total = known.pop("total", None)
    longest = max([*known.values(), total or 0.0], default=0.0)
    if not known or longest <= 0:
        return '<p class="note">No times are known.</p>'
    rows = [_bar(_step(*_split(key)), known[key] / longest, known[key]) for key in _in_order(known, styles)]
    foot = "" if total is None else f"<tfoot>{_bar('Total', total / longest, total)}</tfoot>"
    note = "Steps run side by side where they can."
    if total is not None and total < (together := sum(known.values())):
        note = f"Steps run side by side, so the total is less than their sum of {together:.2f} s."
    return f"<table><caption>{note}</caption><tbody>{''.join(rows)}</tbody>{foot}</table>"


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


def _step(stage: str, style: object) -> str:
    named = f' <span dir="auto">{html_text(style)}</span>' if style else ""
    return html_text(STAGES.get(stage, stage)) + named


def _bar(label: str, share: float, seconds: float) -> str:
    return f'<tr><th scope="row">{label}</th><td style="--share:{share:.4f}">{seconds:.2f} s</td></tr>'


def _footer(images: list[Mapping[str, Any]]) -> str:
    known = [(image.get("style_name"), image["request_id"]) for image in images if image.get("request_id")]
    rows = [(html_text(name), html_text(request)) for name, request in known]
    ids = "".join(f'<div><dt dir="auto">{name}</dt><dd>{request}</dd></div>' for name, request in rows)
    return f"<h2>fal’s request ids</h2><dl>{ids}</dl>" if ids else ""


def _size_of(file: Path) -> float | None:
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return None


def _file_size(size: float | None) -> str:
    if size is None:
        return ""
    return f"{max(size, 1000) / 1000:.0f} kB" if size < 999_500 else f"{size / 1_000_000:.1f} MB"


def _about(parts: list[Any]) -> str:
    """One small line with what is known of `parts`; nothing when nothing is."""
    known = " · ".join(html_text(part) for part in parts if part)
    return f'<p class="about">{known}</p>' if known else ""


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


def _number(value: object) -> float | None:
    """`value` when it is a finite number that is not negative."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value >= 0 else None  # type: ignore[arg-type,operator]
