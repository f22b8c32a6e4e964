"""Packshots: one cut-out, the product's own pixels, and pictures that the places' rules pass."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage.color import deltaE_ciede2000, rgb2lab

from fal_sandbox.server import Sandbox
from services.fal.errors import InvalidInput
from services.fal_service import FalClient
from services.shop import Shop
from services.shop.foreground import foreground
from services.shop.places import PLACES

BACKEND = Path(__file__).resolve().parents[1]
BOTTLE = BACKEND / "examples" / "bottle.jpg"


def cutout(width: int = 400, height: int = 500, soft: int = 0) -> Image.Image:
    """A textured block with transparent surroundings and, when `soft`, an edge that fades."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    alpha: np.ndarray[Any, Any] = np.zeros((height, width), np.uint8)
    alpha[50 : height - 50, 60 : width - 60] = 255
    if soft:
        alpha = cv2.GaussianBlur(alpha, (0, 0), soft)
    return Image.fromarray(np.dstack([noise, alpha]), "RGBA")


@pytest.fixture
def cutout_path(tmp_path: Path) -> Path:
    path = tmp_path / "SKU_0042-A.png"
    cutout().save(path)
    return path


@pytest.fixture
def shop(client: FalClient) -> Shop:
    return Shop(client)


def only(box: Sandbox) -> list[str]:
    return [job["endpoint"] for job in box.ledger()["jobs"]]


def test_several_places_cost_one_cutout_and_each_picture_passes_its_rules(
    shop: Shop, box: Sandbox, tmp_path: Path
) -> None:
    made = shop.packshot(BOTTLE, tmp_path / "out", places="amazon,trendyol,google,etsy", check=True)
    assert only(box) == ["fal-ai/bria/background/remove"]
    assert [image["place"] for image in made["images"]] == ["amazon", "trendyol", "google", "etsy"]
    for image in made["images"]:
        (check,) = image["checks"]
        assert check["verdict"] in ("pass", "warn"), check
        data = Path(image["path"]).read_bytes()
        assert (image["file_size"], image["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.sampled(16)
@pytest.mark.parametrize("place", PLACES)
def test_no_place_fails_a_packshot_that_was_made_for_it(shop: Shop, place: str, tmp_path: Path) -> None:
    width, height = PLACES[place].size
    pixels = np.full((height + 40, width + 40, 4), (30, 90, 160, 255), np.uint8)
    pixels[:20] = pixels[-20:] = pixels[:, :20] = pixels[:, -20:] = 0
    path = tmp_path / "cutout.png"
    Image.fromarray(pixels, "RGBA").save(path, compress_level=1)
    (image,) = shop.packshot("photo.jpg", tmp_path / "out", places=[place], cutout=path, check=True)["images"]
    (check,) = image["checks"]
    failed = [rule for rule in check["rules"] if rule["verdict"] == "fail"]
    warned = [rule for rule in check["rules"] if rule["verdict"] == "warn"]
    assert not failed
    assert not warned
    assert (image["width"], image["height"]) == (width, height)
    assert not image["enlarged"]


def test_the_pixels_inside_are_the_cutouts_own_when_nothing_is_resized(
    shop: Shop, cutout_path: Path, tmp_path: Path
) -> None:
    made = shop.packshot("x.jpg", tmp_path, cutout=cutout_path, size=(280 * 2, 400 * 2), fill=0.5, format="PNG")
    (image,) = made["images"]
    assert image["scale"] == 1
    result = np.asarray(Image.open(image["path"]))
    source = np.asarray(cutout())[50:450, 60:340, :3]
    assert np.array_equal(result[200:600, 140:420], source)
    outside = np.delete(result.reshape(-1, 3), np.s_[:], axis=0)
    assert outside.size == 0
    result = result.copy()
    result[200:600, 140:420] = 255
    assert (result == 255).all()


def test_a_product_with_too_few_pixels_gets_a_smaller_frame_before_it_is_enlarged(shop: Shop, tmp_path: Path) -> None:
    cutout(600, 800).save(tmp_path / "small.png")
    places = "amazon,trendyol"
    (amazon, trendyol) = shop.packshot("x.jpg", tmp_path, places=places, cutout=tmp_path / "small.png")["images"]
    assert (amazon["scale"], amazon["enlarged"]) == (1, False)
    assert max(amazon["width"], amazon["height"]) < 1000
    # Trendyol takes one size only.
    assert (trendyol["width"], trendyol["height"]) == (1200, 1800)
    assert trendyol["enlarged"]
    assert trendyol["scale"] > 1


def test_the_file_says_srgb_and_the_resolution_that_is_asked(shop: Shop, cutout_path: Path, tmp_path: Path) -> None:
    (image,) = shop.packshot("x.jpg", tmp_path, places="trendyol", cutout=cutout_path)["images"]
    with Image.open(image["path"]) as picture:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        assert picture.info["dpi"] == (96, 96)
        # 4:4:4: every component is sampled alike.
        assert {layer[1:3] for layer in picture.layer} == {(1, 1)}


def test_names_stay_as_given_and_the_cutout_is_kept(shop: Shop, cutout_path: Path, tmp_path: Path) -> None:
    made = shop.packshot(tmp_path / "SKU_0042-A.jpg", tmp_path / "out", places="ebay", cutout=cutout_path)
    assert Path(made["images"][0]["path"]).name == "SKU_0042-A-ebay.jpg"
    assert Path(made["cutout"]["path"]).name == "SKU_0042-A-cutout.png"
    assert Path(made["cutout"]["path"]).read_bytes() == cutout_path.read_bytes()


def test_a_name_cannot_lead_out_of_the_folder(shop: Shop, cutout_path: Path, tmp_path: Path) -> None:
    made = shop.packshot("x.jpg", tmp_path / "out", cutout=cutout_path, name="../../etc/pass wd")
    assert Path(made["images"][0]["path"]).parent == tmp_path / "out"


def test_a_colour_or_a_picture_can_stand_behind_the_product(shop: Shop, cutout_path: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 20), (10, 200, 30)).save(tmp_path / "wall.png")
    for background, corner in (("#102030", (16, 32, 48)), (str(tmp_path / "wall.png"), (10, 200, 30))):
        made = shop.packshot("x.jpg", tmp_path, cutout=cutout_path, background=background, format="PNG")
        with Image.open(made["images"][0]["path"]) as picture:
            assert picture.getpixel((0, 0)) == corner


def test_a_shadow_lies_below_the_product_and_leaves_the_frame_white(
    shop: Shop, cutout_path: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cutout": cutout_path, "size": (800, 800), "fill": 0.6, "format": "PNG"}
    plain = np.asarray(Image.open(shop.packshot("x.jpg", tmp_path, **options)["images"][0]["path"]))
    shaded = np.asarray(Image.open(shop.packshot("x.jpg", tmp_path, shadow=True, **options)["images"][0]["path"]))
    changed = np.argwhere((plain != shaded).any(axis=2))
    assert len(changed)
    assert changed[:, 0].min() > 500
    assert (shaded[[0, -1]] == 255).all()
    assert (shaded[:, [0, -1]] == 255).all()


def test_the_old_backgrounds_colour_is_taken_out_of_soft_edges() -> None:
    height = width = 300
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(5)
    # A hairy edge: the radius jumps from one direction to the next.
    angle = np.arctan2(rows - 150, columns - 150)
    hair = np.interp(angle, np.linspace(-np.pi, np.pi, 240), rng.uniform(60, 110, 240))
    alpha = np.clip((hair - np.hypot(rows - 150, columns - 150)) / 12 + 0.5, 0, 1)
    true = np.dstack([180 + 40 * np.sin(columns / 30), 120 + 30 * np.cos(rows / 25), np.full(alpha.shape, 60.0)])
    behind = np.dstack([np.full(alpha.shape, 20.0), np.full(alpha.shape, 40.0), np.full(alpha.shape, 110.0)])
    photo = true * alpha[..., None] + behind * (1 - alpha[..., None])
    rgba = np.dstack([photo, alpha * 255]).round().astype(np.uint8)

    edge = (alpha > 0.02) & (alpha < 0.98)
    shown = alpha[..., None]

    def difference(colours: np.ndarray) -> float:
        composed, wanted = colours * shown + 255 * (1 - shown), true * shown + 255 * (1 - shown)
        error = deltaE_ciede2000(rgb2lab(composed / 255), rgb2lab(wanted / 255))
        return float(error[edge].mean())

    naive = difference(rgba[:, :, :3].astype(float))
    mended = foreground(rgba)
    assert naive > 8
    assert difference(mended.astype(float)) <= 1.5
    opaque = rgba[:, :, 3] >= 254
    assert np.array_equal(mended[opaque], rgba[:, :, :3][opaque])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"places": "amazom"}, "Known: amazon"),
        ({"size": (0, 5)}, "size must be"),
        ({"size": "large"}, "size must be"),
        ({"fill": 2}, "fill must be"),
        ({"margin": 0.6}, "margin must be"),
        ({"fill": 0.8, "margin": 0.1}, "not both"),
        ({"format": "WEBP"}, "JPEG or PNG"),
        ({"background": "whitish"}, "a colour such as"),
        ({"shadow": "yes"}, "shadow must be"),
        ({"check": 1}, "check must be"),
        ({"directory": ""}, "directory must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_paid(
    shop: Shop, box: Sandbox, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    arguments = {"directory": tmp_path, **options}
    with pytest.raises(InvalidInput, match=said):
        shop.packshot(BOTTLE, **arguments)
    assert only(box) == []


@pytest.mark.parametrize(("mode", "said"), [("RGB", "no transparent background"), ("empty", "transparent everywhere")])
def test_a_cutout_that_is_none_is_refused(shop: Shop, tmp_path: Path, mode: str, said: str) -> None:
    picture = Image.new("RGBA", (50, 50), (0, 0, 0, 0)) if mode == "empty" else Image.new("RGB", (50, 50))
    picture.save(tmp_path / "cut.png")
    paid = tmp_path / "out" / "x-cutout.png"
    paid.parent.mkdir()
    paid.write_bytes(b"paid for")
    with pytest.raises(InvalidInput, match=said):
        shop.packshot("x.jpg", paid.parent, cutout=tmp_path / "cut.png")
    assert paid.read_bytes() == b"paid for"


def test_the_cutout_is_saved_even_when_the_packshot_cannot_be_made(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("services.shop.packshot.packshot", broken)
    with pytest.raises(MemoryError):
        shop.packshot(BOTTLE, tmp_path)
    assert (tmp_path / "bottle-cutout.png").stat().st_size > 0
