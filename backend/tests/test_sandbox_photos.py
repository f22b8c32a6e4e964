"""Strangers' photos in the sandbox: products that colours alone do not show, and doubts that are admitted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import COFFEE
from fal_sandbox.phrases import NOUNS, PRODUCT_WORDS
from fal_sandbox.pictures import cutout, light, saliency, surfaces
from fal_sandbox.pictures.colours import look
from fal_sandbox.pictures.cutout import cut_out
from fal_sandbox.pictures.mask import search_for
from fal_sandbox.pictures.scene import replace_background
from fal_sandbox.samples import sample_photo
from fal_sandbox.server import Sandbox
from fal_sandbox.texts import answer
from services.fal_service import FalClient

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE = 400
UNCLEAR = "could not be told from its background"
NEUTRAL = "product.jpg"


def read(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def png(picture: np.ndarray) -> bytes:
    noise = np.random.default_rng(1).normal(0, 1.5, picture.shape)
    return cv2.imencode(".png", np.clip(picture + noise, 0, 255).astype(np.uint8))[1].tobytes()


def laid_over(ground: np.ndarray, product: np.ndarray, mask: np.ndarray) -> np.ndarray:
    alpha = cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None] / 255
    return ground * (1 - alpha) + product * alpha


def paper(level: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.float32)


def boards() -> np.ndarray:
    """Brown boards with a strong grain."""
    grain = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 1, (SIDE, SIDE)), (0, 0), sigmaX=0.8, sigmaY=14)
    ground = np.array([60.0, 95.0, 140.0]) + (grain / grain.std() * 14)[..., None] * np.array([0.6, 0.8, 1.0])
    ground[:, ::70] *= 0.3
    return ground


def boot() -> tuple[np.ndarray, np.ndarray]:
    """Dark, on pure white, and out of the frame on three sides."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    outline = [(60, 0), (300, 0), (300, 190), (340, 230), (399, 250), (399, 399), (40, 399), (70, 200)]
    cv2.fillPoly(mask, [np.array(outline)], 255)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    leather = 45 + 25 * np.sin(x / 40) + 15 * np.cos(y / 60)
    picture = laid_over(paper(255), np.dstack([leather * 0.8, leather * 0.9, leather]), mask)
    cv2.line(picture, (45, 385), (399, 385), (90, 120, 150), 14)
    for lace in range(5):
        cv2.line(picture, (190, 40 + 30 * lace), (245, 52 + 30 * lace), (150, 150, 150), 3)
    return picture, mask


def white_mug() -> tuple[np.ndarray, np.ndarray]:
    """White on white: only the shading tells it."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.rectangle(mask, (120, 110), (260, 300), 255, -1)
    for row in (110, 300):
        cv2.ellipse(mask, (190, row), (70, 18), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (262, 200), (48, 58), 0, -90, 90, 255, 16)
    x = np.mgrid[0:SIDE, 0:SIDE][1]
    shading = 250 - 20 * np.clip(np.abs((x - 190) / 72), 0, 1.6) ** 2
    picture = laid_over(paper(252), shading[..., None], mask)
    cv2.ellipse(picture, (190, 110), (64, 14), 0, 0, 360, (226, 228, 230), -1)
    cv2.ellipse(picture, (190, 112), (64, 14), 0, 0, 360, (214, 214, 216), 2)
    return picture, mask


def glass_bottle() -> tuple[np.ndarray, np.ndarray]:
    """Clear glass on paper, which is seen through it."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.rectangle(mask, (150, 150), (250, 340), 255, -1)
    cv2.rectangle(mask, (180, 60), (220, 150), 255, -1)
    cv2.fillPoly(mask, [np.array([(180, 120), (220, 120), (250, 170), (150, 170)])], 255)
    rim = np.exp(-cv2.distanceTransform(mask, cv2.DIST_L2, 5) / 2)[..., None]
    picture = laid_over(paper(238), paper(236) * (1 - 0.3 * rim), mask)
    cv2.rectangle(picture, (165, 165), (172, 320), (252, 252, 252), -1)
    return picture, mask


def camera() -> tuple[np.ndarray, np.ndarray]:
    """On white, with a thin strap in a loop above it."""
    side = 2 * SIDE
    picture, mask = np.full((side, side, 3), 248, np.float32), np.zeros((side, side), np.uint8)
    turn = np.linspace(0, np.pi, 200)
    strap = np.stack([400 + 264 * np.cos(turn), 384 - 264 * np.sin(turn) + 16 * np.sin(6 * turn)], axis=-1)
    for canvas, dark in ((picture, (40, 40, 60)), (mask, 255)):
        cv2.polylines(canvas, [strap.astype(np.int32)], False, dark, 6, cv2.LINE_AA)
        body = (36, 36, 38) if canvas is picture else 255
        cv2.rectangle(canvas, (136, 376), (664, 640), body, -1)
        cv2.rectangle(canvas, (320, 328), (480, 384), body, -1)
    cv2.circle(picture, (400, 512), 104, (70, 66, 64), -1)
    cv2.circle(picture, (400, 512), 72, (25, 20, 30), -1)
    cv2.rectangle(picture, (160, 400), (272, 432), (150, 150, 150), -1)
    return picture, mask


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("photo", "least"),
    [(boot, 0.97), (white_mug, 0.85), (glass_bottle, 0.95), (camera, 0.92)],
    ids=["boot", "mug", "glass", "camera"],
)
def test_an_ordinary_packshot_is_cut_out_whole(photo: Any, least: float) -> None:
    picture, mask = photo()
    made = cut_out(png(picture))
    seen, there = read(made.png)[..., 3] > 127, mask > 127
    assert made.remark is None
    assert (seen & there).sum() / (seen | there).sum() > least


@pytest.mark.nightly
def test_a_strap_is_kept_and_what_it_encloses_is_background() -> None:
    picture, mask = camera()
    alpha = read(cut_out(png(picture)).png)[..., 3]
    strap = (mask > 200) & (np.arange(2 * SIDE)[:, None] < 320)
    assert (alpha[strap] > 127).mean() > 0.95
    assert alpha[220:300, 250:550].max() == 0


@pytest.mark.nightly
def test_the_inner_corner_between_cup_and_saucer_holds_no_wood() -> None:
    alpha = read(cut_out(COFFEE.read_bytes()).png)[..., 3]
    assert alpha[62:65, 176:179].max() == 0
    assert alpha[74:78, 176:179].min() > 127


@pytest.mark.nightly
def test_the_edge_of_a_table_is_no_strap() -> None:
    picture, _ = camera()
    for columns in (slice(0, 137), slice(663, 800)):
        picture[500:505, columns] = 60
    alpha = read(cut_out(png(picture)).png)[..., 3]
    assert alpha[490:515, :110].max() == 0
    assert alpha[490:515, 690:].max() == 0


# Doubt


def scattered() -> np.ndarray:
    picture = paper(235)
    for number in range(30):
        x, y = 35 + 65 * (number % 6), 40 + 75 * (number // 6)
        cv2.circle(picture, (x, y), 12, (40 + 6 * number, 60, 200 - 6 * number), -1)
    return picture


@pytest.mark.nightly
@pytest.mark.parametrize(
    "picture",
    [paper(128), boards(), scattered(), np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.float32)],
    ids=["nothing", "boards alone", "many islands", "noise"],
)
def test_what_cannot_be_told_apart_is_kept_whole_and_said(picture: Any) -> None:
    made = cut_out(png(picture))
    assert UNCLEAR in made.remark
    assert read(made.png)[..., 3].min() == 255
    assert UNCLEAR in replace_background(png(picture), "white studio").remark


def test_a_doubt_is_in_the_answer_and_fals_shape_stays(client: FalClient, tmp_path: Path) -> None:
    photo = tmp_path / "nothing.png"
    photo.write_bytes(png(paper(128)))
    made = client.product_workflow(photo, styles=["Studio"])
    assert made["sandbox"] is True
    assert len(made["sandbox_remarks"]) == 1
    assert UNCLEAR in made["sandbox_remarks"][0]
    assert made["images"][0]["sandbox_remarks"] == made["sandbox_remarks"]
    assert made["images"][0]["image_url"].startswith("https://")


@pytest.mark.nightly
def test_without_doubt_there_is_no_remark(client: FalClient) -> None:
    made = client.remove_background("https://example.com/mug.jpg")
    assert made["sandbox"] is True
    assert "sandbox_remarks" not in made


def test_an_answer_that_is_not_the_sandboxs_is_not_called_so(box: Sandbox, client: FalClient) -> None:
    """As fal would answer: what a fault gives as output carries no mark."""
    answered = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 8, "height": 8}}
    box.fault("job", output=answered, times=None)
    made = client.remove_background("https://example.com/mug.jpg")
    assert "sandbox" not in made


# The network


def test_the_weights_are_those_that_their_page_names() -> None:
    folder = saliency.WEIGHTS.parent
    page = (folder / "README.md").read_text(encoding="utf-8")
    named = re.search(r"SHA-256: `([0-9a-f]{64})`", page)
    assert named is not None
    assert hashlib.sha256(saliency.WEIGHTS.read_bytes()).hexdigest() == named[1]
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "https://github.com/xuebinqin/U-2-Net" in page


@pytest.mark.nightly
def test_the_network_is_loaded_once_and_by_two_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = []
    usual = onnxruntime.InferenceSession

    def counted(*argv: Any, **options: Any) -> Any:
        made.append(argv)
        return usual(*argv, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counted)
    saliency._load.cache_clear()
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(saliency.look, [np.zeros((40, 60, 3), np.uint8)] * 2))
    assert len(made) == 1
    assert {one.shape for one in seen} == {(40, 60)}


def test_a_product_is_looked_for_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[np.ndarray] = []
    monkeypatch.setattr(saliency, "look", looked.append)
    photo = png(paper(201))
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(ask, photo) for ask in (look, cut_out, cut_out)]
    assert all(one.result() for one in made)
    assert len(looked) == 1


@pytest.mark.nightly
def test_the_network_is_loaded_with_the_first_photo_and_its_runtime_tells_nobody(tmp_path: Path) -> None:
    """Whatever onnxruntime means to send, it first writes to the user's cache folder."""
    program = (
        "import os, sys\n"
        "from fal_sandbox.server import Sandbox\n"
        "with Sandbox():\n"
        "    print([name for name in ('onnxruntime', 'cv2', 'numpy') if name in sys.modules])\n"
        "import numpy\n"
        "from fal_sandbox.pictures import saliency\n"
        "saliency.look(numpy.zeros((8, 8, 3), numpy.uint8))\n"
    )
    # It also keeps quiet where it takes a test for its user.
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    command = [sys.executable, "-c", program]
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=EXAMPLES.parent / "src", env={**env, **home}
    )
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for kept in (saliency._load, search_for):
        kept.cache_clear()
    yield
    for kept in (saliency._load, search_for):
        kept.cache_clear()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ground", [paper(226), boards()], ids=["paper", "boards"])
def test_without_onnxruntime_colours_and_edges_find_the_product(without_onnxruntime: None, ground: np.ndarray) -> None:
    assert saliency.look(np.zeros((8, 8, 3), np.uint8)) is None
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (200, 250), (90, 82), 0, 0, 360, 255, -1)
    cv2.fillPoly(mask, [np.array([(168, 86), (232, 86), (222, 128), (220, 186), (180, 186), (178, 128)])], 255)
    made = cut_out(png(laid_over(ground, np.full((SIDE, SIDE, 3), (40, 40, 190)), mask)))
    seen, there = read(made.png)[..., 3] > 127, mask > 127
    assert made.remark is None
    assert (seen & there).sum() / (seen | there).sum() > 0.93


def test_without_onnxruntime_a_doubt_is_said_too(without_onnxruntime: None) -> None:
    assert UNCLEAR in cut_out(png(paper(128))).remark


# What vision says


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "kind"), [("coffee.jpg", "mug"), ("bottle.jpg", "bottle"), ("lamp.jpg", "lamp")])
def test_our_own_photos_are_known_whatever_they_are_called(name: str, kind: str) -> None:
    photo = (EXAMPLES / name).read_bytes()
    assert look(photo).kind == kind
    assert f"shows a {kind}," in answer("What is this?", None, [(NEUTRAL, photo)])
    assert f"shows a {kind}," in answer("What is this?", None, [("shoe.jpg", photo)])


@pytest.mark.sampled(16)
@pytest.mark.parametrize("kind", PRODUCT_WORDS)
def test_the_outline_tells_every_kind_of_sample(kind: Any) -> None:
    assert look(sample_photo(f"{kind}.jpg")).kind == kind


@pytest.mark.nightly
def test_an_outline_that_is_none_of_the_known_says_nothing() -> None:
    turn, reach = np.arange(10) * np.pi / 5, np.array([150, 55] * 5)
    star = 200 + np.stack([reach * np.sin(turn), -reach * np.cos(turn)], axis=-1)
    picture = paper(240)
    cv2.fillPoly(picture, [star.astype(np.int32)], (40, 40, 200))
    assert look(png(picture)).kind == ""
    assert "shows a watch," in answer("What is this?", None, [("watch.jpg", png(picture))])


@pytest.mark.nightly
@pytest.mark.parametrize("kind", PRODUCT_WORDS)
def test_the_description_names_what_the_categories_name(kind: Any) -> None:
    """A bottle's category is Drinkware, which may be a mug's as well."""
    asked = 'Return a JSON object with the keys "main_product_type", "subcategory", "use_case", "industrial_type".'
    categories = answer(asked, None, [(NEUTRAL, sample_photo(f"{kind}.jpg"))])
    assert json.loads(categories)["subcategory"] != "Household Items"
    for language, code in (("English", "en"), ("Turkish", "tr"), ("German", "de")):
        noun = NOUNS[code].split("|")[list(PRODUCT_WORDS).index(kind)]
        prompt = f"<product>{categories}</product><language>{language}</language>"
        assert answer(prompt, None, []).startswith(noun), language


# Scenes


def laptop() -> np.ndarray:
    """Seen from above a corner, as such things are photographed."""
    picture = paper(240)
    cv2.fillPoly(picture, [np.array([(40, 190), (220, 110), (360, 190), (185, 312)])], (170, 168, 165))
    cv2.fillPoly(picture, [np.array([(40, 190), (185, 312), (185, 322), (40, 200)])], (110, 108, 105))
    cv2.fillPoly(picture, [np.array([(185, 312), (360, 190), (360, 200), (185, 322)])], (90, 88, 86))
    cv2.fillPoly(picture, [np.array([(105, 185), (215, 132), (290, 178), (180, 240)])], (50, 48, 46))
    return picture


@pytest.mark.nightly
def test_what_lies_flat_has_its_shadow_at_its_edge_and_the_table_behind_it() -> None:
    """Otherwise it floats: its shadow falls far below its raised corners, before a wall."""
    picture = read(replace_background(png(laptop()), "white studio", 3).png).astype(np.float32).mean(axis=-1)
    body = cv2.morphologyEx((picture < 190).astype(np.uint8), cv2.MORPH_OPEN, np.ones((7, 7)))
    columns = np.flatnonzero(body.any(axis=0))
    lower = body.shape[0] - 1 - body[::-1].argmax(axis=0)
    paper_level = float(np.median(picture[:40]))
    for column in np.linspace(columns[0] + 25, columns[-1] - 25, 7).astype(int):
        below = picture[lower[column] + 2 :, column]
        assert below[:4].mean() < paper_level - 9, "it touches the table"
        assert below[60:].min() > paper_level - 30, "no shadow lies apart from it"


@pytest.mark.nightly
@pytest.mark.parametrize(("photo", "lies"), [("laptop", True), ("lamp", False), ("bottle", False), ("mug", False)])
def test_what_stands_is_not_laid_down(photo: str, lies: bool) -> None:
    data = png(laptop()) if photo == "laptop" else sample_photo(f"{photo}.jpg")
    alpha = read(cut_out(data).png)[..., 3].astype(np.float32) / 255
    rows, columns = np.flatnonzero((alpha > 0.5).any(axis=1)), np.flatnonzero((alpha > 0.5).any(axis=0))
    assert light.find_foot(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).lies is lies


@pytest.mark.nightly
def test_the_veins_of_dark_marble_are_no_lightning() -> None:
    grey = surfaces.tile("marble", "dark").mean(axis=-1)
    assert np.percentile(grey, 99.9) < 0.34
    assert grey.max() > 0.2


def test_a_photo_that_is_cut_out_already_keeps_its_own_mask() -> None:
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(alpha, (200, 200), 120, 255, -1)
    cv2.circle(alpha, (200, 200), 40, 90, -1)
    data = cv2.imencode(".png", np.dstack([boards().astype(np.uint8), alpha]))[1].tobytes()
    made = cut_out(data)
    assert np.array_equal(read(made.png)[..., 3], alpha)
    assert made.remark is None
    assert cutout.picture_size(made.png) == (SIDE, SIDE)
