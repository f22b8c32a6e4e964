"""Measures a product picture and checks it against a place's rules: pass, fail, warn or not_checked, with the number.

    check_image("mug.jpg", "amazon")

A rule without an official source never fails a picture, and what pixels cannot tell is `not_checked`, never a pass.
Needs the extra `image` (Pillow, numpy, opencv). The rules are data, in `places.py`.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from PIL import Image

from services.shop.backdrop import Backdrop, measured_backdrop
from services.shop.picture_file import Pixels, opened, profile_name
from services.shop.places import OFFICIAL, READ_ON, Place, Rule, rules_on

Verdict = Literal["pass", "warn", "fail", "not_checked"]
MB = 1_000_000
MIB = 1024 * 1024
EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
    "AVIF": {".avif"},
    "HEIC": {".heic", ".heif"},
}


class RuleResult(TypedDict):
    """One rule, checked on one picture."""

    rule: str
    """The name of the rule."""
    verdict: Verdict
    """fail when a hard rule is broken, warn when an advice is."""
    measured: Any
    """The number or word that was measured; None when nothing was."""
    limit: Any
    """What the place asks."""
    reason: str
    """One sentence."""
    sureness: str
    """O official page, Oq official text quoted elsewhere, T third party, C conflicting, U not found."""
    source: str
    """Where the rule was read."""
    read_on: str
    """The day on which it was read."""


class PictureCheck(TypedDict):
    """One picture against one place."""

    place: str
    """The marketplace."""
    date: str
    """The day whose rules were used."""
    verdict: Verdict
    """fail when a hard rule is broken, warn when an advice is, else pass."""
    rules: list[RuleResult]
    """Every rule of the place, with what was measured."""


class Subject:
    """One picture, measured when it is asked for."""

    def __init__(self, data: bytes, name: str = "") -> None:
        """Raises InvalidInput for what cannot be opened as a picture."""
        self.bytes = len(data)
        self.extension = os.path.splitext(name)[1].lower()
        self.picture = opened(data)

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height

    @property
    def format(self) -> str:
        known = self.picture.format or "unknown"
        return {"MPO": "JPEG", "HEIF": "HEIC"}.get(known, known)

    @cached_property
    def pixels(self) -> Pixels:
        """RGB, 8 bits; what is transparent shows white."""
        picture = self.picture
        if picture.has_transparency_data:
            rgba = picture.convert("RGBA")
            flat = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
            return np.asarray(Image.alpha_composite(flat, rgba).convert("RGB"))
        return np.asarray(picture.convert("RGB"))

    @cached_property
    def has_transparency(self) -> bool:
        if not self.picture.has_transparency_data:
            return False
        return bool(np.asarray(self.picture.convert("RGBA").getchannel("A")).min() < 255)

    @cached_property
    def backdrop(self) -> Backdrop:
        return measured_backdrop(self.pixels, self._ripple_px)

    @property
    def _ripple_px(self) -> int:
        """How far from the product lossy compression changes a white background: measured, see `backdrop.py`."""
        if self.format == "JPEG":
            layers = getattr(self.picture, "layer", None)
            subsampled = not layers or layers[0][1:3] != (1, 1)
            return 16 if subsampled else 8
        return 16 if self.format in ("WEBP", "AVIF", "HEIC") else 0


def checked(subject: Subject, place: Place, day: datetime.date) -> PictureCheck:
    results = [_held_against(subject, rule) for rule in rules_on(place, day)]
    verdicts = {result["verdict"] for result in results}
    worst: Verdict = "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"
    if not verdicts & {"pass", "warn", "fail"}:
        worst = "not_checked"
    return {"place": place.name, "date": day.isoformat(), "verdict": worst, "rules": results}


class Measured(NamedTuple):
    """What one measure found."""

    value: Any
    verdict: Verdict
    """pass, fail when the limit is broken, or warn when it may be."""
    reason: str


def _held_against(subject: Subject, rule: Rule) -> RuleResult:
    if rule.severity == "unknown":
        found = Measured(None, "not_checked", rule.why_not)
    else:
        found = MEASURES[rule.name](subject, rule.limit)
        if found.verdict == "fail" and (rule.severity != "hard" or rule.sureness not in OFFICIAL):
            found = found._replace(verdict="warn")
    limit = sorted(rule.limit) if isinstance(rule.limit, frozenset) else rule.limit
    return {
        "rule": rule.name,
        "verdict": found.verdict,
        "measured": found.value,
        "limit": list(limit) if isinstance(limit, tuple) else limit,
        "reason": found.reason,
        "sureness": rule.sureness,
        "source": rule.source,
        "read_on": READ_ON,
    }


def _in_range(value: float, limit: tuple[float | None, float | None], unit: str) -> Measured:
    least, most = limit
    if least is not None and value < least:
        return Measured(value, "fail", f"It is {value:g}{unit}; at least {least:g}{unit} is asked.")
    if most is not None and value > most:
        return Measured(value, "fail", f"It is {value:g}{unit}; at most {most:g}{unit} is asked.")
    return Measured(value, "pass", f"It is {value:g}{unit}.")


def _sides(of: Callable[[Subject], float]) -> Callable[[Subject, Any], Measured]:
    return lambda subject, limit: _in_range(of(subject), limit, " px")


def _megapixels(subject: Subject, limit: Any) -> Measured:
    return _in_range(subject.width * subject.height / 1_000_000, limit, " MP")


def _ratio(subject: Subject, limit: tuple[float | None, float | None]) -> Measured:
    least, most = limit
    width, height = subject.width, subject.height
    shown = round(width / height, 4)
    # Half a pixel either way: a side of whole pixels cannot be closer.
    if least is not None and width + 0.5 < height * least:
        return Measured(shown, "fail", f"Width to height is {shown:g}; at least {least:.4g} is asked.")
    if most is not None and width - 0.5 > height * most:
        return Measured(shown, "fail", f"Width to height is {shown:g}; at most {most:.4g} is asked.")
    return Measured(shown, "pass", f"Width to height is {shown:g}.")


def _megabytes(subject: Subject, limit: tuple[float | None, float | None]) -> Measured:
    """No page says whether its MB has 1,000,000 or 1,048,576 bytes: between the two it is a warning."""
    least, most = limit
    size = subject.bytes
    shown = round(size / MB, 3)
    if least is not None and size < least * MB:
        return Measured(shown, "fail", f"The file has {size:,} bytes; at least {least:g} MB is asked.")
    if most is not None and size > most * MIB:
        return Measured(shown, "fail", f"The file has {size:,} bytes; at most {most:g} MB is asked.")
    if most is not None and size > most * MB:
        return Measured(shown, "warn", f"The file has {size:,} bytes: over {most:g} MB when an MB is 1,000,000 bytes.")
    return Measured(shown, "pass", f"The file has {size:,} bytes.")


def _format(subject: Subject, limit: frozenset[str]) -> Measured:
    good = subject.format in limit
    named = ", ".join(sorted(limit))
    return Measured(subject.format, "pass" if good else "fail", f"It is {subject.format}; taken are {named}.")


def _extension(subject: Subject, limit: bool) -> Measured:
    if not subject.extension:
        return Measured(None, "not_checked", "The file has no name with an extension.")
    good = subject.extension in EXTENSIONS.get(subject.format, set())
    found = f"The name ends in {subject.extension} and the content is {subject.format}."
    return Measured(subject.extension, "pass" if good else "fail", found)


def _rgb(subject: Subject, limit: bool) -> Measured:
    mode = subject.picture.mode
    # Greyscale and palettes are shown in RGB by every decoder; CMYK, LAB and 16 bits are not 8-bit RGB.
    good = mode in ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
    return Measured(mode, "pass" if good else "fail", f"The colour mode is {mode}.")


def _srgb(subject: Subject, limit: bool) -> Measured:
    profile = profile_name(subject.picture)
    if subject.picture.mode in ("CMYK", "LAB", "YCbCr"):
        return Measured(subject.picture.mode, "fail", f"The colour mode is {subject.picture.mode}, not sRGB.")
    if profile is None:
        return Measured(None, "pass", "It has no colour profile, which is read as sRGB.")
    good = "srgb" in profile.lower()
    return Measured(profile, "pass" if good else "fail", f"The colour profile is {profile!r}.")


def _opaque(subject: Subject, limit: bool) -> Measured:
    if subject.has_transparency:
        return Measured(False, "fail", "It has transparent parts, which are shown black.")
    return Measured(True, "pass", "It has no transparent parts.")


def _dpi(subject: Subject, limit: int) -> Measured:
    found = subject.picture.info.get("dpi")
    if not found:
        return Measured(None, "fail", f"The file states no resolution; {limit} dpi is asked.")
    # JPEG keeps whole numbers, PNG dots per metre: 96 dpi comes back as 95.9866.
    horizontal, vertical = (round(float(one)) for one in found)
    good = (horizontal, vertical) == (limit, limit)
    return Measured(horizontal, "pass" if good else "fail", f"The file states {horizontal} x {vertical} dpi.")


def _white_background(subject: Subject, limit: bool) -> Measured:
    found = subject.backdrop
    share = round(found.white_share, 5)
    if found.border_white_share < 1:
        off = round(100 * (1 - found.border_white_share), 2)
        return Measured(share, "fail", f"{off:g} % of the frame's outermost pixels are not exactly 255, 255, 255.")
    if found.impure_pixels:
        return Measured(share, "fail", f"{found.impure_pixels:,} pixels of the background are not exactly 255.")
    if found.pale_share > 0.02:
        said = "The background is white; a shadow, a halo or a pale product touches it, which cannot be told apart."
        return Measured(share, "warn", said)
    return Measured(share, "pass", "The background is exactly 255, 255, 255.")


def _fill(subject: Subject, limit: tuple[float | None, float | None]) -> Measured:
    fill = subject.backdrop.fill
    if fill is None:
        return Measured(None, "not_checked", "The product cannot be told from the background: it is not plain.")
    least, most = limit
    found = (
        f"The product takes {fill.side:.1%} of the side it fills more ({fill.box:.1%} by box, {fill.mask:.1%} by area)"
    )
    value = round(fill.side, 4)
    # One pixel either way: edges are soft.
    slack = 1 / max(subject.width, subject.height)
    if least is not None and fill.side + slack < least:
        return Measured(value, "fail", f"{found}; at least {least:.0%} is asked.")
    if most is not None and fill.side - slack > most:
        return Measured(value, "fail", f"{found}; at most {most:.0%} is asked.")
    return Measured(value, "pass", f"{found}.")


def _longest_product_side(subject: Subject, limit: Any) -> Measured:
    fill = subject.backdrop.fill
    if fill is None:
        return Measured(None, "not_checked", "The product cannot be told from the background: it is not plain.")
    return _in_range(max(fill.box_width, fill.box_height), limit, " px without the margin")


MEASURES: Mapping[str, Callable[[Subject, Any], Measured]] = {
    "longest_side": _sides(lambda subject: max(subject.width, subject.height)),
    "shortest_side": _sides(lambda subject: min(subject.width, subject.height)),
    "width": _sides(lambda subject: subject.width),
    "height": _sides(lambda subject: subject.height),
    "megapixels": _megapixels,
    "ratio": _ratio,
    "megabytes": _megabytes,
    "format": _format,
    "extension": _extension,
    "rgb": _rgb,
    "srgb": _srgb,
    "opaque": _opaque,
    "dpi": _dpi,
    "white_background": _white_background,
    "fill": _fill,
    "longest_product_side": _longest_product_side,
}
