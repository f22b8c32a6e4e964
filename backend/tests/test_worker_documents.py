"""What single commands of the worker say and do beyond the table of test_worker_commands, in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from schema_check import assert_output_is_true
from services.fal_worker import main

TEXT = "openrouter/router"
ENTERPRISE = "openrouter/router/enterprise"
VISION = "openrouter/router/vision"
PHOTOKIT = "bria/replace-background"
CUTOUT = "fal-ai/bria/background/remove"
CATEGORIES = json.dumps({"main_product_type": "Kitchenware", "subcategory": "Kupa", "vibe": "Sıcak"})
STYLES = json.dumps([{"name": "Mermer", "description": "grey marble"}, "Studio"])


def _inputs(box: Sandbox, endpoint: str) -> list[dict[str, Any]]:
    return [job["input"] for job in box.ledger()["jobs"] if job["endpoint"] == endpoint]


def test_the_text_commands_give_the_models_words_beside_fals_whole_answer(
    box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    box.say("Bu ergonomik kupa…")
    code, document = run("any-llm-complete", "--prompt", "Açıklama yaz")
    assert (code, document["output"], document["raw"]["output"]) == (0, "Bu ergonomik kupa…", "Bu ergonomik kupa…")
    assert document["request_id"] == box.ledger()["jobs"][0]["request_id"]


def test_priority_goes_to_the_endpoint_that_knows_it(
    box: Sandbox, run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", "fal-ai/any-llm")
    run("any-llm-complete", "--prompt", "Hello", "--priority", "throughput")
    assert _inputs(box, "fal-ai/any-llm")[0]["priority"] == "throughput"


def test_the_key_comes_from_the_named_env_file(
    box: Sandbox, run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my.env").write_text(f"FAL_KEY={box.env()['FAL_KEY']}\n")
    monkeypatch.delenv("FAL_KEY")
    assert run("any-llm-complete", "--prompt", "Hello", "--env_file", "my.env")[0] == 0
    code, document = run("any-llm-complete", "--prompt", "Hello")
    assert (code, document["error_type"]) == (1, "missing_key")
    assert document["error"].startswith("FAL_KEY environment variable is required")


def test_several_images_reach_the_vision_model_in_their_order(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str
) -> None:
    second = box.put_file(box.file(photo_url), "second.jpg", "image/jpeg")
    run("any-llm-enterprise", "--prompt", "Compare.", "--image_url", photo_url, f"--image-url={second}")
    assert _inputs(box, VISION)[0]["image_urls"] == [photo_url, second]


def test_an_enterprise_question_without_images_goes_to_the_enterprise_endpoint(
    box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    code, document = run("any-llm-enterprise", "--prompt", "Hello")
    assert (code, document["error"]) == (0, None)
    assert _inputs(box, ENTERPRISE) == [{"prompt": "Hello", "model": "google/gemini-2.5-pro", "temperature": 0.7}]


def test_fals_log_lines_go_to_stderr(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["any-llm-complete", "--prompt", "Hello", "--with_logs"]) == 0
    out, err = capfd.readouterr()
    assert_output_is_true(["any-llm-complete"], 0, out)
    assert out.count("\n") == 1
    assert "fal: " in err
    assert f"sandbox: {TEXT} started" in err


def test_a_submitted_job_is_told_its_webhook_and_can_be_asked_for(
    box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    box.configure(latency=30)
    code, submitted = run("any-llm-submit", "--prompt", "Hello", "--webhook_url", "https://shop.example.com/hook")
    assert (code, submitted["endpoint"]) == (0, TEXT)
    assert box.ledger()["jobs"][0]["webhook_url"] == "https://shop.example.com/hook"
    code, status = run("any-llm-status", "--request_id", submitted["request_id"])
    assert (code, status["status"]) == (0, "IN_PROGRESS")
    code, early = run("any-llm-result", "--request_id", submitted["request_id"])
    assert (code, early["error_type"], early["output"]) == (1, "not_ready", "")
    code, cancelled = run("any-llm-cancel", "--request_id", submitted["request_id"])
    assert (code, cancelled["status"]) == (0, "requested")
    assert box.ledger()["cancelled"] == 1


def test_the_status_of_a_failed_job_is_a_failure(box: Sandbox, run: Callable[..., tuple[int, Any]]) -> None:
    box.fault("job", fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    submitted = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
    box.wait_for(lambda ledger: ledger["failed"] == 1)
    code, status = run("any-llm-status", "--request_id", submitted)
    assert (code, status["status"]) == (1, "COMPLETED")
    assert status["error"] == "Runner disconnected"


@pytest.mark.parametrize(("name", "code"), [("any-llm-status", 1), ("any-llm-result", 1), ("any-llm-cancel", 0)])
def test_a_job_that_fal_does_not_know_is_told_as_such(
    name: str, code: int, box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    found, document = run(name, "--request_id", "00000000-0000-0000-0000-000000000000")
    assert found == code
    assert "not_found" in (document.get("error_type"), document["status"] if code == 0 else None)


@pytest.mark.usefixtures("unpainted")
def test_background_cuts_out_first_unless_told_not_to(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str
) -> None:
    code, document = run("background", "--image_url", photo_url, "--prompt", "oak table")
    image = document["image"]
    assert (code, set(image) >= {"url", "width", "height", "content_type", "file_size"}) == (0, True)
    assert box.file(image["url"]).startswith(b"\x89PNG")
    assert {"cutout", "picture"} <= set(document["timings"])
    assert _inputs(box, PHOTOKIT)[0]["image_url"] != photo_url
    run("background", "--image_url", photo_url, "--prompt", "oak table", "--remove_bg", "false")
    assert _inputs(box, PHOTOKIT)[1]["image_url"] == photo_url
    assert len(_inputs(box, CUTOUT)) == 1


def test_analyze_product_gives_nine_texts(box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str) -> None:
    document = run("analyze-product", "--image_url", photo_url)[1]
    assert len(document["categories"]) == 9
    assert json.loads(document["raw_output"]) == document["categories"]


@pytest.mark.usefixtures("unpainted")
def test_categories_and_styles_are_json(box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str) -> None:
    argv = ["generate-multiple-bg", "--image_url", photo_url, "--categories", CATEGORIES, "--styles", STYLES]
    code, document = run(*argv)
    assert (code, document["total_generated"], document["total_requested"]) == (0, 2, 2)
    assert [image["style_name"] for image in document["images"]] == ["Mermer", "Studio"]
    assert document["images"][0]["style_description"] == "grey marble"
    assert all("Kupa" in given["prompt"] for given in _inputs(box, ENTERPRISE))


def test_one_failed_style_is_listed_and_the_rest_is_a_success(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str
) -> None:
    box.fault("job", endpoint=PHOTOKIT, fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    code, document = run("generate-multiple-bg", "--image_url", photo_url, "--categories", CATEGORIES)
    assert (code, document["error"], document["total_generated"], document["total_requested"]) == (0, None, 2, 3)
    assert [(error["stage"], error["error_type"]) for error in document["errors"]] == [("picture", "job_failed")]


def test_the_workflow_keeps_what_was_made_when_it_fails_later(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_path: Path
) -> None:
    box.say("no categories at all", endpoint=VISION, times=2)
    code, document = run("workflow", "--image", str(photo_path))
    assert (code, document["error_type"]) == (1, "bad_output")
    assert box.file(document["image_url"]) == photo_path.read_bytes()


@pytest.mark.usefixtures("unpainted")
def test_the_workflow_takes_a_url_and_writes_in_the_asked_language(
    box: Sandbox, run: Callable[..., tuple[int, Any]], photo_url: str
) -> None:
    argv = ["workflow", "--image", photo_url, "--styles", '["premium"]']
    code, document = run(*argv, "--language", "German")
    assert (code, document["image_url"]) == (0, photo_url)
    assert [image["style_name"] for image in document["images"]] == ["Premium"]
    assert '"German"' in _inputs(box, TEXT)[0]["prompt"]


def test_an_uploaded_file_is_the_file(box: Sandbox, run: Callable[..., tuple[int, Any]], photo_path: Path) -> None:
    code, document = run("upload-file", "--file_path", str(photo_path))
    assert code == 0
    assert box.file(document["url"]) == photo_path.read_bytes()


def test_doctor_shows_settings_without_the_key_and_fails_when_fal_cannot_be_reached(
    box: Sandbox, run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, document = run("doctor")
    assert (code, document["settings"]["timeout_s"]) == (0, 110)
    assert all(host["reachable"] for host in document["hosts"].values())
    assert box.env()["FAL_KEY"] not in json.dumps(document)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    code, document = run("doctor")
    assert (code, document["error_type"]) == (1, "unreachable")


def test_the_timeout_covers_the_whole_command(box: Sandbox, run: Callable[..., tuple[int, Any]]) -> None:
    box.configure(latency=30)
    code, document = run("any-llm-complete", "--prompt", "Hello", "--timeout", "2")
    assert (code, document["error_type"], document["output"]) == (1, "timeout", "")
    box.wait_for(lambda ledger: ledger["cancelled"] == 1)
