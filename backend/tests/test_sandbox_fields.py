"""The sandbox's endpoints: which fields they take, and the pictures they give."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

import wire
from fal_sandbox.server import Sandbox
from wire import ASK, DIRECT, PHOTO, QUEUE, TEXT, client_of, result

box = wire.box
web = wire.web


def tiny_png(width: int = 6, height: int = 4) -> Any:
    from fal_sandbox.pictures.scene import generic_picture

    return generic_picture(width, height, "plain", 1)


@pytest.mark.parametrize(
    ("endpoint", "given", "field", "kind"),
    [
        (TEXT, {"model": "x"}, "prompt", "missing"),
        (TEXT, {"prompt": "x"}, "model", "missing"),
        (TEXT, {**ASK, "prompt": 7}, "prompt", "string_type"),
        (TEXT, {**ASK, "prompt": None}, "prompt", "string_type"),
        (TEXT, {**ASK, "temperature": 2.1}, "temperature", "less_than_equal"),
        (TEXT, {**ASK, "temperature": -0.1}, "temperature", "greater_than_equal"),
        (TEXT, {**ASK, "temperature": "hot"}, "temperature", "float_parsing"),
        (TEXT, {**ASK, "max_tokens": 0}, "max_tokens", "greater_than_equal"),
        (TEXT, {**ASK, "max_tokens": 1.5}, "max_tokens", "int_from_float"),
        (TEXT, {**ASK, "max_tokens": "many"}, "max_tokens", "int_parsing"),
        (TEXT, {**ASK, "reasoning": "perhaps"}, "reasoning", "bool_parsing"),
        (TEXT, {**ASK, "web_search_options": []}, "web_search_options", "dict_type"),
        ("openrouter/router/vision", {**ASK, "image_urls": PHOTO}, "image_urls", "list_type"),
        ("fal-ai/any-llm", {"prompt": "x", "priority": "speed"}, "priority", "literal_error"),
        ("fal-ai/bria/background/remove", {}, "image_url", "missing"),
        ("fal-ai/bria/background/replace", {"image_url": PHOTO}, None, "value_error"),
        (
            "fal-ai/bria/background/replace",
            {"image_url": PHOTO, "prompt": "x", "ref_image_url": PHOTO},
            None,
            "value_error",
        ),
        ("fal-ai/birefnet/v2", {"image_url": PHOTO, "model": "Huge"}, "model", "literal_error"),
        ("fal-ai/nano-banana/edit", {"prompt": "x"}, "image_urls", "missing"),
        ("fal-ai/nano-banana/edit", {"prompt": "x", "image_urls": []}, "image_urls", "too_short"),
        ("fal-ai/nano-banana-2/edit", {"prompt": "x", "image_urls": [PHOTO], "num_images": 5}, "num_images", None),
    ],
)
def test_a_field_that_does_not_fit_is_a_free_422(
    box: Sandbox,
    web: httpx.Client,
    endpoint: str,
    given: dict[Any, Any] | dict[str, Any],
    field: str | None,
    kind: str | None,
) -> None:
    reply = result(web, box, endpoint, given)
    (error,) = reply.json()["detail"]
    assert (reply.status_code, reply.headers["x-fal-billable-units"]) == (422, "0")
    assert error["loc"] == (["body"] if field is None else ["body", field])
    assert error["type"] == (kind or "less_than_equal")
    assert error["msg"]
    assert "input" in error
    assert (box.ledger()["failed"], box.ledger()["billable"]) == (1, 0)


def test_every_wrong_field_is_listed_at_once(web: httpx.Client) -> None:
    reply = web.post(DIRECT + TEXT, json={"temperature": 9})
    assert [error["loc"][-1] for error in reply.json()["detail"]] == ["prompt", "temperature", "model"]


@pytest.mark.parametrize("body", [b"{", b"", b"[1]", b'"text"', b'{"prompt": NaN}'])
def test_a_body_that_is_no_object_is_a_422(web: httpx.Client, body: bytes) -> None:
    reply = web.post(DIRECT + TEXT, content=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"][0] == "body"


def test_numbers_may_be_spelled_as_strings_and_unknown_fields_pass(web: httpx.Client) -> None:
    given = {
        **ASK,
        "temperature": "0.5",
        "max_tokens": "10",
        "reasoning": "true",
        "unheard_of": 1,
        "system_prompt": None,
    }
    reply = web.post(DIRECT + TEXT, json=given)
    assert reply.status_code == 200
    assert reply.json()["reasoning"]


def test_an_unknown_application_is_refused_at_submit(box: Sandbox, web: httpx.Client) -> None:
    for url in (QUEUE + "someone/nothing", DIRECT + "someone/nothing/at-all"):
        reply = web.post(url, json=ASK)
        assert (reply.status_code, reply.json()) == (404, {"detail": 'Application "nothing" not found'})
    assert box.ledger()["accepted"] == 0


def test_an_unknown_path_is_accepted_by_the_queue_and_fails_for_free(box: Sandbox, web: httpx.Client) -> None:
    reply = result(web, box, TEXT + "/nope")
    direct = web.post(DIRECT + TEXT + "/nope", json=ASK)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Path /nope not found"})
    assert reply.headers["x-fal-billable-units"] == "0"
    assert (direct.status_code, direct.json()) == (404, {"detail": "Path /nope not found"})
    assert (box.ledger()["accepted"], box.ledger()["billable"]) == (1, 0)


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [("", 404, "Application"), ("=410", 410, "gone"), ("=deprecated", 422, "is deprecated and no longer supported")],
)
def test_an_endpoint_that_is_gone_is_refused_in_the_way_that_was_set(
    box: Sandbox, web: httpx.Client, how: str, status: int, text: str
) -> None:
    box.configure(gone=["openrouter/router/vision" + how])
    for url in (QUEUE, DIRECT):
        reply = web.post(url + "openrouter/router/vision", json=ASK)
        assert reply.status_code == status
        assert text in reply.json()["detail"]
    assert web.post(DIRECT + TEXT, json=ASK).status_code == 200


GONE_MODELS = [
    ("", 404, "No endpoints found for M."),
    ("=404", 404, "No endpoints found for M."),
    ("=400", 400, "M is no longer available"),
    ("=422", 422, "M is not a valid model ID"),
    ("=completed", 500, "Internal Server Error"),
    ("=error", 200, "No endpoints found for M."),
]


@pytest.mark.parametrize(("how", "status", "text"), GONE_MODELS)
def test_a_model_that_is_gone_is_refused_in_the_way_that_was_set_and_costs_nothing(
    box: Sandbox, web: httpx.Client, how: str, status: int, text: str
) -> None:
    box.configure(gone_models=["M" + how])
    reply = result(web, box, TEXT, {**ASK, "model": "M"})
    assert (reply.status_code, text in reply.text) == (status, True)
    assert (box.ledger()["accepted"], box.ledger()["billable"]) == (1, 0)
    assert result(web, box, TEXT, {**ASK, "model": "M-lite"}).status_code == 200


@pytest.mark.parametrize("how", ["404", "400", "422", "completed", "error"])
def test_a_stream_says_that_a_model_is_gone_by_its_status_or_in_an_event(
    box: Sandbox, web: httpx.Client, how: str
) -> None:
    box.configure(gone_models=[f"M={how}"])
    reply = web.post(DIRECT + TEXT + "/stream", json={**ASK, "model": "M"})
    assert reply.status_code == (int(how) if how.isdigit() else 200)
    assert ('"error":"No endpoints found for M."' in reply.text) is not how.isdigit()


def test_the_status_of_a_job_may_be_all_that_says_that_its_model_is_gone(box: Sandbox, web: httpx.Client) -> None:
    box.configure(gone_models=["M=completed"])
    job = web.post(QUEUE + TEXT, json={**ASK, "model": "M"}).json()
    box.wait_for(lambda ledger: ledger["running"] == 0)
    assert web.get(job["status_url"]).json()["error"] == "No endpoints found for M."


def test_a_way_to_be_gone_that_there_is_none_is_refused(box: Sandbox) -> None:
    with pytest.raises(ValueError, match="HOW one of 404"):
        box.configure(gone_models=["M=418"])


def test_a_model_that_must_reason_refuses_to_be_asked_without_and_uses_up_its_tokens(
    box: Sandbox, web: httpx.Client
) -> None:
    box.configure(must_reason=["M"])
    without = result(web, box, TEXT, {**ASK, "model": "M"})
    assert (without.status_code, "Reasoning is mandatory" in without.text) == (400, True)
    assert result(web, box, TEXT, {**ASK, "model": "M", "reasoning": True}).json()["output"]
    cut = result(web, box, TEXT, {**ASK, "model": "M", "reasoning": True, "max_tokens": 20}).json()
    assert (cut["output"], cut["error"], cut["usage"]["completion_tokens"]) == ("", None, 20)


def test_an_error_answer_to_a_submit_that_was_accepted_names_its_job(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=500, accept=True)
    reply = web.post(QUEUE + TEXT, json=ASK)
    assert reply.status_code == 500
    assert reply.headers["x-fal-request-id"] == box.ledger()["jobs"][0]["request_id"]


def test_any_endpoint_answers_with_pictures_of_the_size_asked_for(box: Sandbox, web: httpx.Client) -> None:
    box.configure(any_endpoint=True)
    given = {"prompt": "a mug", "image_size": {"width": 40, "height": 30}, "num_images": 2, "seed": 7}
    output = result(web, box, "fal-ai/flux/dev", given).json()
    assert (output["seed"], output["prompt"], output["has_nsfw_concepts"]) == (7, "a mug", [False, False])
    assert "inference" in output["timings"]
    assert [(image["width"], image["height"]) for image in output["images"]] == [(40, 30), (40, 30)]
    assert web.get(output["images"][0]["url"]).content.startswith(b"\x89PNG")
    assert box.ledger()["units"] == 2


@pytest.mark.parametrize(("name", "size"), [("square", (512, 512)), ("landscape_16_9", (1024, 576))])
def test_any_endpoint_knows_fals_names_for_sizes(
    web: httpx.Client, box: Sandbox, name: str, size: tuple[Any, ...]
) -> None:
    box.configure(any_endpoint=True)
    image = web.post(DIRECT + "x/y", json={"image_size": name}).json()["images"][0]
    assert (image["width"], image["height"]) == size


@pytest.mark.parametrize("size", ["huge", {"width": 0, "height": 5}, {"width": 99999}, 7])
def test_any_endpoint_refuses_sizes_it_cannot_paint(
    web: httpx.Client, box: Sandbox, size: dict[str, Any] | int | str
) -> None:
    box.configure(any_endpoint=True)
    assert web.post(DIRECT + "x/y", json={"image_size": size}).status_code == 422


# ---------------------------------------------------------------- pictures


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("endpoint", "given"),
    [
        ("bria/replace-background", {"image_url": "small", "prompt": "studio"}),
        ("fal-ai/bria/background/replace", {"image_url": "small", "prompt": "studio"}),
        ("fal-ai/bria/background/replace", {"image_url": "small", "ref_image_url": "small"}),
        ("fal-ai/bria/background/remove", {"image_url": "small"}),
        ("fal-ai/birefnet/v2", {"image_url": "small"}),
        ("fal-ai/nano-banana/edit", {"prompt": "studio", "image_urls": ["small"]}),
        ("fal-ai/nano-banana-2/edit", {"prompt": "studio", "image_urls": ["small"], "resolution": "2K"}),
    ],
)
def test_every_picture_endpoint_answers_with_a_png_one_can_download(
    box: Sandbox, web: httpx.Client, endpoint: str, given: dict[str, Any]
) -> None:
    url = box.put_file(tiny_png(120, 90), "small.png", "image/png")
    reply = result(web, box, endpoint, json.loads(json.dumps(given).replace("small", url)))
    output = reply.json()
    image = output.get("image") or output["images"][0]
    data = web.get(image["url"])
    assert reply.headers["x-fal-billable-units"] == "1"
    assert set(image) == {"url", "content_type", "file_name", "file_size", "width", "height"}
    assert image["content_type"] == data.headers["content-type"] == "image/png"
    assert data.content.startswith(b"\x89PNG")
    assert len(data.content) == image["file_size"]
    assert "sandbox" in image["url"]


@pytest.mark.nightly
def test_sync_mode_puts_the_picture_into_the_url(web: httpx.Client) -> None:
    output = web.post(DIRECT + "fal-ai/bria/background/remove", json={"image_url": PHOTO, "sync_mode": True}).json()
    head, _, data = output["image"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


@pytest.mark.nightly
def test_replace_background_without_a_picture_makes_one_of_somebody_elses_product(web: httpx.Client) -> None:
    reply = web.post(DIRECT + "bria/replace-background", json={"prompt": "x", "imageurl": "a typing error"})
    assert reply.status_code == 200
    assert reply.headers["x-fal-billable-units"] == "1"


def test_an_image_is_taken_from_the_cdn_a_data_uri_or_a_sample_host(box: Sandbox, web: httpx.Client) -> None:
    png = web.get(PHOTO).content
    urls = [
        box.put_file(png, "a.jpg", "image/jpeg"),
        "data:image/jpeg;base64," + base64.b64encode(png).decode(),
        PHOTO,
    ]
    for url in urls:
        reply = web.post(DIRECT + "openrouter/router/vision", json={**ASK, "image_urls": [url]})
        assert reply.status_code == 200, url


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://cdn.shop.test/a.png", "file_download_error"),
        ("https://v3.fal.media/files/sandbox/nothing.png", "file_download_error"),
        ("not a url", "file_download_error"),
        ("https://[half-an-address/x.png", "file_download_error"),
        ("data:image/png;base64,@@@", "file_download_error"),
        ("data:text/plain,hello", "image_load_error"),
    ],
)
@pytest.mark.parametrize("endpoint", ["openrouter/router/vision", "fal-ai/bria/background/remove"])
def test_an_image_that_cannot_be_had_or_read_is_a_model_error(
    box: Sandbox, web: httpx.Client, endpoint: str, url: str, kind: str
) -> None:
    given = {"image_url": url} if "bria" in endpoint else {**ASK, "image_urls": [url]}
    reply = result(web, box, endpoint, given)
    (error,) = reply.json()["detail"]
    assert (reply.status_code, error["type"]) == (422, kind)
    assert error["url"] == f"https://docs.fal.ai/errors/#{kind}"
    assert "x-fal-billable-units" not in reply.headers
    assert box.ledger()["billable"] == 1


def test_a_picture_that_is_broken_behind_its_header_is_a_model_error(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(tiny_png(64, 64)[:60], "cut.png", "image/png")
    reply = web.post(DIRECT + "fal-ai/bria/background/remove", json={"image_url": url})
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "image_load_error")


@pytest.mark.nightly
def test_a_host_that_was_named_serves_sample_photos(web: httpx.Client) -> None:
    with Sandbox(hosts=["cdn.shop.test", "*.pictures.test"]) as box, client_of(box) as client:
        assert client.get("https://cdn.shop.test/mug.jpg").content.startswith(b"\xff\xd8")
        assert client.get("https://a.b.pictures.test/mug.jpg").status_code == 200
        given = {**ASK, "image_urls": ["https://cdn.shop.test/mug.jpg"]}
        assert client.post(DIRECT + "openrouter/router/vision", json=given).status_code == 200
