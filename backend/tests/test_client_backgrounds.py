"""Several backgrounds at once: what is sent, in which order things come back, and what is said of what failed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal_service import FalClient

CATEGORIES = {"main_product_type": "Kitchenware", "subcategory": "Mugs", "vibe": "Cozy"}
CUTOUT, PHOTOKIT, PROMPTS = "fal-ai/bria/background/remove", "bria/replace-background", "openrouter/router/enterprise"
PHOTO = "https://example.com/red-mug.jpg"
CUT = {"image": {"url": "https://v3.fal.media/files/b/cut.png", "width": 240, "height": 160}}
SCENE = {
    "image": {
        "url": "https://v3.fal.media/files/b/scene.png",
        "width": 900,
        "height": 600,
        "content_type": "image/png",
        "file_size": 123,
    }
}
IMAGE_KEYS = {"style_name", "style_description", "image_url", "prompt", "width", "height"}
ERROR_KEYS = {"style", "stage", "error", "error_type", "retryable", "request_id"}
CRASH = {"error": "Runner disconnected", "error_type": "runner_disconnected"}
STYLES = [
    {"name": "Studio", "description": "Clean white studio background"},
    {"name": "Garden", "description": "A garden table at noon"},
    {"name": "Gece", "description": "Karanlık ve dramatik bir sahne"},
    {"name": "Studio", "description": "Grey concrete"},
]


@pytest.fixture
def warm(box: Sandbox, client: FalClient) -> FalClient:
    """A client whose libraries are loaded and whose connection stands: for tests that count tenths of a second."""
    client.any_llm_cancel("no-such-job")
    box.reset()
    return client


@pytest.fixture
def quick(box: Sandbox) -> Callable[..., None]:
    """Pictures come at once, without being painted; faults that a test scripts first go first."""

    def answer_at_once(*before: Any) -> None:
        for endpoint, what in before:
            box.fault("job", endpoint=endpoint, **what)
        box.fault("job", endpoint=CUTOUT, output=CUT, times=None)
        box.fault("job", endpoint=PHOTOKIT, output=SCENE, times=None)

    return answer_at_once


def inputs(box: Sandbox, endpoint: str) -> list[Any]:
    return [job["input"] for job in box.ledger()["jobs"] if job["endpoint"] == endpoint]


def names(result: Any) -> list[Any]:
    return [image["style_name"] for image in result["images"]]


def test_the_default_styles_are_painted_for_real_on_the_one_cut_out(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    result = client.generate_multiple_backgrounds(photo_url, CATEGORIES)
    counts = {"total_generated", "total_requested", "errors", "timings", "cost_usd", "costs"}
    assert set(result) == {"cutout", "images", "sandbox", *counts}
    assert names(result) == ["Studio", "Lifestyle", "Premium"]
    assert (result["total_generated"], result["total_requested"], result["errors"]) == (3, 3, None)
    assert inputs(box, CUTOUT) == [{"image_url": photo_url}]
    painted = {given["prompt"]: given["image_url"] for given in inputs(box, PHOTOKIT)}
    assert len(painted) == 3
    assert len(set(painted.values())) == 1
    assert photo_url not in painted.values()
    for image in result["images"]:
        assert set(image) >= IMAGE_KEYS
        assert image["prompt"] in painted
        assert len(box.file(image["image_url"])) == image["file_size"]
        assert image["request_id"] in [job["request_id"] for job in box.ledger()["jobs"]]
        assert image["billable_units"] == 1
    assert {"cutout", "prompt:Studio", "picture:Premium", "total"} <= set(result["timings"])


def test_styles_of_ones_own_come_back_in_their_order_with_their_words(
    box: Sandbox, client: FalClient, quick: Callable[..., None]
) -> None:
    quick((PROMPTS, {"output": {"output": "late"}, "delay": 0.2}), (PHOTOKIT, {"output": SCENE, "delay": 0.1}))
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES)
    assert [(image["style_name"], image["style_description"]) for image in result["images"]] == [
        (style["name"], style["description"]) for style in STYLES
    ]
    assert (result["total_generated"], result["total_requested"], result["errors"]) == (4, 4, None)
    image = result["images"][0]
    assert (image["image_url"], image["width"], image["height"]) == (SCENE["image"]["url"], 900, 600)
    assert len(inputs(box, CUTOUT)) == 1
    assert {given["image_url"] for given in inputs(box, PHOTOKIT)} == {CUT["image"]["url"]}
    assert sorted(given["prompt"] for given in inputs(box, PHOTOKIT)) == sorted(i["prompt"] for i in result["images"])


@pytest.mark.parametrize(
    ("styles", "expected"),
    [
        (["premium", "STUDIO "], ["Premium", "Studio"]),
        (["Lifestyle", {"name": "Mine", "description": "A shelf"}], ["Lifestyle", "Mine"]),
        (("Studio",), ["Studio"]),
        (None, ["Studio", "Lifestyle", "Premium"]),
    ],
)
def test_default_styles_may_be_named(
    client: FalClient, quick: Callable[..., None], styles: list[Any] | tuple[Any, ...] | None, expected: list[str]
) -> None:
    quick()
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=styles)
    assert names(result) == expected
    assert all(image["style_description"] for image in result["images"])


def test_without_remove_bg_nothing_is_cut_out(box: Sandbox, client: FalClient, quick: Callable[..., None]) -> None:
    quick()
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=["Studio"], remove_bg=False)
    assert result["total_generated"] == 1
    assert inputs(box, CUTOUT) == []
    assert inputs(box, PHOTOKIT)[0]["image_url"] == PHOTO
    assert "cutout" not in result["timings"]


# ---------------------------------------------------------------- at the same time


@pytest.mark.parametrize(("slow", "quick_step"), [(CUTOUT, "prompt"), (PROMPTS, "cutout")])
def test_the_prompts_are_written_while_the_product_is_cut_out(
    client: FalClient, quick: Callable[..., None], slow: Any, quick_step: str
) -> None:
    quick((slow, {"output": {**CUT, "output": "A prompt."}, "delay": 2, "times": None}))
    done = []
    client.generate_multiple_backgrounds(
        PHOTO,
        CATEGORIES,
        on_progress=lambda event: done.append(event["step"]) if event.get("status") == "done" else None,
    )
    first = ["prompt"] * 3 if quick_step == "prompt" else ["cutout"]
    second = ["cutout"] if quick_step == "prompt" else ["prompt"] * 3
    assert [step for step in done if step != "picture"] == first + second


def test_the_pictures_of_all_styles_are_made_side_by_side(
    box: Sandbox, client: FalClient, quick: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick((PHOTOKIT, {"output": SCENE, "stuck": "IN_PROGRESS", "times": 4}))
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", PHOTOKIT)
    with ThreadPoolExecutor(1) as threads, FalClient() as somebody_else:
        call = threads.submit(client.generate_multiple_backgrounds, PHOTO, CATEGORIES, styles=STYLES)
        at_work = box.wait_for(lambda ledger: len([j for j in ledger["jobs"] if j["endpoint"] == PHOTOKIT]) == 4)
        for job in at_work["jobs"]:
            somebody_else.any_llm_cancel(job["request_id"])
        result = call.result()
    assert [error["error_type"] for error in result["errors"]] == ["cancelled"] * 4
    assert result["total_generated"] == 0


def test_no_more_jobs_run_at_once_than_the_client_is_told(box: Sandbox, quick: Callable[..., None]) -> None:
    quick()
    most = []
    with FalClient(max_concurrency=2, timeout=60) as client:
        client.generate_multiple_backgrounds(
            PHOTO,
            CATEGORIES,
            styles=STYLES * 2,
            on_progress=lambda event: most.append(box.ledger()["running"]),
        )
    assert len(most) > 30
    assert max(most) <= 2


# ---------------------------------------------------------------- what failed


def test_a_prompt_that_failed_is_replaced_by_a_plain_one_and_listed(
    box: Sandbox, client: FalClient, quick: Callable[..., None]
) -> None:
    quick((PROMPTS, {"fail": CRASH}))
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES[:1])
    [image], [error] = result["images"], result["errors"]
    assert set(error) == ERROR_KEYS
    assert (error["style"], error["stage"], error["error_type"], error["retryable"]) == (
        "Studio",
        "prompt",
        "job_failed",
        True,
    )
    assert error["request_id"] in error["error"]
    assert image["prompt"].startswith("Clean white studio background")
    assert inputs(box, PHOTOKIT)[0]["prompt"] == image["prompt"]
    assert (result["total_generated"], result["total_requested"]) == (1, 1)


def test_a_picture_that_failed_is_listed_and_the_others_are_kept(
    box: Sandbox, client: FalClient, quick: Callable[..., None]
) -> None:
    quick((PHOTOKIT, {"fail": CRASH}))
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES[:3])
    [error] = result["errors"]
    assert set(error) == ERROR_KEYS
    assert error["stage"] == "picture"
    assert (result["total_generated"], result["total_requested"]) == (2, 3)
    assert names(result) == [style["name"] for style in STYLES[:3] if style["name"] != error["style"]]
    [failed] = [job for job in box.ledger()["jobs"] if job["outcome"] == "error"]
    assert error["request_id"] == failed["request_id"]


def test_a_style_may_fail_twice_and_is_listed_twice(client: FalClient, quick: Callable[..., None]) -> None:
    quick((PROMPTS, {"fail": CRASH}), (PHOTOKIT, {"output": {"image": None}}))
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=["Premium"])
    assert [(e["style"], e["stage"], e["error_type"]) for e in result["errors"]] == [
        ("Premium", "prompt", "job_failed"),
        ("Premium", "picture", "bad_output"),
    ]
    assert (result["images"], result["total_generated"]) == ([], 0)


def test_without_a_cut_out_no_picture_is_paid_for_and_every_style_says_so(box: Sandbox, client: FalClient) -> None:
    result = client.generate_multiple_backgrounds("https://elsewhere.example.net/x.jpg", CATEGORIES)
    assert [(error["style"], error["stage"], error["error_type"]) for error in result["errors"]] == [
        (style, "cutout", "model_rejected") for style in ("Studio", "Lifestyle", "Premium")
    ]
    assert (result["images"], result["total_generated"], result["total_requested"]) == ([], 0, 3)
    assert inputs(box, PHOTOKIT) == []


def test_a_style_that_takes_too_long_is_cancelled_at_fal_and_the_others_are_kept(
    box: Sandbox, warm: FalClient, quick: Callable[..., None]
) -> None:
    quick((PHOTOKIT, {"output": SCENE, "stuck": "IN_PROGRESS"}))
    result = warm.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES[1:3], timeout=4)
    [error] = result["errors"]
    assert (error["stage"], error["error_type"], error["retryable"]) == ("picture", "timeout", True)
    assert len(result["images"]) == 1
    [job] = [job for job in box.ledger()["jobs"] if job["request_id"] == error["request_id"]]
    assert job["outcome"] == "cancelled"


# ---------------------------------------------------------------- progress


def test_every_step_is_told_when_it_starts_and_ends_and_a_picture_comes_with_its_event(
    client: FalClient, quick: Callable[..., None]
) -> None:
    quick((PHOTOKIT, {"fail": CRASH}))
    events: list[Any] = []
    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES[:3], on_progress=events.append)
    steps = {(event["step"], event.get("style")) for event in events if event["step"] != "queue"}
    assert steps == {("cutout", None), *((step, s["name"]) for step in ("prompt", "picture") for s in STYLES[:3])}
    for step, style in steps:
        told = [event["status"] for event in events if (event["step"], event.get("style")) == (step, style)]
        assert told in (["started", "done"], ["started", "failed"])
    pictures = [event["image"] for event in events if event["step"] == "picture" and event.get("status") == "done"]
    assert sorted(pictures, key=lambda image: image["style_name"]) == sorted(
        result["images"], key=lambda image: image["style_name"]
    )
    [failed] = [event for event in events if event.get("status") == "failed"]
    assert (failed["step"], failed["error_type"], failed["style"]) == (
        "picture",
        "job_failed",
        result["errors"][0]["style"],
    )
    assert all(event["seconds"] >= 0 for event in events if event.get("status") == "done")


def test_progress_is_told_by_one_thread_at_a_time(client: FalClient, quick: Callable[..., None]) -> None:
    quick()
    busy, collisions = threading.Lock(), []

    def watch(event: Any) -> None:
        if not busy.acquire(blocking=False):
            collisions.append(event)
            return
        threading.Event().wait(0.002)
        busy.release()

    client.generate_multiple_backgrounds(PHOTO, CATEGORIES, styles=STYLES, on_progress=watch)
    assert collisions == []


def test_a_callback_that_raises_costs_no_picture(
    client: FalClient, quick: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    quick()

    def broken(event: Any) -> None:
        raise KeyError("oops")

    result = client.generate_multiple_backgrounds(PHOTO, CATEGORIES, on_progress=broken)
    assert (result["total_generated"], result["errors"]) == (3, None)
    assert "on_progress raised" in caplog.text
