"""Pictures against marketplaces' rules: each limit at, above and below, and nothing passes that was not measured."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from services.fal.errors import InvalidInput
from services.shop import check_image
from services.shop.picture_check import MEASURES, RuleResult, Subject, checked
from services.shop.places import OFFICIAL, PLACES, Rule

DAY = datetime.date(2026, 12, 1)


def product(width: int, height: int, fill: float = 0.88, background: Any = (255, 255, 255)) -> Image.Image:
    """A dark block in the middle, on a plain background."""
    picture = Image.new("RGB", (width, height), background)
    box_width, box_height = round(width * fill), round(height * fill)
    left, top = (width - box_width) // 2, (height - box_height) // 2
    ImageDraw.Draw(picture).rectangle((left, top, left + box_width - 1, top + box_height - 1), fill=(40, 90, 60))
    return picture


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def results(data: bytes, place: str, day: datetime.date = DAY, name: str = "") -> list[RuleResult]:
    return checked(Subject(data, name), PLACES[place], day)["rules"]


def verdicts(data: bytes, place: str, rule: str, day: datetime.date = DAY, name: str = "") -> list[str]:
    return [one["verdict"] for one in results(data, place, day, name) if one["rule"] == rule]


# The table


def all_rules() -> list[tuple[str, Rule]]:
    return [(place.name, rule) for place in PLACES.values() for rule in place.rules]


def test_no_hard_rule_stands_without_an_official_source() -> None:
    weak = [
        (place, rule.name) for place, rule in all_rules() if rule.severity == "hard" and rule.sureness not in OFFICIAL
    ]
    assert not weak
    assert all(rule.source for _, rule in all_rules() if rule.severity != "unknown")


def test_every_rule_can_be_measured_or_says_why_not() -> None:
    for place, rule in all_rules():
        assert (rule.name in MEASURES) != (rule.severity == "unknown") or rule.severity == "unknown", (place, rule.name)
        assert bool(rule.why_not) == (rule.severity == "unknown"), (place, rule.name)


@pytest.mark.parametrize("place", ["hepsiburada", "n11"])
def test_a_place_without_known_rules_is_not_checked_and_never_passed(place: str) -> None:
    found = checked(Subject(encoded(product(800, 800))), PLACES[place], DAY)
    assert found["verdict"] == "not_checked"
    assert {one["verdict"] for one in found["rules"]} == {"not_checked"}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("place", PLACES)
def test_what_pixels_cannot_tell_is_never_passed(place: str) -> None:
    found = results(encoded(product(*PLACES[place].size)), place)
    told = {one["rule"]: one["verdict"] for one in found}
    assert {told[name] for name in ("real_item", "contents", "text_logo_watermark", "rights")} == {"not_checked"}


# Limits, one pixel and one byte either way


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("place", "rule", "size", "verdict"),
    [
        ("amazon", "longest_side", (500, 300), "pass"),
        ("amazon", "longest_side", (499, 300), "fail"),
        ("amazon", "longest_side", (10_000, 20), "pass"),
        ("amazon", "longest_side", (10_001, 20), "fail"),
        ("ebay", "longest_side", (300, 500), "pass"),
        ("ebay", "longest_side", (300, 499), "fail"),
        ("etsy", "shortest_side", (700, 635), "pass"),
        ("etsy", "shortest_side", (700, 634), "fail"),
        ("etsy", "ratio", (640, 640), "pass"),
        ("etsy", "ratio", (640, 641), "fail"),
        ("shopify", "longest_side", (5000, 20), "pass"),
        ("shopify", "longest_side", (5001, 20), "fail"),
        ("walmart", "ratio", (600, 600), "pass"),
        ("walmart", "ratio", (600, 601), "fail"),
        ("zalando", "width", (762, 1100), "pass"),
        ("zalando", "width", (761, 1100), "fail"),
        ("zalando", "height", (762, 1099), "fail"),
        ("zalando", "ratio", (1801, 2600), "pass"),
        ("zalando", "ratio", (1801, 2700), "fail"),
        ("trendyol", "width", (1200, 1800), "pass"),
        ("trendyol", "width", (1199, 1800), "fail"),
        ("trendyol", "height", (1200, 1801), "fail"),
        ("instagram", "width", (320, 320), "pass"),
        ("instagram", "width", (319, 320), "fail"),
        ("instagram", "width", (1441, 1400), "fail"),
        ("instagram", "ratio", (800, 1000), "pass"),
        ("instagram", "ratio", (800, 1002), "fail"),
        ("instagram", "ratio", (956, 500), "fail"),
        ("meta", "shortest_side", (500, 500), "pass"),
        ("meta", "shortest_side", (499, 500), "fail"),
        ("tiktok", "shortest_side", (600, 600), "pass"),
        ("tiktok", "shortest_side", (599, 600), "fail"),
        ("tiktok_uk", "shortest_side", (799, 800), "fail"),
        ("tiktok", "ratio", (600, 800), "pass"),
        ("tiktok", "ratio", (600, 802), "fail"),
        ("allegro", "longest_side", (500, 100), "pass"),
        ("allegro", "longest_side", (499, 100), "fail"),
    ],
)
def test_a_size_at_its_limit_passes_and_one_pixel_beyond_fails(
    place: str, rule: str, size: tuple[int, int], verdict: str
) -> None:
    assert verdicts(encoded(product(*size)), place, rule)[0] == verdict


def test_an_advice_that_is_missed_warns_and_fails_nothing() -> None:
    data = encoded(product(999, 999), "JPEG", quality=95, subsampling=0)
    assert verdicts(data, "amazon", "longest_side") == ["pass", "warn"]
    assert verdicts(encoded(product(1000, 1000)), "amazon", "longest_side") == ["pass", "pass"]


def test_googles_new_size_is_asked_from_its_day_on() -> None:
    data = encoded(product(300, 300))
    before, after = datetime.date(2027, 1, 30), datetime.date(2027, 1, 31)
    assert verdicts(data, "google", "shortest_side", before)[0] == "pass"
    assert verdicts(data, "google", "shortest_side", after)[0] == "fail"


@pytest.mark.parametrize(
    ("size", "verdict"),
    [(5_000_000, "pass"), (5_000_001, "warn"), (5 * 1024 * 1024, "warn"), (5 * 1024 * 1024 + 1, "fail")],
)
def test_a_file_between_two_kinds_of_megabyte_is_a_warning(size: int, verdict: str) -> None:
    data = encoded(product(600, 600))
    # PNG readers stop at its last chunk: bytes behind it make the file larger and change no pixel.
    assert verdicts(data + b"\0" * (size - len(data)), "walmart", "megabytes") == [verdict]


def test_a_file_below_the_least_size_fails() -> None:
    data = encoded(product(600, 600))
    assert verdicts(data + b"\0" * (29_999 - len(data)), "bol", "megabytes") == ["fail"]
    assert verdicts(data + b"\0" * (30_000 - len(data)), "bol", "megabytes") == ["pass"]


def test_a_conflicting_limit_only_warns() -> None:
    data = encoded(product(600, 600))
    assert verdicts(data + b"\0" * (11 * 1024 * 1024), "amazon", "megabytes") == ["warn"]


# Format, name, colour


@pytest.mark.parametrize(("format", "verdict"), [("JPEG", "pass"), ("PNG", "fail"), ("WEBP", "fail")])
def test_the_format_is_that_of_the_content(format: str, verdict: str) -> None:
    assert verdicts(encoded(product(400, 400), format), "instagram", "format") == [verdict]


@pytest.mark.parametrize(
    ("name", "verdict"), [("a.png", "pass"), ("a.PNG", "pass"), ("a.jpg", "fail"), ("", "not_checked")]
)
def test_googles_extension_must_match_the_content(name: str, verdict: str) -> None:
    assert verdicts(encoded(product(600, 600)), "google", "extension", name=name) == [verdict]


def test_cmyk_is_not_rgb() -> None:
    data = encoded(product(600, 600).convert("CMYK"), "JPEG")
    assert verdicts(data, "walmart", "rgb") == ["fail"]
    assert verdicts(data, "etsy", "srgb") == ["fail"]


def test_transparency_fails_where_it_is_shown_black() -> None:
    picture = product(700, 700).convert("RGBA")
    assert verdicts(encoded(picture), "etsy", "opaque") == ["pass"]
    picture.putpixel((0, 0), (255, 255, 255, 254))
    assert verdicts(encoded(picture), "etsy", "opaque") == ["fail"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("options", "verdict"), [({"dpi": (96, 96)}, "pass"), ({"dpi": (72, 72)}, "fail"), ({}, "fail")]
)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_trendyols_resolution_is_read_from_the_file(format: str, options: dict[str, Any], verdict: str) -> None:
    assert verdicts(encoded(product(1200, 1800), format, **options), "trendyol", "dpi") == [verdict]


# White


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 75}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
    ],
)
def test_white_survives_the_compression_of_a_good_file(format: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).integers(0, 120, (320, 320, 3), dtype=np.uint8)
    picture = product(600, 600)
    picture.paste(Image.fromarray(noise), (140, 140))
    assert verdicts(encoded(picture, format, **options), "amazon", "white_background") == ["pass"]


@pytest.mark.parametrize("level", [254, 250, 240, 128])
def test_a_background_of_almost_white_fails(level: int) -> None:
    data = encoded(product(600, 600, 0.7, (level, level, level)))
    assert verdicts(data, "amazon", "white_background") == ["fail"]


def test_one_pixel_of_the_frame_that_is_not_white_fails() -> None:
    picture = product(600, 600, 0.7)
    picture.putpixel((0, 300), (254, 255, 255))
    assert verdicts(encoded(picture), "amazon", "white_background") == ["fail"]


def test_a_pale_spot_in_the_background_fails() -> None:
    picture = product(600, 600, 0.6)
    ImageDraw.Draw(picture).rectangle((20, 20, 40, 40), fill=(254, 254, 254))
    assert verdicts(encoded(picture), "amazon", "white_background") == ["fail"]


def test_a_pale_product_on_white_is_not_failed() -> None:
    picture = Image.new("RGB", (600, 600), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 60, 540, 540), fill=(248, 248, 248), outline=(180, 180, 180), width=3)
    assert verdicts(encoded(picture), "amazon", "white_background") == ["warn"]


# Fill


@pytest.mark.parametrize(("fill", "verdict"), [(0.85, "pass"), (0.84, "fail"), (0.95, "pass")])
def test_fill_is_measured_on_the_side_that_is_filled_more(fill: float, verdict: str) -> None:
    picture = Image.new("RGB", (1000, 1000), (255, 255, 255))
    tall = round(1000 * fill)
    ImageDraw.Draw(picture).rectangle((400, (1000 - tall) // 2, 599, (1000 - tall) // 2 + tall - 1), fill=(30, 30, 30))
    found = next(one for one in results(encoded(picture), "amazon") if one["rule"] == "fill")
    assert found["verdict"] == verdict
    assert found["measured"] == pytest.approx(fill, abs=0.001)
    assert "by box" in found["reason"]
    assert "by area" in found["reason"]


def test_fill_of_a_picture_without_a_plain_background_is_not_checked() -> None:
    noise = np.random.default_rng(2).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    assert verdicts(encoded(Image.fromarray(noise)), "google", "fill") == ["not_checked"]


def test_bol_does_not_count_the_white_margin() -> None:
    picture = product(1300, 1300, 499 / 1300)
    assert verdicts(encoded(picture), "bol", "longest_product_side")[0] == "fail"
    assert verdicts(encoded(product(1300, 1300, 500 / 1300)), "bol", "longest_product_side")[0] == "pass"


# The door


def test_a_result_names_its_measure_its_source_and_its_day(tmp_path: Path) -> None:
    path = tmp_path / "mug.jpg"
    product(1600, 1600).save(path, quality=95, subsampling=0)
    found = check_image(path, "Amazon", on=DAY)
    assert (found["place"], found["date"], found["verdict"]) == ("amazon", "2026-12-01", "pass")
    fill = next(one for one in found["rules"] if one["rule"] == "fill")
    assert fill["source"].startswith("https://sellercentral.amazon.com")
    assert fill["sureness"] == "Oq"
    assert fill["limit"] == [0.85, None]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "not a picture"), (b"<html></html>", "not a picture"), (b"\x89PNG\r\n\x1a\n\0", "not a")],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        check_image(tmp_path / "a.png", "amazon")


def test_a_damaged_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(product(600, 600), "JPEG")[:900])
    with pytest.raises(InvalidInput, match="damaged"):
        check_image(tmp_path / "a.jpg", "amazon")


def test_an_unknown_place_and_a_missing_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Known: amazon, ebay"):
        check_image(tmp_path / "a.jpg", "amazom")
    with pytest.raises(InvalidInput, match="Check the path"):
        check_image(tmp_path / "none.jpg", "amazon")
