"""The worker as a process: where it may be started from, what it loads, how signals and deadlines end it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox

SOURCE = Path(__file__).resolve().parents[1] / "src"
WORKER = SOURCE / "services" / "fal_worker.py"
SERVICE = SOURCE / "services" / "fal_service.py"
ASK = ("any-llm-complete", "--prompt", "Hello")
ENTERPRISE = "openrouter/router/enterprise"
VISION = "openrouter/router/vision"
WITHIN_S = 120.0
"""For what comes to pass at once, but on a busy machine a little later."""
TO_END_S = 6.0
"""How long a worker may take to end after a signal."""

safe_path = pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with Python 3.11")


def one_document(out: bytes) -> dict[str, Any]:
    assert out.endswith(b"\n")
    assert out.count(b"\n") == 1
    return json.loads(out)


@pytest.fixture
def python(box: Sandbox) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run Python with these arguments; what it printed."""

    def run(*argv: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, **options.pop("env", {})}
        command = [sys.executable, *map(str, argv)]
        return subprocess.run(command, capture_output=True, timeout=180, check=False, env=env, **options)

    return run


@pytest.fixture
def started(box: Sandbox) -> Callable[..., AbstractContextManager[Any]]:
    """Start the worker; end it if the test did not."""

    @contextmanager
    def start(*argv: str, stdin: int | None = None) -> Iterator[Any]:
        command = [sys.executable, str(WORKER), *argv]
        with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
            try:
                yield worker
            finally:
                worker.kill()

    return start


@pytest.fixture
def commands(box: Sandbox, photo_url: str, photo_path: Path) -> dict[str, Any]:
    """Commands with jobs of several kinds, and how many of those run at once when the analysis is done."""
    box.fault("job", endpoint=VISION, delay=0.01)
    picture = ("--image_url", photo_url)
    return {
        "any-llm-complete": (ASK, 1),
        "background": (("background", *picture, "--prompt", "oak"), 1),
        "generate-multiple-bg": (("generate-multiple-bg", *picture, "--categories", '{"vibe": "calm"}'), 4),
        "workflow": (("workflow", "--image", str(photo_path)), 5),
    }


def hostile(folder: Path) -> None:
    """Files that break everything which imports them in the standard library's place."""
    for name in ("json", "types", "signal", "argparse", "enum", "ssl", "typing", "queue"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")


def test_it_runs_from_any_folder_and_by_any_path_to_it(
    python: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(WORKER)
    (tmp_path / "folder").symlink_to(SOURCE.parent)
    for path, folder in (
        (WORKER, "/"),
        ("src/services/fal_worker.py", SOURCE.parent),
        ("fal_worker.py", WORKER.parent),
        ("link", tmp_path),
        (tmp_path / "folder" / "src" / "services" / "fal_worker.py", "/"),
    ):
        done = python(path, *ASK, cwd=folder)
        assert (done.returncode, one_document(done.stdout)["error"], done.stderr) == (0, None, b"")


def test_it_runs_as_a_module(python: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path) -> None:
    done = python("-m", "services.fal_worker", *ASK, cwd=tmp_path, env={"PYTHONPATH": str(SOURCE)})
    assert (done.returncode, one_document(done.stdout)["error"], done.stderr) == (0, None, b"")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("flag", ["-I", "-s", "-OO", pytest.param("-P", marks=safe_path)])
def test_it_runs_isolated(flag: str, python: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = python(flag, WORKER, *ASK)
    assert (done.returncode, one_document(done.stdout)["error"], done.stderr) == (0, None, b"")


@safe_path
def test_under_a_safe_path_the_users_own_path_is_kept(
    python: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "fal_client.py").write_text("raise ImportError('the user wants this one')\n")
    done = python("-P", WORKER, *ASK, env={"PYTHONPATH": str(tmp_path)})
    assert "the user wants this one" in one_document(done.stdout)["error"]


def test_files_named_like_the_standard_library_hide_nothing(
    python: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    copy = tmp_path / "src" / "services"
    shutil.copytree(WORKER.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path, copy):
        hostile(folder)
    for folder in (tmp_path, copy):
        done = python(copy / "fal_worker.py", *ASK, cwd=folder)
        assert (done.returncode, one_document(done.stdout)["error"], done.stderr) == (0, None, b"")
    assert python(copy / "fal_service.py", "--help", cwd=copy).returncode == 0


@pytest.mark.parametrize("argv", [("--help",), ("workflow", "--help"), ("any-llm-complete",), (*ASK, "--red")])
def test_help_and_wrong_options_load_nothing_that_talks_to_fal(
    argv: tuple[Any, ...], python: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    assert not loaded(python, *argv) & {"fal_client", "httpx", "httpcore", "requests", "urllib3", "dotenv", "ssl"}


def test_a_command_loads_only_what_it_needs(python: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    names = loaded(python, *ASK)
    assert {"fal_client", "httpx", "ssl"} <= names
    assert not names & {"dotenv", "requests", "numpy", "cv2", "aiohttp", "fal_sandbox"}


def loaded(python: Any, *argv: str) -> set[str]:
    """The top-level packages that a run imports."""
    err = python("-X", "importtime", WORKER, *argv).stderr.decode()
    names = re.findall(r"^import time: .*\| +([\w.]+)$", err, re.MULTILINE)
    assert "argparse" in names
    return {name.partition(".")[0] for name in names}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["any-llm-complete", "background", "generate-multiple-bg", "workflow"])
def test_a_signal_cancels_the_jobs_and_is_told(
    name: str, number: Any, started: Callable[..., AbstractContextManager[Any]], commands: dict[str, Any], box: Sandbox
) -> None:
    argv, jobs = commands[name]
    box.configure(latency=30)
    with started(*argv) as worker:
        box.wait_for(lambda ledger: ledger["running"] == jobs, WITHIN_S)
        worker.send_signal(number)
        out, err = worker.communicate(timeout=TO_END_S)
    document = one_document(out)
    assert (worker.returncode, document["error_type"], document["retryable"], err) == (1, "cancelled", False, b"")
    ledger = box.ledger()
    assert (ledger["accepted"] - ledger["completed"], ledger["cancelled"]) == (jobs, jobs)


def test_a_job_whose_submit_is_on_its_way_is_cancelled_too(
    started: Callable[..., AbstractContextManager[Any]], box: Sandbox
) -> None:
    box.configure(latency=30)
    box.fault("submit", delay=0.3)
    with started(*ASK) as worker:
        box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
        worker.terminate()
        out, _ = worker.communicate(timeout=TO_END_S)
    assert (worker.returncode, one_document(out)["error_type"]) == (1, "cancelled")
    assert box.ledger()["cancelled"] == 1


@pytest.mark.parametrize("stage", ["submit", "cancel"])
def test_a_fal_that_does_not_answer_does_not_hold_the_process(
    stage: str, started: Callable[..., AbstractContextManager[Any]], box: Sandbox
) -> None:
    box.configure(latency=30)
    box.fault(stage, delay=30, times=None)
    with started(*ASK) as worker:
        box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
        worker.terminate()
        out, _ = worker.communicate(timeout=TO_END_S)
    assert worker.returncode == 1
    assert one_document(out)["error_type"] in ("cancelled", "ambiguous_submit")


def test_a_second_signal_changes_nothing(started: Callable[..., AbstractContextManager[Any]], box: Sandbox) -> None:
    box.configure(latency=30)
    box.fault("cancel", delay=0.3)
    with started(*ASK) as worker:
        box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
        worker.terminate()
        box.wait_for(lambda ledger: ledger["jobs"][0]["cancel_requests"] == 1, WITHIN_S)
        worker.send_signal(signal.SIGINT)
        worker.terminate()
        out, err = worker.communicate(timeout=TO_END_S)
    assert (worker.returncode, one_document(out)["error_type"], err) == (1, "cancelled", b"")


def test_a_signal_while_standard_input_is_read_is_told(
    started: Callable[..., AbstractContextManager[Any]], box: Sandbox
) -> None:
    with started("any-llm-complete", "--json", "-", stdin=subprocess.PIPE) as worker:
        # More than a pipe holds: when this returns, the worker is reading.
        worker.stdin.write(b'{"prompt": "' + b"x" * 1_000_000)
        worker.terminate()
        out, err = worker.communicate(timeout=TO_END_S)
    assert (worker.returncode, one_document(out)["error_type"], err) == (1, "cancelled", b"")
    assert box.journal() == []


@pytest.mark.parametrize("delay", [0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.25])
def test_a_signal_at_any_moment_leaves_one_document_and_no_job(
    delay: float, started: Callable[..., AbstractContextManager[Any]], box: Sandbox
) -> None:
    """Before Python itself is up, the process dies of the signal and says nothing."""
    box.configure(latency=30)
    with started(*ASK) as worker:
        time.sleep(delay)
        worker.terminate()
        out, _ = worker.communicate(timeout=TO_END_S)
    if out or worker.returncode != -signal.SIGTERM:
        assert (worker.returncode, one_document(out)["error_type"]) == (1, "cancelled")
    box.wait_for(lambda ledger: ledger["running"] == 0, WITHIN_S)


@pytest.mark.parametrize(("name", "timeout_s"), [("any-llm-complete", 3), ("workflow", 6)])
def test_a_deadline_cancels_the_jobs_and_ends_the_process(
    name: str,
    timeout_s: int,
    started: Callable[..., AbstractContextManager[Any]],
    commands: dict[str, Any],
    box: Sandbox,
) -> None:
    argv, jobs = commands[name]
    box.configure(latency=30)
    with started(*argv, "--timeout", str(timeout_s)) as worker:
        box.wait_for(lambda ledger: ledger["running"] == jobs, WITHIN_S)
        out, err = worker.communicate(timeout=timeout_s + TO_END_S)
    document = one_document(out)
    assert (worker.returncode, document["error_type"], err) == (1, "timeout", b"")
    assert document["request_id"] in [job["request_id"] for job in box.ledger()["jobs"]]
    assert box.ledger()["cancelled"] == jobs


@pytest.mark.parametrize("with_image", [False, True])
def test_the_smoke_test_sums_up_as_json_and_tells_its_progress(
    with_image: bool, python: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox, photo_url: str
) -> None:
    done = python(SERVICE, *(("--image_url", photo_url) if with_image else ()), cwd="/")
    summary = json.loads(done.stdout)
    names = ["completion", "enterprise", "background_prompt", *(["analysis"] if with_image else [])]
    assert (done.returncode, summary["ok"], summary["error"]) == (0, True, None)
    assert [(check["name"], check["ok"]) for check in summary["checks"]] == [(name, True) for name in names]
    assert all(f"{name}: ok" in done.stderr.decode() for name in names)
    assert box.ledger()["billable"] == len(names)


def test_the_smoke_test_fails_when_one_check_fails_and_runs_the_others(
    python: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox
) -> None:
    box.fault("job", endpoint=ENTERPRISE, fail={"error": "Runner disconnected"})
    done = python(SERVICE)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["ok"], bool(summary["error"])) == (1, False, True)
    assert [check["ok"] for check in summary["checks"]] == [True, False, True]
    assert summary["checks"][1]["error_type"] == "job_failed"


@pytest.mark.parametrize(
    ("env", "error_type"),
    [
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}, "unreachable"),
        ({"FAL_KEY": "bad:key"}, "auth"),
        ({"FAL_KEY": "broke:key"}, "balance_exhausted"),
    ],
    ids=["no network", "a wrong key", "an empty balance"],
)
def test_the_smoke_test_says_once_what_fails_every_check(
    env: dict[str, Any], error_type: str, python: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox
) -> None:
    done = python(SERVICE, env=env)
    summary = json.loads(done.stdout)
    first, *others = summary["checks"]
    assert (done.returncode, first["error_type"]) == (1, error_type)
    assert others == [{"name": name, "ok": False, "skipped": True} for name in ("enterprise", "background_prompt")]
    assert summary["error"] is not None
    # One line as the check begins, and one that says why it failed.
    assert [line.partition(":")[0] for line in done.stderr.decode().splitlines()] == ["completion ...", "completion"]
    assert first["error"] in done.stderr.decode()


def test_the_smoke_test_without_a_key_says_how_to_get_one(
    python: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox
) -> None:
    done = python(SERVICE, env={"FAL_KEY": ""})
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["ok"], summary["error_type"]) == (1, False, "missing_key")
    assert box.journal() == []
