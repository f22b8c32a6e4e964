"""What picture commands do with the pictures that they saved: --fidelity, --check, --cutout, with the real worker."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fal_sandbox.server import Sandbox
from services.fal.call import Call
from services.fal.errors import Cancelled
from services.fal.progress import Progress
from services.fal_service import FalClient
from services.shop import Shop

CUTOUT = "fal-ai/bria/background/remove"
PHOTOKIT = "bria/replace-background"
CATEGORIES = json.dumps({"main_product_type": "Kitchenware", "subcategory": "Mugs"})
Run = Callable[..., tuple[int, Any]]


def jobs(box: Sandbox, endpoint: str) -> list[dict[str, Any]]:
    return [job for job in box.ledger()["jobs"] if job["endpoint"] == endpoint]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A cut-out with a label, small: a search for it takes its time by the pixel."""
    picture = Image.effect_noise((120, 150), 60).convert("RGBA")
    picture.paste((240, 240, 235, 255), (20, 50, 100, 100))
    for line in range(55, 95, 8):
        picture.paste((30, 30, 80, 255), (28, line, 92 - line % 25, line + 4))
    path = tmp_path / "SKU_0042-A.png"
    picture.crop((-30, -30, 150, 180)).save(path)
    return path


def test_a_redrawn_label_is_found_and_the_picture_made_once_more_and_the_better_one_kept(
    run: Run, box: Sandbox, labelled: Path
) -> None:
    box.configure(misbehave="redraw=1", in_place=True)
    argv = ("--cutout", str(labelled), "--categories", CATEGORIES, "--styles", '["Studio"]', "--save_dir", "out")
    code, document = run("generate-multiple-bg", *argv, "--fidelity", "retry", "--seed", "5")
    assert (code, document["errors"]) == (0, None)
    (image,) = document["images"]
    first, second = jobs(box, PHOTOKIT)
    assert (first["input"]["seed"], second["input"]["seed"] != 5) == (5, True)
    assert (image["verdict"], image["locked"], image["attempts"]) == ("pass", True, 2)
    assert (image["request_id"], image["seed"]) == (second["request_id"], second["input"]["seed"])
    rejected = image["rejected"]
    assert (rejected["verdict"], rejected["request_id"]) == ("fail", first["request_id"])
    assert re.search("drawn differently|not found", rejected["fidelity"]["reason"])
    assert sorted(os.listdir("out")) == [
        *("SKU_0042-A-1-studio-generated-2.png", "SKU_0042-A-1-studio-generated.png"),
        *("SKU_0042-A-1-studio.jpg", "SKU_0042-A-cutout.png"),
    ]
    assert Path(image["path"]).name == "SKU_0042-A-1-studio.jpg"
    assert jobs(box, CUTOUT) == []


def test_a_workflow_holds_its_pictures_against_product_and_places_and_keeps_one_cutout(
    run: Run, box: Sandbox, photo_path: Path
) -> None:
    box.configure(in_place=True)
    argv = ("--styles", '["Studio", "Premium"]', "--save_dir", "out", "--for", "amazon,shopify")
    code, document = run("workflow", str(photo_path), *argv, "--fidelity", "lock", "--check", "--packshot", "--report")
    assert (code, document["errors"]) == (0, None)
    for image in document["images"]:
        assert (image["verdict"], image["locked"], image["fidelity"]) == ("pass", True, None)
        assert [check["place"] for check in image["checks"]] == ["amazon", "shopify"]
        # A generated background is not white.
        assert image["checks"][0]["verdict"] == "fail"
    assert [check["place"] for one in document["packshots"] for check in one["checks"]] == ["amazon", "shopify"]
    assert [name for name in sorted(os.listdir("out")) if "cutout" in name] == ["cutout.png"]


@pytest.mark.parametrize(
    ("command", "options", "name"),
    [
        ("remove-background", [], "coffee-cutout.png"),
        ("background", ["--prompt", "oak", "--remove_bg", "false"], "coffee-background.png"),
    ],
)
def test_a_single_saved_picture_is_checked(
    run: Run, box: Sandbox, photo_path: Path, command: str, options: list[str], name: str
) -> None:
    code, document = run(command, str(photo_path), *options, "--save_dir", "out", "--check", "--for", "amazon")
    assert (code, document["errors"], Path(document["image"]["path"]).name) == (0, None, name)
    assert [check["place"] for check in document["image"]["checks"]] == ["amazon"]


def test_every_variant_is_saved_and_held_against_the_product(run: Run, box: Sandbox, labelled: Path) -> None:
    box.configure(misbehave="redraw=1", in_place=True)
    argv = ("--cutout", str(labelled), "--prompt", "oak table", "--num_images", "2", "--fidelity", "lock")
    code, document = run("background", *argv, "--out", "out/mug.png")
    assert code == 0
    assert sorted(image["verdict"] for image in document["images"]) == ["fail", "pass"]
    assert [Path(image["path"]).name for image in document["images"]] == ["mug.jpg", "mug-2.jpg"]
    assert document["image"]["path"] == document["images"][0]["path"]
    assert {"mug-generated.png", "mug-2-generated.png", "mug-cutout.png"} <= set(os.listdir("out"))


def test_a_picture_that_could_not_be_made_again_is_kept_and_the_reason_told(
    run: Run, box: Sandbox, labelled: Path
) -> None:
    box.configure(misbehave="redraw")
    box.fault("job", endpoint=PHOTOKIT, skip=1, fail={"error": "The model ran out of memory."})
    argv = ("--cutout", str(labelled), "--prompt", "oak table", "--fidelity", "retry", "--save_dir", "out")
    code, document = run("background", *argv)
    assert (code, document["image"]["verdict"], document["image"]["attempts"]) == (0, "fail", 1)
    assert [error["stage"] for error in document["errors"]] == ["picture"]


@pytest.mark.nightly
def test_a_retry_that_the_cap_forbids_is_told_and_the_first_picture_kept(
    run: Run, box: Sandbox, labelled: Path
) -> None:
    box.configure(misbehave="redraw")
    argv = ("--cutout", str(labelled), "--prompt", "oak table", "--fidelity", "retry", "--save_dir", "out")
    code, document = run("background", *argv, "--max_usd", "0.06")
    assert (code, document["image"]["verdict"], document["cost_usd"]) == (0, "fail", 0.04)
    assert [error["error_type"] for error in document["errors"]] == ["budget_exceeded"]
    assert len(jobs(box, PHOTOKIT)) == 1


def test_a_cutout_is_saved_also_when_its_call_is_cancelled_as_soon_as_it_is_made(
    client: FalClient, photo_path: Path
) -> None:
    def stop(event: Any) -> None:
        if event["step"] == "cutout" and event["status"] == "done":
            call.cancel()

    call = Call(60, progress=Progress(stop))
    with pytest.raises(Cancelled) as raised:
        Shop(client.within(call)).packshot(photo_path, "out")
    with Image.open(raised.value.partial["cutout"]["path"]) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--check", "--for", "amazon"], "--check needs the pictures as files"),
        (["--check", "--save_dir", "out"], "--check requires --for"),
        (["--fidelity", "lock"], "--fidelity needs the pictures as files"),
        (["--fidelity", "perfect", "--save_dir", "out"], "check, lock, retry"),
        (["--fidelity", "lock", "--save_dir", "out", "--remove_bg", "false"], "needs the product's cut-out"),
        (["--fidelity", "lock", "--save_dir", "out", "--cutout", "coffee.jpg"], "no transparent background"),
        (["--check", "--for", "amazom", "--save_dir", "out"], "amazom"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_paid(
    run: Run, box: Sandbox, photo_path: Path, argv: list[str], said: str
) -> None:
    code, document = run("background", str(photo_path), "--prompt", "oak table", *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert said in document["error"]
    assert box.ledger()["jobs"] == []


def test_a_packshot_of_a_cutout_needs_no_key(run: Run, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY", raising=False)
    code, document = run("packshot", "--cutout", str(labelled), "--for", "etsy", "--save_dir", "out")
    assert (code, document["error"]) == (0, None)
    assert run("packshot", "mug.jpg", "--for", "etsy")[1]["error_type"] == "missing_key"


def test_a_description_has_tone_length_and_facts_and_what_it_invents_is_told(
    run: Run, box: Sandbox, photo_path: Path
) -> None:
    box.fault("job", endpoint="openrouter/router", output={"output": "A mug of 925 silver, 350 ml."})
    argv = ("--tone", "playful", "--length", "40", "--facts", '{"size": "350 ml"}', "--language", "English")
    code, document = run("workflow", str(photo_path), "--styles", '["Studio"]', *argv)
    assert (code, document["description"]) == (0, "A mug of 925 silver, 350 ml.")
    (asked,) = [job["input"]["prompt"] for job in jobs(box, "openrouter/router")]
    assert '<tone>"playful"</tone>' in asked
    assert '"facts": {"size": "350 ml"}' in asked
    assert "About 40 words" in asked
    (error,) = document["errors"]
    assert (error["stage"], error["error_type"]) == ("description", "bad_output")
    assert "925" in error["error"]
    assert "350" not in error["error"]
