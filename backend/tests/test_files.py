"""From a file to a file: photos given as paths, and pictures that are saved, by the client and by the worker."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fal_sandbox.server import Sandbox
from services.fal.errors import BadOutput, InvalidInput
from services.fal.image_files import size_of
from services.fal_service import FalClient

CUTOUT = "fal-ai/bria/background/remove"
PHOTOKIT = "bria/replace-background"
CATEGORIES = {"main_product_type": "Kitchenware"}
ONE = ["Studio"]
Run = Callable[..., tuple[int, Any]]
CALLS: dict[str, Callable[..., Any]] = {
    "remove": lambda client, *photo, **named: client.remove_background(*photo, **named),
    "replace": lambda client, *photo, **named: client.background_replace(*photo, prompt="oak table", **named),
    "analyze": lambda client, *photo, **named: client.analyze_product_image(*photo, **named),
    "several": lambda client, *photo, **named: client.generate_multiple_backgrounds(
        *photo, categories=CATEGORIES, styles=ONE, **named
    ),
}


def inputs(box: Sandbox) -> list[str]:
    """The pictures that models were given."""
    jobs = [job["input"] for job in box.ledger()["jobs"]]
    return [url for one in jobs for url in [*one.get("image_urls", ()), *filter(None, [one.get("image_url")])]]


@pytest.fixture
def sku(photo_path: Path) -> str:
    """A photo whose name is a SKU, in the current folder."""
    shutil.copy(photo_path, "SKU_0042-A.jpg")
    return "SKU_0042-A.jpg"


# Photos


@pytest.mark.parametrize("as_path", [str, Path])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("unpainted")
def test_a_local_photo_is_uploaded_and_used(
    name: str, as_path: Any, client: FalClient, box: Sandbox, photo_path: Path
) -> None:
    CALLS[name](client, as_path(photo_path))
    assert box.file(inputs(box)[0]) == photo_path.read_bytes()


@pytest.mark.parametrize("name", CALLS)
def test_a_url_may_be_given_in_either_way(name: str, client: FalClient, box: Sandbox, photo_url: str) -> None:
    CALLS[name](client, photo_url)
    CALLS[name](client, image=photo_url)
    CALLS[name](client, image_url=photo_url)
    assert inputs(box).count(photo_url) == 3
    assert [row["stage"] for row in box.journal() if row["stage"].startswith("storage")] == []


@pytest.mark.parametrize("name", CALLS)
def test_an_image_url_is_never_read_from_the_disk(name: str, client: FalClient, box: Sandbox, photo_path: Path) -> None:
    with pytest.raises(InvalidInput, match="image_url must be an http"):
        CALLS[name](client, image_url=str(photo_path))
    assert box.journal() == []


@pytest.mark.parametrize(
    "photo", ["ftp://example.com/x.jpg", "file:///etc/hosts", "data:text/html,x", "no-such.jpg", ""]
)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_neither_a_url_nor_a_picture_file_is_refused(
    name: str, photo: str, client: FalClient, box: Sandbox
) -> None:
    with pytest.raises(InvalidInput, match="image"):
        CALLS[name](client, photo)
    assert box.journal() == []


@pytest.mark.parametrize("name", CALLS)
def test_one_photo_is_wanted(name: str, client: FalClient, box: Sandbox, photo_url: str) -> None:
    with pytest.raises(InvalidInput, match="not both"):
        CALLS[name](client, photo_url, image_url=photo_url)
    with pytest.raises(InvalidInput):
        CALLS[name](client)
    assert box.journal() == []


def test_commands_take_a_path_by_name_or_bare_and_no_path_as_a_url(run: Run, box: Sandbox, sku: str) -> None:
    for words in (["--image", sku], [sku], ["--with_logs", "true", sku]):
        assert run("remove-background", *words)[0] == 0
    code, document = run("remove-background", "--image_url", sku)
    assert (code, document["error_type"]) == (1, "invalid_input")
    code, document = run("analyze-product", "--model", "a/b")
    assert document["error"] == "The command requires --image or --image_url. See fal-worker analyze-product --help."
    code, document = run("remove-background", sku, "--image_url", "https://example.com/x.jpg")
    assert "not both" in document["error"]


# Saved by the worker


def test_a_cutout_is_saved_under_the_name_of_its_photo(run: Run, box: Sandbox, sku: str) -> None:
    code, document = run("remove-background", sku, "--save_dir", "out")
    assert (code, os.listdir("out")) == (0, ["SKU_0042-A-cutout.png"])
    assert_told(document["image"], box.file(document["image"]["url"]))


def assert_told(picture: dict[str, Any], data: bytes) -> None:
    """The file is the picture, and what is told of it is true."""
    assert Path(picture["path"]).read_bytes() == data
    assert picture["sha256"] == hashlib.sha256(data).hexdigest()
    with Image.open(io.BytesIO(data)) as opened:
        assert (picture["width"], picture["height"]) == opened.size


@pytest.mark.parametrize(
    ("out", "file"),
    [
        ("a/SKU_0042-A.png", "a/SKU_0042-A.png"),
        ("SKU 42.jpg", "SKU 42.png"),
        ("mug.v2", "mug.v2.png"),
        ("Ürün.PNG", "Ürün.png"),
    ],
)
def test_a_file_gets_its_name_as_given_and_the_extension_of_what_it_is(
    run: Run, box: Sandbox, sku: str, out: str, file: str
) -> None:
    code, document = run("background", "--image", sku, "--prompt", "oak table", "--out", out)
    assert (code, document["image"]["path"]) == (0, file)
    assert_told(document["image"], box.file(document["image"]["url"]))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--out", "x.png", "--save_dir", "out"], "not both"),
        (["--out", "folder/"], "must be the path of a file"),
        (["--out", "/proc/no/x.png"], "cannot be written to"),
        (["--save_dir", "/proc/no"], "cannot be written to"),
    ],
)
def test_a_place_that_takes_no_file_costs_nothing(run: Run, box: Sandbox, sku: str, argv: list[str], said: str) -> None:
    code, document = run("remove-background", sku, *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert said in document["error"]
    assert box.journal() == []


@pytest.mark.usefixtures("unpainted")
def test_pictures_of_several_styles_are_saved_beside_each_other(run: Run, box: Sandbox, sku: str) -> None:
    argv = ("--categories", '{"a": "mug"}', "--styles", '["Studio", "Premium"]', "--save_dir", "out")
    code, document = run("generate-multiple-bg", sku, *argv)
    assert (code, document["errors"]) == (0, None)
    assert [Path(image["path"]).name for image in document["images"]] == [
        "SKU_0042-A-1-studio.png",
        "SKU_0042-A-2-premium.png",
    ]
    for image in document["images"]:
        assert_told(image, box.file(image["image_url"]))


def test_a_picture_that_cannot_be_saved_is_still_told(run: Run, box: Sandbox, sku: str) -> None:
    url = box.put_file(b"<html>", "x.png", "image/png")
    box.fault("job", endpoint=CUTOUT, output={"image": {"url": url}})
    code, document = run("remove-background", sku, "--save_dir", "out")
    assert (code, document["error_type"], document["image"]["url"]) == (1, "bad_output", url)
    assert document["retryable"] is False
    assert os.listdir("out") == []


# Saved by the client


def test_save_keeps_names_and_tells_the_files(client: FalClient, box: Sandbox, photo_url: str, tmp_path: Path) -> None:
    result = client.remove_background(photo_url)
    saved = client.save(result, tmp_path / "out", name="SKU_0042-A")
    assert "path" not in result["image"]
    assert saved["image"]["path"] == str(tmp_path / "out" / "SKU_0042-A-picture.png")
    assert_told(saved["image"], box.file(result["image"]["url"]))
    several = client.generate_multiple_backgrounds(photo_url, CATEGORIES, styles=["Studio", "Premium"])
    paths = [image["path"] for image in client.save(several, tmp_path / "more")["images"]]
    assert [Path(path).name for path in paths] == ["1-Studio.png", "2-Premium.png"]


def test_save_saves_what_it_can_and_tells_it_with_the_error(
    client: FalClient, box: Sandbox, photo_url: str, tmp_path: Path
) -> None:
    gone = {"image_url": box.put_file(b"<html>", "x.png", "image/png"), "style_name": "A"}
    there = {"image_url": photo_url, "style_name": "B"}
    with pytest.raises(BadOutput) as caught:
        client.save({"images": [gone, there]}, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["2-B.jpg"]
    assert [("path" in image) for image in caught.value.partial["images"]] == [False, True]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"lossless": True}, {"exif": b"Exif\0\0" + bytes(3000)}]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_the_size_of_a_picture_is_in_its_header(kind: str, options: dict[Any, Any] | dict[str, Any]) -> None:
    for size in ((1, 1), (300, 2), (1023, 777)):
        buffer = io.BytesIO()
        Image.new("RGB", size, "red").save(buffer, kind, **options)
        assert size_of(buffer.getvalue()) == size
        assert size_of(buffer.getvalue()[:20]) in (None, size)


# The cut-out


def test_the_cutout_is_in_the_result_and_in_the_folder(run: Run, box: Sandbox, sku: str) -> None:
    code, document = run("workflow", sku, "--styles", '["Studio"]', "--save_dir", "out")
    assert (code, document["errors"]) == (0, None)
    assert sorted(os.listdir("out")) == ["1-studio.png", "cutout.png", "original.jpg"]
    assert_told(document["cutout"], box.file(document["cutout"]["url"]))
    assert document["cutout"]["url"] in inputs(box)
    code, document = run("generate-multiple-bg", sku, "--categories", '{"a": "b"}', "--styles", '["Studio"]')
    assert document["cutout"]["url"] in inputs(box)


def test_a_cutout_that_is_there_is_used_and_not_paid_again(
    run: Run, box: Sandbox, sku: str, client: FalClient, tmp_path: Path
) -> None:
    cutout = client.save(client.remove_background(sku), tmp_path)["image"]["path"]
    box.reset()
    code, document = run("workflow", sku, "--styles", '["Studio"]', "--cutout", cutout, "--save_dir", "out")
    assert (code, document["errors"]) == (0, None)
    assert CUTOUT not in [job["endpoint"] for job in box.ledger()["jobs"]]
    [given] = [job["input"]["image_url"] for job in box.ledger()["jobs"] if job["endpoint"] == PHOTOKIT]
    assert box.file(given) == Path(cutout).read_bytes()
    assert (document["cutout"]["url"], document["cutout"]["width"]) == (given, size_of(Path(cutout).read_bytes())[0])
    assert sorted(os.listdir("out")) == ["1-studio.png", "cutout.png", "original.jpg"]


def test_a_cutout_that_is_no_picture_costs_nothing(run: Run, box: Sandbox, sku: str) -> None:
    Path("cutout.png").write_text("<html>")
    code, document = run("workflow", sku, "--cutout", "cutout.png")
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert box.journal() == []


def test_the_cutout_is_kept_when_every_picture_fails(run: Run, box: Sandbox, sku: str) -> None:
    box.fault("job", endpoint=PHOTOKIT, fail={"error": "Runner disconnected"}, times=None)
    for number, argv in enumerate(
        (["workflow", sku, "--styles", '["Studio"]'], ["background", sku, "--prompt", "oak"])
    ):
        code, document = run(*argv, "--save_dir", f"out{number}")
        assert code == 1
        assert_told(document["cutout"], box.file(document["cutout"]["url"]))
    assert os.listdir("out1") == ["SKU_0042-A-cutout.png"]


def test_a_background_keeps_its_cutout_beside_the_picture(run: Run, box: Sandbox, sku: str) -> None:
    code, document = run("background", sku, "--prompt", "oak table", "--save_dir", "out")
    assert (code, sorted(os.listdir("out"))) == (0, ["SKU_0042-A-background.png", "SKU_0042-A-cutout.png"])
    for picture in (document["image"], document["cutout"]):
        assert_told(picture, box.file(picture["url"]))


def test_what_was_made_is_saved_when_time_is_up(run: Run, box: Sandbox, sku: str) -> None:
    box.fault("job", endpoint=PHOTOKIT, stuck="IN_PROGRESS", times=None)
    code, document = run("background", sku, "--prompt", "oak table", "--save_dir", "out", "--timeout", "8")
    assert (code, document["error_type"]) == (1, "timeout")
    assert Path(document["cutout"]["path"]).read_bytes() == box.file(document["cutout"]["url"])
