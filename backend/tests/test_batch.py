"""A batch: every product once, no job paid for twice, resumed whatever ended it."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from conftest import WORKER, small_photo
from fal_sandbox.server import Sandbox
from peer import Peer, start  # noqa: F401
from services.batch import Batch, brake, settle
from services.batch.batch import DRAIN_S
from services.batch.journal import JournalError, NewProduct, Store
from services.batch.keys import checked_key, folder_of, same_folder
from services.batch.manifest import Manifest
from services.batch.recipe import of_method
from services.batch.sqlite_journal import LOCK_NAME, SqliteStore
from services.fal.categories import CATEGORY_NAMES
from services.fal.errors import AuthError, BalanceExhausted, BudgetExceeded, Cancelled, InvalidInput, RateLimited
from services.fal.responses import http_date
from services.fal_service import FalClient
from test_client_own_photokit import authority, own  # noqa: F401

TEXT, ENTERPRISE, VISION = "openrouter/router", "openrouter/router/enterprise", "openrouter/router/vision"
CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
JOBS = 5
"""Of one product in one style: analysis, cut-out, description, prompt and picture."""
FAL_TIME: Any = http_date
ONE_STYLE = {"styles": ["Studio"]}
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def quick(box: Sandbox) -> Sandbox:
    """Every job ends at once; pictures are the small photo."""
    url = box.put_file(small_photo(), "picture.jpg", "image/jpeg")
    for endpoint in (CUTOUT, PHOTOKIT):
        box.fault("job", endpoint=endpoint, output={"image": {"url": url}}, times=None)
    for endpoint in (TEXT, ENTERPRISE):
        box.fault("job", endpoint=endpoint, output={"output": "A mug."}, times=None)
    categories = json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mugs"))
    box.fault("job", endpoint=VISION, output={"output": categories}, times=None)
    return box


@pytest.fixture
def rows(photo_path: Path) -> list[dict[str, Any]]:
    return [{"key": f"SKU {number}", "image": str(photo_path)} for number in range(4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def made(source: Any, out: Path, **options: Any) -> list[dict[str, Any]]:
    with Batch(source, out, **options if source is None else {"options": ONE_STYLE, **options}) as batch:
        return list(batch)


def results(out: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["key"] for line in lines})
    return {line["key"]: line for line in lines}


def states(out: Path) -> Counter[str]:
    return Counter(line["status"] for line in results(out).values())


def accepted(box: Sandbox, endpoint: str | None = None) -> list[dict[str, Any]]:
    return [job for job in box.ledger()["jobs"] if endpoint in (None, job["endpoint"])]


def query(out: Path, wanted: str) -> list[Any]:
    sql = sqlite3.connect(out / "batch.sqlite")
    try:
        with sql:
            return sql.execute(wanted).fetchall()
    finally:
        sql.close()


# Runs and resumes


def test_every_product_is_made_once_and_a_resume_has_nothing_to_do(quick: Sandbox, rows: Any, out: Path) -> None:
    lines = made(rows, out)
    assert sorted(line["key"] for line in lines) == [row["key"] for row in rows]
    assert lines == list(results(out).values())
    for line in lines:
        assert (line["status"], line["error"], line["attempts"]) == ("done", None, 1)
        [image] = line["result"]["images"]
        assert Path(image["path"]) == out / line["key"] / "1-studio.jpg"
        assert Path(image["path"]).read_bytes() == small_photo()
        assert line["cost_usd"] == line["result"]["cost_usd"]
    assert len(accepted(quick)) == JOBS * len(rows)
    before = len(quick.journal())
    assert made(None, out) == []
    assert made(rows, out) == []
    assert len(quick.journal()) == before


def test_what_ran_when_a_batch_ended_is_picked_up_and_not_cancelled(quick: Sandbox, rows: Any, out: Path) -> None:
    quick.configure(latency=1.5)
    with Batch(rows[:2], out, options=ONE_STYLE) as batch:

        def stop() -> None:
            quick.wait_for(lambda ledger: ledger["running"] == 2)
            batch.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(Cancelled, match="stopped") as stopped:
            list(batch)
        stopper.join()
    assert "--output" in str(stopped.value)
    assert not results(out)
    quick.configure(latency=0)
    lines = made(None, out)
    assert [line["status"] for line in lines] == ["done", "done"]
    assert len(accepted(quick)) == JOBS * 2
    assert not any(job["cancel_requests"] for job in accepted(quick))


def test_pictures_that_are_there_whole_are_not_downloaded_again(quick: Sandbox, rows: Any, out: Path) -> None:
    made(rows[:1], out)
    query(out, "UPDATE product SET state = 'waiting', result_bytes = 0, ended = NULL")
    (out / "SKU 0" / "cutout.jpg").write_bytes(b"cut off")
    before = len(quick.journal())
    [line] = made(None, out)
    assert [row["stage"] for row in quick.journal()[before:] if row["stage"] in ("submit", "download")] == ["download"]
    assert Path(line["result"]["cutout"]["path"]).read_bytes() == small_photo()


def test_the_results_are_made_whole_from_the_journal(quick: Sandbox, rows: Any, out: Path) -> None:
    lines = made(rows, out)
    (out / "results.jsonl").write_bytes((out / "results.jsonl").read_bytes()[:-200])
    made(None, out)
    assert list(results(out).values()) == lines


def test_a_failed_step_stops_no_sibling_and_is_made_again_on_request(quick: Sandbox, rows: Any, out: Path) -> None:
    quick.fault("submit", endpoint=PHOTOKIT, status=422, skip=1)
    made(rows, out, max_jobs=1)
    assert states(out) == {"done": 3, "failed": 1}
    failed = next(line for line in results(out).values() if line["status"] == "failed")
    assert (failed["error_type"], failed["result"]["description"]) == ("model_rejected", "A mug.")
    assert made(None, out) == []
    made(None, out, retry_failed=True)
    assert states(out) == {"done": 4}
    assert len(accepted(quick)) == JOBS * 4


def test_an_answer_that_nobody_can_use_is_asked_for_again_by_a_retry(box: Sandbox, rows: Any, out: Path) -> None:
    box.fault("job", endpoint=VISION, output={"output": "I see nothing."}, times=2)
    categories = json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mugs"))
    box.fault("job", endpoint=VISION, output={"output": categories})
    [line] = made(rows[:1], out, command="analyze_product_image", options={})
    assert (line["status"], line["error_type"]) == ("failed", "bad_output")
    [line] = made(None, out, retry_failed=True)
    assert line["status"] == "done"
    assert len(accepted(box)) == 3


def test_a_batch_without_products_is_no_success(quick: Sandbox, rows: Any, out: Path) -> None:
    """A run that was killed before it had read its input leaves one."""
    made([], out, command="product_workflow")
    with pytest.raises(InvalidInput, match="no products"):
        made(None, out)
    made(rows, out)
    assert states(out) == {"done": 4}


# What is in doubt


def test_a_job_in_doubt_is_never_submitted_again_unless_asked_for(quick: Sandbox, rows: Any, out: Path) -> None:
    quick.fault("submit", endpoint=PHOTOKIT, drop="after", times=2)
    made(rows, out)
    assert states(out) == {"done": 2, "ambiguous": 2}
    line = next(line for line in results(out).values() if line["status"] == "ambiguous")
    assert "--settle" in line["result"]["errors"][0]["error"] or line["error_type"] == "ambiguous_submit"
    assert line["result"]["description"] == "A mug."
    assert made(None, out) == []
    made(None, out, retry_failed=True)
    assert len(accepted(quick, PHOTOKIT)) == 4
    made(None, out, retry_ambiguous=True)
    assert states(out) == {"done": 4}
    assert len(accepted(quick, PHOTOKIT)) == 6


def test_a_picture_waits_for_the_prompt_that_may_yet_be_found(quick: Sandbox, rows: Any, out: Path) -> None:
    quick.fault("submit", endpoint=ENTERPRISE, drop="after")
    [line] = made(rows[:1], out)
    assert (line["status"], line["error_type"], line["result"]["images"]) == ("ambiguous", "ambiguous_submit", [])
    [line] = made(None, out, settle=True)
    assert (line["status"], line["result"]["images"][0]["prompt"]) == ("done", "A mug.")
    assert len(accepted(quick)) == JOBS


def later_at_fal(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    monkeypatch.setattr(settle, "http_date", lambda value: FAL_TIME(value) + 3600 * hours)


def settled(out: Path) -> Any:
    with Batch(None, out, settle=True) as batch:
        return batch.settled


def test_settling_picks_up_what_fal_has_and_drops_what_it_surely_never_had(
    quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for drop, skip in (("before", 0), ("after", 1), ("before", 1), ("before", 2)):
        quick.fault("submit", endpoint=CUTOUT, drop=drop, skip=skip)
    rows = [{**rows[0], "key": f"SKU {number}"} for number in range(6)]
    made(rows, out, max_jobs=1, command="remove_background", options={})
    assert [line["status"] == "done" for line in results(out).values()] == [False, True, False, False, True, False]
    quick.configure(requests_lag=100)
    assert settled(out)[:3] == (0, 0, 4)  # they may yet be listed
    quick.configure(requests_lag=0)
    why = "fal does not list {}, but no job before it proves that the list goes back so far; only --retry_ambiguous"
    found = settled(out)
    assert found[:3] == (1, 0, 3)
    assert found.why_open.startswith(why.format("1 job"))
    assert found.why_open.endswith("fal does not list 2 jobs yet; settle again half an hour later.")
    assert [line["status"] for line in made(None, out)] == ["done"]
    later_at_fal(monkeypatch, 0.6)
    assert settled(out)[:3] == (0, 2, 1)
    made(None, out)
    later_at_fal(monkeypatch, 48)
    assert settled(out)[:3] == (0, 0, 1)  # the first of all: nothing was before it
    made(None, out, retry_ambiguous=True)
    assert (states(out), quick.ledger()["billable"]) == ({"done": 6}, 6)


def test_a_job_is_absent_half_an_hour_after_another_or_after_the_first_look(
    quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.fault("submit", endpoint=CUTOUT, drop="before", skip=1)
    quick.fault("submit", endpoint=CUTOUT, drop="before", skip=2)
    made(rows, out, max_jobs=1, command="remove_background", options={})
    later_at_fal(monkeypatch, 1)
    assert settled(out)[:3] == (0, 1, 1)
    later_at_fal(monkeypatch, 1.4)
    assert settled(out)[:3] == (0, 0, 1)
    later_at_fal(monkeypatch, 1.6)
    assert settled(out)[:3] == (0, 1, 0)


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_was_set_makes_no_job_look_absent(
    hours: float, quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: Any = {"command": "remove_background", "options": {}}
    made(rows[:1], out, **given)
    # Not the sandbox's clock, which is in this process too.
    wrong = SimpleNamespace(time=lambda: time.time() + 3600 * hours)
    quick.fault("submit", endpoint=CUTOUT, drop="after")
    with monkeypatch.context() as patch:
        patch.setattr("services.batch.sqlite_journal.time", wrong)
        made(rows[:2], out, **given)
    made(rows[:3], out, **given)
    # Witnesses are listed; but what was sent in the last 30 minutes may not be.
    quick.fault("platform", skip=1, status=200, body={"items": [], "has_more": False})
    assert settled(out)[:3] == (0, 0, 1)
    later_at_fal(monkeypatch, 100)
    assert settled(out)[:3] == (1, 0, 0)
    made(None, out)
    assert (states(out), len(accepted(quick))) == ({"done": 3}, 3)


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_wrong_clock_and_no_witness_leave_a_job_in_doubt(
    hours: float, quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.fault("submit", endpoint=CUTOUT, drop="after")
    with monkeypatch.context() as patch:
        patch.setattr("services.batch.sqlite_journal.time", SimpleNamespace(time=lambda: time.time() + 3600 * hours))
        made(rows[:1], out, command="remove_background", options={})
    for days in (0, 10):
        later_at_fal(monkeypatch, 24 * days)
        # Where the clock was ahead, the list is asked from too late on.
        assert settled(out)[1] == 0
    made(None, out)
    assert len(accepted(quick)) == 1


def test_a_list_that_tells_too_little_settles_nothing(quick: Sandbox, rows: Any, out: Path, monkeypatch: Any) -> None:
    quick.fault("submit", endpoint=CUTOUT, drop="before", skip=1)
    made(rows, out, max_jobs=1, command="remove_background", options={})
    later_at_fal(monkeypatch, 1)
    known = quick.ledger()["jobs"][0]["request_id"]
    witness = {"request_id": known, "sent_at": "2026-01-01T00:00:00Z", "json_input": {"image_url": "of another"}}
    unseen = {"request_id": known, "sent_at": "2026-01-01T00:00:00Z"}
    for item, skip, why in ((witness, 0, "no job before it"), (unseen, 0, "no job before it"), (unseen, 1, "given")):
        quick.fault("platform", status=200, body={"items": [item], "has_more": False}, skip=skip)
        found = settled(out)
        assert (found[:3], why in found.why_open) == ((0, 0, 1), True)
    monkeypatch.setattr(settle, "http_date", lambda value: None)
    assert settled(out)[:3] == (0, 0, 1)
    later_at_fal(monkeypatch, 1)
    assert settled(out)[:3] == (0, 1, 0)


def test_of_two_jobs_that_were_asked_the_same_each_is_settled_by_its_own(quick: Sandbox, rows: Any, out: Path) -> None:
    quick.fault("submit", endpoint=TEXT, drop="after")
    quick.fault("submit", endpoint=TEXT, garbage="truncated")  # fal names the id of this one
    made(rows[:2], out, max_jobs=1)
    assert states(out) == {"ambiguous": 2}
    with Batch(None, out, settle=True) as batch:
        assert batch.settled == (2, 0, 0, None)
        assert [line["status"] for line in batch] == ["done", "done"]
    assert quick.ledger()["billable"] == JOBS * 2
    assert len(set(query(out, "SELECT request_id FROM job"))) == JOBS * 2


def test_an_intent_without_an_id_is_in_doubt_after_a_kill(quick: Sandbox, rows: Any, out: Path) -> None:
    made(rows[:1], out)
    query(out, "UPDATE product SET state = 'running', result_bytes = 0, ended = NULL")
    query(out, "UPDATE job SET state = 'intent', request_id = NULL, result = NULL WHERE step = 'picture:Studio'")
    [line] = made(None, out)
    assert line["status"] == "ambiguous"
    assert len(accepted(quick)) == JOBS


def test_a_photokit_of_ones_own_is_asked_once(
    quick: Sandbox,
    rows: Any,
    out: Path,
    own: Any,  # noqa: F811
) -> None:
    own.body = {"image": {"url": quick.put_file(small_photo(), "own.jpg", "image/jpeg")}}
    made(rows[:1], out)
    query(out, "UPDATE product SET state = 'waiting', result_bytes = 0, ended = NULL")
    assert [line["status"] for line in made(None, out)] == ["done"]
    assert len(own.requests) == 1
    own.hang_up = True
    made([*rows[:1], {**rows[1], "key": "other"}], out)
    made(None, out, settle=True)
    assert (states(out), len(own.requests)) == ({"done": 1, "ambiguous": 1}, 2)


# What pauses or ends the whole run


def test_a_rate_limit_pauses_the_run(quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brake, "FIRST_PAUSE_S", 0.05)
    quick.fault("submit", status=429, retry_after="0.01", times=12)
    made(rows, out)
    assert states(out) == {"done": 4}
    monkeypatch.setattr(brake, "MOST_PAUSES", 1)
    quick.fault("submit", status=429, retry_after="0.01", times=None)
    with pytest.raises(RateLimited):
        made([{**row, "key": f"other {row['key']}"} for row in rows], out)
    assert len(results(out)) == 4


@pytest.mark.parametrize(
    ("key", "error"), [("broke:secret", BalanceExhausted), ("noscope:secret", AuthError)], ids=["balance", "key"]
)
def test_what_keeps_every_job_from_running_is_told_once(
    key: str, error: type[Exception], quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = os.environ["FAL_KEY"]
    monkeypatch.setenv("FAL_KEY", key)
    with pytest.raises(error):
        made(rows, out)
    assert not results(out)
    monkeypatch.setenv("FAL_KEY", good)
    made(None, out)
    assert states(out) == {"done": 4}


def test_the_budget_is_held_and_told_once(quick: Sandbox, rows: Any, out: Path) -> None:
    with (
        Batch(rows, out, options={}, command="remove_background", max_usd=0.04) as batch,
        pytest.raises(BudgetExceeded),
    ):
        list(batch)
    assert len(accepted(quick)) == 2  # at $0.018 each
    with Batch(None, out, max_usd=1) as batch:
        assert len(list(batch)) == 2
        assert batch.counts()["committed_usd"] == batch.counts()["cost_usd"] == 0.072


def test_eight_threads_reserve_no_cent_too_much(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open({}, 8, 1.0)
    refused: list[BudgetExceeded] = []

    def reserve(thread: int) -> None:
        for job in range(20):
            try:
                store.begin(thread, f"job {job}", "a/b", "", 0.07, retry_ambiguous=False)
            except BudgetExceeded as error:
                refused.append(error)

    threads = [threading.Thread(target=reserve, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.counts().jobs, len(refused)) == ({"intent": 14}, 146)
    assert store.batch().committed == pytest.approx(0.98)
    store.refused(0, "job 0")
    assert store.batch().committed == pytest.approx(0.91)
    store.close()


# Signals


def test_a_signal_lets_what_runs_end_and_the_second_ends_it_at_once(quick: Sandbox, rows: Any, out: Path) -> None:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [sys.executable, str(WORKER), "batch", "--output", str(out)]
    options = ["--input", str(manifest), "--options", json.dumps(ONE_STYLE), "--max_jobs", "2"]
    quick.configure(latency=0.7)
    process = subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    quick.wait_for(lambda ledger: ledger["running"] == 2)
    process.send_signal(signal.SIGINT)
    told_how_to_resume(process, out)
    # Each of the two jobs ended, and no other was begun.
    assert quick.ledger()["running"] == 0
    assert set(query(out, "SELECT state FROM job")) == {("done",)}
    quick.configure(latency=60)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    quick.wait_for(lambda ledger: ledger["running"] == 2)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    told_how_to_resume(process, out)
    assert time.monotonic() - began < DRAIN_S
    assert quick.ledger()["running"] == 2
    assert not any(job["cancel_requests"] for job in accepted(quick))


def test_a_signal_after_which_all_is_done_is_no_failure(quick: Sandbox, rows: Any, out: Path) -> None:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text(json.dumps(rows[0]))
    argv = [sys.executable, str(WORKER), "batch", "--output", str(out), "--command", "remove-background"]
    quick.configure(latency=0.7)
    process = subprocess.Popen([*argv, "--input", str(manifest)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    quick.wait_for(lambda ledger: ledger["running"] == 1)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    document = json.loads(printed)
    assert (process.returncode, document["error"], document["products"]["done"]) == (0, None, 1)


def told_how_to_resume(process: subprocess.Popen[bytes], out: Path) -> None:
    printed, told = process.communicate(timeout=60)
    document = json.loads(printed)
    assert (process.returncode, document["error_type"]) == (1, "cancelled")
    assert document["products"]["running"] == 0
    assert f"--output {out}" in document["hint"]
    assert b"--output" in told


# The journal and the disk


def test_who_looks_at_the_lock_keeps_nobody_from_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path)
    with open(tmp_path / LOCK_NAME, "w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        ends = SimpleNamespace(sleep=lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))
        monkeypatch.setattr("services.batch.sqlite_journal.time", ends)
        store.open({}, 1, None)
        assert store.is_worked_on()
    store.close()
    assert not store.is_worked_on()


def test_a_second_process_is_refused(quick: Sandbox, rows: Any, out: Path) -> None:
    with Batch(rows, out, options=ONE_STYLE), pytest.raises(JournalError, match="Another process works"):
        Batch(None, out)


def test_a_batch_goes_on_with_its_own_recipe_only(
    quick: Sandbox, rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(rows, out)
    with pytest.raises(JournalError, match="options was"):
        made(rows, out, options={"styles": ["Premium"]})
    with pytest.raises(JournalError, match="another image"):
        made([{**rows[0], "image": "other.jpg"}], out)
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", "fal-ai/bria/background/replace")
    with pytest.raises(JournalError, match="endpoints was"):
        made(None, out)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _of_another_version(path: Path) -> None:
    query(path.parent, "UPDATE batch SET version = 99")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_cut, "cannot be read"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"no journal" * 99), "cannot be read"),
        (Path.unlink, "not its journal"),
        (_of_another_version, "version 99"),
    ],
    ids=["cut", "empty", "other file", "gone", "other version"],
)
def test_a_journal_that_cannot_be_used_is_told_before_anything_is_sent(
    harm: Callable[[Path], object], said: str, quick: Sandbox, rows: Any, out: Path
) -> None:
    made(rows, out)
    sent = len(quick.journal())
    harm(out / "batch.sqlite")
    with pytest.raises(JournalError, match=said):
        made(rows, out)
    assert len(quick.journal()) == sent


def test_a_full_disk_ends_the_run_and_a_resume_goes_on(quick: Sandbox, rows: Any, out: Path) -> None:
    manifest = out.with_suffix(".jsonl")
    many = [{**rows[0], "key": f"SKU {number}"} for number in range(6)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in many))
    argv = [sys.executable, str(WORKER), "batch", "--output", str(out)]
    ran = subprocess.run(
        [*argv, "--input", str(manifest), "--max_jobs", "2"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        check=False,
    )
    document = json.loads(ran.stdout)
    assert (ran.returncode, document["error_type"]) == (1, "journal")
    assert "cannot be written" in document["error"]
    resumed = subprocess.run([*argv, "--settle"], capture_output=True, check=False)
    assert json.loads(resumed.stdout)["products"]["done"] + json.loads(resumed.stdout)["products"]["ambiguous"] == 6
    assert len(accepted(quick)) <= 6 * 9


def test_an_output_that_cannot_be_written_is_told_first(quick: Sandbox, rows: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        made(rows, tmp_path / "file" / "out")
    assert quick.journal() == []


def test_a_photo_that_is_gone_fails_its_product_alone(quick: Sandbox, rows: Any, out: Path, tmp_path: Path) -> None:
    made([*rows, {"key": "late", "image": str(tmp_path / "late.jpg")}], out)
    assert states(out) == {"done": 4, "failed": 1}
    assert "late.jpg" in results(out)["late"]["error"]
    assert not (out / "late").exists()
    (tmp_path / "late.jpg").write_bytes(small_photo())
    made(None, out, retry_failed=True)
    assert states(out) == {"done": 5}


def test_a_photo_that_only_fal_may_download_fails_nothing(quick: Sandbox, out: Path) -> None:
    """Its host is the shop's own, and not in FAL_DOWNLOAD_HOSTS."""
    [line] = made([{"key": "lamp", "image": "https://example.com/lamp.jpg"}], out)
    assert (line["status"], line["result"]["original_path"]) == ("done", None)
    assert [error["stage"] for error in line["result"]["errors"]] == ["original"]
    assert Path(line["result"]["images"][0]["path"]).exists()


def test_a_corrected_line_is_made_unless_jobs_were_submitted_for_it(quick: Sandbox, rows: Any, out: Path) -> None:
    wrong = {**rows[1], "image": "nowhere.jpg"}
    made([rows[0], wrong], out)
    assert states(out) == {"done": 1, "failed": 1}
    made(rows[:2], out)
    assert states(out) == {"done": 2}
    assert len((out / "results.jsonl").read_bytes().splitlines()) == 2
    jobs = len(accepted(quick))
    with pytest.raises(JournalError, match="Line 2: the product 'SKU 1' was begun with another image"):
        made([rows[0], wrong], out)
    assert len(accepted(quick)) == jobs


# The manifest


def read(source: Any) -> tuple[list[Any], list[Any]]:
    manifest = Manifest(source, dict, ["image", "title"])
    return [(one.key, one.line, dict(one.input)) for one in manifest], list(manifest.bad_lines)


def test_a_csv_as_excel_writes_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_bytes(
        '\ufeffkey;image;title\r\nA-1;a.jpg;"Kupa; ""beyaz""\r\n350 ml"\r\n;b.jpg;\r\n\r\nA-2;/b.jpg;x;y\r\n'.encode()
    )
    good, bad = read(path)
    assert good == [("A-1", 2, {"image": str(tmp_path / "a.jpg"), "title": 'Kupa; "beyaz"\r\n350 ml'})]
    assert [(line.line, line.error.split(".")[0]) for line in bad] == [
        (4, "key must be a non-empty string, such as a SKU"),
        (6, "The line has 4 cells, and the first line names 3"),
    ]


def test_json_lines_and_a_folder_of_photos_are_read(tmp_path: Path) -> None:
    (tmp_path / "shop.jsonl").write_text('{"key": 7, "image": "https://x/y.jpg", "title": null}\nnonsense\n')
    (tmp_path / "B.jpg").write_bytes(small_photo())
    (tmp_path / "notes.txt").write_text("no picture")
    assert read(tmp_path / "shop.jsonl")[0] == [("7", 1, {"image": "https://x/y.jpg"})]
    assert [line.line for line in read(tmp_path / "shop.jsonl")[1]] == [2]
    assert read(tmp_path)[0] == [("B", 1, {"image": str(tmp_path / "B.jpg")})]
    several = {"key": "B", "image": "https://a/1.jpg, https://a/2.jpg"}  # as WooCommerce writes them
    good, bad = read([["A"], {"key": "A", 5: "x", "Image": "a.jpg"}, several])
    assert (good, [line.line for line in bad]) == ([("A", 2, {"image": "a.jpg"})], [1, 3])
    assert "image contains several URLs" in bad[1].error


def test_every_json_object_has_columns_of_its_own() -> None:
    options = ["image", "image_url", "title"]
    rows: list[dict[str, Any]] = [
        {"key": "A", "image_url": "u", "Image Position": 1},
        {"key": "B", "TITLE": "x", "SEO title": "y"},
    ]
    manifest = Manifest(rows, dict, options)
    assert [dict(one.input) for one in manifest] == [{"image_url": "u"}, {"title": "x"}]
    assert manifest.ignored_columns == ["Image Position", "SEO title"]
    for wrong in ({"product title": "x"}, {"titel": "x"}, {"image": "a", "Image": "b"}, {"max_usd": 1}):
        with pytest.raises(InvalidInput):
            Manifest([*rows, {"key": "C", **wrong}], dict, options)


def test_keys_that_come_twice_are_refused_before_anything_is_sent(quick: Sandbox, rows: Any, out: Path) -> None:
    with pytest.raises(InvalidInput, match="'sku 0' in lines 1 and 5"):
        made([*rows, {**rows[0], "key": "sku 0"}], out)
    assert (quick.journal(), out.exists()) == ([], False)


@pytest.mark.parametrize(
    "key", ["..", ".hidden", "a/b", "a\\b", "con.x", "x.", "a:b", "50%", "results.jsonl", "Ürün 1"]
)
def test_a_key_becomes_a_folder_of_its_own_on_every_file_system(key: str, tmp_path: Path) -> None:
    name = folder_of(checked_key(key))
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert name.rstrip(". ") == name
    assert folder_of(name) != name or "%" not in name
    # On a file system without case, what differs in it alone must be known as the same, or have another name.
    assert (folder_of(key).casefold() == folder_of(key.upper()).casefold()) == (
        same_folder(key) == same_folder(key.upper())
    )


def test_a_key_that_is_spelled_otherwise_the_next_time_is_the_same_product(
    quick: Sandbox, rows: Any, out: Path
) -> None:
    for key in ("Kahve \u00e7", "Kahve c\u0327"):
        made([{**rows[0], "key": key}], out)
    assert len(accepted(quick)) == JOBS


@pytest.mark.parametrize("key", ["", "  ", "x" * 300, "\udc80", None, 1.5, True])
def test_what_can_be_no_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInput, match="key"):
        checked_key(key)


def test_the_cells_of_a_csv_become_what_the_method_takes(tmp_path: Path) -> None:
    read_row = of_method("product_workflow", {}).read
    given = {"image": "7.jpg", "language": "German", "num_images": "2", "shrink": "True", "styles": '["Studio"]'}
    wanted = {"image": "7.jpg", "language": "German", "num_images": 2, "shrink": True, "styles": ["Studio"]}
    assert read_row(given) == wanted
    assert read_row({"styles": "Studio, Premium"}) == {"styles": ["Studio", "Premium"]}
    for wrong in ({"num_images": "two"}, {"langauge": "German"}, {"timeout": "3"}):
        with pytest.raises(InvalidInput):
            read_row(wrong)


# The command


def test_the_command_plans_asks_makes_and_tells(quick: Sandbox, rows: Any, out: Path, run: Run) -> None:
    manifest = out.with_suffix(".csv")
    cells = [f"p{number},{rows[0]['image']}" for number in range(51)]
    manifest.write_text("\n".join(["key,image", *cells, f",{rows[0]['image']}"]))
    code, refused = run("batch", "--output", str(out))
    assert (code, refused["error_type"], out.exists()) == (1, "journal", False)
    given = ("batch", "--input", str(manifest), "--output", str(out), "--command", "remove-background")
    code, planned = run(*given, "--dry_run")
    assert (code, {row["calls"] for row in planned["planned"]}) == (0, {51})
    assert (planned["left_out"][0]["line"], out.exists()) == (53, False)
    assert "--yes" in run(*given)[1]["error"]
    assert accepted(quick) == []
    code, document = run(*given, "--yes", "--max_jobs", "20")
    assert (code, document["products"]["done"], document["error_type"]) == (1, 51, "batch_incomplete")
    assert document["cost_usd"] == planned["cost_usd"] == pytest.approx(51 * 0.018)
    assert run("batch", "--output", str(out), "--status")[1]["products"]["done"] == 51
    assert run("batch", "--output", str(out))[0] == 0
    assert len(accepted(quick)) == 51


def test_a_shops_own_columns_are_ignored_and_named(quick: Sandbox, rows: Any, out: Path, run: Run) -> None:
    """As Excel saves an export: with semicolons, and with names that are written otherwise."""
    manifest = out.with_suffix(".csv")
    head = "Key;İMAGE;Fiyat;Styles;stock;Image Position;IMAGE2;thumbnail_image\n"
    manifest.write_text(f"{head}A;{rows[0]['image']};9;Studio;;1;b.jpg;\n", encoding="utf-8-sig")
    given = ("batch", "--input", str(manifest), "--output", str(out), "--command", "workflow")
    ignored = ["Fiyat", "stock", "Image Position", "IMAGE2", "thumbnail_image"]
    assert run(*given, "--dry_run")[1]["ignored_columns"] == ignored
    code, document = run(*given)
    assert (code, document["products"]["done"], document["ignored_columns"]) == (0, 1, ignored)
    assert len(results(out)["A"]["result"]["images"]) == 1
    assert run("batch", "--output", str(out))[1]["ignored_columns"] == []


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("key,image,langauge", "'langauge' is not an option. Did you mean language?"),
        ("key,image,Style", "'Style' is not an option. Did you mean styles?"),
        ("key,image,Image", "'image' and 'Image' are both the option image"),
        ("Handle,Title,Image Src", "has no column 'key', only Handle, Title, Image Src"),
        ("key,Image Src,Title", "'Image Src' is not an option. Did you mean image?"),
        ("key,imagge,langauge", "'imagge', 'langauge' are not options. Did you mean image and language?"),
        ("key,Photo,Title", "Line 2: The command requires --image"),
        ("key,image,image", "columns appear twice in the first line: image"),
        ("key,image,timeout", "'timeout' is not an option of a product: the batch sets timeout"),
        ("key,image,Save Dir", "'Save Dir' is not an option of a product: the batch sets save_dir"),
    ],
)
def test_columns_that_would_make_the_wrong_pictures_are_refused_before_anything_is_sent(
    quick: Sandbox, out: Path, run: Run, head: str, said: str
) -> None:
    manifest = out.with_suffix(".csv")
    manifest.write_text(f"{head}\nA,https://example.com/a.jpg,x\n")
    code, document = run("batch", "--input", str(manifest), "--output", str(out))
    assert (code, document["error_type"], quick.journal(), out.exists()) == (1, "invalid_input", [], False)
    assert said in document["error"]
    assert document["hint"]


def test_what_is_wrong_with_every_product_is_told_once_and_first(quick: Sandbox, rows: Any, out: Path) -> None:
    wrong = {"num_images": 99}
    for source, options in ((rows, wrong), ([{**row, **wrong} for row in rows], {})):
        with pytest.raises(InvalidInput, match="No product can be made: num_images must be"):
            made(source, out, options={**ONE_STYLE, **options})
        assert (out.exists(), quick.journal()) == (False, [])
    made([{**rows[0], **wrong}, *rows[1:]], out)
    assert states(out) == {"failed": 1, "done": 3}


def test_packshots_of_cutouts_that_are_there_cost_nothing(quick: Sandbox, out: Path, run: Run) -> None:
    picture = Image.new("RGBA", (300, 300))
    picture.paste((200, 30, 30, 255), (60, 60, 240, 240))
    picture.save(out.with_suffix(".png"))
    manifest = out.with_suffix(".jsonl")
    manifest.write_text(json.dumps({"key": "mug", "cutout": "out.png"}))
    given = ("batch", "--input", str(manifest), "--output", str(out), "--command", "packshot")
    code, document = run(*given, "--options", '{"for": "amazon"}')
    assert (code, document["cost_usd"], document["products"]["done"]) == (0, 0, 1)
    assert accepted(quick) == []


def test_jobs_whose_cost_nobody_knows_are_counted(quick: Sandbox, rows: Any, out: Path, run: Run) -> None:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("\n".join(map(json.dumps, rows[:2])))
    quick.fault("platform", status=403, times=None)
    given = ("batch", "--input", str(manifest), "--output", str(out), "--command", "remove-background")
    code, document = run(*given)
    assert (code, document["cost_usd"], document["unknown_costs"]) == (0, 0, 2)
    quick.reset()
    assert run("batch", "--output", str(out), "--status")[1]["unknown_costs"] == 2


def test_what_a_job_may_have_cost_is_known_however_it_ended(box: Sandbox, rows: Any, out: Path) -> None:
    url = box.put_file(small_photo(), "picture.jpg", "image/jpeg")
    box.fault("submit", endpoint=CUTOUT, drop="after")
    box.fault("result", endpoint=CUTOUT, status=422, body={"detail": "Too dark."})  # fal may bill it
    box.fault("job", endpoint=CUTOUT, skip=2, fail={"error": "Gone", "error_type": "runner_disconnected"})
    box.fault("job", endpoint=CUTOUT, output={"image": {"url": url}}, times=None)
    given: Any = {"options": {}, "command": "remove_background", "max_usd": 1}
    made(rows, out, **given, max_jobs=1)
    costs = {key: line["cost_usd"] for key, line in results(out).items()}
    assert costs == {"SKU 0": None, "SKU 1": None, "SKU 2": 0.0, "SKU 3": 0.018}
    box.fault("submit", endpoint=CUTOUT, status=422, times=2)
    made(None, out, retry_failed=True)
    costs = {key: line["cost_usd"] for key, line in results(out).items()}
    assert costs == {"SKU 0": None, "SKU 1": None, "SKU 2": 0.0, "SKU 3": 0.018}  # of the attempts before
    with Batch(None, out, retry_failed=True, retry_ambiguous=True) as batch:
        lines = {line["key"]: line["cost_usd"] for line in batch}
        counts = batch.counts()
    assert lines == {"SKU 0": None, "SKU 1": None, "SKU 2": 0.018}
    assert (counts["products"]["done"], counts["unknown_costs"]) == (4, 2)
    assert (counts["cost_usd"], counts["committed_usd"]) == (0.072, 0.108)


def keeps_what_was_paid_for(store: Store) -> None:
    """What both kinds of journal do with money; the store has one product, and no limit but $1."""

    def begin(*, retry_ambiguous: bool = False) -> Any:
        return store.begin(1, "cutout", "a/b", "", 0.1, retry_ambiguous=retry_ambiguous)

    def money() -> tuple[float | None, int, float]:
        return store.cost(1), store.counts().unknown_costs, round(store.batch().committed, 6)

    assert begin() is None
    assert money() == (None, 0, 0.1)
    store.refused(1, "cutout")
    assert (money(), store.counts().jobs) == ((0, 0, 0), {})
    begin()
    store.sent(1, "cutout", "first")
    assert money() == (None, 0, 0.1)
    store.failed(1, "cutout", None)
    assert money() == (None, 1, 0.1)
    begin()
    store.refused(1, "cutout")
    assert (money(), store.counts().jobs) == ((None, 1, 0.1), {"failed": 1})
    begin()
    store.in_doubt(1, "cutout", None)
    store.drop(1, "cutout")
    assert (money(), store.counts().jobs) == ((None, 1, 0.1), {"failed": 1})
    begin()
    store.in_doubt(1, "cutout", None)
    assert begin(retry_ambiguous=True) is None
    assert money() == (None, 2, 0.3)
    store.sent(1, "cutout", "second")
    store.done(1, "cutout", {"request_id": "second"}, 0.03)
    assert money() == (None, 2, 0.23)
    assert store.counts().cost_usd == pytest.approx(0.03)


def knows_what_was_before(store: Store) -> None:
    """What both kinds of journal do with the order of jobs; the store has one product."""

    def begin(step: str, endpoint: str = "a/b") -> None:
        assert store.begin(1, step, endpoint, "", 0.0, retry_ambiguous=True) is None

    def neighbours() -> list[list[str | None]]:
        [row] = store.in_doubt_rows()
        return [[job.request_id for job in side] for side in store.neighbours(row)]

    begin("slow")
    begin("first")
    begin("other", "c/d")
    for step in ("first", "other"):
        store.sent(1, step, f"id of {step}")
    begin("doubt")
    begin("beside")
    store.sent(1, "slow", "id of slow")  # perhaps after the one in doubt
    store.sent(1, "beside", "id of beside")
    store.in_doubt(1, "doubt", None)
    assert neighbours() == [["id of first"], []]
    begin("last")
    begin("not sent")
    store.sent(1, "last", "id of last")
    assert neighbours() == [["id of first"], ["id of last"]]
    store.over_by(1, "doubt", 5.0)
    assert store.in_doubt_rows()[0].over_by == 5.0
    begin("doubt")
    store.in_doubt(1, "doubt", "seen")
    assert neighbours() == [["id of last", "id of beside", "id of first"], []]
    assert store.in_doubt_rows()[0].over_by is None
    store.drop(1, "doubt")


@pytest.mark.parametrize("promise", [keeps_what_was_paid_for, knows_what_was_before])
def test_the_journal_keeps_its_promises(promise: Callable[[Store], None], tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open({}, 8, 1.0)
    store.add([NewProduct("mug", 1, {})])
    promise(store)
    store.close()


def test_a_line_that_cannot_be_made_does_not_hide_what_the_others_would_cost(
    quick: Sandbox, rows: Any, out: Path, run: Run
) -> None:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("\n".join(map(json.dumps, [rows[0], {"key": "no photo"}, {"key": "neither"}])))
    code, planned = run("batch", "--input", str(manifest), "--output", str(out), "--dry_run")
    assert (code, planned["error"], planned["cost_usd"] > 0) == (0, None, True)
    assert [(left["line"], "requires --image" in left["error"]) for left in planned["left_out"]] == [
        (2, True),
        (3, True),
    ]
    manifest.write_text(json.dumps({"key": "no photo"}))
    assert "requires --image" in run("batch", "--input", str(manifest), "--output", str(out), "--dry_run")[1]["error"]


def test_another_process_may_pause_it(quick: Sandbox, rows: Any, out: Path, run: Run) -> None:
    quick.configure(latency=0.2)
    with Batch(rows, out, options=ONE_STYLE, max_jobs=1) as batch:
        lines = iter(batch)
        next(lines)
        code, document = run("batch", "--output", str(out), "--pause")
        assert (code, document["worked_on"], document["products"]["running"] > 0) == (0, True, True)
        assert document["how_to_resume"] is None
        with pytest.raises(Cancelled, match="paused"):
            list(lines)
    # As a process leaves it that is killed.
    query(out, "UPDATE product SET state = 'running' WHERE state = 'waiting'")
    document = run("batch", "--output", str(out), "--status")[1]
    assert (document["worked_on"], document["products"]["running"]) == (False, 0)
    assert f"--output {out} alone" in document["how_to_resume"]
    assert document["products"]["waiting"] == 4 - document["products"]["done"] > 0
    quick.configure(latency=0)
    made(None, out)
    assert states(out) == {"done": 4}
    assert len(accepted(quick)) == JOBS * 4


def test_a_listing_of_every_language_has_jobs_of_its_own(box: Sandbox, out: Path, run: Run) -> None:
    manifest = out.with_suffix(".jsonl")
    row = {"key": "mug", "categories": {"main_product_type": "Mug"}, "languages": "Turkish,English"}
    manifest.write_text(json.dumps(row))
    code, document = run("batch", "--input", str(manifest), "--output", str(out), "--command", "listing")
    assert (code, document["error"]) == (0, None)
    steps = {row[0] for row in query(out, "SELECT step FROM job")}
    assert {"listing:tr/text", "listing:en/text"} <= steps
    assert len(results(out)["mug"]["result"]["listings"]) == 2


def test_serve_runs_a_batch_and_tells_its_progress(
    quick: Sandbox,
    rows: Any,
    out: Path,
    start: Callable[..., Peer],  # noqa: F811
) -> None:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    peer = start()
    reply = peer.ask("batch", {"input": str(manifest), "output": str(out), "options": ONE_STYLE})
    assert reply["result"]["products"]["done"] == 4
    events = [message["params"] for message in peer.messages if message.get("method") == "progress"]
    assert events[-1] == {**events[-1], "step": "batch", "done": 4, "total": 4, "jobs": 0}


def test_a_client_of_its_own_is_not_needed(quick: Sandbox, rows: Any, out: Path) -> None:
    """The journal belongs to a call: other calls of a client go on without one."""
    made(rows[:1], out)
    with FalClient() as client:
        assert client.any_llm_complete("Hello")["output"] == "A mug."
    assert query(out, "SELECT count(*) FROM job") == [(JOBS,)]
