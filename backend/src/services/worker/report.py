"""The page of `workflow --save_dir out --report`: one HTML file with the original, the pictures and the texts.

It is self-contained: pictures are embedded, nothing is loaded, no script runs, and a policy in its head holds it to
that. Every text is escaped, and only checked URLs become links. See `saved_files.py` for the pictures and the page as
files.
"""

from __future__ import annotations

import base64
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
from services.worker import report_steps as steps
from services.worker.report_checks import checks_of, fidelity_of, origin_of
from services.worker.report_html import about, dollars, file_size, number, plural
from services.worker.report_listing import listings_of
from services.worker.report_page import PAGE, STYLE

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
        layout="sheet" if len(images) <= BESIDE_ORIGINAL and not _is_for_places(document) else "sheet many",
        original=_original(document, original, product),
        results=_results(images, product),
        packshots=_packshots(document, product),
        cutout=_cutout(document, product),
        description=_description(document),
        listing=_listing(document),
        categories=_categories(document.get("categories") or {}),
        cost=steps.cost(document),
        errors=_errors(errors),
        timings=steps.timings(document.get("timings") or {}, styles),
        footer=_footer(images),
    )


def _is_for_places(document: Mapping[str, Any]) -> bool:
    return bool(document.get("packshots") or document.get("listing"))


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
    pictures = f"{made} {plural(made, 'picture')}" if made == asked else f"{made} of {asked} pictures"
    total = number((document.get("timings") or {}).get("total"))
    took = "" if total is None else f" in {total:.1f} s"
    errors = len(document.get("errors") or [])
    problems = f' · <a href="#problems">{errors} {plural(errors, "problem")}</a>' if errors else ""
    eyebrow = f'<p dir="auto">{html_text(kind)}</p>' if kind else ""
    cost = number(document.get("cost_usd"))
    spent = "" if "cost_usd" not in document else " · cost not known" if cost is None else f" · {dollars(cost)}"
    said = html_text(pictures + took + spent)
    return f'<hgroup>{eyebrow}<h1 dir="auto">{html_text(product)}</h1></hgroup><p>{said}{problems}</p>'


def _original(document: Mapping[str, Any], original: Path | None, product: str) -> str:
    told = "" if original is None else about([original.name, file_size(_size_of(original))])
    return _picture(original, document.get("image_url"), f"Original photo: {product}") + told


def _cutout(document: Mapping[str, Any], product: str) -> str:
    cutout = document.get("cutout")
    if not isinstance(cutout, Mapping):
        return ""
    file = _file_of(cutout)
    told = about([file.name if file else "", *_measures(cutout, file)])
    picture = _picture(file, cutout.get("url"), f"The product cut out: {product}")
    return f'<section class="cutout"><h2>Cut-out</h2>{picture}{told}</section>'


def _results(images: list[Mapping[str, Any]], product: str) -> str:
    if not images:
        return '<p class="missing">No picture was made.</p>'
    return f'<ul class="cards">{"".join(_card(image, product) for image in images)}</ul>'


def _card(image: Mapping[str, Any], product: str) -> str:
    name, file = str(image.get("style_name") or "Picture"), _file_of(image)
    picture = _picture(file, image.get("image_url"), f"{product}, {name}: {image.get('style_description') or ''}")
    told = about([*_measures(image, file), origin_of(image)])
    verdicts = fidelity_of(image) + checks_of(image.get("checks") or [])
    prompt = image.get("prompt")
    more = f'<details><summary>Prompt</summary><p dir="auto">{html_text(prompt)}</p></details>' if prompt else ""
    return f'<li><h3 dir="auto">{html_text(name)}</h3>{told}{picture}{verdicts}{more}</li>'


def _packshots(document: Mapping[str, Any], product: str) -> str:
    if "packshots" not in document:
        return ""
    packshots = document["packshots"] or []
    cards = "".join(_packshot(image, product) for image in packshots)
    shown = f'<ul class="cards">{cards}</ul>' if packshots else '<p class="note">No packshot was made.</p>'
    return f'<section class="packshots"><h2>Packshots</h2>{shown}</section>'


def _packshot(image: Mapping[str, Any], product: str) -> str:
    place, file, fill = image.get("place"), _file_of(image), number(image.get("fill"))
    known = [file.name if file else "", *_measures(image, file), f"fill {fill:.0%}" if fill else ""]
    told = about([*known, "enlarged" if image.get("enlarged") else "", origin_of(image)])
    picture = _picture(file, None, f"{product}, packshot for {place}" if place else f"{product}, packshot")
    verdicts = checks_of(image.get("checks") or [])
    return f'<li><h3 dir="auto">{html_text(place or "Packshot")}</h3>{told}{picture}{verdicts}</li>'


def _file_of(picture: Mapping[str, Any]) -> Path | None:
    path = picture.get("path")
    return None if path is None else Path(path)


def _measures(picture: Mapping[str, Any], file: Path | None) -> list[str]:
    """Pixels and size of a picture."""
    width, height = number(picture.get("width")), number(picture.get("height"))
    size = number(picture.get("file_size")) if file is None else _size_of(file)
    return [f"{width:.0f} × {height:.0f} px" if width and height else "", file_size(size)]


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
    words, language = document.get("description"), str(document.get("language") or "")
    if not words:
        return '<p class="note">No description was written.</p>'
    # An unknown language is told by an empty lang: without it the text would count as English.
    name = language.strip().casefold()
    code = LANGUAGES.get(name, name if name in LANGUAGES.values() else "")
    return f'<blockquote lang="{code}" dir="auto"><p>{html_text(words)}</p></blockquote>{about([language])}'


def _listing(document: Mapping[str, Any]) -> str:
    made = document.get("listing")
    if not isinstance(made, Mapping):
        return ""
    texts = listings_of(made.get("listings") or [], LANGUAGES)
    return f'<section class="listings"><h2>Texts for the shop</h2>{texts}</section>'


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
    known = [
        error.get("error_type"),
        "may work when tried again" if error.get("retryable") else "",
        f"request id {request_id}" if request_id and str(request_id) not in message else "",
    ]
    told = f'<p dir="auto">{html_text(message)}</p>{about(known)}'
    return f"<li><h3>{steps.step_name(stage, error.get('style'))}</h3>{told}</li>"


def _footer(images: list[Mapping[str, Any]]) -> str:
    known = [(image.get("style_name"), image["request_id"]) for image in images if image.get("request_id")]
    ids = "".join(
        f'<div><dt dir="auto">{html_text(name)}</dt><dd>{html_text(request)}</dd></div>' for name, request in known
    )
    return f"<h2>fal’s request ids</h2><dl>{ids}</dl>" if ids else ""


def _size_of(file: Path) -> float | None:
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return None
