"""Deadlines, signals, pauses, forks and machines without threads: one document each, and no job is left running.

The times that the library gives itself are stretched where a test is about who waits for whom, not for how long.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import WORKER
from fal_sandbox.server import Sandbox
from peer import Peer, end_of_input
from services.fal import log, settings
from services.fal.call import Call, Slots
from services.fal.errors import DeadlineExceeded, FalError
from services.fal_service import FalClient
from services.worker import version

SOURCE = WORKER.parent.parent
ASK = ("any-llm-complete", "--prompt", "Hello")
VISION, CUTOUT = "openrouter/router/vision", "fal-ai/bria/background/remove"
PHOTOKIT = "bria/replace-background"
WITHIN_S = 120.0
FOREVER_S = 600.0
PATIENT = "import services.fal.call as call; call.SUBMIT_GRACE_S = call.CLEANUP_S = 20\n"
"""For scripts that are about the order of things: a busy machine has the time it needs."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUBMIT_GRACE_S", "CLEANUP_S"):
        monkeypatch.setattr(f"services.fal.call.{name}", 20.0)


@pytest.fixture
def started(box: Sandbox) -> Iterator[Any]:
    """Start a process; end it if the test did not."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: object, **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        pipes["env"] = {**os.environ, "PYTHONPATH": str(SOURCE), **options.get("env", {})}
        process = subprocess.Popen([sys.executable, *map(str, command)], **pipes)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def peer(box: Sandbox, tmp_path: Path) -> Iterator[Peer]:
    worker = Peer((), dict(os.environ), tmp_path)
    worker.wait(lambda messages: messages)
    yield worker
    worker.end()


def running(box: Sandbox, jobs: int) -> None:
    box.wait_for(lambda ledger: ledger["running"] == jobs, WITHIN_S)


# A deadline that falls into the wait for the answer to a submit


def test_a_deadline_while_a_submit_is_answered_leaves_no_job(box: Sandbox, client: FalClient, patient: None) -> None:
    client.any_llm_cancel("warm-up")
    box.configure(latency=FOREVER_S)
    box.fault("submit", delay=0.6, accept=True, times=None)

    def ask(number: int) -> Any:
        return client.any_llm_complete("Hi", timeout=0.02 + 0.02 * number)

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(ask, range(24)))
    assert {result["error_type"] for result in results} == {"timeout"}
    ledger = box.ledger()
    assert ledger["accepted"] > 0
    assert (ledger["running"], ledger["cancelled"]) == (0, ledger["accepted"])


def test_a_submit_alone_that_is_answered_too_late_is_cancelled_too(
    box: Sandbox, client: FalClient, patient: None
) -> None:
    client.any_llm_cancel("warm-up")
    box.fault("submit", delay=1.0, accept=True)
    box.configure(latency=FOREVER_S)
    with pytest.raises(DeadlineExceeded) as late:
        client.any_llm_submit("Hi", timeout=0.5)
    (job,) = box.ledger()["jobs"]
    assert (late.value.request_id, job["outcome"]) == (job["request_id"], "cancelled")


def test_a_submit_that_is_never_answered_ends_with_the_moment(box: Sandbox, client: FalClient) -> None:
    client.any_llm_cancel("warm-up")
    box.fault("submit", silent=FOREVER_S)
    began = time.monotonic()
    assert client.any_llm_complete("Hi", timeout=0.3)["error_type"] == "ambiguous_submit"
    assert time.monotonic() - began < WITHIN_S


# A process that was paused


def test_a_worker_that_was_paused_past_its_deadline_cancels_its_job_when_it_wakes(box: Sandbox, started: Any) -> None:
    box.configure(latency=FOREVER_S)
    worker = started(WORKER, *ASK, "--timeout", "3")
    began = time.monotonic()
    running(box, 1)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(max(0.0, began + 3 + 1.6 + 1.0 - time.monotonic()))
    box.fault("cancel", delay=0.3)
    worker.send_signal(signal.SIGCONT)
    out, _ = worker.communicate(timeout=WITHIN_S)
    document = json.loads(out)
    (job,) = box.ledger()["jobs"]
    assert (document["error_type"], document["request_id"], job["outcome"]) == (
        "timeout",
        job["request_id"],
        "cancelled",
    )


def test_a_persistent_worker_that_was_paused_gives_its_calls_their_moment(box: Sandbox, peer: Peer) -> None:
    box.configure(latency=FOREVER_S)
    peer.call("any-llm-complete", {"prompt": "x", "timeout": 2})
    running(box, 1)
    peer.process.send_signal(signal.SIGSTOP)
    time.sleep(2 + 1.6 + 0.5)
    box.fault("cancel", delay=0.3)
    peer.process.send_signal(signal.SIGCONT)
    error = peer.reply()["error"]["data"]
    (job,) = box.ledger()["jobs"]
    assert (error["error_type"], error["request_id"], job["outcome"]) == ("timeout", job["request_id"], "cancelled")


def test_a_worker_that_was_paused_while_it_submitted_still_learns_its_job(box: Sandbox, peer: Peer) -> None:
    box.configure(latency=FOREVER_S)
    box.fault("submit", delay=3.5, accept=True)
    peer.call("any-llm-complete", {"prompt": "x", "timeout": 1})
    box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
    peer.process.send_signal(signal.SIGSTOP)
    time.sleep(3.0)
    peer.process.send_signal(signal.SIGCONT)
    assert peer.reply()["error"]["data"]["error_type"] == "timeout"
    assert box.ledger()["cancelled"] == 1


# Signals


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_terminal_that_closes_ends_a_worker_in_good_order(number: Any, box: Sandbox, started: Any) -> None:
    box.configure(latency=FOREVER_S)
    worker = started(WORKER, *ASK)
    running(box, 1)
    worker.send_signal(number)
    out, err = worker.communicate(timeout=WITHIN_S)
    assert (worker.returncode, json.loads(out)["error_type"], err) == (1, "cancelled", b"")
    assert box.ledger()["cancelled"] == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_was_ignored_from_the_start_stays_so(number: Any, box: Sandbox, started: Any) -> None:
    box.fault("job", delay=1.0)
    worker = started(WORKER, *ASK, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    running(box, 1)
    worker.send_signal(number)
    out, _ = worker.communicate(timeout=WITHIN_S)
    assert (worker.returncode, json.loads(out)["error"]) == (0, None)


CTRL_C = f"""
{PATIENT}
from services.fal_service import FalClient
client = FalClient(timeout=60)
client.any_llm_cancel("warm-up")
print("ready", flush=True)
try:
    client.any_llm_complete("Hi")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("stage", ["submit", "job"])
def test_ctrl_c_in_a_program_cancels_the_job_and_is_raised(stage: str, box: Sandbox, started: Any) -> None:
    box.configure(latency=FOREVER_S)
    if stage == "submit":
        box.fault("submit", delay=1.0, accept=True)
    program = started("-c", CTRL_C)
    assert program.stdout.readline() == b"ready\n"
    box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=WITHIN_S)
    assert (out, err) == (b"interrupted\n", b"")
    assert box.ledger()["cancelled"] == 1


CTRL_C_IN_STEPS = CTRL_C.replace('any_llm_complete("Hi")', 'product_workflow(__import__("sys").argv[1])')


def test_ctrl_c_in_a_program_cancels_every_job_of_a_workflow(box: Sandbox, started: Any, photo_path: Path) -> None:
    box.configure(latency=FOREVER_S)
    box.fault("job", endpoint=VISION, delay=0.01)
    box.fault("submit", endpoint=CUTOUT, delay=1.0, accept=True)
    program = started("-c", CTRL_C_IN_STEPS, photo_path)
    box.wait_for(lambda ledger: ledger["running"] == 5, WITHIN_S)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=WITHIN_S)
    assert (out, err) == (b"ready\ninterrupted\n", b"")
    assert box.ledger()["cancelled"] == 5


DAEMON = f"""
{PATIENT}
import threading
from services.fal_service import FalClient
client = FalClient(timeout=60)
threading.Thread(target=client.any_llm_complete, args=("Hi",), daemon=True).start()
input()
"""


@pytest.mark.parametrize("stage", ["submit", "job"])
def test_a_program_that_ends_while_a_daemon_thread_is_in_a_call_cancels_its_job(
    stage: str, box: Sandbox, started: Any
) -> None:
    box.configure(latency=FOREVER_S)
    if stage == "submit":
        box.fault("submit", delay=1.0, accept=True)
    program = started("-c", DAEMON, stdin=subprocess.PIPE)
    box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
    program.communicate(b"\n", timeout=WITHIN_S)
    assert program.returncode == 0
    assert box.ledger()["cancelled"] == 1


# Fork

CHILDREN = f"""
{PATIENT}
import os, threading
from services.fal_service import FalClient
client = FalClient(timeout=30, max_concurrency=1)
assert client.any_llm_complete("warm")["error"] is None
slow = threading.Thread(target=client.any_llm_complete, args=("slow",), daemon=True)
slow.start()
print("ready", flush=True)
input()
def sockets():
    links = [os.readlink(f"/proc/self/fd/{{name}}") for name in os.listdir("/proc/self/fd") if name.isdigit()
             and os.path.exists(f"/proc/self/fd/{{name}}")]
    return {{link for link in links if link.startswith("socket:")}}
before = sockets()
children = []
for number in range(3):
    if (pid := os.fork()) == 0:
        results = [client.any_llm_complete(f"child {{number}}") for _ in range(3)]
        told = [result["error"] for result in results]
        mine = sockets() - before
        ids = [result["request_id"] for result in results]
        os.write(1, (" ".join(ids) + "\\n").encode() if told == [None] * 3 and mine else f"failed {{told}}\\n".encode())
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_children_of_a_fork_share_no_connection_no_place_and_no_answer(box: Sandbox, started: Any) -> None:
    box.fault("job", skip=1, times=1, stuck="IN_PROGRESS")
    program = started("-W", "ignore", "-c", CHILDREN, stdin=subprocess.PIPE)
    assert program.stdout.readline() == b"ready\n"
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    out, err = program.communicate(b"\n", timeout=2 * WITHIN_S)
    lines = out.decode().split("\n")[:-1]
    assert len(lines) == 3, (out, err)
    assert not any("failed" in line for line in lines), out
    prompts = {job["request_id"]: job["input"]["prompt"] for job in box.ledger()["jobs"]}
    told = sorted({prompts[request_id] for request_id in line.split()} for line in lines)
    assert sorted(map(sorted, told)) == [["child 0"], ["child 1"], ["child 2"]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_stream_is_not_read_on_by_the_child_of_a_fork(box: Sandbox, client: FalClient) -> None:
    box.say("one two three four")
    events = client.iter_any_llm("Hi")
    next(events)
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            next(events)
        except FalError as error:
            os.write(writes, error.error_type.encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writes)
    assert os.read(reads, 100) == b"invalid_input"
    os.close(reads)
    assert [event["partial"] for event in events][-1] is False


# No more threads to be had

FEW_THREADS = """
import _thread, os, threading
left = [int(os.environ["THREADS"])]
def limited(name):
    start = getattr(_thread, name)
    def start_or_fail(*args, **options):
        if left[0] <= 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        return start(*args, **options)
    for module, alias in ((_thread, name), (threading, "_" + name)):
        if hasattr(module, alias):
            setattr(module, alias, start_or_fail)
for name in ("start_new_thread", "start_joinable_thread"):
    if hasattr(_thread, name):
        limited(name)
"""


@pytest.fixture
def quick(box: Sandbox) -> None:
    made = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 8, "height": 8}}
    for endpoint in (PHOTOKIT, CUTOUT):
        box.fault("job", endpoint=endpoint, times=None, output=made)


@pytest.fixture
def few_threads(tmp_path: Path) -> Any:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FEW_THREADS)
    path = f"{tmp_path / 'site'}{os.pathsep}{SOURCE}"
    return lambda threads: {"PYTHONPATH": path, "THREADS": str(threads)}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("threads", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", ["any-llm-complete", "workflow"])
def test_without_threads_there_is_one_document_and_no_job_is_left(
    name: str, threads: int, box: Sandbox, quick: None, started: Any, few_threads: Any, photo_path: Path
) -> None:
    argv = ASK if name == "any-llm-complete" else ("workflow", "--image", photo_path, "--save_dir", "out")
    worker = started(WORKER, *argv, env=few_threads(threads))
    out, _ = worker.communicate(timeout=2 * WITHIN_S)
    document = json.loads(out)
    assert out.count(b"\n") == 1
    assert worker.returncode == (0 if document["error"] is None else 1)
    assert document["error"] is None or threads == 0
    if threads == 0:
        assert (document["error_type"], document["retryable"]) == ("internal", True)
        assert "thread" in document["error"]
    assert box.ledger()["running"] == 0


@pytest.mark.parametrize("threads", [5, 6])
def test_a_persistent_worker_without_threads_answers_every_call(
    threads: int, box: Sandbox, few_threads: Any, tmp_path: Path
) -> None:
    worker = Peer((), {**os.environ, **few_threads(threads)}, tmp_path)
    try:
        for call_id in range(4):
            worker.call("any-llm-complete", {"prompt": "x"}, call_id)
        answers = [worker.reply(call_id) for call_id in range(4)]
        assert all("result" in answer or "thread" in answer["error"]["message"] for answer in answers)
        end_of_input(worker)
        assert worker.exit()[0] == 0
    finally:
        worker.end()
    assert box.ledger()["running"] == 0


# Standard error that nobody reads, standard input that never ends, standard output that is not emptied


def full_pipe() -> tuple[int, int]:
    """A pipe that holds all that it can."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    try:
        while True:
            os.write(writes, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writes, True)
    return reads, writes


def test_a_stderr_that_nobody_reads_holds_no_call(box: Sandbox, started: Any) -> None:
    reads, writes = full_pipe()
    worker = started(WORKER, *ASK, "--with_logs", stderr=writes, env={"FAL_LOG": "debug"})
    os.close(writes)
    out, _ = worker.communicate(timeout=WITHIN_S)
    os.close(reads)
    assert (worker.returncode, json.loads(out)["error"]) == (0, None)


def test_lines_that_nobody_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = full_pipe()
    stream = os.fdopen(writes, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "__stderr__", stream)
    handler = log._StderrHandler()
    for number in range(3):
        handler.write(f"lost {number}")
    while select.select([reads], [], [], 0)[0]:
        os.read(reads, 65536)
    handler.write("read")
    assert os.read(reads, 65536) == b"warning: 3 lines were dropped: nobody read stderr\nread\n"
    stream.close()
    os.close(reads)


def test_a_command_whose_standard_input_never_ends_keeps_its_timeout(box: Sandbox, started: Any) -> None:
    worker = started(WORKER, "any-llm-complete", "--json", "-", "--timeout", "0.5", stdin=subprocess.PIPE)
    worker.stdin.write(b'{"prompt": "x"')
    worker.stdin.flush()
    assert worker.wait(WITHIN_S) == 1
    document = json.loads(worker.stdout.read())
    assert document["error_type"] == "timeout"
    assert "tandard input" in document["error"]
    assert box.journal() == []


def test_a_document_that_was_cut_short_is_no_success(started: Any) -> None:
    worker = started(WORKER, "schema")
    held = bytearray(4)
    ends = time.monotonic() + WITHIN_S
    while int.from_bytes(held, sys.byteorder) < 65536:
        fcntl.ioctl(worker.stdout, termios.FIONREAD, held)
        assert time.monotonic() < ends
        time.sleep(0.02)
    worker.terminate()
    assert worker.wait(WITHIN_S) == 1
    assert not worker.stdout.read().endswith(b"}\n")


# What the log says


def test_a_jobs_log_moves_no_cursor_and_makes_no_line_of_its_own(
    box: Sandbox, run_process: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    said = "\x1b[2J\x1b]0;title\x07done\nerror: forged \x9b31m \u202e"
    box.fault("status_stream", status=405)
    body = {"status": "IN_PROGRESS", "logs": [{"timestamp": "t", "message": said}]}
    box.fault("status", status=202, body=body)
    done = run_process(*ASK, "--with_logs")
    err = done.stderr.decode()
    assert done.returncode == 0
    assert "done\\nerror: forged" in err
    assert all(letter.isprintable() or letter == "\n" for letter in err)
    assert not any(line.startswith("error: forged") for line in err.splitlines())


@pytest.mark.sampled(5)
@pytest.mark.parametrize("stage", ["submit", "status_stream", "status", "result"])
@pytest.mark.parametrize("status", [500, 503, 422])
def test_an_error_that_repeats_the_prompt_is_not_logged(
    stage: str, status: int, box: Sandbox, run_process: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    secret = "a secret product"
    if stage == "status":
        box.fault("status_stream", status=405)
    box.fault(stage, status=status, body={"detail": [{"loc": ["body", "prompt"], "msg": secret, "type": "x"}]})
    done = run_process("any-llm-complete", "--prompt", secret, env={"FAL_LOG": "info"})
    assert secret not in done.stderr.decode()


# No path depends on the depth of the folder


def test_the_sources_may_stand_at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(settings.__file__)
    names: dict[str, Any] = {"__file__": "/services/fal/settings.py", "__name__": settings.__name__}
    exec(compile(source.read_text(), "/services/fal/settings.py", "exec"), names)
    assert names["_PROJECT"] == Path("/")
    monkeypatch.setattr(version, "__file__", "/services/worker/version.py")
    assert version.version()


# The client's own places


def test_the_call_that_began_first_gets_the_next_place() -> None:
    slots, got, waiting = Slots(1), [], threading.Barrier(3)
    older, younger = Call(WITHIN_S), Call(WITHIN_S)

    def take(call: Call, name: str) -> None:
        waiting.wait()
        with slots.one(call):
            got.append(name)

    with slots.one(Call(WITHIN_S)):
        threads = [threading.Thread(target=take, args=pair) for pair in ((younger, "younger"), (older, "older"))]
        for thread in threads:
            thread.start()
        waiting.wait()
        while len(slots._waiting) < 2:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert got == ["older", "younger"]


def test_no_more_calls_run_than_jobs_may(box: Sandbox, tmp_path: Path) -> None:
    box.configure(latency=FOREVER_S)
    worker = Peer((), {**os.environ, "FAL_MAX_CONCURRENCY": "2"}, tmp_path)
    try:
        for call_id in range(4):
            worker.call("any-llm-complete", {"prompt": "x"}, call_id)
        running(box, 2)
        counts = worker.ask("ping")["result"]
        assert (counts["running"], counts["waiting"]) == (2, 2)
    finally:
        worker.end()


def replied(call_id: int) -> Callable[[list[Any]], bool]:
    return lambda messages: any(one.get("id") == call_id for one in messages)


def test_many_workflows_at_once_all_succeed_though_together_they_take_longer_than_one_may(
    box: Sandbox, quick: None, photo_url: str, tmp_path: Path
) -> None:
    box.fault("job", endpoint="openrouter/router", delay=1.0, times=None)
    worker = Peer(("--concurrency", "2", "--timeout", "6"), dict(os.environ), tmp_path)
    try:
        for call_id in range(14):
            worker.call("workflow", {"image": photo_url, "styles": ["Studio"]}, call_id)
        for call_id in range(14):
            worker.wait(replied(call_id))
            assert worker.reply(call_id)["result"]["total_generated"] == 1
        box_ledger = box.ledger()
        assert box_ledger["completed"] == box_ledger["accepted"] == 14 * 5
    finally:
        worker.end()


def test_ten_thousand_calls_that_wait_at_the_end_of_input_are_all_answered(box: Sandbox, tmp_path: Path) -> None:
    box.configure(latency=FOREVER_S)
    worker = Peer(("--max_pending", "20000"), dict(os.environ), tmp_path)
    call = {"jsonrpc": "2.0", "method": "any-llm-complete", "params": {"prompt": "x"}}
    worker.write(b"".join(json.dumps({**call, "id": number}).encode() + b"\n" for number in range(10_000)))
    running(box, 8)
    end_of_input(worker)
    assert worker.exit()[0] == 0
    answered = {one["id"] for one in worker.messages if "method" not in one}
    assert answered == set(range(10_000))
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["cancelled"]) == (8, 8)
    worker.end()


# Pictures that were paid for


@pytest.fixture
def second_picture_never_comes(box: Sandbox) -> None:
    box.fault("job", endpoint=PHOTOKIT, skip=1, times=None, stuck="IN_PROGRESS")


TWO = ("--styles", '[{"name": "One", "description": "oak"}, {"name": "Two", "description": "slate"}]')


def saved_pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("[12]-*.png"))


def test_a_picture_is_saved_as_it_comes_and_a_signal_then_tells_its_path(
    box: Sandbox, started: Any, photo_path: Path, second_picture_never_comes: None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    worker = started(WORKER, "workflow", "--image", photo_path, "--save_dir", out, *TWO)
    ends = time.monotonic() + 2 * WITHIN_S
    while not saved_pictures(out):
        assert time.monotonic() < ends
        time.sleep(0.02)
    worker.terminate()
    printed, _ = worker.communicate(timeout=WITHIN_S)
    document = json.loads(printed)
    (picture,) = saved_pictures(out)
    assert (document["error_type"], document["total_generated"]) == ("cancelled", 1)
    assert document["images"][0]["path"] == str(picture)
    assert document["original_path"] == str(out / "original.jpg")
    assert box.file(document["images"][0]["image_url"]) == picture.read_bytes()


def test_a_picture_is_saved_before_a_deadline_that_the_others_miss(
    box: Sandbox,
    run: Callable[..., tuple[int, Any]],
    photo_path: Path,
    second_picture_never_comes: None,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    code, document = run("workflow", "--image", str(photo_path), "--save_dir", str(out), *TWO, "--timeout", "8")
    (picture,) = saved_pictures(out)
    assert (code, document["total_generated"]) == (0, 1)
    assert document["images"][0]["path"] == str(picture)
    assert [row["error_type"] for row in document["errors"] if row["stage"] == "picture"] == ["timeout"]


def test_a_call_that_is_cancelled_in_a_persistent_worker_tells_what_it_saved(
    box: Sandbox, peer: Peer, photo_path: Path, second_picture_never_comes: None, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    peer.call("workflow", {"image": str(photo_path), "save_dir": str(out), "styles": json.loads(TWO[1])})
    ends = time.monotonic() + 2 * WITHIN_S
    while not saved_pictures(out):
        assert time.monotonic() < ends
        time.sleep(0.02)
    peer.notify("$/cancelRequest", {"id": "call"})
    data = peer.reply()["error"]["data"]
    assert (data["error_type"], data["total_generated"]) == ("cancelled", 1)
    assert data["images"][0]["path"] == str(saved_pictures(out)[0])
