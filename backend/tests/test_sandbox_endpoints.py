"""What the sandbox's endpoints take and give: inputs as FastAPI checks them, sizes, masks, seeds, and any endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from httpx_sse import connect_sse

from fal_sandbox.endpoint_table import ENDPOINTS, makes_no_picture
from fal_sandbox.server import Sandbox

QUEUE, DIRECT = "https://queue.fal.run/", "https://fal.run/"
TEXT = "openrouter/router"
ASK = {"prompt": "Say something short.", "model": "google/gemini-2.5-flash"}
BRIA, REPLACE, SHOT = "bria/replace-background", "fal-ai/bria/background/replace", "fal-ai/bria/product-shot"
BANANA, BANANA_2, BANANA_21 = "fal-ai/nano-banana/edit", "fal-ai/nano-banana-2/edit", "google/nano-banana-2.1/edit"
CUT = "fal-ai/birefnet/v2"
PATIENCE_S = 60.0


@pytest.fixture
def web(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": "Key an-id:a-secret"}, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def photo(box: Sandbox) -> str:
    """A small dark square on white, 3 by 2."""
    pixels = np.full((80, 120, 3), 245, np.uint8)
    pixels[20:60, 40:80] = (40, 60, 150)
    return box.put_file(cv2.imencode(".png", pixels)[1].tobytes(), "thing.png", "image/png")


def run(web: httpx.Client, endpoint: str, given: dict[str, Any]) -> Any:
    reply = web.post(DIRECT + endpoint, json=given)
    assert reply.status_code == 200, reply.text
    return reply.json()


def size_of(web: httpx.Client, image: dict[str, Any]) -> tuple[int, int]:
    """The size the image says it has, which is that of its pixels too."""
    pixels = cv2.imdecode(np.frombuffer(web.get(image["url"]).content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape[:2] == (image["height"], image["width"])
    return image["width"], image["height"]


# ---------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ("endpoint", "given", "error"),
    [
        (TEXT, {"prompt": "x"}, {"type": "missing", "loc": ["body", "model"], "msg": "Field required"}),
        (
            TEXT,
            {**ASK, "temperature": "hot"},
            {
                "type": "float_parsing",
                "loc": ["body", "temperature"],
                "msg": "Input should be a valid number, unable to parse string as a number",
                "input": "hot",
            },
        ),
        (
            TEXT,
            {**ASK, "max_tokens": 0},
            {
                "type": "greater_than_equal",
                "loc": ["body", "max_tokens"],
                "msg": "Input should be greater than or equal to 1",
                "input": 0,
                "ctx": {"ge": 1},
            },
        ),
        (
            "openrouter/router/vision",
            {**ASK, "image_urls": ["https://example.com/a.jpg", 7]},
            {
                "type": "string_type",
                "loc": ["body", "image_urls", 1],
                "msg": "Input should be a valid string",
                "input": 7,
            },
        ),
        (
            REPLACE,
            {"image_url": "https://example.com/a.jpg"},
            {
                "type": "value_error",
                "loc": ["body"],
                "msg": "Value error, exactly one of prompt and ref_image_url must be given",
                "input": {"image_url": "https://example.com/a.jpg"},
                "ctx": {"error": {}},
            },
        ),
        (
            BANANA,
            {"prompt": "x", "image_urls": []},
            {
                "type": "too_short",
                "loc": ["body", "image_urls"],
                "msg": "List should have at least 1 item after validation, not 0",
                "input": [],
                "ctx": {"field_type": "List", "min_length": 1, "actual_length": 0},
            },
        ),
        (
            TEXT,
            [1],
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": [1],
            },
        ),
        (TEXT, None, {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}),
        (
            TEXT,
            {**ASK, "reasoning": None},
            {
                "type": "bool_type",
                "loc": ["body", "reasoning"],
                "msg": "Input should be a valid boolean",
                "input": None,
            },
        ),
    ],
)
def test_a_bad_input_is_refused_word_for_word_as_fastapi_refuses_it(
    web: httpx.Client, endpoint: str, given: Any, error: dict[str, Any]
) -> None:
    reply = web.post(DIRECT + endpoint, json=given)
    (said,) = reply.json()["detail"]
    assert reply.status_code == 422
    assert said == {"input": given, **error}
    assert list(said)[:4] == ["type", "loc", "msg", "input"]


@pytest.mark.parametrize("url", [DIRECT + TEXT, QUEUE + TEXT])
def test_a_body_nested_too_deeply_is_a_422(box: Sandbox, web: httpx.Client, url: str) -> None:
    reply = web.post(url, content=b"[" * 100_000)
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "json_invalid")
    assert box.ledger()["accepted"] == 0


def test_a_body_that_is_no_json_says_where(web: httpx.Client) -> None:
    reply = web.post(DIRECT + TEXT, content=b'{"prompt": }')
    assert reply.json()["detail"] == [
        {
            "type": "json_invalid",
            "loc": ["body", 11],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": "Expecting value"},
        }
    ]


@pytest.mark.parametrize(
    ("endpoint", "given", "field", "kind"),
    [
        (REPLACE, {"prompt": "x", "seed": -1}, "seed", "greater_than_equal"),
        (REPLACE, {"prompt": "x", "seed": 2**31}, "seed", "less_than_equal"),
        (REPLACE, {"prompt": "x", "num_images": 5}, "num_images", "less_than_equal"),
        (BRIA, {"prompt": "x", "seed": 2**31}, "seed", "less_than_equal"),
        (CUT, {"operating_resolution": "2304x2304"}, "operating_resolution", "value_error"),
        (CUT, {"operating_resolution": "512x512"}, "operating_resolution", "literal_error"),
        (SHOT, {"scene_description": "x", "shot_size": [1000]}, "shot_size", "too_short"),
        (SHOT, {"scene_description": "x", "placement_type": "anywhere"}, "placement_type", "literal_error"),
        (BANANA, {"prompt": "x", "aspect_ratio": "4:1"}, "aspect_ratio", "literal_error"),
        (BANANA_2, {"prompt": "x", "aspect_ratio": "7:3"}, "aspect_ratio", "literal_error"),
        (BANANA_2, {"prompt": "x", "resolution": "8K"}, "resolution", "literal_error"),
        (BANANA_21, {"prompt": "x", "image_urls": ["x"] * 15}, "image_urls", "too_long"),
        (BANANA_21, {"prompt": "x", "thinking_level": "deep"}, "thinking_level", "literal_error"),
    ],
)
def test_ranges_and_choices_are_fals(
    web: httpx.Client, photo: str, endpoint: str, given: dict[str, Any], field: str, kind: str
) -> None:
    pictures = {"image_urls": [photo]} if "banana" in endpoint else {"image_url": photo}
    (error,) = web.post(DIRECT + endpoint, json={**pictures, **given}).json()["detail"]
    assert (error["loc"][:2], error["type"]) == (["body", field], kind)


@pytest.mark.nightly
def test_the_largest_resolution_is_for_the_dynamic_model(web: httpx.Client, photo: str) -> None:
    given = {"image_url": photo, "operating_resolution": "2304x2304", "model": "General Use (Dynamic)"}
    assert run(web, CUT, given)["image"]["url"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("endpoint", "words"), [(REPLACE, "prompt"), (SHOT, "scene_description")])
def test_an_empty_reference_picture_counts_as_none(web: httpx.Client, photo: str, endpoint: str, words: str) -> None:
    assert run(web, endpoint, {"image_url": photo, words: "studio", "ref_image_url": ""})["images"]
    assert run(web, endpoint, {"image_url": photo, words: "", "ref_image_url": photo})["images"]
    for given in ({words: "studio", "ref_image_url": photo}, {words: "", "ref_image_url": ""}):
        assert web.post(DIRECT + endpoint, json={"image_url": photo, **given}).status_code == 422


def test_replace_background_has_a_fixed_seed_and_others_do_not(web: httpx.Client, photo: str) -> None:
    def picture(endpoint: str, **more: Any) -> bytes:
        made = run(web, endpoint, {"image_url": photo, "prompt": "studio", **more})
        return web.get(made["images"][0]["url"]).content

    assert picture(BRIA) == picture(BRIA, seed=4925634) != picture(BRIA, seed=1)
    assert picture(REPLACE) != picture(REPLACE)
    assert picture(REPLACE, seed=7) == picture(REPLACE, seed=7)


# ---------------------------------------------------------------- pictures


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("endpoint", "given", "size"),
    [
        (BANANA, {"aspect_ratio": "1:1"}, (1024, 1024)),
        (BANANA, {"aspect_ratio": "9:16"}, (768, 1368)),
        (BANANA, {}, (1256, 840)),
        (BANANA_2, {"aspect_ratio": "8:1", "resolution": "0.5K"}, (1448, 184)),
        (BANANA_2, {"aspect_ratio": "1:1", "resolution": "2K"}, (2048, 2048)),
        (BANANA_21, {"aspect_ratio": "3:2", "resolution": "0.5K"}, (624, 416)),
    ],
)
def test_the_aspect_ratio_and_the_resolution_are_those_asked_for(
    web: httpx.Client, photo: str, endpoint: str, given: dict[str, Any], size: tuple[int, int]
) -> None:
    made = run(web, endpoint, {"prompt": "studio", "image_urls": [photo], **given})
    assert size_of(web, made["images"][0]) == size


def test_several_pictures_differ_and_have_the_file_type_asked_for(box: Sandbox, web: httpx.Client, photo: str) -> None:
    asked = {"prompt": "studio", "image_urls": [photo], "num_images": 3, "output_format": "jpeg", "seed": 1}
    images = run(web, BANANA_2, {**asked, "resolution": "0.5K"})["images"]
    data = [web.get(image["url"]).content for image in images]
    assert len(set(data)) == 3
    assert all(entry.startswith(b"\xff\xd8\xff") for entry in data)
    assert {image["content_type"] for image in images} == {"image/jpeg"}
    assert box.ledger()["units"] == 3


def test_nano_banana_2_needs_no_picture(web: httpx.Client) -> None:
    assert size_of(web, run(web, BANANA_2, {"prompt": "a mug", "resolution": "0.5K"})["images"][0]) == (512, 512)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, [(1000, 1000)]),
        ({"shot_size": [640, 320], "num_results": 2}, [(640, 320)] * 2),
        ({"original_quality": True}, [(120, 80)]),
        ({"placement_type": "original"}, [(120, 80)]),
        ({"placement_type": "manual_padding", "padding_values": [10, 20, 30, 40]}, [(150, 150)]),
        ({"placement_type": "automatic", "shot_size": [64, 64]}, [(64, 64)] * 10),
    ],
)
def test_a_product_shot_has_the_size_of_the_shot(
    web: httpx.Client, photo: str, given: dict[str, Any], sizes: list[tuple[int, int]]
) -> None:
    made = run(web, SHOT, {"image_url": photo, "scene_description": "on a wooden table", **given})
    assert [size_of(web, image) for image in made["images"]] == sizes


def test_a_mask_comes_beside_the_cutout_or_in_its_place(web: httpx.Client, photo: str) -> None:
    def pixels(image: dict[str, Any]) -> Any:
        return cv2.imdecode(np.frombuffer(web.get(image["url"]).content, np.uint8), cv2.IMREAD_UNCHANGED)

    plain = run(web, CUT, {"image_url": photo})
    beside = run(web, CUT, {"image_url": photo, "output_mask": True})
    alone = run(web, CUT, {"image_url": photo, "mask_only": True})
    assert "mask_image" not in plain
    assert "mask_image" not in alone
    assert pixels(beside["image"]).shape == (80, 120, 4)
    mask = pixels(beside["mask_image"])
    assert (mask.shape, pixels(alone["image"]).tolist()) == ((80, 120, 3), mask.tolist())
    assert (mask[40, 60].tolist(), mask[2, 2].tolist()) == ([255] * 3, [0] * 3)


# ---------------------------------------------------------------- any endpoint


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"image_size": "512x256"}, (512, 256)),
        ({"image_size": "1024x1024"}, (1024, 1024)),
        ({"image_size": "auto"}, (1024, 1024)),
        ({"image_size": None}, (1024, 1024)),
        ({"image_size": {"width": 5000, "height": 16}}, (5000, 16)),
        ({"image_size": "16:9"}, (1368, 768)),
        ({"width": 640, "height": 48}, (640, 48)),
        ({"aspect_ratio": "1:4"}, (512, 2048)),
        ({"aspect_ratio": "auto", "resolution": "0.5K"}, (512, 512)),
    ],
)
def test_any_endpoint_takes_the_sizes_that_other_models_take(
    box: Sandbox, web: httpx.Client, given: dict[str, Any], size: tuple[int, int]
) -> None:
    box.configure(any_endpoint=True)
    made = run(web, "someone/model", {"prompt": "a mug", **given})
    assert size_of(web, made["images"][0]) == size
    assert made["image"] == made["images"][0]


@pytest.mark.parametrize("given", [{"width": 16384, "height": 16384}, {"image_size": "16384x16384"}, {"width": 0}])
def test_any_endpoint_refuses_pictures_that_no_machine_should_paint(
    box: Sandbox, web: httpx.Client, given: dict[str, Any]
) -> None:
    box.configure(any_endpoint=True)
    assert web.post(DIRECT + "someone/model", json=given).status_code == 422


def test_any_endpoint_takes_many_pictures_and_a_list_of_prompts(box: Sandbox, web: httpx.Client) -> None:
    box.configure(any_endpoint=True)
    made = run(web, "someone/model", {"prompt": ["a mug", "a shoe"], "num_images": 6, "image_size": "16x16"})
    assert (len(made["images"]), made["prompt"]) == (6, "a mug a shoe")
    assert run(web, "someone/model", {"prompt": None, "image_size": "16x16"})["images"]


SPOKEN = [
    "fal-ai/kling-video/v2/master/text-to-video",
    "fal-ai/veo3",
    "fal-ai/whisper",
    "fal-ai/minimax/speech-02-hd",
    "fal-ai/elevenlabs/tts/turbo-v2.5",
    "fal-ai/stable-audio",
    "fal-ai/kokoro/american-english",
    "fal-ai/minimax-music",
    "fal-ai/wan/v2.2-a14b/image-to-video",
    "fal-ai/sync-lipsync/v2",
    "openrouter/router/audio",
    "openrouter/router/video/enterprise",
    "bytedance/seedance-2.0/fast",
]


@pytest.mark.parametrize("endpoint", SPOKEN)
def test_audio_video_and_speech_never_answer_with_a_picture(box: Sandbox, web: httpx.Client, endpoint: str) -> None:
    box.configure(any_endpoint=True)
    for url in (QUEUE, DIRECT):
        reply = web.post(url + endpoint, json={"prompt": "x"})
        assert (reply.status_code, "audio, video or speech" in reply.json()["detail"]) == (404, True)
    assert box.ledger()["accepted"] == 0


@pytest.mark.parametrize(
    "endpoint",
    [
        "fal-ai/flux/dev",
        "fal-ai/kling-image/v3/text-to-image",
        "fal-ai/minimax/image-01",
        "fal-ai/wan/v2.2-a14b/text-to-image",
        "fal-ai/luma-photon/flash",
        "fal-ai/imagen4/preview",
        *ENDPOINTS,
    ],
)
def test_picture_models_are_not_taken_for_those_of_video(endpoint: str) -> None:
    assert not makes_no_picture(endpoint)


def test_a_video_to_work_on_makes_no_picture_either(box: Sandbox, web: httpx.Client) -> None:
    box.configure(any_endpoint=True)
    reply = web.post(DIRECT + "someone/upscaler", json={"video_url": "https://example.com/a.mp4"})
    assert (reply.status_code, "audio, video or speech" in reply.json()["detail"][0]["msg"]) == (422, True)


# ---------------------------------------------------------------- what a caller says about a job


def test_the_ledger_keeps_how_a_caller_wants_a_job_treated(box: Sandbox, web: httpx.Client) -> None:
    lifetime = json.dumps({"expiration_duration_seconds": 3600})
    headers = {
        "X-Fal-Store-IO": "0",
        "X-Fal-Object-Lifecycle-Preference": lifetime,
        "X-Fal-Queue-Priority": "low",
        "X-Fal-Other": "x",
    }
    web.post(QUEUE + TEXT, json=ASK, headers=headers)
    web.post(DIRECT + TEXT, json=ASK)
    first, second = box.ledger()["jobs"]
    assert first["headers"] == {
        "x-fal-store-io": "0",
        "x-fal-object-lifecycle-preference": lifetime,
        "x-fal-queue-priority": "low",
    }
    assert second["headers"] == {}


def test_a_status_stream_tells_each_log_line_once_and_polling_tells_all(box: Sandbox, web: httpx.Client) -> None:
    box.configure(queue=0.3, latency=0.3)
    job = web.post(QUEUE + TEXT, json=ASK).json()
    with connect_sse(web, "GET", job["status_url"] + "/stream", params={"logs": 1}) as source:
        told = [json.loads(event.data) for event in source.iter_sse()]
    lines = [[line["message"] for line in status["logs"]] for status in told]
    polled = [line["message"] for line in web.get(job["status_url"], params={"logs": 1}).json()["logs"]]
    assert [status["status"] for status in told] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert [len(entry) for entry in lines] == [0, 1, 1]
    assert [line for entry in lines for line in entry] == polled
    with connect_sse(web, "GET", job["status_url"] + "/stream") as source:
        assert [json.loads(event.data)["logs"] for event in source.iter_sse()] == [None]


def test_an_application_can_ignore_a_cancel(box: Sandbox, web: httpx.Client) -> None:
    box.configure(latency=0.5)
    box.fault("job", ignores_cancel=True)
    job = web.post(QUEUE + TEXT, json=ASK).json()
    box.wait_for(lambda ledger: ledger["jobs"][0]["state"] == "IN_PROGRESS", PATIENCE_S)
    cancelled = web.put(job["cancel_url"])
    assert (cancelled.status_code, cancelled.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    box.wait_for(lambda ledger: ledger["completed"] == 1, PATIENCE_S)
    assert web.get(job["response_url"]).json()["output"]
    assert (box.ledger()["billable"], box.ledger()["jobs"][0]["cancel_requests"]) == (1, 1)


def test_a_waiting_job_is_removed_even_from_an_application_that_ignores_a_cancel(
    box: Sandbox, web: httpx.Client
) -> None:
    box.configure(queue=PATIENCE_S)
    box.fault("job", ignores_cancel=True)
    job = web.post(QUEUE + TEXT, json=ASK).json()
    assert web.put(job["cancel_url"]).json() == {"status": "OK"}
    assert box.ledger()["cancelled"] == 1


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("POST", "https://rest.fal.ai/tokens/"),
        ("POST", "https://rest.alpha.fal.ai/tokens/"),
        ("GET", "https://fal.run/fal-ai/flux/dev/realtime"),
    ],
)
def test_realtime_and_its_tokens_are_stated_as_not_served(
    box: Sandbox, web: httpx.Client, method: str, url: str
) -> None:
    reply = web.request(method, url, json={"allowed_apps": ["flux"]})
    assert (reply.status_code, "does not serve" in reply.json()["detail"]) == (501, True)
    assert "Not served: realtime" in httpx.get(box.url + "/_sandbox/", trust_env=False).text
