"""`workflow --save_dir … --report`: what stands in the folder afterwards, and what is told when something cannot."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox

WORKER = Path(__file__).resolve().parents[1] / "src" / "services" / "fal_worker.py"
WITHIN_S = 120.0
"""For what comes to pass at once, but on a busy machine a little later."""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
PNG = b"\x89PNG\r\n\x1a\n"
ONE = ("--styles", '["Studio"]')


def styles(*names: str) -> tuple[str, str]:
    return "--styles", json.dumps([{"name": name, "description": "white studio"} for name in names])


@pytest.fixture
def workflow(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_path: Path
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the workflow on the small photo, into the folder `out`."""

    def run_workflow(*argv: str, image: object = photo_path) -> tuple[int, dict[str, Any]]:
        return run("workflow", "--image", str(image), "--save_dir", "out", *argv)

    return run_workflow


def test_the_original_the_pictures_and_the_page_stand_in_the_folder(
    workflow: Callable[..., tuple[int, dict[str, Any]]], box: Sandbox, photo_path: Path
) -> None:
    code, document = workflow("--styles", '["Studio", "Premium"]', "--report")
    assert (code, document["errors"]) == (0, None)
    assert document["original_path"] == os.path.join("out", "original.jpg")
    assert Path(document["original_path"]).read_bytes() == photo_path.read_bytes()
    for image in document["images"]:
        assert Path(image["path"]).read_bytes() == box.file(image["image_url"])
        assert box.file(image["image_url"]).startswith(PNG)
    assert document["report_path"] == os.path.join("out", "report.html")
    page = Path(document["report_path"]).read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert document["description"].split()[0] in page
    assert sorted(os.listdir("out")) == ["1-studio.png", "2-premium.png", "cutout.png", "original.jpg", "report.html"]


def test_without_report_no_page_is_written(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, document = workflow(*ONE)
    assert (code, "report_path" in document) == (0, False)
    assert sorted(os.listdir("out")) == ["1-studio.png", "cutout.png", "original.jpg"]


def test_without_a_folder_nothing_is_saved_and_no_path_is_told(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_path: Path
) -> None:
    before = os.listdir(".")
    code, document = run("workflow", "--image", str(photo_path), *ONE)
    assert (code, set(document) & {"original_path", "report_path"}) == (0, set())
    assert "path" not in document["images"][0]
    assert os.listdir(".") == before


NAMES = [
    "../../etc/passwd",
    "..",
    "a/b\\c:d",
    "Şık Masa İç",
    "✓",
    "a\nb",
    "-rf",
    "x" * 300,
    "背" * 100,
    "\U0001d400" * 90,
]


@pytest.mark.usefixtures("unpainted")
def test_no_style_name_leads_out_of_the_folder(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, document = workflow(*styles(*NAMES))
    assert (code, document["errors"]) == (0, None)
    assert [image["style_name"] for image in document["images"]] == NAMES
    found = {Path(image["path"]).resolve() for image in document["images"]}
    assert len(found) == len(NAMES)
    assert {path.parent for path in found} == {Path("out").resolve()}
    assert all(path.read_bytes().startswith(PNG) for path in found)
    assert "4-şık-masa-iç.png" in os.listdir("out")


def test_styles_of_one_name_do_not_overwrite_each_other(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    _, document = workflow(*styles("Same", "same"))
    assert [image["path"] for image in document["images"]] == [f"out{os.sep}1-same.png", f"out{os.sep}2-same.png"]


def test_the_original_may_already_stand_in_the_folder(
    workflow: Callable[..., tuple[int, dict[str, Any]]], photo_path: Path
) -> None:
    os.mkdir("out")
    photo = photo_path.read_bytes()
    image = photo_path.rename("out/original.jpg")
    code, document = workflow(*ONE, image=image)
    assert (code, document["errors"]) == (0, None)
    assert Path(document["original_path"]).read_bytes() == photo


def test_an_original_at_fal_is_downloaded(
    workflow: Callable[..., tuple[int, dict[str, Any]]], box: Sandbox, photo_url: str
) -> None:
    code, document = workflow(*ONE, image=photo_url)
    assert (code, document["errors"]) == (0, None)
    assert Path(document["original_path"]).name == "original.jpg"
    assert Path(document["original_path"]).read_bytes() == box.file(photo_url)


def test_a_folder_is_made_with_those_above_it(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, document = workflow("--save_dir", "a/b/çıktı", *ONE)
    assert code == 0
    assert Path(document["images"][0]["path"]).parent == Path("a/b/çıktı")


@pytest.mark.parametrize("folder", ["file", "file/below", "", pytest.param("/proc", id="nobody-writes-here")])
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_request(
    folder: str, workflow: Callable[..., tuple[int, dict[str, Any]]], box: Sandbox
) -> None:
    Path("file").write_text("in the way")
    code, document = workflow("--save_dir", folder)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert "--save_dir" in document["error"]
    assert box.journal() == []
    assert document["images"] == []


def test_a_report_needs_a_folder(run: Callable[..., tuple[int, Any]], box: Sandbox, photo_path: Path) -> None:
    code, document = run("workflow", "--image", str(photo_path), "--report")
    assert (code, document["error_type"], box.journal()) == (1, "invalid_input", [])


@pytest.mark.parametrize("fault", [{"status": 404}, {"content_type": "text/html", "size": 9}])
def test_a_picture_that_cannot_be_downloaded_is_listed_and_the_rest_is_kept(
    fault: dict[str, Any], workflow: Callable[..., tuple[int, dict[str, Any]]], box: Sandbox
) -> None:
    box.fault("download", **fault)
    code, document = workflow("--styles", '["Studio", "Premium"]', "--report")
    failed = [error["style"] for error in document["errors"]]
    assert (code, document["error"], document["total_generated"]) == (0, None, 2)
    assert failed
    assert {error["stage"] for error in document["errors"]} == {"download"}
    for image in document["images"]:
        assert ("path" in image) == (image["style_name"] not in failed)
        assert box.file(image["image_url"]).startswith(PNG)
    pictures = [document["cutout"], *document["images"]]
    assert ("path" in document["cutout"]) == (None not in failed)
    saved = [Path(picture["path"]).name for picture in pictures if "path" in picture]
    assert sorted(os.listdir("out")) == sorted([*saved, "original.jpg", "report.html"])


def test_a_page_that_cannot_be_written_loses_nothing_else(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    os.makedirs("out/report.html")
    code, document = workflow(*ONE, "--report")
    assert (code, document["total_generated"], document["report_path"]) == (0, 1, None)
    assert Path(document["images"][0]["path"]).is_file()
    assert [(error["stage"], error["style"]) for error in document["errors"]] == [("report", None)]


def test_an_original_that_cannot_be_saved_is_listed(workflow: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    os.makedirs("out/original.jpg")
    code, document = workflow(*ONE, "--report")
    assert (code, document["original_path"]) == (0, None)
    assert [(error["stage"], error["style"]) for error in document["errors"]] == [("original", None)]
    assert Path(document["report_path"]).is_file()


@pytest.mark.parametrize("env", [ASCII, {}])
def test_turkish_names_are_saved_and_told_under_every_locale(
    env: Any, run_process: Callable[..., subprocess.CompletedProcess[bytes]], photo_path: Path, tmp_path: Path
) -> None:
    image = photo_path.rename(tmp_path / "şık fincan.JPG")
    argv = ("--image", os.fsencode(image), "--save_dir", "çıktı".encode(), *styles("Gün Işığı"), "--report")
    done = run_process("workflow", *argv, env=env)
    document = json.loads(done.stdout)
    assert (done.returncode, document["errors"]) == (0, None)
    assert document["original_path"] == "çıktı/original.jpg"
    assert document["images"][0]["path"] == "çıktı/1-gün-işığı.png"
    assert sorted(os.listdir("çıktı")) == ["1-gün-işığı.png", "cutout.png", "original.jpg", "report.html"]


def test_pictures_are_saved_side_by_side_and_a_signal_then_keeps_what_was_made(box: Sandbox, photo_path: Path) -> None:
    box.fault("download", silent=30, headers_first=True, times=None)
    command = [sys.executable, str(WORKER), "workflow", "--image", str(photo_path), "--save_dir", "out"]
    with subprocess.Popen([*command, *styles("One", "Two")], stdout=subprocess.PIPE) as worker:
        try:
            box.wait_for(lambda ledger: sum(row["stage"] == "download" for row in box.journal()) == 3, WITHIN_S)
            worker.terminate()
            out, _ = worker.communicate(timeout=WITHIN_S)
        finally:
            worker.kill()
    document = json.loads(out)
    assert (worker.returncode, document["error_type"], document["total_generated"]) == (1, "cancelled", 2)
    assert box.file(document["images"][0]["image_url"]).startswith(PNG)
    assert os.listdir("out") == ["original.jpg"]


def test_pictures_whose_download_comes_too_late_are_told_all_the_same(
    workflow: Callable[..., tuple[int, dict[str, Any]]], box: Sandbox
) -> None:
    made = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 8, "height": 8}}
    for endpoint in ("bria/replace-background", "fal-ai/bria/background/remove"):
        box.fault("job", endpoint=endpoint, times=None, output=made)
    box.fault("download", silent=30, times=None)
    code, document = workflow(*styles(*map(str, range(12))), "--timeout", "8")
    assert (code, document["total_generated"]) == (0, 12)
    told = [(error["stage"], error["style"], error["error_type"]) for error in document["errors"]]
    assert told == [("download", name, "timeout") for name in (None, *map(str, range(12)))]


def test_a_full_disk_leaves_no_half_of_a_file(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]], photo_path: Path
) -> None:
    os.mkdir("out")
    Path("out/report.html").write_text("of before")
    argv = ("workflow", "--image", str(photo_path), "--save_dir", "out", "--report", *ONE)
    done = run_process(*argv, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)))
    document = json.loads(done.stdout)
    assert (done.returncode, document["total_generated"]) == (0, 1)
    assert {error["stage"] for error in document["errors"]} == {"original", "download", "report"}
    assert os.listdir("out") == ["report.html"]
    assert Path("out/report.html").read_text() == "of before"
