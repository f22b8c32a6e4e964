"""The product's own pixels on a plain background, in the size, fill and format that a place asks for.

Nothing is generated: a cut-out, a colour or a picture behind it, and on request a soft shadow made of its alpha.
Needs the extra `image`. Where the cut-out comes from, and where files go, is `Shop`'s.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from services.fal.errors import InvalidInput
from services.shop.foreground import foreground
from services.shop.picture_file import Pixels, in_srgb, opened
from services.shop.places import Place, Rule
from services.shop.source_type import saved

WHITE = (255, 255, 255)
MIN_SIDE, MAX_SIDE = 16, 10_000
JPEG_QUALITY = 95
EXTENSIONS = {"JPEG": "jpg", "PNG": "png"}
"""The formats that are written, with the extensions of their files."""
VISIBLE = 8
"""An alpha below leaves no trace on 8 bits that anybody sees; the product's box begins here."""
SHADOW_STRENGTH = 0.35


class Layout(NamedTuple):
    """How a packshot is laid out and written."""

    size: tuple[int, int]
    """Width and height in pixels."""
    fill: float
    """The part of the frame that the product takes on the side that it fills more, 0.05 to 1."""
    format: str = "JPEG"
    """JPEG or PNG."""
    dpi: int | None = None
    fixed_size: bool = True
    """Whether the frame keeps its size when the product would have to be enlarged for it."""
    least_size: tuple[int, int] = (MIN_SIDE, MIN_SIDE)
    """The smallest frame, when it does not."""


class Packshot(NamedTuple):
    """A finished picture."""

    data: bytes
    format: str
    width: int
    height: int
    fill: float
    """The part of the side that the product fills more."""
    scale: float
    """The product's pixels, against those of the cut-out: above 1 it was enlarged."""


def layouts(
    places: Sequence[Place], size: object, fill: object, margin: object, format: object
) -> list[tuple[Place | None, Layout]]:
    """One layout per place, or one of one's own without places; what is given goes before what a place asks."""
    given: dict[str, Any] = {}
    if size is not None:
        given |= {"size": _size(size), "fixed_size": True}
    if fill is not None and margin is not None:
        raise InvalidInput("Pass fill or margin, not both.")
    if fill is not None:
        given["fill"] = _part(fill, "fill", 0.05, 1)
    if margin is not None:
        given["fill"] = 1 - 2 * _part(margin, "margin", 0, 0.475)
    if format is not None:
        given["format"] = file_format(format)
    if not places:
        return [(None, Layout((2000, 2000), 0.85, fixed_size=False)._replace(**given))]
    return [(place, layout_for(place)._replace(**given)) for place in places]


def _size(value: object) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or len(whole) != 2 or not all(MIN_SIDE <= side <= MAX_SIDE for side in whole):
        raise InvalidInput(f"size must be a width and a height of {MIN_SIDE} to {MAX_SIDE} pixels, not {value!r}.")
    return whole[0], whole[1]


def _part(value: object, name: str, least: float, most: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        raise InvalidInput(f"{name} must be a number from {least:g} to {most:g}, not {value!r}.")
    return float(value)  # type: ignore[arg-type]


def file_format(value: object) -> str:
    """JPEG or PNG, whatever its case."""
    known = {"JPEG": "JPEG", "JPG": "JPEG", "PNG": "PNG"}
    if not isinstance(value, str) or value.upper() not in known:
        raise InvalidInput(f"format must be JPEG or PNG, not {value!r}.")
    return known[value.upper()]


def backdrop(value: object) -> tuple[int, int, int] | Image.Image:
    """A colour, or the picture at a path."""
    if isinstance(value, str | os.PathLike) and os.path.isfile(value):
        picture = opened(Path(value).read_bytes())
        return in_srgb(picture.convert("RGB"), picture.info.get("icc_profile"))
    return colour(value)


def layout_for(place: Place) -> Layout:
    """The place's recommended size, smaller (but never below what it demands) for a product with too few pixels."""
    width, height = place.size
    least_width = max((_least(rule, width, height)[0] for rule in place.rules), default=MIN_SIDE)
    least_height = max((_least(rule, width, height)[1] for rule in place.rules), default=MIN_SIDE)
    exact = any(rule.name in ("width", "height") and rule.limit[0] == rule.limit[1] for rule in place.rules)
    return Layout(place.size, place.fill, place.format, place.dpi, exact, (least_width, least_height))


def _least(rule: Rule, width: int, height: int) -> tuple[int, int]:
    """The smallest frame of this shape that a rule allows."""
    if rule.severity != "hard" or not isinstance(rule.limit, tuple) or rule.limit[0] is None:
        return MIN_SIDE, MIN_SIDE
    shape = {"longest_side": max, "shortest_side": min, "longest_product_side": max}.get(rule.name)
    if shape is not None:
        scale = rule.limit[0] / shape(width, height) / (0.85 if rule.name == "longest_product_side" else 1)
        return -(-round(width * scale * 1000) // 1000), -(-round(height * scale * 1000) // 1000)
    if rule.name == "width":
        return int(rule.limit[0]), -(-int(rule.limit[0]) * height // width)
    if rule.name == "height":
        return -(-int(rule.limit[0]) * width // height), int(rule.limit[0])
    return MIN_SIDE, MIN_SIDE


def colour(value: object) -> tuple[int, int, int]:
    """A colour given as #RRGGBB or #RGB, or as a CSS name."""

    try:
        red, green, blue = ImageColor.getrgb(str(value))[:3]
    except ValueError as error:
        raise InvalidInput(
            f"background must be a colour such as #FFFFFF, or a picture, not {str(value)[:100]!r}."
        ) from error
    return red, green, blue


def opened_cutout(data: bytes) -> Image.Image:
    """A cut-out as RGBA in sRGB. Raises InvalidInput when nothing or everything of it is transparent."""

    picture = opened(data)
    if not picture.has_transparency_data:
        raise InvalidInput("The cut-out has no transparent background. Pass a PNG or WebP with an alpha channel.")
    rgba = in_srgb(picture.convert("RGBA"), picture.info.get("icc_profile"))
    box = visible_box(rgba)
    if box is None:
        raise InvalidInput("The cut-out shows nothing: it is transparent everywhere.")
    return rgba


def visible_box(rgba: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of what can be seen."""
    return rgba.getchannel("A").point(lambda value: 255 if value >= VISIBLE else 0).getbbox()


def product_of(cutout: Image.Image) -> Pixels:
    """What can be seen of a cut-out, RGBA, without the old background's colour in its soft edge."""
    pixels = np.asarray(cutout.crop(visible_box(cutout)))
    return np.dstack([foreground(pixels), pixels[:, :, 3]])


def packshot(
    product: Pixels,
    layout: Layout,
    background: tuple[int, int, int] | Image.Image = WHITE,
    *,
    shadow: bool = False,
    source_type: str | None = None,
) -> Packshot:
    """Lay `product` (see `product_of`) out on `background`; a picture is cropped to the frame's shape.

    `source_type` is the DigitalSourceType that the file says.
    """
    width, height, scale = _frame(product.shape[1], product.shape[0], layout)
    placed = _placed(product, width, height, scale)
    result = _backdrop(background, width, height)
    frame = result
    if shadow:
        frame = frame * (1 - SHADOW_STRENGTH * _shadow(placed[:, :, 3])[..., None])
        result = (frame + 0.5).astype(np.uint8)
    opacity = placed[:, :, 3]
    np.copyto(result, placed[:, :, :3], where=(opacity == 255)[..., None])
    soft = (opacity > 0) & (opacity < 255)
    alpha = opacity[soft][:, None].astype(np.float32) / 255
    mixed = placed[soft][:, :3] * alpha + frame[soft] * (1 - alpha)
    result[soft] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(result, "RGB")
    fill = max(round(product.shape[1] * scale) / width, round(product.shape[0] * scale) / height)
    data = written(picture, layout.format, dpi=layout.dpi, source_type=source_type)
    return Packshot(data, layout.format, width, height, fill, scale)


def _frame(product_width: int, product_height: int, layout: Layout) -> tuple[int, int, float]:
    """Width and height of the frame, and the product's scale in it."""
    width, height = layout.size
    scale = min(width * layout.fill / product_width, height * layout.fill / product_height)
    if scale <= 1 or layout.fixed_size:
        return width, height, scale
    shrink = max(1 / scale, layout.least_size[0] / width, layout.least_size[1] / height)
    if shrink >= 1:
        return width, height, scale
    width, height = -(-round(width * shrink * 100) // 100), -(-round(height * shrink * 100) // 100)
    width, height = max(width, layout.least_size[0]), max(height, layout.least_size[1])
    scale = min(width * layout.fill / product_width, height * layout.fill / product_height)
    # At the product's own size nothing is resampled: its pixels stay bit by bit.
    return width, height, 1.0 if abs(scale - 1) < 0.01 else scale


def _placed(product: Pixels, width: int, height: int, scale: float) -> Pixels:
    """The product, resized, in the middle of a transparent frame."""
    size = (max(1, round(product.shape[1] * scale)), max(1, round(product.shape[0] * scale)))
    if size != (product.shape[1], product.shape[0]):
        # Pillow resizes RGBA with the colours weighted by alpha ("RGBa"), so nothing bleeds in from outside.
        picture = Image.fromarray(np.ascontiguousarray(product), "RGBA").convert("RGBa")
        product = np.asarray(picture.resize(size, Image.Resampling.LANCZOS).convert("RGBA"))
    frame = np.zeros((height, width, 4), np.uint8)
    left, top = (width - product.shape[1]) // 2, (height - product.shape[0]) // 2
    frame[top : top + product.shape[0], left : left + product.shape[1]] = product
    return frame


def _backdrop(background: tuple[int, int, int] | Image.Image, width: int, height: int) -> Pixels:
    if isinstance(background, tuple):
        return np.full((height, width, 3), background, np.uint8)
    fitted = ImageOps.fit(background.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.array(fitted)


def _shadow(alpha: Pixels) -> Pixels:
    """A soft shadow on the ground below the product, 0 to 1."""
    height, width = alpha.shape
    rows, columns = np.flatnonzero(alpha.max(axis=1) > VISIBLE), np.flatnonzero(alpha.max(axis=0) > VISIBLE)
    foot, tall = int(rows[-1]), int(rows[-1] - rows[0] + 1)
    base = alpha[max(0, foot - tall // 8) : foot + 1].max(axis=0).astype(np.float32) / 255
    thickness = max(2, len(columns) // 24)
    ground = np.zeros((height, width), np.float32)
    top = max(0, foot - thickness)
    ground[top : min(height, foot + thickness)] = base
    return cv2.GaussianBlur(ground, (0, 0), max(1.0, len(columns) / 40))


def written(picture: Image.Image, format: str, *, dpi: int | None = None, source_type: str | None = None) -> bytes:
    """The file of a picture in sRGB, as JPEG or PNG."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {"icc_profile": profile}
    if dpi is not None:
        options["dpi"] = (dpi, dpi)
    if format == "JPEG":
        # 4:4:4: with subsampling the white next to the product is off by some levels for 17 px instead of 7.
        options |= {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True}
    return saved(picture, format, source_type, **options)
