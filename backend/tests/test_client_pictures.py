"""Pictures through FalClient: the cut-out, the photokit in all its forms, and a photokit of the user's own."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import (
    BadOutput,
    JobFailed,
    ModelRejected,
)
from services.fal_service import FalClient

CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
PHOTO = "https://example.com/red-mug.jpg"
CUT_OUT_URL = "https://v3.fal.media/files/b/cut.png"
IMAGE = {"url": "https://v3.fal.media/files/b/new.png", "width": 900, "height": 600, "content_type": "image/png"}
SHAPE = {"url", "width", "height", "content_type", "file_size"}


def jobs(box: Sandbox) -> list[Any]:
    return [(job["endpoint"], job["input"]) for job in box.ledger()["jobs"]]


def answers(box: Sandbox, endpoint: str, output: Any) -> None:
    """Let `endpoint` answer at once, without painting."""
    box.fault("job", endpoint=endpoint, output=output, times=None)


def decoded(box: Sandbox, url: Any) -> Any:
    return cv2.imdecode(np.frombuffer(box.file(url), np.uint8), cv2.IMREAD_UNCHANGED)


# ---------------------------------------------------------------- real pictures


def test_remove_background_gives_a_png_that_is_transparent_around_the_product(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    result = client.remove_background(photo_url)
    assert set(result["image"]) == SHAPE
    assert (result["image"]["width"], result["image"]["height"]) == (240, 160)
    assert result["image"]["content_type"] == "image/png"
    assert result["image"]["file_size"] == len(box.file(result["image"]["url"]))
    alpha = decoded(box, result["image"]["url"])[:, :, 3]
    assert (alpha[0, 0], alpha[-1, -1]) == (0, 0)
    assert alpha.max() == 255
    assert set(result["timings"]) == {"cutout", "total", "inference_time"}
    assert result["timings"]["total"] >= result["timings"]["cutout"] > 0
    assert jobs(box) == [(CUTOUT, {"image_url": photo_url})]
    assert result["request_id"] == box.ledger()["jobs"][0]["request_id"]
    assert result["billable_units"] == 1


def test_background_replace_cuts_the_product_out_and_gives_the_cut_out_to_the_photokit(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    result = client.background_replace(photo_url, prompt="cozy scandinavian living room, warm tones")
    (first, cut_input), (second, input_) = jobs(box)
    assert (first, cut_input) == (CUTOUT, {"image_url": photo_url})
    assert (second, set(input_)) == (PHOTOKIT, {"image_url", "prompt"})
    assert input_["prompt"] == "cozy scandinavian living room, warm tones"
    assert decoded(box, input_["image_url"]).shape[2] == 4
    assert set(result) >= {"image", "cutout", "timings", "request_id", "billable_units", "sandbox"}
    assert set(result["image"]) == SHAPE
    assert decoded(box, result["image"]["url"]).shape[:2] == (result["image"]["height"], result["image"]["width"])
    assert set(result["timings"]) == {"cutout", "picture", "total", "inference_time"}
    assert result["request_id"] == box.ledger()["jobs"][1]["request_id"]


# ---------------------------------------------------------------- what is sent, and answers of every shape


def test_without_remove_bg_the_photo_goes_to_the_photokit_as_it_is(box: Sandbox, client: FalClient) -> None:
    answers(box, PHOTOKIT, {"image": IMAGE})
    result = client.background_replace(PHOTO, prompt="marble", remove_bg=False)
    assert jobs(box) == [(PHOTOKIT, {"image_url": PHOTO, "prompt": "marble"})]
    assert set(result["timings"]) == {"picture", "total", "inference_time"}


@pytest.mark.parametrize(
    ("output", "url", "width"),
    [
        pytest.param({"image": IMAGE}, IMAGE["url"], 900, id="image"),
        pytest.param({"images": [IMAGE, {"url": "https://v3.fal.media/2.png"}]}, IMAGE["url"], 900, id="images"),
        pytest.param({"image": None, "images": [IMAGE]}, IMAGE["url"], 900, id="image null"),
        pytest.param({"image": {"url": "https://x/1.png"}, "images": [IMAGE]}, "https://x/1.png", None, id="both"),
        pytest.param(
            {"image": {"url": "data:image/png;base64,AAAA"}}, "data:image/png;base64,AAAA", None, id="data URI"
        ),
    ],
)
def test_a_picture_is_found_wherever_an_endpoint_puts_it(
    box: Sandbox, client: FalClient, output: dict[str, Any], url: Any, width: int | None
) -> None:
    answers(box, PHOTOKIT, output)
    image = client.background_replace(PHOTO, prompt="marble", remove_bg=False)["image"]
    assert (image["url"], image["width"], set(image)) == (url, width, SHAPE)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ({}, BadOutput),
        ({"images": []}, BadOutput),
        ({"image": "https://v3.fal.media/1.png"}, BadOutput),
        ({"image": {"url": None}}, BadOutput),
        ({"image": {"url": "file:///etc/passwd"}}, BadOutput),
        ({"images": [None]}, BadOutput),
        ({"images": {"0": IMAGE}}, BadOutput),
        ({"image": IMAGE, "error": "NSFW"}, JobFailed),
    ],
)
@pytest.mark.parametrize("endpoint", [CUTOUT, PHOTOKIT])
def test_an_answer_without_a_picture_raises_and_names_the_job(
    box: Sandbox, client: FalClient, endpoint: Any, output: dict[Any, Any] | dict[str, Any], error: Any
) -> None:
    answers(box, endpoint, output)
    answers(box, CUTOUT, {"image": IMAGE})
    with pytest.raises(error) as caught:
        client.background_replace(PHOTO, prompt="marble")
    assert caught.value.request_id == box.ledger()["jobs"][-1]["request_id"]
    assert jobs(box)[-1][0] == endpoint


def test_when_the_cut_out_fails_no_picture_is_paid_for(box: Sandbox, client: FalClient) -> None:
    with pytest.raises(ModelRejected) as caught:
        client.background_replace("https://elsewhere.example.net/x.jpg", prompt="marble")
    assert caught.value.detail[0]["type"] == "file_download_error"
    assert [endpoint for endpoint, _ in jobs(box)] == [CUTOUT]


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "output"),
    [
        ("fal-ai/bria/background/replace", "image_url", CUT_OUT_URL, {"images": [IMAGE]}),
        ("fal-ai/nano-banana/edit", "image_urls", [CUT_OUT_URL], {"images": [IMAGE], "description": ""}),
        ("fal-ai/nano-banana-2/edit", "image_urls", [CUT_OUT_URL], {"images": [IMAGE], "description": ""}),
        ("google/nano-banana-2.1/edit", "image_urls", [CUT_OUT_URL], {"images": [IMAGE], "description": ""}),
        ("fal-ai/somebody/new", "image_url", CUT_OUT_URL, {"image": IMAGE}),
    ],
)
def test_a_photokit_set_by_hand_gets_the_image_under_the_name_it_knows(
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    field: str,
    value: list[str] | str,
    output: dict[str, Any],
) -> None:
    box.configure(any_endpoint=True)
    answers(box, CUTOUT, {"image": {"url": CUT_OUT_URL}})
    answers(box, endpoint, output)
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", endpoint)
    with FalClient() as client:
        result = client.background_replace(PHOTO, prompt="marble")
    assert jobs(box)[1] == (endpoint, {field: value, "prompt": "marble"})
    assert result["image"]["url"] == IMAGE["url"]


def test_a_cut_out_endpoint_set_by_hand_is_used(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(box, "fal-ai/birefnet/v2", {"image": {"url": CUT_OUT_URL}})
    monkeypatch.setenv("FAL_CUTOUT_ENDPOINT", "fal-ai/birefnet/v2")
    with FalClient() as client:
        assert client.remove_background(PHOTO)["image"]["url"] == CUT_OUT_URL
    assert jobs(box) == [("fal-ai/birefnet/v2", {"image_url": PHOTO})]
