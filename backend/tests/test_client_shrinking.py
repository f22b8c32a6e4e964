"""Photos that are larger than a model uses: sent as they are, or smaller when that was asked for."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from fal_sandbox.server import Sandbox
from services.fal.categories import CATEGORY_NAMES
from services.fal.errors import InvalidInput
from services.fal_service import FalClient

MAX_BYTES = 8_000_000


def scene(width: int, height: int, mode: str = "RGB") -> Any:
    """A picture with soft colours and one hard edge; the upper left corner is red."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    channels = [across, down, 255 - across]
    pixels = np.stack(channels, axis=-1).astype(np.uint8)
    pixels[: height // 4, : width // 4] = (255, 0, 0)
    return Image.fromarray(pixels).convert(mode)


def noise(width: int, height: int, channels: Any) -> Any:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Any]:
    def save(picture: Any, name: str = "photo.jpg", **options: Any) -> Any:
        path = tmp_path / name
        picture.save(path, **options)
        return path

    return save


@pytest.fixture
def sent(box: Sandbox, client: FalClient) -> Callable[..., tuple[Any, ...]]:
    """Uploads a photo with `shrink`; the picture that arrived, its bytes, and its content type."""

    def upload(path: Any) -> tuple[Any, ...]:
        data = box.file(client.upload_file(path, shrink=True))
        [row] = [row for row in box.journal() if row["stage"] == "upload"]
        return Image.open(io.BytesIO(data)), data, row["headers"]["content-type"]

    return upload


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("size", "becomes"), [((5000, 500), (4096, 410)), ((200, 8000), (102, 4096)), ((9000, 900), (4096, 410))]
)
def test_a_photo_with_too_many_pixels_is_sent_with_4096_on_its_longer_side(
    size: tuple[Any, ...], becomes: tuple[Any, ...], saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    path = saved(scene(*size))
    picture, _, content_type = sent(path)
    assert (picture.size, picture.format, content_type) == (becomes, "JPEG", "image/jpeg")
    expected = scene(*becomes).resize((64, 64))
    assert np.abs(np.asarray(picture.resize((64, 64)), int) - np.asarray(expected, int)).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_every_usual_kind_of_picture_can_be_sent_smaller(
    mode: str, saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    picture, _, _ = sent(saved(scene(8192, 200, mode), "photo.tiff"))
    assert (picture.mode, picture.size) == ("RGB", (4096, 100))
    grey = [np.asarray(one.convert("L"), int) for one in (picture, scene(4096, 100))]
    assert np.abs(grey[0] - grey[1]).mean() < LARGEST_CHANGE[mode]


LARGEST_CHANGE = {"L": 1, "P": 4, "CMYK": 1, "1": 30}
"""Levels of 255. Few colours come as a pattern of dots, which a good reduction makes smooth."""


def test_a_photo_with_too_many_bytes_is_sent_with_fewer(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    path = saved(noise(1700, 1700, 3), "photo.png", compress_level=1)
    assert path.stat().st_size > MAX_BYTES
    picture, data, content_type = sent(path)
    assert (picture.format, content_type) == ("JPEG", "image/jpeg")
    assert (len(data) <= MAX_BYTES, picture.size) == (True, (1700, 1700))


@pytest.mark.nightly
def test_what_is_transparent_stays_transparent(saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]) -> None:
    clear = noise(1600, 1400, 4)
    clear.paste((0, 0, 0, 0), (0, 0, 100, 100))
    path = saved(clear, "photo.png")
    assert path.stat().st_size > MAX_BYTES
    picture, data, content_type = sent(path)
    assert (picture.format, content_type, picture.mode) == ("PNG", "image/png", "RGBA")
    assert len(data) <= MAX_BYTES
    assert picture.getpixel((5, 5))[3] == 0
    assert picture.width / picture.height == pytest.approx(1600 / 1400, rel=0.01)


def test_an_alpha_channel_in_which_nothing_is_transparent_makes_no_png(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    path = saved(noise(1700, 1700, 3).convert("RGBA"), "photo.png", compress_level=1)
    assert path.stat().st_size > MAX_BYTES
    picture, _, content_type = sent(path)
    assert (picture.mode, picture.size, content_type) == ("RGB", (1700, 1700), "image/jpeg")


def test_a_photo_that_was_taken_upright_is_sent_upright(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    picture, _, _ = sent(saved(scene(5000, 500), exif=exif))
    assert picture.size == (410, 4096)
    assert picture.getexif().get(0x0112, 1) == 1
    red, green, blue = picture.getpixel((picture.width - 20, 20))
    assert red > 200 > 60 > max(green, blue)


def test_a_profile_for_other_channels_does_not_stay(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture, _, _ = sent(saved(scene(4200, 50, "L"), icc_profile=grey))
    assert "icc_profile" not in picture.info


def test_the_colour_profile_stays_with_the_photo(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture, _, _ = sent(saved(scene(4200, 50), icc_profile=profile))
    assert picture.info["icc_profile"] == profile


def test_a_photo_that_is_small_enough_is_sent_as_it_is(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    path = saved(scene(4096, 300))
    _, data, _ = sent(path)
    assert data == path.read_bytes()


def test_without_shrink_every_photo_is_sent_as_it_is(
    box: Sandbox, client: FalClient, saved: Callable[..., Any]
) -> None:
    path = saved(scene(5000, 60))
    assert box.file(client.upload_file(path)) == path.read_bytes()


# ---------------------------------------------------------------- very large photos


def tall_jpeg(width: int, height: int, **options: Any) -> bytes:
    """A JPEG of colours of any height, made without as many pixels: one row of its blocks over and over."""
    file = io.BytesIO()
    scene(width, 16).save(file, "JPEG", quality=90, subsampling=2, restart_marker_rows=1, **options)
    data = file.getvalue()
    frame = data.index(b"\xff\xc2" if options else b"\xff\xc0")
    head_end = data.index(b"\xff\xda")
    scan = head_end + 2 + int.from_bytes(data[head_end + 2 : head_end + 4], "big")
    head = data[: frame + 5] + height.to_bytes(2, "big") + data[frame + 7 : scan]
    row = data[scan:-2]
    return (
        head + b"".join(row + b"\xff" + bytes([0xD0 + number % 8]) for number in range(height // 16))[:-2] + b"\xff\xd9"
    )


SHRINK = r"""
import re, sys
from services.fal.call import Call
from services.fal.image_files import local_image, shrunk
image = shrunk(Call(100), local_image(sys.argv[1]))
open(sys.argv[1], "wb").write(image.data)
# Not ru_maxrss, which a process inherits from the one that started it.
print(int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.nightly
def test_a_photo_of_200_million_pixels_is_sent_smaller_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(tall_jpeg(16320, 12240))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHRINK, str(path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    with Image.open(path) as picture:
        assert (picture.size, picture.format) == ((4096, 3072), "JPEG")
    # Its pixels alone would be 800 MB.
    assert int(ran.stdout) < 500


def test_a_phone_s_photo_with_a_second_picture_in_it_is_sent_smaller_too(
    saved: Callable[..., Any], sent: Callable[..., tuple[Any, ...]]
) -> None:
    path = saved(scene(5000, 500), "photo.mpo", format="MPO", save_all=True, append_images=[scene(50, 5)])
    picture, _, _ = sent(path)
    assert picture.size == (4096, 410)


def with_size(picture: Any, kind: Any, width: int, height: int) -> bytes:
    """`picture` as a file whose header tells another size."""
    file = io.BytesIO()
    picture.save(file, kind)
    data = bytearray(file.getvalue())
    if kind == "PNG":
        header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(data[24:29])
        data[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
    elif kind == "TIFF":
        for tag, value in ((b"\x00\x01", width), (b"\x01\x01", height)):
            place = data.index(tag + b"\x04\x00\x01\x00\x00\x00") + 8
            data[place : place + 4] = value.to_bytes(4, "little")
    elif kind == "BMP":
        data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("what", ["PNG", "TIFF", "BMP", "progressive JPEG"])
def test_more_pixels_than_can_be_read_whole_are_refused_with_the_number(
    what: str, box: Sandbox, client: FalClient, tmp_path: Path
) -> None:
    path = tmp_path / "photo"
    progressive = what == "progressive JPEG"
    data = tall_jpeg(16320, 12240, progressive=True) if progressive else with_size(scene(70, 70), what, 16320, 12240)
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=rf"200 million pixels, and a {what} can be .* up to 128 million"):
        client.upload_file(path, shrink=True)
    assert box.journal() == []


BROKEN = {
    "no picture inside": b"\xff\xd8\xff\xe0" + b"nothing",
    "HEIC": b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00",
    "more bits a channel": None,
    "AVIF with a hole": None,
}


def broken(what: Any) -> Any:
    if (data := BROKEN[what]) is not None:
        return data
    file = io.BytesIO()
    if what == "more bits a channel":
        Image.fromarray(np.zeros((10, 5000), np.float32)).save(file, "TIFF")
        return file.getvalue()
    scene(4200, 400).save(file, "AVIF")
    whole = file.getvalue()
    return whole[:600] + bytes(8) + whole[608:]


@pytest.mark.parametrize("what", BROKEN)
def test_a_photo_that_cannot_be_made_smaller_is_an_error_before_anything_is_sent(
    what: str, box: Sandbox, client: FalClient, tmp_path: Path
) -> None:
    path = tmp_path / "photo.tiff"
    path.write_bytes(broken(what))
    with pytest.raises(InvalidInput, match=r"shrink cannot read this image/.*[^.]\. Convert it, or omit") as raised:
        client.upload_file(path, shrink=True)
    assert " at 0x" not in str(raised.value)
    assert box.journal() == []


def test_without_pillow_the_error_says_what_to_install(
    box: Sandbox, client: FalClient, saved: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(scene(50, 50))
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for call in (client.upload_file, client.product_workflow):
        with pytest.raises(InvalidInput, match="pip install pillow"):
            call(path, shrink=True)
    assert box.journal() == []


def test_a_url_is_not_made_smaller(box: Sandbox, client: FalClient) -> None:
    with pytest.raises(InvalidInput, match="Omit it for a URL"):
        client.product_workflow("https://v3.fal.media/files/a/mug.jpg", shrink=True)
    assert box.journal() == []


@pytest.mark.parametrize("shrink", ["yes", 1, None])
def test_shrink_is_true_or_false(box: Sandbox, client: FalClient, saved: Callable[..., Any], shrink: Any) -> None:
    path = saved(scene(50, 50))
    for call in (client.upload_file, client.product_workflow):
        with pytest.raises(InvalidInput, match="shrink must be true or false"):
            call(path, shrink=shrink)
    assert box.journal() == []


@pytest.mark.usefixtures("unpainted")
def test_the_commands_that_upload_take_it(
    box: Sandbox, run: Callable[..., tuple[int, Any]], saved: Callable[..., Any], tmp_path: Path
) -> None:
    box.say(json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mug")), endpoint="openrouter/router/vision")
    path = saved(scene(4200, 600))
    code, uploaded = run("upload-file", "--file_path", str(path), "--shrink")
    assert (code, Image.open(io.BytesIO(box.file(uploaded["url"]))).size) == (0, (4096, 585))
    more = ("--shrink", "--styles", '["Studio"]', "--save_dir", str(tmp_path / "out"))
    code, document = run("workflow", "--image", str(path), *more)
    assert (code, document["total_generated"]) == (0, 1)
    assert Image.open(io.BytesIO(box.file(document["image_url"]))).size == (4096, 585)
    assert (tmp_path / "out" / "original.jpg").read_bytes() == path.read_bytes()


# Photos that Bria's endpoints do not take

BIG = 12_000_000


@pytest.fixture
def ready_answers(box: Sandbox) -> None:
    """What is made of the photos does not matter here, and takes seconds."""
    box.say(json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mug")), endpoint="openrouter/router/vision")
    for endpoint in ("fal-ai/bria/background/remove", "bria/replace-background"):
        box.fault("job", endpoint=endpoint, output={"image": {"url": "https://v3.fal.media/a.png"}})


@pytest.mark.parametrize(("kind", "becomes"), [("TIFF", "JPEG"), ("BMP", "JPEG"), ("RGBA", "PNG")])
@pytest.mark.usefixtures("ready_answers")
def test_a_workflow_sends_bria_a_jpeg_or_a_png_in_place_of_a_tiff_or_a_bitmap(
    kind: str, becomes: str, box: Sandbox, client: FalClient, saved: Callable[..., Any]
) -> None:
    if kind == "RGBA":
        picture = scene(300, 200, "RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        path = saved(picture, "photo.tiff")
    else:
        path = saved(scene(300, 200), f"photo.{kind.lower()}")
    made = client.product_workflow(path, styles=["Studio"])
    arrived = Image.open(io.BytesIO(box.file(made["image_url"])))
    assert (arrived.format, arrived.size) == (becomes, (300, 200))
    assert [row["headers"]["content-type"] for row in box.journal() if row["stage"] == "upload"] == [
        f"image/{becomes.lower()}"
    ]


@pytest.mark.usefixtures("ready_answers")
def test_a_workflow_sends_bria_a_smaller_photo_in_place_of_one_of_more_than_12_mb(
    box: Sandbox, client: FalClient, tmp_path: Path
) -> None:
    file = io.BytesIO()
    scene(300, 200).save(file, "JPEG")
    path = tmp_path / "photo.jpg"
    path.write_bytes(file.getvalue() + bytes(BIG))
    made = client.product_workflow(path, styles=["Studio"])
    assert len(box.file(made["image_url"])) < MAX_BYTES


@pytest.mark.usefixtures("ready_answers")
def test_other_endpoints_get_the_photo_as_it_is(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, saved: Callable[..., Any]
) -> None:
    monkeypatch.setenv("FAL_CUTOUT_ENDPOINT", "fal-ai/birefnet/v2")
    box.fault("job", endpoint="fal-ai/birefnet/v2", output={"image": {"url": "https://v3.fal.media/a.png"}})
    path = saved(scene(300, 200), "photo.bmp")
    with FalClient(timeout=60) as client:
        made = client.product_workflow(path, styles=["Studio"])
    assert box.file(made["image_url"]) == path.read_bytes()


def test_what_pillow_cannot_make_fit_for_bria_is_an_error_before_anything_is_sent(
    box: Sandbox, client: FalClient, tmp_path: Path
) -> None:
    heic = tmp_path / "photo.heic"
    heic.write_bytes(b"\x00\x00\x00\x20ftypheic" + bytes(100))
    with pytest.raises(InvalidInput, match=r"take no image/heic files, .*Pillow does not know its format\. Convert"):
        client.product_workflow(heic)
    large = tmp_path / "photo.jpg"
    # Broken at once: Pillow reads on byte by byte where a marker may follow.
    large.write_bytes(b"\xff\xd8\xff\xe0\x00\x02\xff\x01" + bytes(BIG))
    with pytest.raises(InvalidInput, match="no files of more than 12 MB, and Pillow cannot convert"):
        client.product_workflow(large)
    assert box.journal() == []


def test_without_pillow_a_photo_that_bria_does_not_take_is_an_error_before_anything_is_sent(
    box: Sandbox, client: FalClient, saved: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(scene(50, 50), "photo.bmp")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InvalidInput, match=r"take no image/bmp files.*pip install pillow"):
        client.product_workflow(path)
    assert box.journal() == []
