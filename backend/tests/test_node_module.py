"""The Node module, tested by Node's own test runner against the sandbox, and installed as its users install it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BACKEND

MODULE = BACKEND / "node"
TESTS = sorted((MODULE / "test").glob("*.test.mjs"))


@pytest.fixture
def run_node(box, node, tmp_path):
    """Run Node with the sandbox in its environment, and this Python as the worker's."""

    def run(*argv: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [node, *argv],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            cwd=cwd,
            env={**os.environ, "SANDBOX_URL": box.url, "FAL_PYTHON": sys.executable, **env},
            check=False,
        )

    return run


@pytest.mark.parametrize("path", TESTS, ids=[path.name for path in TESTS])
def test_the_modules_own_tests_pass(path, run_node):
    done = run_node("--test", str(path))
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert re.search(r"^(#|ℹ) fail 0$", done.stdout, re.MULTILINE)
    assert not re.search(r"^(#|ℹ) pass 0$", done.stdout, re.MULTILINE)


IMPORTED = """
import { FalWorker, runFal } from 'fal-worker';
const worker = await FalWorker.start();
const { output } = await worker.call('any-llm-complete', { prompt: 'sandbox:echo installed' });
await worker.close();
console.log(JSON.stringify([output, (await runFal('any-llm-complete', { prompt: 'sandbox:echo once' })).output]));
"""


def test_it_is_found_by_its_name_after_npm_install(run_node, node, tmp_path):
    npm = shutil.which("npm") or str(Path(node).parent / "npm")
    (tmp_path / "package.json").write_text('{"name": "app", "private": true}')
    (tmp_path / "app.mjs").write_text(IMPORTED)
    command = [npm, "install", "--offline", "--no-audit", "--no-fund", "--cache", str(tmp_path / "cache"), str(MODULE)]
    installed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr
    done = run_node("app.mjs")
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == ["sandbox:echo installed", "sandbox:echo once"]


def test_a_copy_elsewhere_is_told_where_the_worker_is(run_node, tmp_path):
    (tmp_path / "node_modules" / "fal-worker").mkdir(parents=True)
    for name in ("fal-worker.mjs", "package.json"):
        shutil.copy(MODULE / name, tmp_path / "node_modules" / "fal-worker")
    (tmp_path / "app.mjs").write_text(IMPORTED)
    lost = run_node("app.mjs")
    assert lost.returncode == 1
    assert "FAL_WORKER" in lost.stderr
    done = run_node("app.mjs", FAL_WORKER=str(BACKEND / "src" / "services" / "fal_worker.py"))
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_python_of_the_projects_own_environment_is_found(run_node, tmp_path):
    """In a copy of the layout: the module beside `src`, with `.venv/bin/python` leading to this Python."""
    shutil.copytree(MODULE, tmp_path / "node", ignore=shutil.ignore_patterns("node_modules", "examples"))
    (tmp_path / "src").symlink_to(BACKEND / "src")
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    own.chmod(0o755)
    code = "import { runFal } from './node/fal-worker.mjs'; console.log((await runFal('doctor')).error);"
    done = run_node("--input-type=module", "-e", code, FAL_PYTHON="", PATH="")
    assert (done.stdout.strip(), done.stderr) == ("null", "")


def test_the_package_says_what_it_is():
    package = json.loads((MODULE / "package.json").read_text(encoding="utf-8"))
    assert package["type"] == "module"
    assert package["engines"] == {"node": ">=18"}
    assert "dependencies" not in package
    for target in package["exports"]["."].values():
        assert target.removeprefix("./") in package["files"]
    project = (BACKEND / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{package["version"]}"' in project


def test_the_module_imports_only_what_comes_with_node():
    imported = re.findall(r"from '([^']+)'", (MODULE / "fal-worker.mjs").read_text(encoding="utf-8"))
    assert imported
    assert all(name.startswith("node:") for name in imported)
