"""stdout carries one JSON document and a newline, whatever happens: real processes, as a shell or Node starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from schema_check import assert_output_is_true
from services.fal_worker import main

WORKER = Path(__file__).resolve().parents[1] / "src" / "services" / "fal_worker.py"
ASK = ("any-llm-complete", "--prompt", "Hello")
WRONG = ("any-llm-complete",)
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
TURKISH = "Ağır İĞNE şık çöp ıı ✓ \U0001f600"

NOISY = """
import ctypes, os, sys
os.write(1, b"noise from fd 1\\n")
print("noise from print")
sys.__stdout__ and print("noise from the first stdout", file=sys.__stdout__, flush=True)
os.system("echo noise from a child")
ctypes.CDLL(None).puts(b"noise from C, which stays in its buffer until the exit")
sys.path.remove(os.path.dirname(__file__))
del sys.modules["fal_client"]
import fal_client
"""
"""A fal_client that prints in every way there is, and then lets the real one take its place."""


def one_document(out: bytes) -> dict[str, Any]:
    assert out.endswith(b"\n")
    assert out.count(b"\n") == 1
    return json.loads(out)


def quiet(err: bytes) -> bool:
    return b"Traceback" not in err and b"Exception ignored" not in err


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: Python and C keep what they print in their buffers."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def stub(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """A folder for PYTHONPATH with one module of this text in it."""

    def write(name: str, text: str) -> dict[str, str]:
        folder = tmp_path / "stubs"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        return {"PYTHONPATH": str(folder)}

    return write


@pytest.fixture
def shell(box: Sandbox) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the worker behind a redirection, as `sh` does it; what is left of stdout and stderr."""

    def run(redirection: str, *argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        script = f'exec "$0" "$@" {redirection}'
        command = ["sh", "-c", script, sys.executable, str(WORKER), *argv]
        return subprocess.run(command, capture_output=True, timeout=180, env={**os.environ, **(env or {})}, check=False)

    return run


def test_a_success_and_a_refusal_are_one_line_each_and_stderr_is_empty(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    good, bad = run_process(*ASK), run_process(*WRONG)
    assert (good.returncode, bad.returncode) == (0, 1)
    assert one_document(good.stdout)["error"] is None
    assert one_document(bad.stdout)["error_type"] == "invalid_input"
    assert (good.stderr, bad.stderr) == (b"", b"")


def test_without_a_key_the_document_says_how_to_get_one(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    done = run_process(*ASK, env={"FAL_KEY": ""})
    document = one_document(done.stdout)
    assert (done.returncode, document["error_type"]) == (1, "missing_key")
    assert document["error"].startswith("FAL_KEY environment variable is required")


@pytest.mark.parametrize("package", ["fal_client", "httpx"])
def test_a_package_that_cannot_be_imported_is_named(
    package: str, run_process: Callable[..., subprocess.CompletedProcess[bytes]], stub: Callable[..., dict[str, str]]
) -> None:
    done = run_process(*ASK, env=stub(package, "import a_package_that_is_missing"))
    document = one_document(done.stdout)
    assert (done.returncode, document["error_type"], document["retryable"]) == (1, "internal", False)
    assert "a_package_that_is_missing" in document["error"]
    assert f"{package}.py" in document["trace"]


@pytest.mark.parametrize("text", ["raise SystemExit(7)", "raise KeyboardInterrupt", "this is no Python"])
def test_a_package_that_breaks_in_another_way_is_an_error_too(
    text: str, run_process: Callable[..., subprocess.CompletedProcess[bytes]], stub: Callable[..., dict[str, str]]
) -> None:
    done = run_process(*ASK, env=stub("fal_client", text))
    assert done.returncode == 1
    assert one_document(done.stdout)["error"]


@pytest.mark.parametrize("redirection", ["", "2>&-", "<&-"])
def test_a_library_that_prints_lands_on_stderr(
    redirection: str, shell: Callable[..., subprocess.CompletedProcess[bytes]], stub: Callable[..., dict[str, str]]
) -> None:
    done = shell(redirection, *ASK, env=stub("fal_client", NOISY))
    assert done.returncode == 0
    assert one_document(done.stdout)["output"]
    for source in (b"fd 1", b"print", b"the first stdout", b"a child") if "2" not in redirection else ():
        assert b"noise from " + source in done.stderr


ENTRY = "import sys; from services.fal_worker import script; sys.exit(script())"


@pytest.mark.parametrize("door", [("-m", "services.fal_worker"), ("-c", ENTRY)])
def test_a_library_that_prints_does_so_behind_every_door(
    door: tuple[Any, ...], box: Sandbox, stub: Callable[..., dict[str, str]]
) -> None:
    """`-c` is what the installed command `fal-worker` does."""
    env = stub("fal_client", NOISY)
    env["PYTHONPATH"] += os.pathsep + str(WORKER.parents[1])
    command = [sys.executable, *door, *ASK]
    done = subprocess.run(command, capture_output=True, timeout=180, env={**os.environ, **env}, check=False)
    assert (done.returncode, one_document(done.stdout)["error"]) == (0, None)
    assert b"noise from fd 1" in done.stderr


@pytest.mark.sampled(2)
@pytest.mark.parametrize("argv", [ASK, WRONG, ("any-llm-stream", "--prompt", "x")])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">&- 2>&-"])
def test_a_stdout_that_takes_nothing_is_no_reason_for_a_traceback(
    redirection: str, argv: Any, shell: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    done = shell(redirection, *argv)
    assert (done.stdout, quiet(done.stderr)) == (b"", True)
    if redirection == ">/dev/full":
        assert done.returncode == 1


@pytest.mark.parametrize("argv", [ASK, WRONG, ("--help",), ("any-llm-stream", "--prompt", "x")])
def test_a_reader_that_has_gone_is_no_reason_for_a_traceback(argv: Any, box: Sandbox) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, str(WORKER), *argv]
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=180, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_a_stderr_or_stdin_that_is_closed_or_full_changes_nothing(
    redirection: str, shell: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    done = shell(redirection, *ASK, "--with_logs", env={"FAL_LOG": "debug"})
    assert done.returncode == 0
    assert one_document(done.stdout)["error"] is None


def test_a_stdin_that_cannot_be_read_is_refused(shell: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    done = shell("0>/dev/null", "any-llm-complete", "--json", "-")
    assert done.returncode == 1
    assert one_document(done.stdout)["error_type"] == "invalid_input"


def test_letters_are_not_escaped(run_process: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox) -> None:
    box.say(TURKISH)
    assert TURKISH.encode() in run_process(*ASK).stdout


def test_turkish_goes_in_and_out_under_an_ascii_locale(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox
) -> None:
    done = run_process("any-llm-complete", "--prompt", f"sandbox:echo {TURKISH}".encode(), env=ASCII)
    assert one_document(done.stdout)["output"] == f"sandbox:echo {TURKISH}"
    options = json.dumps({"prompt": f"sandbox:echo {TURKISH}"}, ensure_ascii=False).encode()
    done = run_process("any-llm-complete", "--json", "-", env=ASCII, input=options)
    assert one_document(done.stdout)["output"] == f"sandbox:echo {TURKISH}"
    assert [job["input"]["prompt"] for job in box.ledger()["jobs"]] == [f"sandbox:echo {TURKISH}"] * 2


@pytest.mark.parametrize("env", [ASCII, {}])
@pytest.mark.parametrize("door", ["argv", "stdin"])
def test_a_file_with_a_turkish_name_is_found_under_every_locale(
    door: str,
    env: Any,
    run_process: Callable[..., subprocess.CompletedProcess[bytes]],
    box: Sandbox,
    photo_path: Path,
    tmp_path: Path,
) -> None:
    path = photo_path.rename(tmp_path / "şık fincan İĞ.jpg")
    if door == "argv":
        done = run_process("upload-file", "--file_path", os.fsencode(path), env=env)
    else:
        options = json.dumps({"file_path": str(path)}, ensure_ascii=False).encode()
        done = run_process("upload-file", "--json", "-", env=env, input=options)
    assert box.file(one_document(done.stdout)["url"]) == path.read_bytes()


def test_a_missing_file_with_a_turkish_name_is_an_error_that_can_be_printed(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]],
) -> None:
    done = run_process("upload-file", "--file_path", "yok şık.jpg".encode(), env=ASCII)
    assert one_document(done.stdout)["error_type"] == "invalid_input"


RAW = {
    "half a surrogate pair": (r'{"output": "a \ud83d b"}', "a \ud83d b", {}),
    "numbers that JSON has not": ('{"output": "x", "a": [NaN, -Infinity]}', "x", {"a": [None, None]}),
    "numbers that no float holds": ('{"output": "x", "a": 1e999}', "x", {"a": None}),
}


@pytest.mark.parametrize(("body", "output", "raw"), RAW.values(), ids=RAW)
def test_what_fal_answers_is_printed_as_json_that_everyone_reads(
    body: str, output: str, raw: dict[Any, Any] | dict[str, Any], box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    box.fault("result", status=200, body=body, content_type="application/json")
    code, document = run(*ASK)
    assert (code, document["output"]) == (0, output)
    assert raw.items() <= document["raw"].items()


@pytest.mark.parametrize("number", ["1", "NaN"])
@pytest.mark.parametrize("depth", [300, 480, 900, 1100])
def test_an_answer_without_a_bottom_is_still_one_document(
    depth: int, number: str, box: Sandbox, run: Callable[..., tuple[int, Any]]
) -> None:
    deep = "[" * depth + number + "]" * depth
    box.fault("result", status=200, body=f'{{"output": "x", "a": {deep}}}', content_type="application/json")
    code, document = run(*ASK)
    assert (code == 0) == (document["error"] is None)


def lines_of(out: str) -> list[dict[str, Any]]:
    assert out.endswith("\n")
    return [json.loads(line) for line in out.splitlines()]


def test_a_stream_is_json_lines_of_the_text_so_far(box: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    box.say("Bu ergonomik kupa sıcak tutar.")
    assert main(["any-llm-stream", "--prompt", "x"]) == 0
    out = capfd.readouterr().out
    assert_output_is_true(["any-llm-stream"], 0, out)
    lines = lines_of(out)
    text = ""
    for line in lines:
        text += line["delta"]
        assert line["output"] == text
        assert set(line) - {"usage", "cost_usd"} == {"delta", "output", "partial"}
    assert text == "Bu ergonomik kupa sıcak tutar."
    assert [line["partial"] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert lines[-1]["usage"]["total_tokens"] > 0
    assert len(lines) > 3


@pytest.mark.parametrize("end", [False, True])
def test_the_last_line_of_a_stream_that_broke_off_carries_the_text_so_far(
    end: bool, box: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    box.fault("stream", cut=3, end=end)
    assert main(["any-llm-stream", "--prompt", "x"]) == 1
    out = capfd.readouterr().out
    assert_output_is_true(["any-llm-stream"], 1, out)
    *events, error = lines_of(out)
    assert len(events) == 3
    assert (error["error_type"], error["partial"], error["delta"]) == ("stream_truncated", True, "")
    assert error["output"] == events[-1]["output"]


def test_each_line_of_a_stream_is_printed_when_it_comes(box: Sandbox) -> None:
    box.configure(latency=12)
    command = [sys.executable, str(WORKER), "any-llm-stream", "--prompt", "x"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        box.wait_for(lambda ledger: ledger["running"] == 1)
        first = json.loads(worker.stdout.readline())
        worker.terminate()
        *events, last = [first, *lines_of(worker.stdout.read().decode())]
    assert first["partial"] is True
    assert (last["error_type"], last["output"]) == ("cancelled", events[-1]["output"])
    assert worker.returncode == 1


def test_the_log_goes_to_stderr_and_never_holds_the_key(
    run_process: Callable[..., subprocess.CompletedProcess[bytes]], box: Sandbox, photo_path: Path
) -> None:
    for argv in (ASK, ("upload-file", "--file_path", str(photo_path)), ("doctor",)):
        done = run_process(*argv, env={"FAL_LOG": "debug"})
        assert one_document(done.stdout)["error"] is None
        assert b"debug: " in done.stderr
        for secret in (box.env()["FAL_KEY"], *box.env()["FAL_KEY"].split(":")):
            assert secret.encode() not in done.stdout + done.stderr
