"""`doctor --live` on the sandbox: it passes there, and says which fact is wrong when one was changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import WORKER
from fal_sandbox.keys import KEY
from fal_sandbox.server import Sandbox
from raw_hosts import answering, raw_hosts
from schema_check import assert_output_is_true
from services.fal.errors import DeadlineExceeded, FalError, InvalidInput
from services.fal_service import FalClient
from services.live import check, probes
from services.live.catalogue import catalogue_url
from services.live.check import examine_live
from services.live.facts import FACTS
from services.live.inputs import INPUTS, compare, inputs_of

TEXT, VISION = "openrouter/router", "openrouter/router/vision"
CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
PICTURE = {"image": {"url": "https://v3.fal.media/files/a/b.png", "width": 8, "height": 8}}
FREE = ("catalogue", "prices", "wrong key")
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def quick(box: Sandbox) -> Sandbox:
    """The sandbox with pictures that need no painting, and a first text that waits in its queue to be cancelled."""
    for endpoint in (CUTOUT, PHOTOKIT):
        box.fault("job", endpoint=endpoint, output=PICTURE)
    box.fault("job", endpoint=TEXT, stuck="IN_QUEUE")
    return box


def by_name(rows: list[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in rows}


def test_on_the_sandbox_every_fact_is_seen_and_the_same(quick: Sandbox, run: Run) -> None:
    code, document = run("doctor", "--live", "--spend", "0.20", "--timeout", "110")
    assert (code, document["error"]) == (0, None)
    live = document["live"]
    assert {row["fact"]: row["live"] for row in live["facts"]} == dict.fromkeys(FACTS, "same")
    assert {row["verdict"] for row in live["endpoints"]} == {"same"}
    assert by_name(live["endpoints"], "endpoint")[PHOTOKIT]["price_usd"] == 0.04
    assert live["jobs_left"] == []
    ledger = quick.ledger()
    assert (ledger["running"], ledger["cancelled"]) == (0, 1)


@pytest.mark.nightly
def test_on_a_sandbox_as_it_comes_it_passes_and_tells_a_table_on_stderr(
    box: Sandbox, run_process: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    ran = run_process("doctor", "--live", "--spend", "0.20")
    told = ran.stderr.decode()
    assert ran.returncode == 0, told
    assert "this costs up to $0.098" in told
    heading = next(line for line in told.splitlines() if line.startswith("fact "))
    assert heading.split() == ["fact", "documented", "sandbox", "live"]
    assert all(any(line.startswith(name) for line in told.splitlines()) for name in FACTS)
    live = json.loads(ran.stdout)["live"]
    assert 0 < live["spent_usd"] <= live["needed_usd"] <= 0.2


def test_what_the_sandbox_column_says_is_what_the_sandbox_answers(quick: Sandbox, client: FalClient) -> None:
    seen: dict[str, str] = {}
    keep = probes.Facts.see

    def see(facts: probes.Facts, name: str, raw: Any, more: Any = None) -> bool:
        value = raw.value()
        seen[name] = f"{raw.status} {{{', '.join(value)}}}" if isinstance(value, dict) else ""
        return keep(facts, name, raw, more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes.Facts, "see", see)
        examine_live(client, 0.2, None, None)
    told = {name: fact.sandbox for name, fact in FACTS.items() if fact.sandbox != "same"}
    assert told
    assert {name: seen[name] for name in told} == told


def test_without_spend_nothing_is_spent(box: Sandbox, run: Run) -> None:
    code, document = run("doctor", "--live")
    assert code == 0
    assert [row["fact"] for row in document["live"]["facts"]] == list(FREE)
    assert (document["live"]["spent_usd"], document["live"]["needed_usd"]) == (0, None)
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["files"]) == (0, 0)
    assert {row["method"] for row in box.journal()} <= {"CONNECT", "GET"}


# One fault for each fact, and what is then said of it. The doctor itself asks for one status and one file before, and
# the answer to a wrong key is a status too.
FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "catalogue": (
        "any",
        {"skip": 3, "status": 200, "body": {"models": [{"endpoint_id": 7}]}},
        "endpoint_id is integer",
    ),
    "prices": (
        "any",
        {"skip": 5, "status": 200, "body": {"prices": [{"endpoint_id": "a/b"}]}},
        "no prices[].unit_price",
    ),
    "wrong key": ("status", {"skip": 1, "status": 404}, "status 404, not 401"),
    "upload token": ("token", {"status": 200, "body": {"token": "t"}}, "no expires_at"),
    "upload": ("upload", {"status": 200, "body": {"url": "https://v3.fal.media/files/a"}}, "no access_url"),
    "download": ("download", {"skip": 1, "size": 10}, "not the bytes that were uploaded"),
    "submit": ("submit", {"request_id": False, "headers": {"x-other": "1"}}, "no header x-fal-request-id"),
    "status while it runs": (
        "status",
        {"skip": 2, "status": 202, "body": {"status": "RUNNING"}},
        "status is 'RUNNING'",
    ),
    "early result": ("result", {"status": 425}, "status 425, not 400"),
    "cancel in queue": ("cancel", {"status": 405}, "status 405, not 200 or 202"),
    "cancelled result": ("result", {"skip": 1, "status": 404}, "status 404, not 499"),
    "status stream": ("status_stream", {"status": 200, "body": {"status": "COMPLETED"}}, "not a stream of events"),
    "status when it is over": ("status", {"skip": 2, "status": 200, "body": {"state": "COMPLETED"}}, "no status"),
    "text": ("job", {"endpoint": TEXT, "output": {"text": "A mug."}}, "no output"),
    "cancel late": ("cancel", {"status": 409}, "status 409, not 400"),
    "stream": ("stream", {"cut": 2, "end": True}, "its last event has no partial: false"),
    "vision": ("job", {"endpoint": VISION, "output": {"output": ["mug"]}}, "output is array, not string"),
    "cut-out": ("job", {"endpoint": CUTOUT, "output": {"image": {"path": "a"}}}, "no image.url"),
    "background": ("job", {"endpoint": PHOTOKIT, "output": {"video": {}}}, "no image"),
    "unknown id": ("status", {"skip": 2, "status": 410}, "status 410, not 404"),
    "refused input": ("result", {"status": 400}, "status 400, not 422"),
    "model that does not exist": (
        "job",
        {"endpoint": TEXT, "times": 2, "output": {"output": "Hi"}},
        "not as model_gone",
    ),
}


def test_every_fact_has_a_fault() -> None:
    assert set(FAULTS) == set(FACTS)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FACTS)
def test_a_fact_that_was_changed_is_named(
    name: str, box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the steps that this fact needs: the others are as in every other test.
    needed = {name, *(("upload",) if name in ("vision", "cut-out", "background") else ())}
    steps = tuple(step for step in probes.STEPS if needed & set(step[0]))
    for module in (check, probes):
        monkeypatch.setattr(module, "STEPS", steps)
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT, PHOTOKIT])
    stage, what, said = FAULTS[name]
    box.fault(stage, **what)
    if any("submit" in step[0] for step in steps):
        box.fault("job", endpoint=TEXT, stuck="IN_QUEUE")
    document = examine_live(client, None if name in FREE else 0.2, None, None)
    facts = by_name(document["live"]["facts"], "fact")
    assert said in facts[name]["live"]
    assert facts[name]["matters"] is True
    assert f"{name} (differs: " in document["error"]
    wrong = {fact for fact, row in facts.items() if row["matters"]}
    assert wrong - {name} <= {fact for fact in FACTS if "not seen" in facts.get(fact, {"live": ""})["live"]}
    assert document["error_type"] == "bad_output"
    box.wait_for(lambda ledger: ledger["running"] == 0)


@pytest.mark.parametrize(
    ("stage", "what", "name", "said"),
    [
        (
            "job",
            {"endpoint": TEXT, "output": {"output": "A mug.", "usage": {"cost": "little"}}},
            "text",
            "differs: usage.cost is string, not number",
        ),
        ("job", {"endpoint": TEXT, "output": {"output": "A mug.", "lane": 1}}, "text", "same; also there: lane"),
        ("status_stream", {"headers": {"x-fal-lane": "1"}}, "status stream", "same; also there: header x-fal-lane"),
        (
            "cancel",
            {"request_id": False, "headers": {"x-a": "1"}},
            "cancel late",
            "differs: no header x-fal-request-id",
        ),
    ],
)
def test_a_difference_that_the_library_does_not_rely_on_is_told_and_passes(
    stage: str,
    what: dict[str, Any],
    name: str,
    said: str,
    box: Sandbox,
    client: FalClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT, PHOTOKIT])
    steps = tuple(step for step in probes.STEPS if "text" in step[0])
    for module in (check, probes):
        monkeypatch.setattr(module, "STEPS", steps)
    box.fault(stage, **what)
    document = examine_live(client, 0.2, None, None)
    row = by_name(document["live"]["facts"], "fact")[name]
    assert (row["live"], row["matters"]) == (said, False)
    assert document["error"] is None


# Money


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--live", "--spend", "0.01"], "costs up to $0.098"),
        (["--live", "--spend", "0"], "above 0"),
        (["--live", "--spend", "6"], "at most 5"),
        (["--live", "--spend", "nan"], "above 0"),
        (["--spend", "0.2"], "--spend requires --live"),
        (["--live", "false", "--spend", "0.2"], "--spend requires --live"),
        (["--recordings", "out"], "--recordings requires --live"),
    ],
)
def test_a_sum_that_makes_no_sense_or_does_not_do_is_refused_before_anything_is_spent(
    argv: list[str], said: str, box: Sandbox, run: Run
) -> None:
    code, document = run("doctor", *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert said in document["error"]
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["files"]) == (0, 0)


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ({"unit_price": 0.04, "unit": "images", "currency": "EUR"}, "no price"),
        ({"unit_price": 0.04, "unit": "compute seconds", "currency": "USD"}, "'compute seconds'"),
        ({"unit_price": float("inf"), "unit": "images", "currency": "USD"}, "no price"),
    ],
)
def test_nothing_is_spent_on_a_price_that_is_not_known(
    price: dict[str, Any], said: str, box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT, PHOTOKIT])
    box.fault("any", skip=5, status=200, body={"prices": [{"endpoint_id": CUTOUT, **price}]})
    with pytest.raises(FalError, match="nothing is spent") as caught:
        examine_live(client, 0.2, None, None)
    assert said in str(caught.value)
    assert box.ledger()["accepted"] == 0
    assert caught.value.partial["live"]["endpoints"]


def test_what_costs_more_than_it_should_leaves_the_rest_out(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tuple(step for step in probes.STEPS if {"upload", "cut-out", "background"} & set(step[0]))
    for module in (check, probes):
        monkeypatch.setattr(module, "STEPS", steps)
    box.fault("job", endpoint=CUTOUT, output=PICTURE)
    box.fault("result", endpoint=CUTOUT, headers={"x-fal-billable-units": "9"})
    document = examine_live(client, 0.2, None, None)
    assert "Skipped" in by_name(document["live"]["facts"], "fact")["background"]["live"]
    assert [job["endpoint"] for job in box.ledger()["jobs"]] == [CUTOUT]
    assert document["error"] is not None


# Interrupted


def started(box: Sandbox, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), "doctor", "--live", "--spend", "0.2", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ.copy(),
    )


def at_vision(ledger: dict[str, Any]) -> bool:
    return any(job["endpoint"] == VISION for job in ledger["jobs"])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stage", ["a job that runs", "a submit without its answer"])
def test_a_run_that_is_interrupted_cancels_its_jobs_and_tells_what_it_saw(stage: str, box: Sandbox) -> None:
    if stage == "a job that runs":
        box.fault("job", endpoint=VISION, stuck="IN_PROGRESS")
    else:
        box.fault("job", endpoint=VISION, stuck="IN_PROGRESS")
        box.fault("submit", endpoint=VISION, silent=60, headers_first=True)
    with started(box) as worker:
        box.wait_for(at_vision, 120)
        worker.send_signal(signal.SIGTERM)
        out, _ = worker.communicate(timeout=60)
    document = json.loads(out)
    assert_output_is_true(["doctor"], worker.returncode, out)
    assert (worker.returncode, document["error_type"]) == (1, "cancelled")
    if stage == "a job that runs":
        facts = by_name(document["live"]["facts"], "fact")
        assert (facts["text"]["live"], facts["background"]["live"]) == ("same", "not seen: the run ended before it")
    box.wait_for(lambda ledger: ledger["running"] == 0, 30)


def test_a_run_past_its_deadline_cancels_its_jobs_and_tells_what_it_saw(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(jobs: probes.Jobs, job: probes.Job) -> None:
        raise DeadlineExceeded("The call took longer than its seconds.")

    monkeypatch.setattr(probes.Jobs, "wait", late)
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT, PHOTOKIT])
    box.fault("job", endpoint=TEXT, stuck="IN_PROGRESS")
    with pytest.raises(DeadlineExceeded) as caught:
        examine_live(client, 0.2, None, None)
    facts = by_name(caught.value.partial["live"]["facts"], "fact")
    assert (facts["submit"]["live"], facts["text"]["live"]) == ("same", "not seen: the run ended before it")
    assert caught.value.partial["live"]["jobs_left"] == []
    box.wait_for(lambda ledger: ledger["cancelled"] == 1)


def test_a_job_that_takes_too_long_is_told_and_cancelled(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tuple(step for step in probes.STEPS if {"text", "unknown id"} & set(step[0]))
    for module in (check, probes):
        monkeypatch.setattr(module, "STEPS", steps)
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT, PHOTOKIT])
    monkeypatch.setattr(probes, "JOB_S", 0.2)
    box.fault("job", endpoint=TEXT, stuck="IN_PROGRESS")
    box.fault("status_stream", status=503)
    document = examine_live(client, 0.2, None, None)
    facts = by_name(document["live"]["facts"], "fact")
    assert "The job was not over within 0.2 s" in facts["text"]["live"]
    assert facts["unknown id"]["live"] == "same"
    assert "text (not seen: not_ready" in document["error"]
    box.wait_for(lambda ledger: ledger["cancelled"] == 1)


# The catalogue


def test_an_endpoint_that_is_gone_matters_when_it_is_the_one_that_is_used(box: Sandbox, run: Run) -> None:
    box.configure(gone=["fal-ai/any-llm", "fal-ai/nano-banana-2/edit"])
    code, document = run("doctor", "--live")
    gone = [(row["endpoint"], row["matters"]) for row in document["live"]["endpoints"] if row["verdict"] == "gone"]
    assert (code, gone) == (0, [("fal-ai/any-llm", False), ("fal-ai/nano-banana-2/edit", False)])
    box.configure(gone=[PHOTOKIT])
    code, document = run("doctor", "--live")
    assert code == 1
    assert f"{PHOTOKIT} (gone)" in document["error"]


def test_a_catalogue_that_cannot_be_read_is_not_taken_for_a_good_one(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "endpoints_of", lambda settings: [CUTOUT])
    box.fault("any", skip=3, status=500)
    document = examine_live(client, None, None, None)
    assert document["live"]["endpoints"][0]["verdict"] == "unread"
    assert f"{CUTOUT} (unread: status 500" in document["error"]


def test_an_endpoint_set_by_hand_is_looked_up_too(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_CUTOUT_ENDPOINT", "somebody/else")
    with FalClient(timeout=60) as client:
        document = examine_live(client, None, None, None)
    assert by_name(document["live"]["endpoints"], "endpoint")["somebody/else"]["verdict"] == "gone"
    assert "somebody/else (gone)" in document["error"]


@pytest.fixture
def openapi(box: Sandbox) -> Iterator[Callable[[str], Any]]:
    with httpx.Client(timeout=30) as web:
        yield lambda endpoint: web.get(catalogue_url(endpoint)).json()["models"][0]["openapi"]


@pytest.mark.parametrize("endpoint", INPUTS)
def test_our_rows_are_what_the_sandbox_says_an_endpoint_takes(endpoint: str, openapi: Callable[[str], Any]) -> None:
    read = inputs_of(openapi(endpoint))
    assert read is not None
    assert compare(INPUTS[endpoint], read) == ([], [])


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], list[str], bool]] = {
    "a name": (lambda one: one["properties"].update(text=one["properties"].pop("prompt")), ["no prompt"], True),
    "a name that is not sent": (
        lambda one: one["properties"].pop("limit_generations"),
        ["no limit_generations"],
        False,
    ),
    "a type": (lambda one: one["properties"]["prompt"].update(type="array"), ["prompt is array, not string"], True),
    "required": (lambda one: one.update(required=[*one["required"], "seed"]), ["seed is required"], True),
    "no longer required": (lambda one: one.update(required=["image_urls"]), ["prompt is not required"], False),
    "a new one that is required": (
        lambda one: (one["properties"].update(licence={"type": "string"}), one["required"].append("licence")),
        ["licence is required, and this library does not know it"],
        True,
    ),
    "an enum": (
        lambda one: one["properties"]["output_format"].update(enum=["png", "avif"]),
        ["output_format takes png, avif, not jpeg, png, webp"],
        False,
    ),
    "a range": (
        lambda one: one["properties"]["num_images"].update(maximum=2),
        ["maximum of num_images is 2, not 4"],
        True,
    ),
    "a default": (
        lambda one: one["properties"]["sync_mode"].update(default=True),
        ["default of sync_mode is True, not False"],
        False,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_input_that_changed_is_named(change: str, openapi: Callable[[str], Any]) -> None:
    endpoint = "fal-ai/nano-banana/edit"
    document = openapi(endpoint)
    schema = document["components"]["schemas"]["FalAiNanoBananaEditInput"]
    alter, said, matters = CHANGES[change]
    alter(schema)
    read = inputs_of(document)
    assert read is not None
    found, also = compare(INPUTS[endpoint], read)
    assert [row.text for row in found] == said
    assert any(row.matters for row in found) is matters
    assert also == (["text"] if change == "a name" and "text" not in schema["required"] else [])


def test_a_new_input_is_told_and_makes_no_difference(openapi: Callable[[str], Any]) -> None:
    document = openapi(CUTOUT)
    document["components"]["schemas"]["FalAiBriaBackgroundRemoveInput"]["properties"]["preview"] = {"type": "boolean"}
    read = inputs_of(document)
    assert read is not None
    assert compare(INPUTS[CUTOUT], read) == ([], ["preview"])


def test_nullable_and_referred_inputs_are_read_as_what_they_are() -> None:
    schema = {
        "properties": {
            "seed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": 7},
            "ratio": {"allOf": [{"$ref": "#/components/schemas/Ratio"}]},
            "again": {"$ref": "#/components/schemas/Again"},
        }
    }
    document = {
        "paths": {"/a/b": {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}},
        "components": {
            "schemas": {
                "Ratio": {"type": "string", "enum": ["1:1", "16:9", None]},
                "Again": {"anyOf": [{"$ref": "#/components/schemas/Again"}] * 40},
            }
        },
    }
    read = inputs_of(document)
    assert read is not None
    assert (read["seed"]["type"], read["seed"]["minimum"], read["seed"]["default"]) == ("integer", 0, 7)
    assert (read["ratio"]["type"], read["ratio"]["enum"]) == ("string", ["1:1", "16:9"])
    assert inputs_of({"paths": {"/a": []}}) is None


def test_default_models_are_looked_up_at_openrouter_without_the_key(
    box: Sandbox, client: FalClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"data": [{"id": "google/gemini-2.5-flash-lite", "expiration_date": "2027-02-01"}, {"id": 3}, None]}
    host, port = box.url.rpartition("/")[2].split(":")
    scripts = {"openrouter.ai": answering(json.dumps(models).encode(), "Content-Type: application/json")}
    with raw_hosts(tmp_path, scripts, beyond=(host, int(port))) as (hosts, pem):
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, hosts.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
        document = examine_live(client, None, None, None)
    rows = by_name(document["live"]["models"], "model")
    assert rows["google/gemini-2.5-flash-lite"] == {
        "model": "google/gemini-2.5-flash-lite",
        "listed": True,
        "ends_on": "2027-02-01",
    }
    assert (rows["openai/gpt-5-mini"]["listed"], rows["openai/gpt-5-mini"]["ends_on"]) == (False, "2026-12-11")
    assert "no default model of vision is listed" in document["error"]
    assert "of text" not in document["error"]
    (head,) = hosts.heads
    assert head.startswith("GET /api/v1/models ")
    assert "authorization" not in head.lower()


# Recordings


def test_recordings_hold_no_secret_and_are_bounded(
    quick: Sandbox, client: FalClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for half in KEY.split(":"):
        quick.fault("job", endpoint=VISION, output={"output": f"{half} " + "x" * 100_000, "list": ["y" * 99] * 2_000})
    examine_live(client, 0.2, str(tmp_path / "seen"), None)
    files = list((tmp_path / "seen").iterdir())
    assert {json.loads(file.read_text())["fact"] for file in files} >= set(FACTS)
    for file in files:
        text = file.read_text()
        assert len(text) < 100_000
        assert not any(half in text for half in (*KEY.split(":"), quick._state.upload_token))


def test_a_folder_that_cannot_be_written_in_is_refused_before_anything_is_asked(
    box: Sandbox, client: FalClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidInput, match="cannot be written to"):
        examine_live(client, 0.2, str(tmp_path / "file"), None)
    assert box.journal() == []


def test_the_key_goes_to_fals_own_hosts_only(box: Sandbox, client: FalClient, tmp_path: Path, monkeypatch: Any) -> None:
    foreign = "https://elsewhere.example.com/files/a.png"
    steps = tuple(step for step in probes.STEPS if "upload" in step[0])
    for module in (check, probes):
        monkeypatch.setattr(module, "STEPS", steps)
    box.fault("upload", status=200, body={"access_url": foreign})
    document = examine_live(client, 0.2, None, None)
    assert "not at one of fal's hosts" in by_name(document["live"]["facts"], "fact")["download"]["live"]
    assert all("example.com" not in row["host"] for row in box.journal())
