"""The README is true: its Python blocks, shell commands and Node example run here, against the sandbox."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fal_client
import pytest

from schema_check import assert_output_is_true
from services.fal_service import FalClient
from services.fal_worker import main

BACKEND = Path(__file__).resolve().parents[1]
README = (BACKEND.parent / "README.md").read_text(encoding="utf-8")
WORKER = "python src/services/fal_worker.py "
RUN_BY_SHELL = ("python src/", "echo ", "curl ")
SET_UP = (
    "make -C backend ",
    "source ",
    "cd backend",
    "pip install ",
    "python3 -m venv ",
    "cp .env.example ",
    "export ",
)
"""Commands that are not run here: they install, or need a key."""


class Block(NamedTuple):
    section: str
    language: str
    code: str
    line: int


def _blocks() -> Iterator[Block]:
    section, start = "Start", 0
    language: str | None = None
    code: list[str] = []
    for number, line in enumerate(README.splitlines(), start=1):
        if language is None and line.startswith("## "):
            section = line[3:]
        elif line.startswith("```"):
            if language is None:
                language, code, start = line[3:], [], number
            else:
                yield Block(section, language, "\n".join(code) + "\n", start)
                language = None
        elif language is not None:
            code.append(line)


BLOCKS = list(_blocks())


def sections_with(language: str) -> list[str]:
    return list(dict.fromkeys(block.section for block in BLOCKS if block.language == language))


def blocks_of(section: str, *languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.section == section and block.language in languages]


@pytest.fixture
def workplace(tmp_path, photo_path, monkeypatch):
    """The current folder as the README's commands expect it: `src`, an example and a product photo."""
    (tmp_path / "src").symlink_to(BACKEND / "src", target_is_directory=True)
    (tmp_path / "examples").mkdir()
    shutil.copy(photo_path, tmp_path / "examples" / "coffee.jpg")
    shutil.copy(photo_path, tmp_path / "product.jpg")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def closed_clients(monkeypatch):
    """The clients that the blocks make and leave open are closed at the end, fal-client's global one too."""
    made: list[FalClient] = []
    enter = FalClient.__init__

    def remember(self, *args, **kwargs):
        enter(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(FalClient, "__init__", remember)
    yield
    fal_clients = vars(fal_client.sync_client).pop("_client", None)
    for client in (*made, *filter(None, [fal_clients])):
        client.close()


@pytest.mark.parametrize("section", sections_with("python"))
def test_python_blocks_run_and_print_what_they_say(section, box, workplace, closed_clients, capsys):
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks_of(section, "python"):
        os.environ.update(box.env())  # a block may have started a sandbox of its own
        # The blank lines give a traceback the line numbers of the README.
        exec(compile("\n" * block.line + block.code, "README.md", "exec"), namespace)
        printed = iter(capsys.readouterr().out.splitlines())
        for expected in re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE):
            assert expected in printed, f"README.md:{block.line}: {expected!r} was not printed"


@pytest.mark.parametrize("section", sections_with("bash"))
def test_shell_commands_run_and_print_what_they_say(section, box, workplace, capfd):
    document: dict[str, Any] = {}
    submitted = ""
    for block in blocks_of(section, "bash", "json"):
        if block.language == "json" and document:
            _assert_same_keys(json.loads(block.code), document, f"README.md:{block.line}")
            continue
        for command in _commands(block.code):
            found = _run(command.replace("abc123", submitted or "abc123"), capfd)
            document = found or document
            submitted = document.get("request_id") or submitted


def _commands(code: str) -> list[str]:
    joined = code.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def _run(command: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last JSON document that the command printed, if any; it must succeed."""
    if command.startswith(WORKER) and "|" not in command:
        capfd.readouterr()
        argv = shlex.split(command)[2:]
        code = main(argv)
        out = capfd.readouterr().out
        assert_output_is_true(argv, code, out)
    elif command.startswith(RUN_BY_SHELL):
        if command.startswith("curl ") and not shutil.which("curl"):
            return {}
        ran = subprocess.run(["bash", "-c", command], capture_output=True, timeout=180, check=False)
        code, out = ran.returncode, ran.stdout.decode()
    else:
        assert command.startswith(SET_UP), f"nobody runs: {command}"
        return {}
    assert code == 0, f"{command}\n{out}"
    try:
        return json.loads(out.splitlines()[-1])
    except ValueError:
        return {}


def _assert_same_keys(shown: dict[str, Any], printed: dict[str, Any], where: str) -> None:
    assert list(shown) == list(printed), where
    for key, value in shown.items():
        if isinstance(value, dict) and key != "raw":
            _assert_same_keys(value, printed[key], f"{where}, {key}")


def test_demo_prints_what_the_first_screen_shows(box, tmp_path):
    """Run beside a link to the source, so that its pictures land in a temporary folder."""
    copy = tmp_path / "backend"
    (copy / "examples").mkdir(parents=True)
    (copy / "src").symlink_to(BACKEND / "src", target_is_directory=True)
    for name in ("demo.py", "coffee.jpg"):
        shutil.copy(BACKEND / "examples" / name, copy / "examples" / name)
    ran = subprocess.run([sys.executable, "examples/demo.py"], cwd=copy, capture_output=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    shown = blocks_of("Start", "text")[0].code.splitlines()
    printed = iter(ran.stdout.decode().splitlines())
    assert [line for line in shown if line not in printed] == []


# Node.js


@pytest.fixture
def run_node(box, node, tmp_path, monkeypatch):
    """Run the README's example, changed by `edit`, from the project's root as a Node.js program would be."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run(edit=lambda code: code, **env: str) -> subprocess.CompletedProcess[str]:
        (block,) = blocks_of("Node.js", "typescript")
        script = tmp_path / "example.mjs"
        script.write_text(edit(_as_javascript(block.code)), encoding="utf-8")
        return subprocess.run(
            [node, str(script)],
            cwd=BACKEND.parent,
            capture_output=True,
            encoding="utf-8",
            timeout=180,
            check=False,
            env={**os.environ, **env},
        )

    return run


def _as_javascript(typescript: str) -> str:
    return re.sub(r": (?:string|object|any|Promise<\w+>)(?=[,); ])", "", typescript)


def _with_usage(usage: str):
    """The example with other code in place of its usage."""

    def edit(code: str) -> str:
        assert "// Usage\n" in code
        return code.partition("// Usage\n")[0] + usage

    return edit


def test_node_example_prints_the_description(run_node):
    ran = run_node()
    assert ran.returncode == 0, ran.stderr
    assert "ergonomik" in ran.stdout


def test_node_example_throws_the_error_of_a_worker_that_failed(run_node):
    ran = run_node(FAL_KEY="bad:key")
    assert ran.returncode == 1
    assert "Error: fal did not accept the key" in ran.stderr
    assert "type: 'auth'" in ran.stderr


def test_node_example_takes_long_prompts_and_workers_that_do_not_read_them(run_node):
    ran = run_node(
        _with_usage("""
            const long = 'sandbox:echo ' + 'ü'.repeat(400_000);
            console.log((await callWorker('any-llm-complete', { prompt: long })).output.length);
            console.log(await callWorker('no-such-command', { prompt: long }).catch((error) => error.type));
        """)
    )
    assert ran.stdout.split() == [str(400_000 + len("sandbox:echo ")), "invalid_input"], ran.stderr


def test_node_timeout_cancels_the_job_at_fal(run_node, box):
    box.configure(latency=60)
    ran = run_node(lambda code: code.replace("timeout: 120_000", "timeout: 2500"))
    assert ran.returncode == 1
    assert "Command failed" in ran.stderr
    ledger = box.wait_for(lambda ledger: ledger["cancelled"] == 1)
    assert (ledger["accepted"], ledger["billable"]) == (1, 0)


def test_node_module_example_runs_the_workflow_and_ends(box, node, tmp_path):
    [code] = [block.code for block in blocks_of("Node.js", "javascript")]
    module = (BACKEND / "node" / "fal-worker.mjs").as_uri()
    (tmp_path / "example.mjs").write_text(code.replace("'fal-worker'", repr(module)), encoding="utf-8")
    env = {**os.environ, "FAL_PYTHON": sys.executable}
    ran = subprocess.run([node, "example.mjs"], cwd=tmp_path, env=env, capture_output=True, timeout=180, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    assert "Sneakers" in ran.stdout.decode()
    assert ran.stdout.count(b"https://v3.fal.media/") == 3
    assert b"upload" not in ran.stderr
    assert {b"Studio started", b"Studio done", b"Premium done"} < set(ran.stderr.splitlines())


def test_node_webhook_example_refuses_what_fal_did_not_sign(node, tmp_path):
    [code] = [block.code for block in blocks_of("Webhooks", "javascript")]
    module = (BACKEND / "node" / "fal-worker.mjs").as_uri()
    asked = """
        const { port } = server.address();
        const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: '{}' });
        console.log(answer.status);
        server.close();
    """
    served = code.replace("() => server.close()", f"async () => {{ {asked} }}")
    assert served != code
    (tmp_path / "example.mjs").write_text(served.replace("'fal-worker'", repr(module)), encoding="utf-8")
    ran = subprocess.run([node, "example.mjs"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (ran.stdout, ran.returncode) == (b"401\n", 0), ran.stderr.decode()
