"""The sandbox's pictures: products are cut out whole and clean, and scenes follow the words of the prompt."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fal_sandbox.phrases import PRODUCT_WORDS
from fal_sandbox.pictures.cutout import cut_out, picture_size
from fal_sandbox.pictures.mask import _find
from fal_sandbox.pictures.scene import generic_picture, replace_background
from fal_sandbox.samples import PHOTOS, sample_photo

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE = 280
RED = (40, 40, 190)
"""Blue, green, red."""


def read(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def alpha_of(photo: bytes) -> np.ndarray:
    return read(cut_out(photo).png)[..., 3]


def product_mask(side: int = SIDE) -> np.ndarray:
    """A vase: round below, a narrow neck, a wider mouth."""
    mask = np.zeros((side, side), np.uint8)
    unit = side / 280
    cv2.ellipse(mask, (int(140 * unit), int(175 * unit)), (int(62 * unit), int(58 * unit)), 0, 0, 360, 255, -1)
    corners = [(118, 60), (162, 60), (156, 90), (154, 130), (126, 130), (124, 90)]
    cv2.fillPoly(mask, [np.array([(int(x * unit), int(y * unit)) for x, y in corners])], 255)
    return mask


def plain_ground(side: int = SIDE) -> np.ndarray:
    """Light paper, a little darker to the right."""
    return np.linspace(236, 214, side)[None, :, None] * np.ones((side, 1, 3))


def rough_ground(side: int = SIDE) -> np.ndarray:
    """Brown boards with a strong grain."""
    draw = np.random.default_rng(5)
    grain = cv2.GaussianBlur(draw.normal(0, 1, (side, side)), (0, 0), sigmaX=0.8, sigmaY=14)
    ground = np.array([60.0, 95.0, 140.0]) + (grain / grain.std() * 14)[..., None] * np.array([0.6, 0.8, 1.0])
    ground[:, ::70] *= 0.3
    return ground


def photo_of(mask: np.ndarray, ground: np.ndarray, colour: tuple[int, int, int] = RED) -> bytes:
    """The product on the ground, lit from the left, with a camera's softness and noise."""
    side = mask.shape[0]
    light = np.linspace(1.12, 0.72, side)[None, :, None]
    alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.7)[..., None]
    picture = ground * (1 - alpha) + np.array(colour) * light * alpha
    noise = np.random.default_rng(1).normal(0, 2.0, (side, side, 1))
    return jpeg(np.clip(picture + noise, 0, 255).astype(np.uint8))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@lru_cache(maxsize=32)
def scene(prompt: str, seed: int = 1) -> np.ndarray:
    """The vase in the scene of the prompt, as floats."""
    return read(replace_background(photo_of(product_mask(), plain_ground()), prompt, seed).png).astype(np.float32)


def red_area(picture: np.ndarray) -> np.ndarray:
    """Where the vase is: clearly redder than it is green or blue."""
    return (picture[..., 2] > 1.8 * picture[..., 1]) & (picture[..., 2] > 60)


def surroundings(picture: np.ndarray) -> np.ndarray:
    """The left and right fifth of a picture, where no product is."""
    fifth = picture.shape[1] // 5
    return np.concatenate([picture[:, :fifth], picture[:, -fifth:]], axis=1)


# The cut-out


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("ground", "least"), [(plain_ground, 0.97), (rough_ground, 0.93)])
def test_the_product_is_cut_out_whole_on_plain_and_on_textured_ground(ground: Any, least: float) -> None:
    mask = product_mask()
    assert overlap(alpha_of(photo_of(mask, ground())) > 127, mask > 127) > least


@pytest.mark.nightly
def test_a_large_photo_is_cut_out_as_exactly_as_a_small_one() -> None:
    mask = product_mask(1300)
    alpha = alpha_of(photo_of(mask, plain_ground(1300)))
    assert alpha.shape == mask.shape
    assert overlap(alpha > 127, mask > 127) > 0.98


@pytest.mark.nightly
def test_the_shadow_stays_behind() -> None:
    mask = product_mask()
    shade = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(shade, (190, 226), (75, 14), 0, 0, 360, 1.0, -1)
    ground = plain_ground() * (1 - 0.4 * cv2.GaussianBlur(shade, (0, 0), 8))[..., None]
    alpha = alpha_of(photo_of(mask, ground))
    assert overlap(alpha > 127, mask > 127) > 0.95
    assert alpha[215:240, 215:].max() == 0


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ground", [plain_ground, rough_ground])
def test_the_edge_carries_no_halo_of_the_old_background(ground: Any) -> None:
    behind = ground()
    cut = read(cut_out(photo_of(product_mask(), behind)).png).astype(np.float32)
    inside = cv2.erode((cut[..., 3] > 250).astype(np.uint8), np.ones((7, 7))) > 0
    edge = (cut[..., 3] > 25) & ~inside
    to_product = np.linalg.norm(cut[edge][:, :3] - np.array(RED), axis=1)
    to_ground = np.linalg.norm(cut[edge][:, :3] - behind[edge], axis=1)
    assert edge.sum() > 300
    assert np.mean(to_product < to_ground) > 0.98


def test_the_edge_is_soft_over_a_pixel_or_two() -> None:
    alpha = alpha_of(photo_of(product_mask(), plain_ground()))
    outline = np.count_nonzero(cv2.Canny((alpha > 127).astype(np.uint8) * 255, 50, 100))
    half_seen = np.count_nonzero((alpha > 12) & (alpha < 243))
    assert 0.5 * outline < half_seen < 4 * outline


@pytest.mark.nightly
def test_parts_that_look_like_the_paper_are_no_holes() -> None:
    mask = product_mask()
    picture = read(photo_of(mask, plain_ground()))
    cv2.circle(picture, (140, 175), 26, (226, 226, 226), -1)
    alpha = alpha_of(png(picture))
    assert alpha[150:200, 115:165].min() == 255


@pytest.mark.nightly
def test_the_opening_of_a_handle_shows_the_new_background() -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.rectangle(mask, (70, 80), (170, 210), 255, -1)
    cv2.ellipse(mask, (170, 145), (52, 46), 0, 0, 360, 255, 13)
    alpha = alpha_of(photo_of(mask, plain_ground()))
    assert alpha[145, 120] == 255
    assert alpha[145, 222] == 255
    assert alpha[145, 195] == 0


def test_the_coffee_cup_is_cut_out_whole() -> None:
    alpha = alpha_of((EXAMPLES / "coffee.jpg").read_bytes())
    assert alpha.shape == (400, 600)
    for x, y in [
        (285, 150),
        (290, 25),
        (180, 110),
        (400, 110),
        (290, 205),
        (215, 280),
        (100, 220),
        (465, 230),
        (280, 375),
    ]:
        assert alpha[y, x] == 255, f"cup, rim, handle or saucer at {x}, {y}"
    assert alpha[85, 408] > 200, "the spoon's handle"
    assert alpha[300, 365] == 255, "the spoon's bowl"
    for x, y in [(3, 3), (596, 3), (3, 396), (596, 396), (60, 120), (520, 120), (90, 350), (470, 360)]:
        assert alpha[y, x] == 0, f"the table at {x}, {y}"


def test_the_coffee_cup_is_one_piece_without_holes() -> None:
    solid = (alpha_of((EXAMPLES / "coffee.jpg").read_bytes()) > 127).astype(np.uint8)
    assert cv2.connectedComponents(solid)[0] == 2
    assert cv2.connectedComponents(1 - solid, connectivity=4)[0] == 2


def test_the_saucers_outline_is_one_clean_arc() -> None:
    solid = (alpha_of((EXAMPLES / "coffee.jpg").read_bytes()) > 127).astype(np.uint8)
    outline = max(cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len).reshape(-1, 2)
    saucer = outline[outline[:, 1] > 130].astype(np.float32)
    (x, y), (wide, high), turn = cv2.fitEllipseDirect(saucer)
    angle = np.deg2rad(turn)
    along = ((saucer[:, 0] - x) * np.cos(angle) + (saucer[:, 1] - y) * np.sin(angle)) / (wide / 2)
    across = ((saucer[:, 1] - y) * np.cos(angle) - (saucer[:, 0] - x) * np.sin(angle)) / (high / 2)
    assert np.percentile(np.abs(np.hypot(along, across) - 1), 95) < 0.012


def test_a_transparent_background_stays_as_it_is() -> None:
    mask = product_mask()
    picture = np.dstack([np.full((SIDE, SIDE, 3), 90, np.uint8), mask])
    assert np.array_equal(read(cut_out(png(picture)).png), picture)


@pytest.mark.nightly
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_photo_of_nothing_is_kept_whole_and_says_so(value: int) -> None:
    made = cut_out(png(np.full((120, 160, 3), value, np.uint8)))
    assert read(made.png)[..., 3].min() == 255
    assert "could not be told from its background" in made.remark


@pytest.mark.nightly
def test_a_product_that_leaves_the_frame_is_kept() -> None:
    mask = product_mask()
    cropped = read(photo_of(mask, plain_ground()))[:200]
    assert overlap(alpha_of(png(cropped)) > 127, mask[:200] > 127) > 0.93


@pytest.mark.nightly
def test_the_same_photo_gives_the_same_cut_out_in_every_thread() -> None:
    photo = photo_of(product_mask(), rough_ground())
    work = read(photo)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(_find, [work] * 2)
        made = set(pool.map(cut_out, [photo] * 2))
    assert np.array_equal(first.mask, second.mask)
    assert len(made) == 1


# Formats


def palette_png(mask: np.ndarray) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = mask.shape
    rows = b"".join(b"\0" + bytes(row // 255) for row in mask)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", head),
        (b"PLTE", bytes([225, 225, 225, 190, 40, 40])),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def sideways_jpeg(upright: np.ndarray) -> bytes:
    """Stored lying on its side, with an EXIF note to turn it by 90 degrees."""
    lying = jpeg(cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return lying[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + lying[2:]


def grey_photo() -> np.ndarray:
    return cv2.cvtColor(read(photo_of(product_mask(), plain_ground())), cv2.COLOR_BGR2GRAY)


FORMATS = {
    "grey PNG": lambda: png(grey_photo()),
    "16-bit PNG": lambda: png(grey_photo().astype(np.uint16) * 257),
    "PNG with an opaque alpha channel": lambda: png(cv2.cvtColor(grey_photo(), cv2.COLOR_GRAY2BGRA)),
    "palette PNG": lambda: palette_png(product_mask()),
    "WebP": lambda: cv2.imencode(".webp", cv2.cvtColor(grey_photo(), cv2.COLOR_GRAY2BGR))[1].tobytes(),
    "lossless WebP": lambda: cv2.imencode(
        ".webp", read(cut_out(png(grey_photo())).png), [cv2.IMWRITE_WEBP_QUALITY, 101]
    )[1].tobytes(),
    "BMP": lambda: cv2.imencode(".bmp", grey_photo())[1].tobytes(),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", FORMATS)
def test_every_usual_format_is_cut_out(name: str) -> None:
    photo = FORMATS[name]()
    assert picture_size(photo) == (SIDE, SIDE)
    assert overlap(alpha_of(photo) > 127, product_mask() > 127) > 0.96


@pytest.mark.nightly
def test_a_photo_taken_sideways_is_turned_upright() -> None:
    upright = read(photo_of(product_mask(), plain_ground()))[:, 40:240]
    photo = sideways_jpeg(upright)
    assert picture_size(photo) == (200, SIDE)
    assert overlap(alpha_of(photo) > 127, product_mask()[:, 40:240] > 127) > 0.96


@pytest.mark.nightly
def test_the_cut_out_has_the_photos_size() -> None:
    for width, height in [(1, 1), (3, 200), (301, 77)]:
        picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
        assert picture_size(cut_out(png(picture)).png) == (width, height)


BROKEN = [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "]


@pytest.mark.parametrize("data", BROKEN)
@pytest.mark.parametrize("door", [cut_out, picture_size, lambda data: replace_background(data, "studio")])
def test_bytes_that_are_no_picture_are_refused(door: Any, data: bytes) -> None:
    with pytest.raises(ValueError, match="no picture"):
        door(data)


def test_broken_pictures_do_not_write_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for data in BROKEN:
        with pytest.raises(ValueError, match="no picture"):
            cut_out(data)
    assert capfd.readouterr() == ("", "")


# Scenes

STYLES = {
    "studio": "Clean white studio, seamless backdrop",
    "dark": "Premium luxury, dark and dramatic with a spotlight",
    "room": "Cozy scandinavian living room, lifestyle",
    "garden": "Sunny garden, outdoor, green foliage",
    "beach": "Beach with sand and sea in summer",
    "marble": "White marble slab and a soft wall",
    "wood": "Rustic wooden table",
    "pink": "Pastel pink studio",
}


@pytest.mark.nightly
def test_every_style_looks_different() -> None:
    views = {
        name: cv2.resize(surroundings(scene(prompt)), (24, 24), interpolation=cv2.INTER_AREA)
        for name, prompt in STYLES.items()
    }
    for first in views:
        for second in views:
            if first < second:
                assert np.abs(views[first] - views[second]).mean() > 8, f"{first} looks like {second}"


def test_the_studio_is_bright_and_the_premium_scene_is_dark() -> None:
    assert surroundings(scene(STYLES["studio"])).mean() > 200
    assert surroundings(scene(STYLES["dark"])).mean() < 60


@pytest.mark.sampled(4)
@pytest.mark.parametrize("mood", ["", ", cozy and warm", ", for table lamps", ", for a glass vase"])
def test_a_white_studio_is_even_and_without_colour(mood: str) -> None:
    around = surroundings(scene(STYLES["studio"] + mood))
    assert around.std() < 15
    assert np.ptp(around.mean(axis=(0, 1))) < 6


def test_a_garden_is_green_and_a_beach_has_a_blue_sea() -> None:
    garden, beach = scene(STYLES["garden"]), scene(STYLES["beach"])
    blue, green, red = surroundings(garden[: len(garden) // 3]).mean(axis=(0, 1))
    assert green > 1.15 * red
    assert green > 1.3 * blue
    sea = surroundings(beach[: len(beach) // 2])
    assert (sea[..., 0] > 1.2 * sea[..., 2]).mean() > 0.2


@pytest.mark.nightly
def test_wood_is_warm_and_has_a_grain() -> None:
    table = scene(STYLES["wood"])[300:, :100]
    blue, _, red = table.mean(axis=(0, 1))
    assert red > 1.4 * blue

    def grain(picture: np.ndarray) -> float:
        return float((cv2.GaussianBlur(picture, (0, 0), 1.5) - cv2.GaussianBlur(picture, (0, 0), 8)).std())

    assert grain(table) > 3 * grain(scene(STYLES["studio"])[300:, :100])


@pytest.mark.nightly
def test_colour_words_colour_the_scene() -> None:
    blue, green, red = surroundings(scene(STYLES["pink"])).mean(axis=(0, 1))
    assert red > blue > green
    blue, _, red = surroundings(scene("blue studio")).mean(axis=(0, 1))
    assert blue > 1.15 * red


@pytest.mark.nightly
def test_words_combine() -> None:
    dark, light = surroundings(scene("dark marble")), surroundings(scene("white marble"))
    assert dark.mean() < 60 < 150 < light.mean()
    autumn = surroundings(scene("autumn forest")[:170]).mean(axis=(0, 1))
    assert autumn[2] > 1.3 * autumn[1]


@pytest.mark.nightly
def test_words_nobody_knows_still_give_a_bright_scene_of_their_own() -> None:
    first, second = surroundings(scene("xyzzy")), surroundings(scene("plugh"))
    assert first.mean() > 170
    assert second.mean() > 170
    assert np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))).max() > 3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", STYLES)
def test_the_product_is_in_every_scene_whole_and_in_its_colour(name: str) -> None:
    picture = scene(STYLES[name])
    area = red_area(picture)
    count, _, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8))
    product = stats[1:][stats[1:, cv2.CC_STAT_AREA].argmax()]
    height, width = picture.shape[:2]
    share = max(product[cv2.CC_STAT_WIDTH] / width, product[cv2.CC_STAT_HEIGHT] / height)
    assert count >= 2
    assert 0.55 < share < 0.68
    rows, columns = np.flatnonzero(product_mask().any(1)), np.flatnonzero(product_mask().any(0))
    trimmed = product_mask()[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y, wide, high = product[:4]
    expected = cv2.resize(trimmed, (int(wide), int(high))) > 127
    assert overlap(area[y : y + high, x : x + wide], expected) > 0.93


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["studio", "room", "marble", "wood"])
def test_the_product_casts_a_shadow_that_is_darkest_at_its_foot(name: str) -> None:
    picture = scene(STYLES[name]).mean(axis=-1)
    rows, columns = np.nonzero(red_area(scene(STYLES[name])))
    bottom, middle = rows.max(), int(np.median(columns))
    foot = picture[bottom + 2 : bottom + 6, middle - 15 : middle + 15].mean()
    further = picture[bottom + 30 : bottom + 40, middle - 15 : middle + 15].mean()
    beside = np.median(picture[bottom + 2 : bottom + 6, : picture.shape[1] // 6])
    assert foot < 0.75 * beside
    assert foot < further


@pytest.mark.nightly
def test_the_shadow_falls_away_from_the_light() -> None:
    def lopsided(photo: bytes) -> float:
        picture = read(replace_background(photo, "white studio", 1).png).astype(np.float32)
        rows, columns = np.nonzero(red_area(picture))
        band = picture[rows.max() - 30 : rows.max() + 10].mean(axis=(0, 2))
        left, right = int(columns.mean()) - 90, int(columns.mean()) + 90
        return float(band[left - 20 : left + 20].mean() - band[right - 20 : right + 20].mean())

    lit_left = read(photo_of(product_mask(), plain_ground()))
    assert lopsided(png(lit_left)) > 4
    assert lopsided(png(lit_left[:, ::-1])) < -4


def test_a_cut_out_is_used_as_it_is() -> None:
    mask = product_mask()
    colours = np.where(mask[..., None] > 0, np.array(RED), np.array((0, 255, 0))).astype(np.uint8)
    picture = read(replace_background(png(np.dstack([colours, mask])), "white studio", 1).png).astype(np.float32)
    poison = (picture[..., 1] > picture[..., 2] + 40) & (picture[..., 1] > picture[..., 0] + 40)
    assert not poison.any()
    assert red_area(picture).any()


@pytest.mark.nightly
def test_the_table_is_seen_from_where_the_product_was_photographed() -> None:
    """A cup seen from above gets a table seen from above: its far edge is higher in the frame."""

    def edge_row(photo: bytes) -> float:
        picture = read(replace_background(photo, "green garden outdoor, stone", 4).png).astype(np.float32)
        left = picture[:, : picture.shape[1] // 6]
        green = (left[..., 1] - left[..., 2]).mean(axis=1)
        return float(np.argmax(green < 8) / len(green))

    from_above = (EXAMPLES / "coffee.jpg").read_bytes()
    from_the_side = (EXAMPLES / "lamp.jpg").read_bytes()
    assert edge_row(from_above) < 0.3
    assert edge_row(from_the_side) > 0.4


@pytest.mark.nightly
def test_size_and_shape_follow_the_photo() -> None:
    for width, height in [(200, 200), (300, 900), (1600, 800)]:
        picture = np.zeros((height, width, 4), np.uint8)
        cv2.circle(picture, (width // 2, height // 2), min(width, height) // 3, (*RED, 255), -1)
        made = picture_size(replace_background(png(picture), "studio", 0).png)
        assert 512 <= max(made) <= 1024
        assert abs(made[0] / made[1] - width / height) < 0.02


def test_the_same_question_gives_the_same_bytes() -> None:
    photo = photo_of(product_mask(), plain_ground())
    first = replace_background(photo, "living room", 7)
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(lambda seed: replace_background(photo, "living room", seed), [7, 7]))
    assert again == [first, first]
    assert generic_picture(320, 200, "forest", 3) == generic_picture(320, 200, "forest", 3)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["room", "garden", "marble", "wood", "dark"])
def test_another_seed_gives_another_scene_in_the_same_style(name: str) -> None:
    first, second = surroundings(scene(STYLES[name], 1)), surroundings(scene(STYLES[name], 2))
    assert np.abs(cv2.GaussianBlur(first, (0, 0), 2) - cv2.GaussianBlur(second, (0, 0), 2)).mean() > 1.5
    assert np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))).max() < 40


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (512, 512), (1280, 720), (90, 1100), (1536, 40)])
def test_a_generic_picture_has_exactly_the_size_that_was_asked_for(width: int, height: int) -> None:
    assert picture_size(generic_picture(width, height, "living room", 5)) == (width, height)


def test_generic_pictures_follow_prompt_and_seed() -> None:
    bright, dark = read(generic_picture(256, 256, "white studio", 1)), read(generic_picture(256, 256, "dark, moody", 1))
    assert bright.mean() > dark.mean() + 100
    assert generic_picture(256, 256, "forest", 1) != generic_picture(256, 256, "forest", 2)


# Samples and examples


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["mug.jpg", "bottle.png", "lamp.jpg", "whatever.jpg"])
def test_a_sample_photo_shows_one_product_that_can_be_cut_out(name: str) -> None:
    photo = sample_photo(name)
    assert photo.startswith(b"\xff\xd8\xff")
    alpha = alpha_of(photo)
    assert 0.03 < np.mean(alpha > 127) < 0.6
    assert alpha[5, 5] == 0
    assert alpha[len(alpha) // 2 - 40 : len(alpha) // 2 + 40, alpha.shape[1] // 2].max() == 255


def test_every_kind_of_product_has_a_sample_photo_of_its_own() -> None:
    photos = {sample_photo(f"blue-{kind}.jpg") for kind in [*PRODUCT_WORDS, "anything"]}
    assert len(photos) == len(PRODUCT_WORDS) + 1
    assert sum(kept.stat().st_size for kept in PHOTOS.iterdir()) < 500_000


def test_a_sample_photo_depends_on_its_name_alone() -> None:
    sample_photo.cache_clear()
    first = sample_photo("red-vase.jpg")
    sample_photo.cache_clear()
    assert sample_photo("red-vase.jpg") == first
    assert sample_photo("blue-vase.jpg") != first
    middle = read(first)[200:320, 236:276].astype(np.float32).mean(axis=(0, 1))
    assert middle[2] > 2 * middle[0]


def test_every_example_photo_is_small_and_its_origin_is_named() -> None:
    notes = (EXAMPLES / "README.md").read_text()
    photos = sorted(EXAMPLES.glob("*.jpg"))
    assert {"coffee.jpg", "lamp.jpg", "bottle.jpg"} <= {photo.name for photo in photos}
    for photo in photos:
        assert photo.stat().st_size <= 300_000
        line = next(line for line in notes.splitlines() if f"`{photo.name}`" in line)
        assert "CC0" in line


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["lamp.jpg", "bottle.jpg"])
def test_the_rendered_examples_are_cut_out_in_one_piece(name: str) -> None:
    alpha = alpha_of((EXAMPLES / name).read_bytes())
    solid = (alpha > 127).astype(np.uint8)
    assert cv2.connectedComponents(solid)[0] == 2
    assert 0.05 < solid.mean() < 0.3
    rows = np.flatnonzero(solid.any(axis=1))
    assert rows[-1] - rows[0] > 0.55 * len(solid)
