"""The pages of docs/ are true: their blocks run against the sandbox, page by page, and their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fal_client
import pytest

from fal_sandbox.server import Sandbox
from pages import BACKEND, CONTRIBUTING, DOCS, PAGES, README, anchors, blocks_of, links, pages_with, section, text_of
from schema_check import assert_output_is_true
from services.fal_service import FalClient
from services.fal_worker import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NODE_PAGE, WEBHOOKS, MIGRATING = DOCS / "node.md", DOCS / "webhooks.md", DOCS / "migrating.md"
RUN_ELSEWHERE = (DOCS / "cli.md", DOCS / "listing.md", DOCS / "recipes.md")
"""By test_schemas.py; by test_listing_docs.py; by test_recipes.py. The README is also typed whole: test_readme.py."""
PAINTED = ("catalogue.md", "fidelity.md", "packshots.md")
"""Pages whose blocks look into the pictures."""
WORKER = "fal-worker "
RUN_BY_SHELL = ("python backend/", "node backend/", "fal-sandbox ", "echo ", "curl ")
NOT_RUN = ("make -C backend ", "python3 -m venv ", "source ", "pip install ", "cp ")
"""What sets up an environment; test_readme.py does."""


@pytest.fixture
def workplace(tmp_path: Path, photo_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder as the pages expect it: the project's root, with its commands on the path."""
    programs = tmp_path / "programs"
    (tmp_path / "backend" / "examples").mkdir(parents=True)
    programs.mkdir()
    (tmp_path / "backend" / "src").symlink_to(BACKEND / "src", target_is_directory=True)
    for name in ("coffee.jpg", "lamp.jpg", "bottle.jpg"):
        shutil.copy(photo_path, tmp_path / "backend" / "examples" / name)
    for name in ("catalogue.csv", "product.py", "product.mjs"):
        shutil.copy(BACKEND / "examples" / name, tmp_path / "backend" / "examples")
    (tmp_path / "backend" / "node").symlink_to(BACKEND / "node", target_is_directory=True)
    scripts = tomllib.loads((BACKEND / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for name, place in scripts.items():
        module, _, function = place.partition(":")
        code = f"import sys; from {module} import {function}; sys.argv[0] = '{name}'; sys.exit({function}())"
        path = f"{BACKEND / 'src'}${{PYTHONPATH:+:$PYTHONPATH}}"
        run = f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -c "{code}" "$@"\n'
        (programs / name).write_text(run, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(programs), str(Path(sys.executable).parent), os.environ["PATH"])))
    return tmp_path


@pytest.fixture
def closed_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clients that the blocks make and leave open are closed at the end, fal-client's global one too."""
    made: list[FalClient] = []
    enter = FalClient.__init__

    def remember(self: FalClient, *args: Any, **kwargs: Any) -> None:
        enter(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(FalClient, "__init__", remember)
    yield
    fal_clients = vars(fal_client.sync_client).pop("_client", None)
    for client in (*made, *filter(None, [fal_clients])):
        client.close()


def name_of(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page not in RUN_ELSEWHERE], ids=name_of)
@pytest.mark.usefixtures("workplace", "closed_clients")
def test_python_blocks_run_and_print_what_they_say(
    page: Path, box: Sandbox, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    if page.name == "python.md":
        box.configure(latency=0.05)  # a block stops a call after 0.05 s: three of its jobs follow one another
    _as_the_page_needs(page, box, request)
    for block in blocks_of(page, "python"):
        os.environ.update(box.env())  # a block may have started a sandbox of its own
        # The blank lines give a traceback the line numbers of the page.
        exec(compile("\n" * block.line + block.code, page.name, "exec"), namespace)
        printed = iter(capsys.readouterr().out.splitlines())
        for expected in re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE):
            assert expected in printed, f"{page.name}:{block.line}: {expected!r} was not printed"


@pytest.mark.parametrize("page", [page for page in pages_with("bash") if page not in RUN_ELSEWHERE], ids=name_of)
@pytest.mark.usefixtures("workplace")
def test_shell_commands_run_and_print_what_they_say(
    page: Path, box: Sandbox, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    _as_the_page_needs(page, box, request)
    document: dict[str, Any] = {}
    submitted = ""
    for block in blocks_of(page, "bash", "json"):
        if block.language == "json":
            _assert_same_keys(json.loads(block.code), document, f"{page.name}:{block.line}")
            continue
        for command in _commands(block.code):
            found = _run(command.replace("abc123", submitted or "abc123"), capfd)
            document = found or document
            submitted = document.get("request_id") or submitted


def _as_the_page_needs(page: Path, box: Sandbox, request: pytest.FixtureRequest) -> None:
    if page.name not in PAINTED:
        request.getfixturevalue("unpainted")
    if page.name == "fidelity.md":
        box.configure(in_place=True)


def _commands(code: str) -> list[str]:
    joined = code.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def _run(command: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The last JSON document that the command printed, if any; it must succeed."""
    if command.startswith(WORKER):
        capfd.readouterr()
        argv = shlex.split(command)[1:]
        code = main(argv)
        out = capfd.readouterr().out
        assert_output_is_true(argv, code, out)
    elif command.startswith(RUN_BY_SHELL):
        if command.startswith("curl ") and not shutil.which("curl"):
            return {}
        ran = subprocess.run(["bash", "-c", command], capture_output=True, timeout=180, check=False)
        code, out = ran.returncode, ran.stdout.decode()
    else:
        assert command.startswith(NOT_RUN), f"nobody runs: {command}"
        return {}
    assert code == 0, f"{command}\n{out}"
    try:
        return json.loads(out.splitlines()[-1])
    except (ValueError, IndexError):
        return {}


def _assert_same_keys(shown: dict[str, Any], printed: dict[str, Any], where: str) -> None:
    assert list(shown) == list(printed), where
    for key, value in shown.items():
        if isinstance(value, dict) and key != "raw":
            _assert_same_keys(value, printed[key], f"{where}, {key}")


def test_the_error_document_is_the_one_on_its_page(box: Sandbox, run: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setenv("FAL_KEY", "bad:key")
    _, printed = run("remove-background", "--image_url", "https://example.com/mug.jpg")
    [block] = blocks_of(DOCS / "errors.md", "json")
    shown = json.loads(block.code)
    assert list(shown) == list(printed)
    same = ("error_type", "retryable", "status_code", "hint")
    assert [shown[key] for key in same] == [printed[key] for key in same]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_page() -> None:
    listed = {(README.parent / link).resolve() for link in links(README) if link.endswith(".md")}
    assert {page.resolve() for page in PAGES} - listed == {README.resolve()}


def test_every_block_is_of_a_kind_that_is_run_or_only_shown() -> None:
    kinds = {block for page in PAGES for block in re.findall(r"^```(\w*)$", page.read_text("utf-8"), re.MULTILINE)}
    assert kinds <= {"", "bash", "ini", "javascript", "json", "mermaid", "python", "sh", "text", "typescript"}


# Node.js


@pytest.fixture
def run_node(box: Sandbox, node: str, tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    """Run a program, or the one of node.md changed by `edit`, in the project's root as a Node.js program would be."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run(edit: Callable[[str], str] = str, **env: str) -> subprocess.CompletedProcess[str]:
        [block] = blocks_of(NODE_PAGE, "typescript")
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


def _with_usage(usage: str) -> Callable[[str], str]:
    """The example with other code in place of its usage."""

    def edit(code: str) -> str:
        assert "// Usage\n" in code
        return code.partition("// Usage\n")[0] + usage

    return edit


def test_node_example_prints_the_description(run_node: Any) -> None:
    ran = run_node()
    assert ran.returncode == 0, ran.stderr
    assert "ergonomik" in ran.stdout


def test_node_example_throws_the_error_of_a_worker_that_failed(run_node: Any) -> None:
    ran = run_node(FAL_KEY="bad:key")
    assert ran.returncode == 1
    assert "Error: fal did not accept the key" in ran.stderr
    assert "type: 'auth'" in ran.stderr


def test_node_example_takes_long_prompts_and_workers_that_do_not_read_them(run_node: Any) -> None:
    ran = run_node(
        _with_usage("""
            const long = 'sandbox:echo ' + 'ü'.repeat(400_000);
            console.log((await callWorker('any-llm-complete', { prompt: long })).output.length);
            console.log(await callWorker('no-such-command', { prompt: long }).catch((error) => error.type));
        """)
    )
    assert ran.stdout.split() == [str(400_000 + len("sandbox:echo ")), "invalid_input"], ran.stderr


def test_node_timeout_cancels_the_job_at_fal(run_node: Any, box: Sandbox) -> None:
    box.configure(latency=60)
    for timeout_ms in (2_500, 10_000, 40_000):  # on a busy machine the worker takes long to start
        ran = run_node(lambda code, ms=timeout_ms: code.replace("timeout: 120_000", f"timeout: {ms}"))
        if box.ledger()["accepted"]:
            break
    assert ran.returncode == 1
    assert "Command failed" in ran.stderr
    ledger = box.wait_for(lambda ledger: ledger["cancelled"] == 1)
    assert (ledger["accepted"], ledger["billable"]) == (1, 0)


def test_old_callers_that_read_only_the_error_get_it_through_the_adapter(run_node: Any) -> None:
    [block] = blocks_of(MIGRATING, "javascript")
    caller = """
        const options = { timeout: 120000, cwd: process.cwd() + '/backend' };
        async function described(...words) {
          const { stdout } = await execFileAsync('python3', ['src/services/fal_worker.py', ...words], options);
          const data = JSON.parse(stdout);
          if (data.error) throw new Error(data.error);
          return data.output;
        }
        console.log(await described('any-llm-complete', '--prompt', 'Hello'));
        console.log(await described('any-llm-complete').catch((error) => error.message));
        console.log(await execFileAsync('no-such-program', []).catch((error) => error.code));
    """
    ran = run_node(lambda code: block.code + caller)
    output, message, code = ran.stdout.splitlines()
    assert output
    assert "--prompt" in message
    assert code == "ENOENT"


def _run_module(node: str, folder: Path, code: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    module = (BACKEND / "node" / "fal-worker.mjs").as_uri()
    (folder / "example.mjs").write_text(code.replace("'fal-worker'", repr(module)), encoding="utf-8")
    argv = [node, "example.mjs"]
    return subprocess.run(argv, cwd=folder, env={**os.environ, **env}, capture_output=True, timeout=180, check=False)


@pytest.mark.usefixtures("unpainted")
def test_node_module_example_runs_the_workflow_and_ends(box: Sandbox, node: str, tmp_path: Path) -> None:
    block, _ = blocks_of(NODE_PAGE, "javascript")
    ran = _run_module(node, tmp_path, block.code, FAL_PYTHON=sys.executable)
    assert ran.returncode == 0, ran.stderr.decode()
    assert "Sneakers" in ran.stdout.decode()
    assert ran.stdout.count(b"https://v3.fal.media/") == 3
    assert b"upload" not in ran.stderr
    assert {b"Studio started", b"Studio done", b"Premium done"} < set(ran.stderr.splitlines())


@pytest.mark.usefixtures("box")
def test_node_batch_example_tells_how_far_it_is(node: str, workplace: Path) -> None:
    _, block = blocks_of(NODE_PAGE, "javascript")
    ran = _run_module(node, workplace, block.code, FAL_PYTHON=sys.executable)
    assert re.fullmatch(r"3 done for \$0\.\d+; see out/catalogue/index\.html\n", ran.stdout.decode()), (
        ran.stderr.decode()
    )
    assert re.match(r"\d of 3, \$0\.\d\d\n", ran.stderr.decode())
    assert (workplace / "out" / "catalogue" / "index.html").is_file()


def test_node_webhook_example_refuses_what_fal_did_not_sign(node: str, tmp_path: Path) -> None:
    [block] = blocks_of(WEBHOOKS, "javascript")
    asked = """
        const { port } = server.address();
        const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: '{}' });
        console.log(answer.status);
        server.close();
    """
    served = block.code.replace("() => server.close()", f"async () => {{ {asked} }}")
    assert served != block.code
    ran = _run_module(node, tmp_path, served)
    assert (ran.stdout, ran.returncode) == (b"401\n", 0), ran.stderr.decode()


def test_contributing_names_make_recipes_that_exist() -> None:
    recipes = re.findall(r"^([a-z-]+):", (BACKEND / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {recipe for page in PAGES for recipe in re.findall(r"make -C backend ([a-z-]+)", page.read_text("utf-8"))}
    assert named <= set(recipes)
    assert "test" in section(CONTRIBUTING, "Testing")


def test_reliability_names_tests_that_exist() -> None:
    named = set(re.findall(r"`?(test_\w+\.py)`?", text_of(DOCS / "reliability.md")))
    assert {name for name in named if not (BACKEND / "tests" / name).is_file()} == set()
