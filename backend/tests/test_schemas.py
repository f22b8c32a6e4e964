"""The schemas hold what they promise: real options and documents pass, anything else does not, and docs follow them."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from command_schemas import DESCRIBED, LIMITS
from command_schemas.types_as_schemas import error_types, fields_of, public_types
from fal_sandbox.server import Sandbox
from schema_check import all_schemas, assert_valid, validator
from services.fal import results
from services.fal.errors import FalError
from services.fal_service import FalClient
from services.fal_worker import main
from services.worker import early_signals
from services.worker.command_line import parse
from services.worker.commands import COMMANDS
from services.worker.schemas import schemas

BACKEND = Path(__file__).resolve().parents[1]
WORKER = BACKEND / "src" / "services" / "fal_worker.py"
GENERATOR = BACKEND / "docs" / "generate.py"
VISION = "openrouter/router/vision"
PHOTOKIT = "bria/replace-background"
Run = Callable[..., tuple[int, Any]]


def _load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _load_generator()


def example(command: str) -> list[str]:
    """The words of the documented example of a command."""
    return [command, *shlex.split(generate.EXAMPLES[command].replace("\\\n", " "))]


@pytest.fixture
def words(box: Sandbox, photo_path: Path, photo_url: str, tmp_path: Path, run: Run) -> Callable[[str], list[str]]:
    """The same, with a small picture and a job that exist."""
    (tmp_path / "backend" / "examples").mkdir(parents=True)
    photo_path.rename(tmp_path / "backend" / "examples" / "coffee.jpg")
    row = '"[""Studio""]"'
    (tmp_path / "backend" / "examples" / "catalogue.csv").write_text(f"key,image,styles\nCUP-03,coffee.jpg,{row}\n")

    def words_of(command: str) -> list[str]:
        argv = [photo_url if word.startswith("https://example.com/") else word for word in example(command)]
        if "abc123" in argv:
            argv[argv.index("abc123")] = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
            box.wait_for(lambda ledger: ledger["completed"] == ledger["accepted"])
        return argv

    return words_of


def documents_in(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


# The schemas themselves


def test_every_command_that_prints_documents_has_a_schema() -> None:
    assert [name for name, command in COMMANDS.items() if not command.is_program] == DESCRIBED


@pytest.mark.sampled(2)
@pytest.mark.parametrize("part", ["options", "result", "failure"])
@pytest.mark.parametrize("name", DESCRIBED)
def test_every_schema_is_a_schema_and_needs_no_other(name: Any, part: str) -> None:
    schema = all_schemas()["commands"][name][part]
    Draft202012Validator.check_schema(schema)
    named = {f"#/$defs/{one}" for one in schema.get("$defs", {})}
    assert set(references_in(schema)) == named


def references_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            yield from references_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from references_in(item)


def test_one_command_alone_has_the_schemas_that_it_has_among_all() -> None:
    everything = schemas()
    for name in DESCRIBED:
        assert schemas(name) == {"commands": {name: everything["commands"][name]}}


def test_every_limit_is_of_an_option_that_exists() -> None:
    assert set(LIMITS) <= {option.name for command in COMMANDS.values() for option in command.all_options}


def test_every_key_of_a_result_has_a_text() -> None:
    keys = [(kind.__name__, field) for kind in public_types() for field in fields_of(kind)]
    assert [f"{name}.{field.name}" for name, field in keys if not field.description] == []


def test_every_error_type_is_known() -> None:
    classes, found = [FalError], set()
    while classes:
        one = classes.pop()
        found.add(one.error_type)
        classes += [child for child in one.__subclasses__() if child.__module__.startswith("services.")]
    assert set(error_types()) == found


def test_what_a_failed_method_adds_is_what_a_failed_command_prints() -> None:
    fields, documented = get_type_hints(results.Failure), get_type_hints(results.ErrorDocument)
    assert set(documented) - set(fields) == {"error", "request_id"}
    assert fields == {name: documented[name] for name in fields}


def test_no_module_of_the_services_reads_source_code() -> None:
    sources = [path.read_text(encoding="utf-8") for path in WORKER.parent.rglob("*.py")]
    assert sources
    assert not any(re.search(r"^\s*(?:import|from) (?:ast|inspect)\b", source, re.MULTILINE) for source in sources)


def test_the_schemas_are_not_loaded_by_other_commands() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", str(WORKER), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "services.worker.commands" in loaded
    assert not loaded & {"services.worker.supervisor", "services.fal.results"}


# Documents of commands that succeed


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("name", DESCRIBED)
def test_the_example_of_every_command_works_and_prints_what_its_schema_says(
    name: Any, words: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    argv = words(name)
    capfd.readouterr()
    code = main(argv)
    documents = documents_in(capfd.readouterr().out)
    assert code == 0, documents
    for document in documents:
        assert_valid(name, "result", document)
        assert_strict(name, "result", document)


def assert_strict(name: str, part: str, document: dict[str, Any]) -> None:
    """One key more, one that is needed less, or one of another type, and the schema refuses the document."""
    check: Any = validator(name, part)
    assert not check.is_valid({**document, "no_such_key": 1})
    assert not check.is_valid([document])
    for key, value in document.items():
        if key in check.schema.get("required", ()):
            assert not check.is_valid({other: document[other] for other in document if other != key}), key
        wrong: Any = [[]] if value is None else 1.5 if isinstance(value, str | dict | list | bool) else "text"
        assert not check.is_valid({**document, key: wrong}), key


def test_the_lines_of_a_stream_have_usage_only_on_the_last(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    box.say("Bu ergonomik kupa günün en sıcak anlarına yakışan, sade bir parça.")
    assert main(["any-llm-stream", "--prompt", "x"]) == 0
    *lines, last = documents_in(capfd.readouterr().out)
    assert lines
    assert [line["partial"] for line in (*lines, last)] == [*(True for _ in lines), False]
    assert "usage" in last


TEXT = "openrouter/router"
PICTURE = {
    "url": "https://v3.fal.media/files/x.png",
    "width": "900",
    "height": 9.5,
    "content_type": 5,
    "file_size": True,
}
OF_ANOTHER_KIND = [
    (
        "any-llm-complete",
        TEXT,
        {"output": "x", "reasoning": {"why": 1}, "usage": {"cost": "0.1", "total_tokens": None}},
    ),
    ("any-llm-complete", TEXT, {"output": "x", "usage": [1]}),
    ("any-llm-enterprise", f"{TEXT}/enterprise", {"output": "x", "usage": "x"}),
    ("generate-bg-prompt", f"{TEXT}/enterprise", {"output": "x", "usage": {"prompt_tokens": 1.5}}),
    ("background", PHOTOKIT, {"image": PICTURE}),
    ("remove-background", "fal-ai/bria/background/remove", {"image": PICTURE}),
    ("generate-multiple-bg", PHOTOKIT, {"images": [PICTURE]}),
]


@pytest.mark.parametrize(("name", "endpoint", "output"), OF_ANOTHER_KIND, ids=lambda value: str(value)[:30])
def test_what_fal_answers_in_another_kind_than_it_promises_is_not_passed_on(
    name: str,
    endpoint: str,
    output: dict[str, Any],
    words: Callable[[str], list[str]],
    run: Callable[..., tuple[int, Any]],
    box: Sandbox,
) -> None:
    box.fault("job", endpoint=endpoint, times=None, output=output)
    code, document = run(*words(name))
    assert code == 0, document


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        ({"queue_position": "3", "logs": "x", "metrics": [1]}, 0),
        ({"queue_position": 2.5, "logs": ["line"], "error": False, "error_type": 7}, 0),
        ({"status": "COMPLETED", "error": {"message": "broke"}, "error_type": ["y"]}, 1),
    ],
)
def test_a_status_of_other_kinds_is_told_in_those_that_are_known(
    odd: dict[str, Any], code: int, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    argv = words("any-llm-status")
    box.fault("status", status=200, body={"status": "IN_QUEUE", **odd})
    assert run(*argv)[0] == code


# Documents of commands that fail


ASKS_FAL = [name for name in DESCRIBED if COMMANDS[name].local_for({}) is None]
WAITS = [
    name
    for name in ASKS_FAL
    if name not in ("any-llm-submit", "upload-file", "prices", "estimate", "doctor", "batch")
    and "--request_id" not in example(name)
]
CRASH = {"error": "Runner disconnected", "error_type": "runner_disconnected"}


def failed(run: Run, argv: list[str], *error_types: str) -> dict[str, Any]:
    """What a command printed that must fail; `run` has held it against its schema."""
    code, document = run(*argv)
    assert code == 1
    assert not error_types or document["error_type"] in error_types, document
    assert_strict(argv[0], "failure", {key: document[key] for key in document if key != "detail"})
    return document


@pytest.mark.parametrize("name", DESCRIBED)
def test_bad_input_is_a_failure_of_its_command(name: Any, run: Callable[..., tuple[int, Any]]) -> None:
    failed(run, [name, "--no_such_option", "1"], "invalid_input")


@pytest.mark.parametrize("name", ASKS_FAL)
def test_no_key_is_a_failure_of_its_command(
    name: Any, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = words(name)
    monkeypatch.delenv("FAL_KEY")
    failed(run, argv, "missing_key")


ODD_REFUSAL = {"status": 422, "body": {"detail": "no", "request_id": 5}}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "fault", [{"status": 401}, {"status": 422}, ODD_REFUSAL, {"status": 500}, {"drop": "before"}], ids=str
)
@pytest.mark.parametrize("name", [name for name in ASKS_FAL if name != "doctor"])
def test_a_refusal_or_an_outage_is_a_failure_of_its_command(
    name: Any, fault: Any, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    argv = [*words(name), "--timeout", "0.6"]
    box.fault("any", times=None, **fault)
    failed(run, argv)


@pytest.mark.parametrize("name", WAITS)
def test_a_job_that_takes_too_long_is_a_failure_of_its_command(
    name: Any, words: Callable[[str], list[str]], box: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = words(name)
    box.configure(latency=30)
    capfd.readouterr()
    assert main([*argv, "--timeout", "2"]) == 1
    (document,) = documents_in(capfd.readouterr().out)
    assert document["error_type"] == "timeout" or document["errors"][0]["error_type"] == "timeout"
    assert_valid(name, "failure", document)


@pytest.mark.parametrize("name", [name for name in WAITS if name != "any-llm-stream"])
def test_a_job_that_fails_is_a_failure_of_its_command(
    name: Any, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    box.fault("job", fail=CRASH, times=None)
    failed(run, words(name), "job_failed")


def test_the_status_of_a_failed_job_is_not_an_error_document(box: Sandbox, run: Callable[..., tuple[int, Any]]) -> None:
    box.fault("job", fail=CRASH)
    job = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
    box.wait_for(lambda ledger: ledger["failed"] == 1)
    document = failed(run, ["any-llm-status", "--request_id", job], "runner_disconnected")
    assert set(document) == set(get_type_hints(results.FailedStatus))
    failed(run, ["any-llm-result", "--request_id", job], "job_failed")


@pytest.mark.parametrize("name", ["analyze-product", "workflow"])
def test_an_analysis_without_categories_keeps_what_the_model_wrote(
    name: str, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    box.say("no categories at all", endpoint=VISION, times=2)
    assert failed(run, words(name), "bad_output")["raw_output"] == "no categories at all"


@pytest.mark.parametrize("output", [{"output": 1}, {"output": "", "error": "overloaded"}], ids=str)
@pytest.mark.parametrize("name", ["any-llm-complete", "analyze-product", "generate-bg-prompt", "workflow"])
def test_an_answer_that_cannot_be_used_is_kept(
    name: str,
    output: dict[str, Any],
    words: Callable[[str], list[str]],
    run: Callable[..., tuple[int, Any]],
    box: Sandbox,
) -> None:
    box.fault("job", output=output, times=None)
    assert failed(run, words(name), "bad_output", "job_failed")["raw"]


def test_styles_that_fail_are_listed_in_a_success(
    words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    box.fault("job", endpoint=PHOTOKIT, fail=CRASH)
    box.fault("job", endpoint="openrouter/router/enterprise", fail=CRASH)
    code, document = run(*words("generate-multiple-bg"))
    assert (code, document["total_generated"]) == (0, 1)
    assert {error["stage"] for error in document["errors"]} == {"prompt", "picture"}
    assert_strict("generate-multiple-bg", "result", document)


@pytest.mark.parametrize("name", ["generate-multiple-bg", "workflow"])
def test_without_any_picture_all_that_was_made_is_in_the_failure(
    name: str, words: Callable[[str], list[str]], run: Callable[..., tuple[int, Any]], box: Sandbox
) -> None:
    box.fault("job", endpoint=PHOTOKIT, fail=CRASH, times=None)
    document = failed(run, words(name), "job_failed")
    assert {*COMMANDS[name].when_failed, "timings"} <= set(document)


def test_a_signal_before_the_command_is_a_failure_of_any_command() -> None:
    for name in DESCRIBED:
        assert_valid(name, "failure", json.loads(early_signals.DOCUMENT))


@pytest.mark.parametrize("fault", [None, {"endpoint": PHOTOKIT, "fail": CRASH}, {"endpoint": VISION, "fail": CRASH}])
def test_progress_events_are_what_their_schema_says(
    fault: dict[str, Any] | None, client: FalClient, photo_path: Path, box: Sandbox
) -> None:
    if fault:
        box.fault("job", times=None, **fault)
    events: list[Any] = []
    try:
        client.product_workflow(photo_path, styles=["Studio"], with_logs=True, on_progress=events.append)
    except FalError:
        assert fault
    check = Draft202012Validator(all_schemas()["progress"])
    for event in json.loads(json.dumps(events)):
        assert check.is_valid(event), event
        assert not check.is_valid({**event, "no_such_key": 1})
    assert {"started", "done"} <= {event.get("status") for event in events}
    assert "log" in {event["step"] for event in events}
    assert bool(fault) == any(event.get("status") == "failed" for event in events)


# What `serve` says


@pytest.fixture
def serve(box: Sandbox) -> Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]:
    """Send calls to a worker that stays; its messages, until each call is answered."""

    def messages(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        worker = subprocess.Popen([sys.executable, str(WORKER), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdin is not None
        assert worker.stdout is not None
        with worker:
            for call in calls:
                worker.stdin.write(json.dumps({"jsonrpc": "2.0", "id": call["method"], **call}).encode() + b"\n")
            worker.stdin.flush()
            open_ids = {call["method"] for call in calls}
            while open_ids:
                message = json.loads(worker.stdout.readline())
                open_ids.discard(message.get("id"))
                yield message

    return messages


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("fault", [None, {"status": 401}], ids=["success", "failure"])
def test_what_serve_says_is_what_the_schemas_say(
    fault: dict[str, Any] | None,
    serve: Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]],
    words: Callable[[str], list[str]],
    box: Sandbox,
) -> None:
    calls = [{"method": name, "params": parse(words(name))[1]} for name in DESCRIBED]
    if fault:
        box.fault("any", times=None, **fault)
    progress = Draft202012Validator(all_schemas()["progress"])
    said: set[str] = set()
    for message in serve(calls):
        event = {key: value for key, value in message.get("params", {}).items() if key != "id"}
        if message.get("method") == "progress":
            assert progress.is_valid(event), event
        elif message.get("method") == "delta":
            assert_valid("any-llm-stream", "result", event)
        elif "id" in message:
            failed = "error" in message
            assert failed == bool(fault) or message["id"] in ("any-llm-cancel", "check-image", "schema"), message
            assert_valid(
                message["id"], *(("failure", message["error"]["data"]) if failed else ("result", message["result"]))
            )
        said.add(message.get("method", "reply"))
    assert {"ready", "reply", "progress"} <= said
    assert fault or "delta" in said


# Options


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_options_of_every_example_are_what_the_schema_says(name: Any) -> None:
    values = parse(example(name))[1]
    assert_valid(name, "options", values)
    assert_strict(name, "options", values)
    optional = {option.name: None for option in COMMANDS[name].all_options if not option.required}
    assert_valid(name, "options", {**optional, **values})


COMPLETE, IMAGE, STYLES = "any-llm-complete", "https://example.com/mug.jpg", "generate-multiple-bg"
PRODUCT = {"image_url": IMAGE, "categories": {"vibe": "Cozy"}}
REFUSED = [
    (COMPLETE, {}),
    (COMPLETE, {"prompt": ""}),
    (COMPLETE, {"prompt": " \n"}),
    (COMPLETE, {"prompt": None}),
    (COMPLETE, {"prompt": 1}),
    (COMPLETE, {"prompt": "x", "colour": "red"}),
    (COMPLETE, {"prompt": "x", "model": ""}),
    (COMPLETE, {"prompt": "x", "temperature": -0.1}),
    (COMPLETE, {"prompt": "x", "temperature": 2.1}),
    (COMPLETE, {"prompt": "x", "temperature": "1"}),
    (COMPLETE, {"prompt": "x", "max_tokens": 0}),
    (COMPLETE, {"prompt": "x", "max_tokens": 1.5}),
    (COMPLETE, {"prompt": "x", "priority": "fast"}),
    (COMPLETE, {"prompt": "x", "with_logs": "true"}),
    (COMPLETE, {"prompt": "x", "timeout": 0}),
    (COMPLETE, {"prompt": "x", "timeout": 86_401}),
    ("any-llm-enterprise", {"prompt": "x", "image_url": [1]}),
    ("any-llm-enterprise", {"prompt": "x", "image_url": [""]}),
    ("any-llm-enterprise", {"prompt": "x", "image_url": [IMAGE, "/etc/passwd"]}),
    ("any-llm-submit", {"prompt": "x", "webhook_url": "shop"}),
    ("any-llm-submit", {"prompt": "x", "webhook_url": "https://"}),
    ("any-llm-submit", {"prompt": "x", "webhook_url": "https://a b"}),
    ("remove-background", {"image_url": "mug.jpg"}),
    ("remove-background", {"image_url": "data:text/html,x"}),
    ("workflow", {"image": IMAGE, "report": True}),
    ("workflow", {"image": IMAGE, "report": True, "save_dir": None}),
    ("any-llm-result", {"request_id": "../x"}),
    ("any-llm-result", {"request_id": "x" * 129}),
    (STYLES, {"image_url": IMAGE}),
    (STYLES, {**PRODUCT, "categories": {}}),
    (STYLES, {**PRODUCT, "categories": {"vibe": 1}}),
    (STYLES, {**PRODUCT, "categories": {" ": "Cozy"}}),
    (STYLES, {**PRODUCT, "categories": ["Cozy"]}),
    (STYLES, {**PRODUCT, "styles": []}),
    (STYLES, {**PRODUCT, "styles": ["Beach"]}),
    (STYLES, {**PRODUCT, "styles": [{"name": "Beach"}]}),
    (STYLES, {**PRODUCT, "styles": [{"name": "Beach", "description": " "}]}),
    (STYLES, {**PRODUCT, "styles": [{"name": "Beach", "description": "Sea", "colour": "blue"}]}),
    (STYLES, {**PRODUCT, "styles": ["Studio"] * 101}),
    ("schema", {"name": "backgrounds"}),
]
ACCEPTED = [
    (COMPLETE, {"prompt": "x", "temperature": 0, "max_tokens": 1, "timeout": 86_400, "priority": "throughput"}),
    (COMPLETE, {"prompt": "x", "temperature": 2, "max_tokens": 5.0, "model": None, "timeout": 0.5}),
    ("any-llm-enterprise", {"prompt": "x", "image_url": IMAGE}),
    ("any-llm-enterprise", {"prompt": "x", "image_url": [IMAGE, f" {IMAGE.upper()}\n"]}),
    ("any-llm-submit", {"prompt": "x", "webhook_url": "HTTPS://a.example.com"}),
    ("workflow", {"image": IMAGE, "styles": ["Studio"], "report": False}),
    (STYLES, {**PRODUCT, "styles": ["Premium"], "remove_bg": False}),
    (STYLES, {**PRODUCT, "styles": [{"name": "Beach", "description": "Sea"}, "Studio"]}),
    ("schema", {}),
    ("schema", {"name": "schema"}),
]


@pytest.fixture
def run_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with its options on standard input."""

    def run_with(name: str, options: dict[str, Any]) -> tuple[int, Any]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(options).encode())))
        return run(name, "--json", "-")

    return run_with


@pytest.mark.parametrize(("name", "options"), REFUSED, ids=str)
def test_what_the_schema_refuses_the_worker_refuses_too(
    name: Any, options: dict[Any, Any] | dict[str, Any], run_json: Run, box: Sandbox
) -> None:
    assert not validator(name, "options").is_valid(options)
    code, document = run_json(name, options)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert box.journal() == []


@pytest.mark.usefixtures("unpainted")
@pytest.mark.sampled(2)
@pytest.mark.parametrize(("name", "options"), ACCEPTED, ids=str)
def test_what_the_schema_takes_the_worker_takes_too(
    name: Any, options: dict[Any, Any] | dict[str, Any], run_json: Run, box: Sandbox
) -> None:
    assert_valid(name, "options", options)
    code, document = run_json(name, options)
    assert code == 0, document


# What is generated


def test_a_stale_file_is_named_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "cli.md"
    stale.write_text("old", encoding="utf-8")
    monkeypatch.setattr(generate, "BACKEND", tmp_path)
    monkeypatch.setattr(generate, "files", lambda: {stale: "new"})
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generate.main() == 1
    assert capsys.readouterr().err == "cli.md is out of date: make docs\n"
    monkeypatch.setattr("sys.argv", ["generate.py"])
    assert (generate.main(), stale.read_text(encoding="utf-8")) == (0, "new")


def test_the_reference_tells_every_option_and_key() -> None:
    text = generate.REFERENCE.read_text(encoding="utf-8")
    assert set(generate.EXAMPLES) == set(COMMANDS)
    for name, command in COMMANDS.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert all(f"| `--{option.name}` |" in section for option in command.options)
        if name in DESCRIBED:
            keys = all_schemas()["commands"][name]["result"]["properties"]
            assert all(f"| `{key}` |" in section or f"| `{key}?` |" in section for key in keys)
