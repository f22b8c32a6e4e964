"""Every command of the worker, in process: its document, its exit code, and what of its options reaches fal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from fal_sandbox.server import Sandbox
from schema_check import assert_output_is_true
from services.fal_worker import main
from services.worker.commands import COMMANDS

TEXT = "openrouter/router"
ENTERPRISE = "openrouter/router/enterprise"
VISION = "openrouter/router/vision"
PHOTOKIT = "bria/replace-background"
CUTOUT = "fal-ai/bria/background/remove"
FAILURE = {"error", "trace", "error_type", "retryable", "status_code", "request_id", "hint"}
CATEGORIES = json.dumps({"main_product_type": "Kitchenware", "subcategory": "Kupa", "vibe": "Sıcak"})
STYLES = json.dumps([{"name": "Mermer", "description": "grey marble"}, "Studio"])
SPOKEN_INPUT = {
    "prompt": "Kısa bir cümle.",
    "model": "openai/gpt-4o-mini",
    "temperature": 0.2,
    "max_tokens": 90,
    "reasoning": False,
}
SPOKEN = [word for name, value in SPOKEN_INPUT.items() for word in (f"--{name}", str(value))]
SYSTEM = ["--system", "Be brief."]
COMMON = ["--timeout", "60", "--env_file", "{env_file}"]
PAID = ["--max_usd", "5"]
Run = Callable[..., tuple[int, Any]]


class Example(NamedTuple):
    """One call of one command with every option it has; {names} are filled in by the fixture `call`."""

    argv: list[str]
    keys: set[str]
    """Those that the document always has: the seed's where it names them."""
    sent: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    """What reaches fal: input fields by endpoint."""
    elsewhere: frozenset[str] = frozenset()
    """Options that stand in place of others; tests of their own use them."""


TEXT_ARGV = [*SPOKEN, *SYSTEM, "--priority", "throughput"]
TEXT_SENT = {TEXT: {**SPOKEN_INPUT, "system_prompt": "Be brief."}}
TEXT_KEYS = {"output", "reasoning", "partial", "error", "raw"}
PICTURE_KEYS = {"image", "timings"}
MANY_KEYS = {"images", "total_generated", "total_requested", "errors", "timings", "error"}
OF_FILES = {"cutout", "fidelity", "check", "for"}
"""Options about saved pictures: test_publishing.py uses them."""
FILES = frozenset({"image", "save_dir", "out", *OF_FILES})
LOGS = ["--with_logs", "true"]
SAVE = ["--save_dir", "{out}", "--report", "true"]

PICTURE_ARGV = ["--seed", "7", "--num_images", "1", "--negative_prompt", "people"]
PICTURE_SENT = {"seed": 7, "negative_prompt": "people"}
OF_OTHER_ENDPOINTS = {"aspect_ratio", "resolution", "image_size", "original_quality", "placement", "ref_image_url"}
"""Options that the default endpoint does not take: test_client_picture_options.py gives them to those that do."""

EXAMPLES = {
    "any-llm-complete": Example([*TEXT_ARGV, *LOGS], TEXT_KEYS, TEXT_SENT),
    "any-llm-enterprise": Example(
        [*SPOKEN, *SYSTEM, *LOGS, "--image_url", "{photo_url}"],
        {"output", "error", "raw"},
        {VISION: {**SPOKEN_INPUT, "system_prompt": "Be brief.", "image_urls": ["{photo_url}"]}},
    ),
    "any-llm-stream": Example(TEXT_ARGV, {"delta", "output", "partial"}, TEXT_SENT),
    "any-llm-submit": Example(
        [*TEXT_ARGV, "--webhook_url", "http://127.0.0.1:9/hook"], {"request_id", "endpoint"}, TEXT_SENT
    ),
    "any-llm-status": Example(
        ["--request_id", "{request_id}", "--with_logs", "true"],
        {"status", "queue_position", "logs", "metrics", "error", "error_type"},
    ),
    "any-llm-result": Example(["--request_id", "{request_id}"], TEXT_KEYS),
    "any-llm-cancel": Example(["--request_id", "{request_id}"], {"status", "request_id"}),
    "background": Example(
        ["--image_url", "{photo_url}", "--prompt", "oak table", "--remove_bg", "false", *PICTURE_ARGV, *LOGS],
        PICTURE_KEYS,
        {PHOTOKIT: {"image_url": "{photo_url}", "prompt": "oak table", **PICTURE_SENT}},
        FILES,
    ),
    "remove-background": Example(
        ["--image_url", "{photo_url}", *LOGS],
        PICTURE_KEYS,
        {CUTOUT: {"image_url": "{photo_url}"}},
        FILES - {"cutout", "fidelity"},
    ),
    "analyze-product": Example(
        ["--image_url", "{photo_url}", "--model", "google/gemini-2.5-flash", "--temperature", "0.1", *LOGS],
        {"categories", "error", "raw_output"},
        {VISION: {"image_urls": ["{photo_url}"], "model": "google/gemini-2.5-flash", "temperature": 0.1}},
        frozenset({"image"}),
    ),
    "generate-bg-prompt": Example(
        ["--categories", CATEGORIES, "--style_type", "wet slate", "--model", "openai/gpt-4o", *LOGS],
        {"prompt", "error"},
        {ENTERPRISE: {"model": "openai/gpt-4o"}},
    ),
    "generate-multiple-bg": Example(
        [
            "--image_url",
            "{photo_url}",
            "--categories",
            CATEGORIES,
            "--styles",
            STYLES,
            "--remove_bg",
            "true",
            *PICTURE_ARGV,
            *LOGS,
        ],
        MANY_KEYS,
        {CUTOUT: {"image_url": "{photo_url}"}, PHOTOKIT: PICTURE_SENT},
        FILES - {"out"},
    ),
    "upload-file": Example(["--file_path", "{photo_path}", "--shrink"], {"url", "error"}),
    "workflow": Example(
        [
            "--image",
            "{photo_path}",
            "--styles",
            '["Studio"]',
            "--language",
            "German",
            *("--tone", "warm", "--length", "40", "--facts", '{"material": "stoneware"}'),
            "--shrink",
            *PICTURE_ARGV,
            *SAVE,
            *LOGS,
        ],
        {*MANY_KEYS, "image_url", "categories", "description", "original_path", "report_path", "cutout"},
        {PHOTOKIT: PICTURE_SENT},
        frozenset({"packshot", "listing", *OF_FILES}),
    ),
    "packshot": Example(
        [
            *("--image", "{photo_path}", "--for", "amazon,trendyol", "--save_dir", "{out}", "--name", "SKU_0042-A"),
            *("--background", "#F0F0F0", "--size", "400x300", "--fill", "0.8", "--format", "PNG"),
            *("--shadow", "--check", "true"),
        ],
        {"cutout", "images", "timings", "error"},
        {CUTOUT: {}},
        frozenset({"cutout", "margin"}),
    ),
    "check-image": Example(
        ["--image", "{photo_path}", "--for", "shopify", "--on", "2026-12-01"], {"image", "verdict", "checks", "error"}
    ),
    "listing": Example(
        [
            *("--categories", CATEGORIES, "--title", "Kupa", "--facts", '{"material": "stoneware"}'),
            *("--for", "trendyol", "--languages", "Turkish", "--tone", "warm", "--length", "60"),
            *("--model", "openai/gpt-4o-mini"),
        ],
        {"image_url", "categories", "places", "listings", "asks", "error"},
        {TEXT: {"model": "openai/gpt-4o-mini"}},
        frozenset({"image"}),
    ),
    "batch": Example(
        [
            *("--input", "{manifest}", "--output", "{out}", "--command", "analyze-product", "--options", "{}"),
            *("--max_jobs", "2", "--max_usd", "1", "--yes", "true", "--retry_failed", "true"),
            *("--retry_ambiguous", "true", "--settle", "true", "--status", "false", "--pause", "false"),
            *("--dry_run", "false"),
        ],
        {
            "output",
            "products",
            "jobs",
            "cost_usd",
            "committed_usd",
            "max_usd",
            "left_out",
            "ignored_columns",
            "settled",
            "error",
        },
        {VISION: {"model": "openai/gpt-4o-mini"}},
        # See test_batch_cluster.py.
        frozenset({"journal"}),
    ),
    "prices": Example(["--endpoints", f"{PHOTOKIT},{CUTOUT}"], {"prices", "error"}),
    "estimate": Example(
        ["--name", "workflow", "--options", '{"num_images": 2}'],
        {"cost_usd", "about", "endpoints", "unknown", "error"},
    ),
    "doctor": Example(
        ["--live", "true", "--spend", "0.20", "--recordings", "{out}"],
        {"versions", "settings", "hosts", "endings", "warnings", "live", "error"},
    ),
    "schema": Example(["--name", "background"], {"commands"}),
}


def argv_of(name: str) -> list[str]:
    return [*EXAMPLES[name].argv, *(PAID if COMMANDS[name].is_paid else []), *COMMON]


KEPT_KEYS = {
    **dict.fromkeys(("any-llm-complete", "any-llm-result"), TEXT_KEYS),
    "any-llm-enterprise": {"output", "raw"},
    "any-llm-stream": {"delta", "output", "partial"},
    "analyze-product": {"categories", "raw_output"},
    "generate-bg-prompt": {"prompt"},
    "generate-multiple-bg": MANY_KEYS - {"timings"},
    "upload-file": {"url"},
    "workflow": {*(MANY_KEYS - {"timings"}), "image_url", "categories", "description"},
    "packshot": {"images"},
    "listing": {"image_url", "categories", "places", "listings", "asks"},
    "batch": {"output", "products", "jobs", "left_out"},
    "prices": {"prices"},
    "doctor": {"versions", "settings", "hosts", "endings", "warnings"},
}
"""What a failed command still has."""


@pytest.fixture
def call(box: Sandbox, photo_url: str, photo_path: Any, tmp_path: Any, capfd: Any) -> Callable[..., tuple[int, Any]]:
    """Run a command's example; its exit code and the last line of its JSON."""
    env_file = tmp_path / "fal.env"
    env_file.write_text("FAL_MAX_CONCURRENCY=3\n")
    manifest = tmp_path / "shop.jsonl"
    manifest.write_text(json.dumps({"key": "mug", "image_url": photo_url, "model": "openai/gpt-4o-mini"}))
    places = {"photo_url": photo_url, "photo_path": photo_path, "out": tmp_path / "out", "env_file": env_file}
    places["manifest"] = manifest

    def run_example(name: str, request_id: str = "none", change: Callable[[str], str] = str) -> tuple[int, Any]:
        filled = {**places, "request_id": request_id}
        words = [_filled(word, filled) for word in argv_of(name)]
        capfd.readouterr()
        code = main([name, *(change(word) if word.startswith("--") else word for word in words)])
        out = capfd.readouterr().out
        assert_output_is_true([name], code, out)
        lines = out.splitlines()
        assert len(lines) == 1 or name == "any-llm-stream"
        return code, json.loads(lines[-1])

    return run_example


@pytest.fixture
def request_id(box: Sandbox, run: Run) -> str:
    """The id of a job that has ended."""
    submitted = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
    box.wait_for(lambda ledger: ledger["completed"] == 1)
    return str(submitted)


def _filled(value: Any, places: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(item, places) for item in value]
    known = isinstance(value, str) and value.startswith("{") and value.strip("{}") in places
    return str(places[value.strip("{}")]) if known else value


def _inputs(box: Sandbox, endpoint: str) -> list[dict[str, Any]]:
    return [job["input"] for job in box.ledger()["jobs"] if job["endpoint"].removesuffix("/stream") == endpoint]


def _assert_sent(box: Sandbox, name: str, photo_url: str) -> None:
    for endpoint, fields in EXAMPLES[name].sent.items():
        wanted = {key: _filled(value, {"photo_url": photo_url}) for key, value in fields.items()}
        given = _inputs(box, endpoint)
        assert any(wanted.items() <= one.items() for one in given), (wanted, given)


def test_every_command_has_an_example_here_and_every_option_is_used_in_it() -> None:
    one_shot = {name: command for name, command in COMMANDS.items() if not command.is_program}
    assert set(EXAMPLES) == set(one_shot)
    for name, command in one_shot.items():
        used = {word[2:] for word in argv_of(name) if word.startswith("--")}
        known = {option.name for option in command.all_options} - OF_OTHER_ENDPOINTS
        assert used | EXAMPLES[name].elsewhere == known, name


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_command_prints_its_document_and_its_options_reach_fal(
    name: str, call: Callable[..., tuple[int, Any]], box: Sandbox, request_id: str, photo_url: str
) -> None:
    code, document = call(name, request_id)
    assert (code, document.get("error")) == (0, None)
    assert EXAMPLES[name].keys <= set(document)
    _assert_sent(box, name, photo_url)


@pytest.mark.usefixtures("unpainted")
@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", EXAMPLES)
def test_options_may_be_spelled_with_dashes_for_underscores(
    name: str, call: Callable[..., tuple[int, Any]], box: Sandbox, request_id: str, photo_url: str
) -> None:
    code, document = call(name, request_id, lambda word: word.replace("_", "-"))
    assert (code, document.get("error")) == (0, None)
    _assert_sent(box, name, photo_url)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if COMMANDS[name].local_for({}) is None])
def test_a_failed_command_keeps_its_own_keys_beside_the_error(
    name: Any, call: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    box.fault("any", status=401, times=None)
    code, document = call(name, "0a5d2f34-6baa-4455-a3e7-0682c2094cac")
    assert code == 1
    assert document["error"]
    assert document["error_type"] == "auth"
    assert set(document) >= FAILURE | KEPT_KEYS.get(name, set())


@pytest.mark.parametrize("name", ["generate-multiple-bg", "workflow"])
def test_without_any_picture_the_command_fails(name: str, box: Sandbox, call: Callable[..., tuple[int, Any]]) -> None:
    box.fault("job", endpoint=PHOTOKIT, fail={"error": "Runner disconnected"}, times=None)
    code, document = call(name)
    assert (code, document["total_generated"]) == (1, 0)
    assert document["error"].startswith("No picture was made.")
    assert set(document) >= FAILURE
    assert {error["stage"] for error in document["errors"]} == {"picture"}


def test_schema_needs_no_key_and_takes_a_command_or_none(
    box: Sandbox, run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAL_KEY")
    assert set(run("schema")[1]["commands"]) >= set(EXAMPLES)
    for argv in (["schema", "background"], ["schema", "--name", "background"], ["schema", "--name=background"]):
        code, document = run(*argv)
        assert (code, set(document["commands"])) == (0, {"background"})
    code, document = run("schema", "backgrounds")
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert "any-llm-complete" in document["error"]
    assert box.journal() == []
