"""The sandbox's command line as a shell uses it: `run`, `serve`, and the ways to start them."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from fal_sandbox.__main__ import build_parser, main

SOURCE = Path(__file__).resolve().parents[1] / "src"
FOLDER = SOURCE / "fal_sandbox"
PATIENCE_S = 60
RunSandbox = Callable[..., tuple[int, str, str]]
ASK = '{"prompt": "hi", "model": "m"}'
PYTHON_ASKS = f"""
import os, ssl, httpx
with httpx.Client(timeout=30) as client:
    reply = client.post("https://fal.run/openrouter/router", content={ASK!r},
                        headers={{"Authorization": "Key " + os.environ["FAL_KEY"]}})
print(reply.status_code, reply.json()["sandbox"])
"""


def python(*argv: Any, **options: Any) -> Any:
    options.setdefault("timeout", PATIENCE_S)
    return subprocess.run([sys.executable, *map(str, argv)], capture_output=True, text=True, **options)


def run(*command: Any, options: Any = (), **more: Any) -> Any:
    return python(FOLDER, "run", *options, "--", *command, **more)


@contextmanager
def started(*argv: Any, **options: Any) -> Iterator[Any]:
    command = [sys.executable, *map(str, argv)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def line_from(process: Any) -> Any:
    """The next line, or a failure instead of a hang."""
    overdue = threading.Timer(PATIENCE_S, process.kill)
    overdue.start()
    try:
        return process.stdout.readline()
    finally:
        overdue.cancel()


@contextmanager
def serving(*options: Any) -> Iterator[tuple[Any, ...]]:
    """A server, and the environment it printed."""
    with started(FOLDER, "serve", *options) as process:
        variables = {}
        while "FAL_KEY" not in variables:
            word, assignment = shlex.split(line_from(process))
            assert word == "export"
            name, _, value = assignment.partition("=")
            variables[name] = value
        yield process, variables


# ---------------------------------------------------------------- run


def test_run_gives_the_command_an_environment_that_leads_to_the_sandbox() -> None:
    done = run(sys.executable, "-c", PYTHON_ASKS)
    assert (done.stdout, done.stderr, done.returncode) == ("200 True\n", "", 0)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 77", 77), ("exit 0", 0), ("exit 1", 1), ("kill -KILL $$", 128 + signal.SIGKILL)]
)
def test_run_ends_with_the_commands_exit_code_or_128_and_its_signal(
    script: str, code: int, run_sandbox: RunSandbox
) -> None:
    assert run_sandbox("run", "--", "sh", "-c", script) == (code, "", "")


def test_run_leaves_standard_input_and_the_arguments_to_the_command_and_no_ca_file_behind() -> None:
    script = 'cat; printf "%s|" "$@"; test -s "$SSL_CERT_FILE" && printf "%s" "$SSL_CERT_FILE"'
    done = run("sh", "-c", script, "sh", "--", "--latency", "a b", input="from stdin\n")
    printed, _, ca_file = done.stdout.rpartition("|")
    assert printed == "from stdin\n--|--latency|a b"
    assert ca_file
    assert not Path(ca_file).parent.exists()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_passes_signals_on_and_waits_for_the_command(number: Any) -> None:
    script = f"trap 'echo got it; exit 5' {number.value}; echo ready; while :; do sleep 0.05; done"
    with started(FOLDER, "run", "--", "sh", "-c", script, stdin=subprocess.DEVNULL) as process:
        assert line_from(process) == "ready\n"
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 5
        assert process.stdout.read() == "got it\n"


def test_run_without_a_command_says_how_and_ends_with_2(run_sandbox: RunSandbox) -> None:
    for argv in (["run"], ["run", "--"], ["run", "--latency", "1", "--"]):
        code, out, err = run_sandbox(*argv)
        assert (code, out) == (2, "")
        assert "usage: fal-sandbox" in err
        assert "COMMAND" in err


def test_a_model_that_is_gone_in_no_known_way_is_refused_with_the_ways_that_there_are(run_sandbox: RunSandbox) -> None:
    code, out, err = run_sandbox("run", "--gone_model", "vendor/model=418", "--", "true")
    assert (code, out) == (2, "")
    assert "404, 400, 422, completed, error" in err


def test_a_command_that_is_not_there_is_a_127_and_one_that_is_no_program_a_126(
    run_sandbox: RunSandbox, tmp_path: Path
) -> None:
    missing = "no-such-program-anywhere"
    assert run_sandbox("run", "--", missing) == (127, "", f"sandbox: {missing}: No such file or directory\n")
    (tmp_path / "text").write_text("no program")
    assert run_sandbox("run", "--", tmp_path / "text")[0] == 126


def test_the_options_reach_the_sandbox(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    script = """
import json, os, httpx
key = {"Authorization": "Key a:b"}
with httpx.Client(timeout=30, headers=key) as client:
    gone = client.post("https://fal.run/openrouter/router", json={"prompt": "x", "model": "y"})
    slow = client.post("https://fal.run/fal-ai/any-llm", json={"prompt": "x"})
    photo = client.get("https://photos.shop.test/mug.jpg")
    any_one = client.post("https://fal.run/x/y", json={"image_size": {"width": 9, "height": 8}})
print(gone.status_code, slow.elapsed.total_seconds() >= 0.3, photo.status_code, any_one.json()["images"][0]["width"])
"""
    options = ["--latency", "0.3", "--any_endpoint", "--host", "photos.shop.test"]
    options += ["--gone", "openrouter/router=410", "--journal", str(journal)]
    done = run(sys.executable, "-c", script, options=options)
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert done.stdout == "410 True 200 9\n", done.stderr
    assert [row["stage"] for row in rows] == ["direct", "direct", "download", "direct"]


# ---------------------------------------------------------------- serve


def a_free_port() -> int:
    """Below those that the kernel gives to connections: otherwise one could take it before the server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.mark.sampled(2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_listens_where_it_is_told_prints_variables_that_work_and_ends_with_0_on_a_signal(number: Any) -> None:
    port = a_free_port()
    with serving("--port", str(port)) as (process, variables):
        done = python("-c", PYTHON_ASKS, env={**os.environ, **variables})
        assert done.stdout == "200 True\n", done.stderr
        assert variables["HTTPS_PROXY"] == variables["https_proxy"] == f"http://127.0.0.1:{port}"
        page = httpx.get(variables["HTTPS_PROXY"] + "/_sandbox/", trust_env=False)
        assert page.text.startswith("This is a sandbox, not fal")
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        assert not Path(variables["SSL_CERT_FILE"]).exists()


def test_a_port_in_use_is_one_line_and_exit_code_1(run_sandbox: RunSandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, err = run_sandbox("serve", "--port", taken.getsockname()[1])
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "in use" in err


def test_what_serve_prints_can_be_read_by_a_shell() -> None:
    with serving("--port", "0") as (_, variables):
        lines = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
        shell = subprocess.run(
            ["sh", "-c", lines + '\nprintf "%s" "$FAL_KEY$NO_PROXY"'], capture_output=True, text=True, check=True
        )
    assert shell.stdout == "sandbox-key-id:sandbox-key-secretlocalhost,127.0.0.1,::1"


# ---------------------------------------------------------------- ways to start it


@pytest.fixture
def linked(tmp_path: Path) -> Any:
    (tmp_path / "link").symlink_to(FOLDER)
    return tmp_path / "link"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "argv",
    [
        (FOLDER,),
        (FOLDER / "__main__.py",),
        ("-I", FOLDER),
        ("-I", FOLDER / "__main__.py"),
        ("-m", "fal_sandbox"),
        pytest.param(("-P", FOLDER), marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="no -P yet")),
    ],
)
def test_it_starts_from_any_folder_in_every_way(argv: tuple[Any, ...], tmp_path: Path) -> None:
    done = python(*argv, "run", "--", "echo", "ran", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    assert (done.stdout, done.stderr, done.returncode) == ("ran\n", "", 0)


@pytest.mark.nightly
@pytest.mark.parametrize("isolated", [(), ("-I",)])
def test_it_starts_through_a_symlink(linked: Any, isolated: tuple[Any, ...]) -> None:
    done = python(*isolated, linked, "run", "--", "echo", "ran", cwd=linked.parent)
    assert (done.stdout, done.returncode) == ("ran\n", 0)


def test_without_its_packages_it_says_what_to_install() -> None:
    done = python("-S", FOLDER, "run", "--", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install -r requirements-dev.txt" in done.stderr
    assert "sandbox" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_packages() -> None:
    done = python("-S", FOLDER, "--help")
    assert done.returncode == 0
    assert "serve" in done.stdout


def test_options_are_never_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--lat", "1"])
    assert "--lat" in capsys.readouterr().err


def test_both_spellings_of_any_endpoint_are_understood() -> None:
    for spelling in ("--any_endpoint", "--any-endpoint"):
        assert build_parser().parse_args(["serve", spelling]).any_endpoint is True
