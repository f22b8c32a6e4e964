"""Options of pictures: what each endpoint is sent, what is refused before anything is sent, and variants in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.endpoints import chain_for
from services.fal.errors import InvalidInput
from services.fal_service import FalClient
from services.live.inputs import INPUTS

CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
REPLACE, SHOT = "fal-ai/bria/background/replace", "fal-ai/bria/product-shot"
BANANA, BANANA_2, BANANA_21 = "fal-ai/nano-banana/edit", "fal-ai/nano-banana-2/edit", "google/nano-banana-2.1/edit"
OPTIONS: dict[str, Any] = {
    "seed": 5,
    "num_images": 2,
    "negative_prompt": "people",
    "aspect_ratio": "4:5",
    "resolution": "2K",
    "image_size": "800x600",
    "original_quality": True,
    "placement": "bottom_left",
}
BOTH_BANANAS = {"seed": 5, "num_images": 2, "aspect_ratio": "4:5"}
TAKEN: dict[str, dict[str, Any]] = {
    PHOTOKIT: {"seed": {"seed": 5}, "num_images": {}, "negative_prompt": {"negative_prompt": "people"}},
    REPLACE: {
        "seed": {"seed": 5},
        "num_images": {"num_images": 2},
        "negative_prompt": {"negative_prompt": "people"},
    },
    SHOT: {
        "num_images": {"num_results": 2},
        "image_size": {"shot_size": [800, 600]},
        "original_quality": {"original_quality": True},
        "placement": {"placement_type": "manual_placement", "manual_placement_selection": "bottom_left"},
    },
    BANANA: {name: {name: value} for name, value in BOTH_BANANAS.items()},
    BANANA_2: {name: {name: value} for name, value in {**BOTH_BANANAS, "resolution": "2K"}.items()},
    BANANA_21: {name: {name: value} for name, value in {**BOTH_BANANAS, "resolution": "2K"}.items()},
}
"""By endpoint and option: what is sent for it."""
CASES = [(endpoint, option) for endpoint in TAKEN for option in OPTIONS]
CRASH = {"error": "Runner disconnected", "error_type": "runner_disconnected"}
CATEGORIES = {"main_product_type": "Kitchenware"}


def picture(name: Any) -> dict[str, Any]:
    return {"url": f"https://v3.fal.media/files/b/{name}.png", "width": 90, "height": 60}


@pytest.fixture
def quick(box: Sandbox) -> None:
    """No picture is painted; a job of any endpoint that makes several gives two."""
    box.fault("job", endpoint=CUTOUT, output={"image": picture("cut")}, times=None)
    for endpoint in TAKEN:
        box.fault("job", endpoint=endpoint, output={"images": [picture("1"), picture("2")]}, times=None)


@pytest.fixture
def at(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A client whose pictures are made by an endpoint."""

    def make(endpoint: Any, **settings: Any) -> Any:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", endpoint)
        return FalClient(timeout=60, **settings)

    return make


def inputs(box: Sandbox, endpoint: str) -> list[Any]:
    return [job["input"] for job in box.ledger()["jobs"] if job["endpoint"] == endpoint]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("endpoint", "option"), [case for case in CASES if case[1] in TAKEN[case[0]]])
def test_an_option_reaches_the_endpoints_that_take_it_under_their_name_for_it(
    box: Sandbox, at: Callable[..., Any], photo_url: str, endpoint: Any, option: Any
) -> None:
    with at(endpoint) as client:
        client.background_replace(photo_url, prompt="oak", remove_bg=False, **{option: OPTIONS[option]})
    sent = inputs(box, endpoint)
    assert len(sent) == (2 if (endpoint, option) == (PHOTOKIT, "num_images") else 1)
    expected = TAKEN[endpoint][option]
    assert {name: sent[0].get(name) for name in expected} == expected
    assert sent[0]["scene_description" if endpoint == SHOT else "prompt"] == "oak"


@pytest.mark.parametrize(("endpoint", "option"), [case for case in CASES if case[1] not in TAKEN[case[0]]])
def test_an_option_that_the_endpoint_does_not_take_is_refused_before_anything_is_sent(
    box: Sandbox, at: Callable[..., Any], tmp_path: Path, endpoint: Any, option: Any
) -> None:
    (tmp_path / "mug.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    given = {option: OPTIONS[option]}
    with at(endpoint) as client:
        for refused in (
            lambda: client.background_replace("https://example.com/a.jpg", prompt="oak", **given),
            lambda: client.generate_multiple_backgrounds("https://example.com/a.jpg", CATEGORIES, **given),
            lambda: client.product_workflow(tmp_path / "mug.jpg", **given),
        ):
            with pytest.raises(InvalidInput) as caught:
                refused()
            message = str(caught.value)
            assert option in message
            others = message.partition("Endpoints that do: ")[2]
            assert all(row in others for row, taken in TAKEN.items() if option in taken)
            assert endpoint not in others.replace(",", " ").replace(". ", " ").split()
    assert box.journal() == []


@pytest.mark.parametrize(
    ("endpoint", "given", "named"),
    [
        (BANANA, {"aspect_ratio": "1:8"}, "21:9"),
        (BANANA_21, {"aspect_ratio": "7:5"}, "1:8"),
        (BANANA_21, {"resolution": "8K"}, "0.5K"),
        (SHOT, {"placement": "automatic"}, "original"),
        (SHOT, {"image_size": "square_hd"}, "1000x800"),
    ],
)
def test_a_value_that_the_endpoint_does_not_take_is_refused_with_those_that_it_does(
    box: Sandbox, at: Callable[..., Any], endpoint: Any, given: dict[str, Any], named: str
) -> None:
    with at(endpoint) as client, pytest.raises(InvalidInput, match=named):
        client.background_replace("https://example.com/a.jpg", prompt="oak", **given)
    assert box.journal() == []


@pytest.mark.parametrize(
    "given",
    [
        *({"seed": wrong} for wrong in (-1, 2**31, 1.0, "5", True)),
        *({"num_images": wrong} for wrong in (0, 5, None, "2", True)),
        *({"image_size": wrong} for wrong in ((1000,), (0, 5), ("1", "2"), 1000, "")),
        {"negative_prompt": " "},
        {"aspect_ratio": 1},
        {"original_quality": "yes"},
        {"ref_image_url": "/tmp/a.png"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(box: Sandbox, client: FalClient, given: Any) -> None:
    prompt: dict[str, Any] = {} if "ref_image_url" in given else {"prompt": "oak"}
    with pytest.raises(InvalidInput):
        client.background_replace("https://example.com/a.jpg", **prompt, **given)
    assert box.journal() == []


@pytest.mark.parametrize("endpoint", TAKEN)
def test_what_is_sent_is_what_the_live_check_compares_with_the_catalogue(endpoint: Any) -> None:
    rows = INPUTS[endpoint]
    [known] = chain_for("photokit", endpoint)
    for option, field in known.options.items():
        if option == "num_images" and known.makes_one:
            continue
        assert rows[field.name].sent, option
        if option != "placement":
            assert set(field.choices) == set(rows[field.name].enum)
    if "placement" in known.options:
        places = set(known.options["placement"].choices) - {"original"}
        assert places == set(rows["manual_placement_selection"].enum)


def test_an_endpoint_nobody_here_knows_gets_every_option_under_our_name(
    box: Sandbox, at: Callable[..., Any], photo_url: str
) -> None:
    box.configure(any_endpoint=True)
    box.fault("job", endpoint="fal-ai/somebody/new", output={"images": [picture("1"), picture("2")]})
    with at("fal-ai/somebody/new") as client:
        made = client.background_replace(photo_url, prompt="oak", remove_bg=False, **OPTIONS)
    size = {"image_size": {"width": 800, "height": 600}}
    assert inputs(box, "fal-ai/somebody/new") == [{"image_url": photo_url, "prompt": "oak", **OPTIONS, **size}]
    assert [image["url"] for image in made["images"]] == [picture("1")["url"], picture("2")["url"]]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("endpoint", "argv", "sent"),
    [
        (BANANA_21, "--aspect_ratio 4:5 --resolution 2K", {"aspect_ratio": "4:5", "resolution": "2K"}),
        (SHOT, "--image_size 320x200 --original_quality false", {"shot_size": [320, 200], "original_quality": False}),
        (SHOT, "--placement original", {"placement_type": "original"}),
    ],
)
def test_the_commands_take_the_options_of_other_endpoints(
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., tuple[int, Any]],
    photo_url: str,
    photo_path: Path,
    endpoint: Any,
    argv: str,
    sent: dict[str, Any],
) -> None:
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", endpoint)
    categories = ("--categories", json.dumps(CATEGORIES))
    for command in (
        ("background", "--image_url", photo_url, "--prompt", "oak"),
        ("generate-multiple-bg", "--image_url", photo_url, *categories, "--styles", '["Studio"]'),
        ("workflow", "--image", str(photo_path), "--styles", '["Studio"]'),
    ):
        assert run(*command, *argv.split())[0] == 0
    assert [{name: given.get(name) for name in sent} for given in inputs(box, endpoint)] == [sent] * 3


def test_the_command_takes_a_reference_picture(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, Any]], photo_url: str
) -> None:
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", REPLACE)
    assert run("background", "--image_url", photo_url, "--ref_image_url", photo_url)[0] == 0
    assert inputs(box, REPLACE)[0]["ref_image_url"] == photo_url
    code, document = run("background", "--image_url", photo_url)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert "prompt" in document["error"]


# Variants


def test_variants_of_an_endpoint_that_makes_one_picture_are_jobs_with_seeds_of_their_own(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    made = client.background_replace(photo_url, prompt="oak", remove_bg=False, seed=2**31 - 2, num_images=3)
    jobs = {job["request_id"]: job for job in box.ledger()["jobs"]}
    assert sorted(job["input"]["seed"] for job in jobs.values()) == [0, 2**31 - 2, 2**31 - 1]
    assert all("num_images" not in job["input"] for job in jobs.values())
    assert [image["seed"] for image in made["images"]] == [2**31 - 2, 2**31 - 1, 0]
    assert [jobs[image["request_id"]]["input"]["seed"] for image in made["images"]] == [2**31 - 2, 2**31 - 1, 0]
    assert len({box.file(image["url"]) for image in made["images"]}) == 3
    assert dict(made["image"]).items() <= dict(made["images"][0]).items()
    assert made["request_id"] == made["images"][0]["request_id"]
    assert made["billable_units"] == 3
    again = client.background_replace(photo_url, prompt="oak", remove_bg=False, seed=made["images"][1]["seed"])
    assert box.file(again["image"]["url"]) == box.file(made["images"][1]["url"])
    assert "images" not in again


@pytest.mark.usefixtures("quick")
def test_variants_without_a_seed_are_others_when_the_call_is_repeated(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    for _ in range(2):
        client.background_replace(photo_url, prompt="oak", remove_bg=False, num_images=2)
    assert len({given["seed"] for given in inputs(box, PHOTOKIT)}) == 4
    client.background_replace(photo_url, prompt="oak", remove_bg=False)
    assert "seed" not in inputs(box, PHOTOKIT)[-1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("endpoint", [REPLACE, BANANA, BANANA_21, SHOT])
def test_variants_of_one_job_come_in_its_order_and_share_what_it_cost(
    box: Sandbox, at: Callable[..., Any], photo_url: str, endpoint: Any
) -> None:
    with at(endpoint) as client:
        made = client.background_replace(photo_url, prompt="oak", remove_bg=False, num_images=2)
    [job] = box.ledger()["jobs"]
    assert [image["request_id"] for image in made["images"]] == [job["request_id"]] * 2
    assert len({box.file(image["url"]) for image in made["images"]}) == 2
    assert made["image"]["url"] == made["images"][0]["url"]
    assert made["billable_units"] == 2
    assert all("seed" not in image for image in made["images"])


def test_when_a_variant_fails_those_that_were_made_are_in_the_error(
    box: Sandbox, photo_url: str, run: Callable[..., tuple[int, Any]]
) -> None:
    box.fault("job", endpoint=PHOTOKIT, output={"image": picture("1")}, times=1)
    box.fault("job", endpoint=PHOTOKIT, times=1, fail=CRASH)
    code, document = run(
        *("background", "--image_url", photo_url, "--prompt", "oak", "--remove_bg", "false", "--num_images", "2")
    )
    assert code == 1
    assert [image["url"] for image in document["images"]] == [picture("1")["url"]]
    assert (document["image"]["url"], document["retryable"]) == (picture("1")["url"], False)
    assert "images" in document["hint"]


@pytest.mark.usefixtures("quick")
def test_styles_have_their_variants_one_after_the_other(box: Sandbox, client: FalClient, photo_url: str) -> None:
    events: list[Any] = []
    result = client.generate_multiple_backgrounds(
        photo_url, CATEGORIES, styles=["Studio", "Premium"], num_images=2, seed=7, on_progress=events.append
    )
    assert [(image["style_name"], image["seed"]) for image in result["images"]] == [
        *(("Studio", 7), ("Studio", 8), ("Premium", 7), ("Premium", 8)),
    ]
    assert (result["total_generated"], result["total_requested"], result["errors"]) == (4, 4, None)
    told = [event for event in events if event["step"] == "picture" and event["status"] == "done"]
    assert sorted((event["style"], event["image"]["seed"]) for event in told) == [
        *(("Premium", 7), ("Premium", 8), ("Studio", 7), ("Studio", 8)),
    ]


def test_a_variant_that_fails_is_an_error_of_its_style_beside_the_picture_of_the_other(
    box: Sandbox, client: FalClient, photo_url: str
) -> None:
    box.fault("job", endpoint=CUTOUT, output={"image": picture("cut")})
    box.fault("job", endpoint=PHOTOKIT, times=1, fail=CRASH)
    box.fault("job", endpoint=PHOTOKIT, output={"image": picture("1")}, times=1)
    result = client.generate_multiple_backgrounds(photo_url, CATEGORIES, styles=["Studio"], num_images=2)
    assert (result["total_generated"], result["total_requested"]) == (1, 2)
    assert [(error["stage"], error["style"]) for error in result["errors"]] == [("picture", "Studio")]


@pytest.mark.usefixtures("unpainted")
def test_a_workflow_saves_every_variant(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_path: Path, tmp_path: Path
) -> None:
    styles = json.dumps(["Studio", "Premium"])
    argv = ("--styles", styles, "--num_images", "2", "--save_dir", str(tmp_path / "out"), "--report")
    code, document = run("workflow", "--image", str(photo_path), *argv)
    assert (code, document["total_generated"], document["total_requested"]) == (0, 4, 4)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        *("1-studio.png", "2-studio.png", "3-premium.png", "4-premium.png"),
        *("cutout.png", "original.jpg", "report.html"),
    ]
    for image in document["images"]:
        with open(image["path"], "rb") as file:
            assert file.read() == box.file(image["image_url"])


# A picture in place of the prompt


@pytest.mark.parametrize("endpoint", [REPLACE, SHOT])
def test_a_reference_picture_stands_in_for_the_prompt(
    box: Sandbox, at: Callable[..., Any], photo_url: str, endpoint: Any
) -> None:
    with at(endpoint) as client:
        client.background_replace(photo_url, ref_image_url=photo_url, remove_bg=False)
        with pytest.raises(InvalidInput, match="not both"):
            client.background_replace(photo_url, prompt="oak", ref_image_url=photo_url, remove_bg=False)
    assert inputs(box, endpoint) == [{"image_url": photo_url, "ref_image_url": photo_url}]


def test_a_shot_has_the_size_that_was_asked_for(at: Callable[..., Any], photo_url: str) -> None:
    with at(SHOT) as client:
        image = client.background_replace(photo_url, prompt="oak", remove_bg=False, image_size=(320, 200))["image"]
        assert (image["width"], image["height"]) == (320, 200)
        image = client.background_replace(photo_url, prompt="oak", remove_bg=False, original_quality=True)["image"]
        assert (image["width"], image["height"]) == (240, 160)


# Storage and priority


def treatment(box: Sandbox) -> list[Any]:
    return [job["headers"] for job in box.ledger()["jobs"]]


LIFETIME = '{"expiration_duration_seconds": 3600}'


@pytest.mark.usefixtures("quick")
def test_jobs_say_how_fal_is_to_treat_them_and_uploads_how_long_to_keep_them(box: Sandbox, photo_path: Path) -> None:
    with FalClient(timeout=60, store_io=False, expires_in=3600, queue_priority="low") as client:
        client.product_workflow(photo_path, styles=["Studio"])
        client.any_llm_submit("Hi")
    told = {"x-fal-store-io": "0", "x-fal-object-lifecycle-preference": LIFETIME}
    assert len(treatment(box)) == 6
    assert all(headers == {**told, "x-fal-queue-priority": "low"} for headers in treatment(box))
    [upload] = [row["headers"] for row in box.journal() if row["stage"] == "upload"]
    assert upload["x-fal-object-lifecycle"] == upload["x-fal-object-lifecycle-preference"] == LIFETIME


def test_streams_say_it_too(box: Sandbox) -> None:
    with FalClient(timeout=60, store_io=False, expires_in=3600) as client:
        list(client.iter_any_llm("Hi"))
    assert treatment(box) == [{"x-fal-store-io": "0", "x-fal-object-lifecycle-preference": LIFETIME}]


def test_the_environment_says_it_to_the_worker(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, Any]]
) -> None:
    monkeypatch.setenv("FAL_STORE_IO", "false")
    monkeypatch.setenv("FAL_EXPIRES_IN_S", "3600")
    monkeypatch.setenv("FAL_QUEUE_PRIORITY", "low")
    assert run("any-llm-complete", "--prompt", "Hi")[0] == 0
    told = {"x-fal-store-io": "0", "x-fal-object-lifecycle-preference": LIFETIME, "x-fal-queue-priority": "low"}
    assert treatment(box) == [told]
    settings = run("doctor")[1]["settings"]
    assert (settings["store_io"], settings["expires_in_s"], settings["queue_priority"]) == (False, 3600, "low")


@pytest.mark.usefixtures("quick")
def test_by_default_nothing_of_it_is_said(box: Sandbox, client: FalClient, photo_path: Path) -> None:
    client.product_workflow(photo_path, styles=["Studio"])
    assert all(headers == {} for headers in treatment(box))
    [upload] = [row["headers"] for row in box.journal() if row["stage"] == "upload"]
    assert not [name for name in upload if "lifecycle" in name]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FAL_STORE_IO", "maybe"), ("FAL_EXPIRES_IN_S", "0"), ("FAL_EXPIRES_IN_S", "1d"), ("FAL_QUEUE_PRIORITY", "high")],
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_name(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=variable):
        FalClient()
