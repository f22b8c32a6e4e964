"""The commands of a shop: `packshot`, `check-image` and `listing`, with the real worker on the sandbox."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fal_sandbox.server import Sandbox
from services.shop.places import PLACES

CUTOUT = "fal-ai/bria/background/remove"
VISION = "openrouter/router/vision"
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def cutout_path(tmp_path: Path) -> Path:
    """A red block with transparent surroundings."""
    path = tmp_path / "SKU_0042-A.png"
    Image.new("RGBA", (1300, 1300), (180, 30, 30, 255)).crop((-100, -100, 1400, 1400)).save(path)
    return path


def white(path: Path, side: int) -> str:
    picture = Image.new("RGB", (side, side), "white")
    picture.paste((180, 30, 30), (side // 16, side // 16, side - side // 16, side - side // 16))
    picture.save(path, quality=95, subsampling=0)
    return str(path)


def endpoints(box: Sandbox) -> list[str]:
    return [job["endpoint"] for job in box.ledger()["jobs"]]


def test_a_packshot_of_a_photo_costs_one_cutout_and_its_files_stand_in_the_folder(
    run: Run, box: Sandbox, photo_path: Path
) -> None:
    code, document = run("packshot", str(photo_path), "--for", "amazon,trendyol", "--save_dir", "out", "--check")
    assert (code, document["error"]) == (0, None)
    assert endpoints(box) == [CUTOUT]
    assert [image["place"] for image in document["images"]] == ["amazon", "trendyol"]
    assert sorted(os.listdir("out")) == ["coffee-amazon.jpg", "coffee-cutout.png", "coffee-trendyol.jpg"]
    assert all(check["rules"] for image in document["images"] for check in image["checks"])


def test_a_packshot_of_a_cutout_that_is_there_costs_nothing(run: Run, box: Sandbox, cutout_path: Path) -> None:
    argv = ("--cutout", str(cutout_path), "--size", "640x480", "--margin", "0.1", "--format", "png")
    code, document = run("packshot", *argv, "--background", "#102030", "--save_dir", "out")
    assert (code, endpoints(box)) == (0, [])
    [image] = document["images"]
    with Image.open(image["path"]) as picture:
        assert (picture.size, picture.format, picture.getpixel((0, 0))) == ((640, 480), "PNG", (16, 32, 48))
    assert image["fill"] == pytest.approx(0.8, abs=0.01)
    assert sorted(os.listdir("out")) == ["SKU_0042-A-cutout.png", "SKU_0042-A-packshot.png"]


def test_a_flag_may_stand_before_the_photo(run: Run, box: Sandbox, cutout_path: Path, photo_path: Path) -> None:
    for flag in (["--shadow"], ["--shadow", "true"], ["--shadow=false"]):
        code, document = run("packshot", *flag, str(photo_path), "--cutout", str(cutout_path), "--save_dir", "out")
        assert (code, document["error"]) == (0, None), flag
        assert Path(document["images"][0]["path"]).name == "coffee-packshot.jpg"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--size", "huge"], "--size must be a width and a height"),
        (["--size", "4x4"], "16 to 10000 pixels"),
        (["--for", "amazom"], "amazom"),
        (["--fill", "0.8", "--margin", "0.1"], "not both"),
        (["--format", "tiff"], "JPEG or PNG"),
        (["--background", "no-such-colour"], "must be a colour"),
        (["--save_dir", "/proc/no"], "cannot be written to"),
    ],
)
def test_wrong_options_of_a_packshot_cost_nothing(
    run: Run, box: Sandbox, photo_path: Path, argv: list[str], said: str
) -> None:
    code, document = run("packshot", str(photo_path), *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert said in document["error"]
    assert box.journal() == []


def test_a_packshot_needs_a_photo_or_a_cutout(run: Run) -> None:
    code, document = run("packshot", "--for", "amazon")
    assert (code, document["error"]) == (1, "The command requires --image or --cutout. See fal-worker packshot --help.")


def test_a_paid_cutout_is_told_when_no_packshot_can_be_made_of_it(
    run: Run, box: Sandbox, photo_path: Path, photo_url: str
) -> None:
    box.fault("job", endpoint=CUTOUT, output={"image": {"url": photo_url}})
    code, document = run("packshot", str(photo_path), "--save_dir", "out")
    assert (code, document["images"]) == (1, [])
    assert "no transparent background" in document["error"]
    assert document["request_id"] == box.ledger()["jobs"][0]["request_id"]
    assert Path(document["cutout"]["path"]).read_bytes() == photo_path.read_bytes()


def test_a_picture_that_keeps_the_rules_passes_without_a_key(
    run: Run, box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAL_KEY")
    code, document = run("check-image", white(tmp_path / "mug.jpg", 2000), "--for", "amazon,shopify")
    assert (code, document["error"]) == (0, None)
    assert document["verdict"] in ("pass", "warn", "not_checked")
    assert [check["place"] for check in document["checks"]] == ["amazon", "shopify"]
    assert box.journal() == []


def test_a_picture_that_breaks_a_hard_rule_fails_the_command_which_tells_all_of_it(run: Run, tmp_path: Path) -> None:
    code, document = run("check-image", "--for", "amazon,shopify", white(tmp_path / "mug.jpg", 499))
    assert (code, document["verdict"], document["error_type"]) == (1, "fail", "invalid_input")
    assert document["error"].startswith("The picture breaks 1 rule of amazon: It is 499 px")
    assert [check["place"] for check in document["checks"]] == ["amazon", "shopify"]
    [broken] = [rule for rule in document["checks"][0]["rules"] if rule["verdict"] == "fail"]
    assert (broken["rule"], broken["measured"]) == ("longest_side", 499)


def test_rules_are_those_of_the_day_that_is_named(run: Run, tmp_path: Path) -> None:
    photo = white(tmp_path / "mug.jpg", 499)
    assert run("check-image", photo, "--for", "google", "--on", "2027-01-30")[0] == 0
    assert run("check-image", photo, "--for", "google", "--on", "2027-01-31")[0] == 1
    code, document = run("check-image", photo, "--for", "google", "--on", "tomorrow")
    assert (code, document["checks"]) == (1, [])
    assert "--on must be a day" in document["error"]


@pytest.mark.parametrize("place", ["hepsiburada", "n11"])
def test_sizes_that_no_place_publishes_are_not_checked(run: Run, tmp_path: Path, place: str) -> None:
    document = run("check-image", white(tmp_path / "mug.jpg", 100), "--for", place)[1]
    sizes = [rule["verdict"] for rule in document["checks"][0]["rules"] if rule["rule"] == "size"]
    assert sizes == ["not_checked"]


def test_what_is_no_picture_cannot_be_checked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mug.jpg").write_text("<html>")
    code, document = run("check-image", "mug.jpg", "--for", "amazon")
    assert (code, document["checks"], document["error_type"]) == (1, [], "invalid_input")
    assert run("check-image", "https://example.com/mug.jpg", "--for", "amazon")[0] == 1


def test_a_listing_is_written_from_a_photo_in_every_language(run: Run, box: Sandbox, photo_path: Path) -> None:
    argv = ("--languages", "Turkish,English", "--for", "trendyol", "--facts", '{"material": "ceramic"}')
    code, document = run("listing", str(photo_path), *argv)
    assert (code, document["error"]) == (0, None)
    assert [listing["language"] for listing in document["listings"]] == ["Turkish", "English"]
    assert document["asks"][0]["purpose"] == "analysis"
    assert VISION in endpoints(box)
    assert len(document["categories"]) == 9


def test_a_listing_takes_a_photo_or_categories(run: Run, box: Sandbox, photo_path: Path) -> None:
    code, document = run("listing", str(photo_path), "--categories", '{"a": "b"}')
    assert (code, document["error_type"], document["listings"]) == (1, "invalid_input", [])
    assert "not both" in document["error"]
    code, document = run("listing", "--title", "Mug")
    assert document["error"] == "The command requires --image or --categories. See fal-worker listing --help."
    assert box.journal() == []


def test_a_listing_that_stays_bad_keeps_its_good_texts(run: Run, box: Sandbox) -> None:
    answer = json.dumps({"title": "Mug", "description": "A mug of 925 silver."})
    box.fault("job", endpoint="openrouter/router", output={"output": answer}, times=None)
    code, document = run("listing", "--categories", '{"a": "mug"}', "--languages", "English")
    assert (code, document["error_type"], document["listings"]) == (1, "bad_output", [])
    [incomplete] = document["incomplete"]
    assert incomplete["texts"]["title"] == "Mug"
    assert [ask["purpose"] for ask in document["asks"]] == ["listing", "mending"]


def test_the_page_of_packshots_lists_every_place_with_its_layout() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "packshots.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{place.name}` | {place.size[0]} x {place.size[1]} | {round(place.fill * 100)} % | {place.format} |"
        for place in PLACES.values()
    ]


def test_a_workflow_makes_packshots_and_texts_of_what_it_has_paid_for(run: Run, box: Sandbox, photo_path: Path) -> None:
    argv = ("--packshot", "--listing", "--for", "amazon,trendyol", "--language", "English")
    code, document = run("workflow", str(photo_path), "--styles", '["Studio"]', "--save_dir", "out", *argv)
    assert (code, document["errors"]) == (0, None)
    assert endpoints(box).count(CUTOUT) == 1
    assert [(one["place"], Path(one["path"]).name) for one in document["packshots"]] == [
        ("amazon", "coffee-amazon.jpg"),
        ("trendyol", "coffee-trendyol.jpg"),
    ]
    assert [listing["language"] for listing in document["listing"]["listings"]] == ["English"]
    assert endpoints(box).count(VISION) == 1


def test_a_workflow_keeps_its_pictures_when_no_packshot_and_no_texts_can_be_made(
    run: Run, box: Sandbox, photo_path: Path
) -> None:
    url = box.put_file(photo_path.read_bytes(), "x.jpg", "image/jpeg")
    box.fault("job", endpoint=CUTOUT, output={"image": {"url": url}})
    box.fault("job", endpoint="openrouter/router", output={"output": "no"}, times=None)
    argv = ("--packshot", "--listing", "--for", "amazon", "--save_dir", "out")
    code, document = run("workflow", str(photo_path), "--styles", '["Studio"]', *argv)
    assert (code, document["total_generated"], document["packshots"], document["listing"]["listings"]) == (0, 1, [], [])
    assert [error["stage"] for error in document["errors"]] == ["packshot", "listing"]


@pytest.mark.parametrize("argv", [["--packshot"], ["--packshot", "--save_dir", "out", "--for", "amazom"]])
def test_a_workflow_without_a_place_for_its_packshots_costs_nothing(
    run: Run, box: Sandbox, photo_path: Path, argv: list[str]
) -> None:
    code, document = run("workflow", str(photo_path), *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert box.journal() == []
