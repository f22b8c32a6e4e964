"""True to the product: pixels put back, products measured, and models that misbehave on purpose, end to end."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from fal_sandbox.pictures.scene import generic_picture
from fal_sandbox.server import Sandbox
from services.fal.errors import FalError, InvalidInput
from services.fal_service import FalClient
from services.shop import Shop
from services.shop.fidelity import measured
from services.shop.picture_file import Pixels
from services.shop.pixel_lock import locked
from services.shop.placement import located
from services.shop.places import PLACES
from services.shop.source_type import COMPOSITE, passed_on, saved, source_type_of, xmp

BACKEND = Path(__file__).resolve().parents[1]
SIDE = 320
CATEGORIES = {"main_product_type": "Bottle"}
PHOTOKIT = "bria/replace-background"


# A product of which everything is known


def colours() -> Pixels:
    """A textured thing with a label, RGB in floats."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    grain = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 180, (SIDE, SIDE)), (0, 0), 3)
    true = np.dstack([180 + 40 * np.sin(columns / 30), 120 + 30 * np.cos(rows / 25), np.full(rows.shape, 60.0)])
    true = np.clip(true + grain[..., None], 0, 255).astype(np.uint8)
    true[130:190, 100:220] = 240
    for text, y in (("SAFIR", 155), ("250 ML", 182)):
        cv2.putText(true, text, (108, y), cv2.FONT_HERSHEY_DUPLEX, 0.85, (30, 30, 80), 1, cv2.LINE_AA)
    return true.astype(float)


def alpha() -> Pixels:
    """A hairy edge: the radius jumps from one direction to the next."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle = SIDE / 2
    angle = np.arctan2(rows - middle, columns - middle)
    hair = np.random.default_rng(5).uniform(90, 130, 240)
    radius = np.interp(angle, np.linspace(-np.pi, np.pi, 240), hair)
    return np.clip((radius - np.hypot(rows - middle, columns - middle)) / 12 + 0.5, 0, 1)


def behind() -> Pixels:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.dstack([200 + 30 * np.sin(rows / 60), 190 + 20 * np.cos(columns / 80), np.full(rows.shape, 170.0)])


def cutout() -> Pixels:
    """As a photo before a dark blue wall gives it: the wall is mixed into the soft edge."""
    opacity = alpha()[..., None]
    photo = colours() * opacity + np.array([20.0, 40.0, 110.0]) * (1 - opacity)
    return np.dstack([photo, opacity * 255]).round().astype(np.uint8)


def moved(values: Pixels, x: float, y: float, scale: float = 1.0) -> Pixels:
    """By a fraction of a pixel as well, about the middle."""
    middle = (SIDE - 1) / 2 * (1 - scale)
    matrix = np.array([[scale, 0, x + middle], [0, scale, y + middle]])
    return cv2.warpAffine(values, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def garbled(product: Pixels) -> Pixels:
    result = product.copy()
    result[130:190, 100:220] = result[130:190, 100:220][::-1, ::-1]
    return result


def picture(product: Pixels, x: float = 0, y: float = 0, scale: float = 1.0) -> Pixels:
    opacity = moved(alpha(), x, y, scale)[..., None].clip(0, 1)
    mixed = moved(product, x, y, scale) * opacity + behind() * (1 - opacity)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def small(values: Pixels, parts: int = 2) -> Pixels:
    """A half as wide and high, or another part: a search takes its time by the pixel."""
    return cv2.resize(values, (SIDE // parts, SIDE // parts), interpolation=cv2.INTER_AREA)


def photo(product: Pixels, x: float = 0, y: float = 0, scale: float = 1.0) -> Pixels:
    return small(picture(product, x, y, scale))


def edge_difference(result: Pixels, x: int = 0, y: int = 0) -> float:
    """Mean ΔE00 of the soft edge against the truth, the product moved by whole pixels."""
    opacity, product = np.roll(alpha(), (y, x), (0, 1)), np.roll(colours(), (y, x), (0, 1))
    wanted = product * opacity[..., None] + behind() * (1 - opacity[..., None])
    edge = (opacity > 0.02) & (opacity < 0.98)
    return float(deltaE_ciede2000(rgb2lab(result / 255), rgb2lab(wanted / 255))[edge].mean())


def test_a_sign_is_found_at_its_own_size_and_not_at_one_nearby() -> None:
    """Compared with fewer pixels, its plain boards look alike at several sizes."""
    sign = np.zeros((840, 406, 4), np.uint8)
    cv2.rectangle(sign, (193, 270), (213, 719), (150, 150, 155, 255), -1)
    for turn in (45, -45):
        board = cv2.boxPoints(((203, 270), (270, 60), turn)).astype(np.int32)
        cv2.fillPoly(sign, [board], (235, 235, 235, 255))
        cv2.polylines(sign, [board], True, (30, 30, 30, 255), 3)
    cv2.putText(sign, "RAIL", (118, 230), cv2.FONT_HERSHEY_DUPLEX, 0.8, (20, 20, 20, 255), 2)
    behind = cv2.imdecode(np.frombuffer(generic_picture(406, 840, "oak table, morning light", 5), np.uint8), 1)
    soft = cv2.GaussianBlur(sign.astype(np.float32), (0, 0), 0.55)
    placed = cv2.warpAffine(soft, np.array([[0.64, 0, 84.1], [0, 0.64, 168.2]]), (406, 840))
    mixed = placed[..., :3] + behind[..., ::-1] * (1 - placed[..., 3:] / 255)
    found = located(sign, np.clip(mixed, 0, 255).astype(np.uint8))
    assert found is not None
    assert found.scale == pytest.approx(0.64, rel=0.02)


# Pixel lock


@pytest.mark.nightly
@pytest.mark.parametrize(("x", "y"), [(0.49, -0.45), (-6, 3)])
def test_the_original_pixels_come_back_over_a_garbled_label_wherever_it_was_nudged_to(x: float, y: float) -> None:
    source = cutout()
    made = picture(garbled(colours()), x, y)
    lock = locked(source, made)
    assert lock.pixels is not None, lock.reason
    assert lock.moved_px == pytest.approx((x, y), abs=0.15)
    whole = round(x), round(y)
    in_place = np.roll(source, whole[::-1], (0, 1))
    opaque = in_place[..., 3] >= 254
    assert np.array_equal(lock.pixels[opaque], in_place[opaque][:, :3])
    opacity = in_place[..., 3:] / 255
    naive = in_place[..., :3] * opacity + made * (1 - opacity)
    assert edge_difference(naive, *whole) > 8
    assert edge_difference(lock.pixels, *whole) <= 1.5


def test_light_is_adapted_inside_only_when_it_is_asked_for() -> None:
    source, darker = cutout(), picture(colours() * 0.8)
    opaque = source[..., 3] >= 254
    own, adapted = locked(source, darker), locked(source, darker, adapt_light=True)
    assert own.pixels is not None
    assert adapted.pixels is not None
    assert np.array_equal(own.pixels[opaque], source[opaque][:, :3])
    assert adapted.pixels[opaque].mean() == pytest.approx(0.8 * source[opaque][:, :3].mean(), rel=0.03)


def rippled(product: Pixels) -> Pixels:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return cv2.remap(product, x + 6 * np.sin(y / 14), y + 6 * np.sin(x / 14), cv2.INTER_LINEAR)


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: photo(colours(), 40, 0), "moved by 20 px"),
        (lambda: photo(colours(), scale=0.9), "rescaled to (89.9|90)"),
        (lambda: photo(rippled(colours())), "redrawn"),
        (lambda: photo(np.full((SIDE, SIDE, 3), 90.0)), "not found|redrawn|rescaled|moved|turned"),
        (lambda: small(behind().astype(np.uint8)), "not found|redrawn|rescaled|moved|turned"),
        (lambda: picture(colours()), "another size"),
    ],
    ids=["moved", "rescaled", "redrawn", "another product", "no product", "another frame"],
)
def test_what_does_not_stand_where_it_stood_is_not_locked_and_the_reason_is_said(made: Any, said: str) -> None:
    lock = locked(small(cutout()), made())
    assert lock.pixels is None
    assert re.search(said, lock.reason), lock.reason


# Fidelity


def jpeg(quality: int, pixels: Pixels) -> Pixels:
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def halved(pixels: Pixels) -> Pixels:
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(half, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def erased(product: Pixels) -> Pixels:
    result = product.copy()
    result[130:190, 100:220] = 200
    return result


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "made",
    [
        lambda: photo(colours()),
        lambda: photo(colours(), 2.4, -1.3),
        lambda: photo(colours(), 30, -20, 0.8),
        lambda: photo(colours(), scale=1.12),
        lambda: jpeg(95, photo(colours())),
        lambda: jpeg(80, photo(colours())),
        lambda: halved(photo(colours())),
    ],
    ids=["as it is", "nudged", "moved and smaller", "larger", "JPEG q95", "JPEG q80", "halved"],
)
def test_a_product_that_is_only_moved_rescaled_or_compressed_is_the_same(made: Any) -> None:
    found = measured(small(cutout()), made())
    assert found["verdict"] == "pass", found
    assert found["score"] >= 0.75


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: photo(garbled(colours())), "drawn differently"),
        (lambda: photo(garbled(colours()), 20, -20, 0.8), "drawn differently"),
        (lambda: photo(erased(colours())), "drawn differently"),
        (lambda: photo(rippled(colours())), "drawn differently|proportions"),
        (lambda: photo(colours() * (1.06, 1.0, 0.88)), "colours are off"),
        (lambda: photo(colours() * 0.88), "colours are off"),
        (lambda: photo(colours(), 110, 0), "outside the picture"),
        (lambda: stretched(), "proportions"),
        (lambda: small(behind().astype(np.uint8)), "not found|drawn differently"),
    ],
    ids=["garbled", "garbled smaller", "erased", "redrawn", "warm", "darker", "cut off", "wider", "nothing"],
)
def test_a_product_that_is_not_the_same_fails_with_the_reason(made: Any, said: str) -> None:
    found = measured(small(cutout()), made())
    assert found["verdict"] == "fail", found
    assert found["score"] < 0.5
    assert re.search(said, found["reason"]), found


def stretched() -> Pixels:
    matrix = np.array([[1.08, 0, -0.04 * SIDE], [0, 1, 0]])
    return small(cv2.warpAffine(picture(colours()), matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC))


@pytest.mark.nightly
def test_the_worst_tile_is_where_the_label_was_garbled() -> None:
    box = measured(cutout(), picture(garbled(colours())))["worst_tile_box"]
    assert box is not None
    left, top, right, bottom = box
    assert 84 <= left < right <= 236
    assert 114 <= top < bottom <= 206


# Models that misbehave, end to end


@pytest.fixture
def shop(client: FalClient) -> Shop:
    return Shop(client)


@pytest.fixture
def cutout_path(tmp_path: Path) -> Path:
    path = tmp_path / "SKU_7.png"
    Image.fromarray(small(cutout()), "RGBA").save(path)
    return path


@pytest.fixture
def tiny_cutout_path(cutout_path: Path) -> Path:
    """For what is not about pixels."""
    Image.fromarray(small(cutout(), 4), "RGBA").save(cutout_path)
    return cutout_path


def pixels_of(path: str) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(Path(path).read_bytes())).convert("RGB"))


def pictures_paid(box: Sandbox) -> int:
    return sum(job["endpoint"] == PHOTOKIT for job in box.ledger()["jobs"])


def one(shop: Shop, cutout_path: Path, **options: Any) -> Any:
    made = shop.backgrounds(
        "x.jpg", cutout_path.parent / "out", CATEGORIES, styles=["Studio"], cutout=cutout_path, **options
    )
    (image,) = made["images"]
    return image


@pytest.mark.sampled(8)
@pytest.mark.parametrize("how", ["label", "tint", "jitter"])
def test_a_garbled_tinted_or_nudged_product_is_locked_pixel_by_pixel(
    shop: Shop, box: Sandbox, cutout_path: Path, how: str
) -> None:
    box.configure(misbehave=how)
    image = one(shop, cutout_path, format="PNG")
    assert (image["locked"], image["verdict"], image["attempts"]) == (True, "pass", 1)
    x, y = (round(way) for way in image["moved_px"])
    source = np.roll(small(cutout()), (y, x), (0, 1))
    opaque = source[..., 3] >= 254
    published, generated = pixels_of(image["path"]), pixels_of(image["generated"]["path"])
    assert np.array_equal(published[opaque], source[opaque][:, :3])
    assert not np.array_equal(generated[opaque], source[opaque][:, :3])


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("how", "said"), [("label", "drawn differently"), ("tint", "colours are off")])
def test_a_check_changes_nothing_and_says_what_is_wrong(
    shop: Shop, box: Sandbox, cutout_path: Path, how: str, said: str
) -> None:
    box.configure(misbehave=how)
    image = one(shop, cutout_path, fidelity="check", format="PNG")
    assert (image["locked"], image["verdict"]) == (False, "fail")
    assert said in image["fidelity"]["reason"]
    assert np.array_equal(pixels_of(image["path"]), pixels_of(image["generated"]["path"]))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("how", "verdict", "said"),
    [
        ("move", "pass", "moved by"),
        ("rescale", "pass", "rescaled"),
        ("crop", "fail", "moved by"),
        ("redraw", "fail", "redrawn"),
    ],
)
def test_what_cannot_be_locked_is_measured_instead(
    shop: Shop, box: Sandbox, cutout_path: Path, how: str, verdict: str, said: str
) -> None:
    box.configure(misbehave=how)
    image = one(shop, cutout_path)
    assert not image["locked"]
    assert re.search(said, image["lock_reason"])
    assert image["verdict"] == image["fidelity"]["verdict"] == verdict


def test_a_failed_picture_is_made_once_more_and_the_better_one_is_taken(
    shop: Shop, box: Sandbox, tiny_cutout_path: Path
) -> None:
    box.configure(misbehave="redraw=1", in_place=True)
    image = one(shop, tiny_cutout_path, fidelity="retry")
    assert (image["verdict"], image["locked"], image["attempts"]) == ("pass", True, 2)
    first, second = [job for job in box.ledger()["jobs"] if job["endpoint"] == PHOTOKIT]
    assert (image["rejected"]["verdict"], image["rejected"]["request_id"]) == ("fail", first["request_id"])
    assert image["request_id"] == second["request_id"]
    # Bria's own seed is fixed: without another one the same picture would be paid for again.
    assert second["input"]["seed"] != first["input"].get("seed")
    kept = sorted(path.name for path in (tiny_cutout_path.parent / "out").glob("*generated*"))
    assert kept == ["x-Studio-generated-2.png", "x-Studio-generated.png"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("options", "paid"), [({"fidelity": "lock"}, 1), ({"fidelity": "check"}, 1), ({}, 2)])
def test_no_more_pictures_are_paid_for_than_were_asked(
    shop: Shop, box: Sandbox, tiny_cutout_path: Path, options: dict[str, Any], paid: int
) -> None:
    box.configure(misbehave="redraw")
    made = shop.backgrounds(
        "x.jpg",
        tiny_cutout_path.parent,
        CATEGORIES,
        styles=["Studio"],
        cutout=tiny_cutout_path,
        **{"fidelity": "retry", **options},
    )
    assert made["images"][0]["verdict"] == "fail"
    assert made["paid_pictures"] == pictures_paid(box) == paid


def test_a_picture_whose_replacement_cannot_be_made_is_kept(shop: Shop, box: Sandbox, tiny_cutout_path: Path) -> None:
    box.configure(misbehave="redraw")
    box.fault("job", endpoint=PHOTOKIT, skip=1, fail={"error": "The model ran out of memory."})
    made = shop.backgrounds(
        "x.jpg", tiny_cutout_path.parent, CATEGORIES, styles=["Studio"], cutout=tiny_cutout_path, fidelity="retry"
    )
    (image,) = made["images"]
    assert image["verdict"] == "fail"
    assert Path(image["path"]).exists()
    assert made["errors"] is not None
    assert [error["stage"] for error in made["errors"]] == ["picture"]


def test_pictures_of_an_earlier_call_are_not_overwritten(shop: Shop, box: Sandbox, tiny_cutout_path: Path) -> None:
    box.configure(in_place=True)
    first, second = one(shop, tiny_cutout_path), one(shop, tiny_cutout_path)
    assert first["generated"]["path"] != second["generated"]["path"]
    assert Path(first["generated"]["path"]).exists()


def test_a_picture_is_on_file_before_anything_else_is_done_with_it(
    shop: Shop, cutout_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("services.shop.judge.locked", broken)
    with pytest.raises(MemoryError):
        one(shop, cutout_path)
    assert (cutout_path.parent / "out" / "x-Studio-generated.png").stat().st_size > 0


KILLED = """
import sys
from services.fal_service import FalClient
from services.shop import Shop
styles = ["Studio", "Premium"]
with FalClient(timeout=120) as client:
    Shop(client).backgrounds("x.jpg", sys.argv[2], {"vibe": "Calm"}, styles=styles, cutout=sys.argv[1])
"""


def test_a_picture_is_saved_as_it_comes_even_when_the_process_is_killed_while_another_is_made(
    box: Sandbox, cutout_path: Path
) -> None:
    box.fault("job", endpoint=PHOTOKIT, skip=1, stuck="IN_PROGRESS")
    folder = cutout_path.parent / "out"
    env = {**os.environ, "PYTHONPATH": str(BACKEND / "src")}
    with subprocess.Popen([sys.executable, "-c", KILLED, cutout_path, folder], env=env) as process:
        try:
            ends_at = time.monotonic() + 60
            while not (found := list(folder.glob("x-*-generated.png"))):
                assert process.poll() is None, "it ended before any picture was saved"
                assert time.monotonic() < ends_at, "no picture was saved while another one was made"
                time.sleep(0.05)
        finally:
            process.kill()
    assert pixels_of(str(found[0])).size > 0


def test_one_photo_is_cut_out_once_for_all_styles(shop: Shop, box: Sandbox, photo_path: Path, tmp_path: Path) -> None:
    box.configure(in_place=True)
    made = shop.backgrounds(photo_path, tmp_path / "out", CATEGORIES, styles=["Studio", "Premium"])
    endpoints = [job["endpoint"] for job in box.ledger()["jobs"]]
    assert endpoints.count("fal-ai/bria/background/remove") == 1
    assert [image["style_name"] for image in made["images"]] == ["Studio", "Premium"]
    assert all(image["locked"] for image in made["images"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fidelity": "perfect"}, "check, lock, retry"),
        ({"place": "amazom"}, "Known: amazon"),
        ({"format": "TIFF"}, "JPEG or PNG"),
        ({"adapt_light": "yes"}, "adapt_light must be"),
        ({"categories": {}}, "categories must be"),
        ({"styles": []}, "styles must be"),
        ({"directory": ""}, "directory must be"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_paid(
    shop: Shop, box: Sandbox, photo_path: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    arguments = {"directory": tmp_path, "categories": CATEGORIES, **options}
    with pytest.raises(InvalidInput, match=said):
        shop.backgrounds(photo_path, **arguments)
    assert box.ledger()["jobs"] == []


def test_a_cutout_that_cannot_be_used_is_told_before_backgrounds_are_paid_for(
    shop: Shop, box: Sandbox, tmp_path: Path
) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "flat.png")
    with pytest.raises(FalError, match="no transparent background"):
        shop.backgrounds("x.jpg", tmp_path, CATEGORIES, cutout=tmp_path / "flat.png")
    assert box.ledger()["jobs"] == []


def test_a_way_to_misbehave_that_there_is_none_of_is_refused() -> None:
    for wrong in ("explode", "label=", "label=x"):
        with pytest.raises(ValueError, match="label, redraw, move"):
            Sandbox(misbehave=[wrong])


# Said in the file


def xmp_value(data: bytes) -> str:
    """By what is in the file's bytes, not by our own reader."""
    start, end = data.index(b"<x:xmpmeta"), data.index(b"</x:xmpmeta>") + len(b"</x:xmpmeta>")
    name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    (element,) = ElementTree.fromstring(data[start:end]).iter(name)
    return str(element.text)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_the_source_type_is_written_and_read_back_in_every_format(format: str) -> None:
    data = saved(Image.new("RGB", (30, 20), "red"), format, COMPOSITE)
    assert xmp_value(data) == f"http://cv.iptc.org/newscodes/digitalsourcetype/{COMPOSITE}"
    assert source_type_of(Image.open(io.BytesIO(data))) == COMPOSITE
    without = saved(Image.new("RGB", (30, 20), "red"), format, None)
    assert source_type_of(Image.open(io.BytesIO(without))) is None


@pytest.mark.parametrize("format", ["TIFF", "BMP", "GIF"])
def test_a_format_that_would_lose_the_source_type_is_an_error(format: str) -> None:
    with pytest.raises(InvalidInput, match="Choose JPEG, PNG or WEBP"):
        saved(Image.new("RGB", (30, 20)), format, COMPOSITE)


def test_the_source_type_is_read_however_xmp_spells_it() -> None:
    packet = xmp("trainedAlgorithmicMedia").decode()
    element = packet[packet.index("<Iptc4xmpExt") : packet.index("</rdf:Description>")]
    url = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    as_resource = packet.replace(element, f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{url}"/>')
    as_attribute = packet.replace(element, "").replace(
        "xmlns:Iptc4xmpExt=", f'Iptc4xmpExt:DigitalSourceType="{url}" xmlns:Iptc4xmpExt='
    )
    for spelled in (packet, as_resource, as_attribute):
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "JPEG", xmp=spelled.encode())
        assert source_type_of(Image.open(buffer)) == "trainedAlgorithmicMedia"


@pytest.mark.parametrize("bad", [b"<broken", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", b"\xff\xfe\x00"])
def test_hostile_xmp_says_nothing(bad: bytes) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "JPEG", xmp=bad)
    assert source_type_of(Image.open(buffer)) is None


@pytest.mark.sampled(2)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("place", [None, "google"])
def test_generated_backgrounds_say_so_in_the_places_word(
    shop: Shop, box: Sandbox, cutout_path: Path, place: str | None, format: str
) -> None:
    box.configure(in_place=True)
    image = one(shop, cutout_path, place=place, format=format)
    wanted = PLACES[place].digital_source_type if place else COMPOSITE
    assert image["digital_source_type"] == wanted
    assert xmp_value(Path(image["path"]).read_bytes()).endswith(f"/{wanted}")


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_packshot_says_of_its_origin_what_its_sources_say_and_nothing_of_its_own(
    shop: Shop, cutout_path: Path, tmp_path: Path, format: str
) -> None:
    def said_of(image: str | Path = "x.jpg", **options: Any) -> str | None:
        [made] = shop.packshot(image, tmp_path / "out", cutout=cutout_path, format=format, size=(200, 200), **options)[
            "images"
        ]
        said = source_type_of(Image.open(io.BytesIO(Path(made["path"]).read_bytes())))
        assert made["digital_source_type"] == said
        return said

    assert said_of() is None
    for name, kind in (("photo.jpg", "JPEG"), ("photo.png", "PNG")):
        (tmp_path / name).write_bytes(saved(Image.new("RGB", (90, 90)), kind, "compositeSynthetic"))
        assert said_of(tmp_path / name) == "compositeSynthetic"
    (tmp_path / "wall.png").write_bytes(saved(Image.new("RGB", (90, 90)), "PNG", "trainedAlgorithmicMedia"))
    assert said_of(background=str(tmp_path / "wall.png")) == COMPOSITE


def test_a_word_of_a_photo_behind_the_product_is_no_generated_background() -> None:
    assert passed_on(None, behind="digitalCapture") is None
    assert passed_on("digitalCapture", None, behind=None) == "digitalCapture"
