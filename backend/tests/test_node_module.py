"""The Node module, tested by Node's own test runner against the sandbox, and installed as its users install it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import npm
from conftest import BACKEND
from fal_sandbox.server import Sandbox

MODULE = BACKEND / "node"
TESTS = sorted((MODULE / "test").glob("*.test.mjs"))


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python without this package, which is installed where `make setup` was run."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return str(folder / "bin" / "python")


@pytest.fixture
def run_node(
    box: Sandbox, node: str, bare_python: str, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Node with the sandbox in its environment, and this Python as the worker's."""

    def run(*argv: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [node, *argv],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            cwd=cwd,
            env={**os.environ, "SANDBOX_URL": box.url, "FAL_PYTHON": sys.executable, "BARE_PYTHON": bare_python, **env},
            check=False,
        )

    return run


@pytest.mark.parametrize("path", TESTS, ids=[path.name for path in TESTS])
def test_the_modules_own_tests_pass(path: Any, run_node: Callable[..., subprocess.CompletedProcess[str]]) -> None:
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


def _install(node: str, app: Path, what: Path | str, *options: str) -> None:
    (app / "package.json").write_text('{"name": "app", "private": true}')
    (app / "app.mjs").write_text(IMPORTED)
    quiet = ["--offline", "--no-audit", "--no-fund", "--cache", str(app / "cache")]
    command = [npm.npm(node), "install", *quiet, *options, str(what)]
    installed = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=300, check=False)
    assert installed.returncode == 0, installed.stderr


def test_it_is_found_by_its_name_after_npm_install(
    run_node: Callable[..., subprocess.CompletedProcess[str]], node: str, tmp_path: Path
) -> None:
    _install(node, tmp_path, MODULE)
    done = run_node("app.mjs")
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == ["sandbox:echo installed", "sandbox:echo once"]


@pytest.fixture(params=["npm pack", "--install-links"])
def installed_copy(request: pytest.FixtureRequest, node: str, tmp_path: Path) -> None:
    """An app with a copy of the module, far from the worker."""
    if request.param == "--install-links":
        _install(node, tmp_path, MODULE, request.param)
    else:
        command = [npm.npm(node), "pack", "--pack-destination", str(tmp_path), "--cache", str(tmp_path / "cache")]
        subprocess.run(command, cwd=MODULE, capture_output=True, timeout=120, check=True)
        _install(node, tmp_path, next(tmp_path.glob("*.tgz")))
    assert not (tmp_path / "node_modules" / "fal-worker").is_symlink()


@pytest.mark.nightly
@pytest.mark.usefixtures("installed_copy")
def test_an_installed_copy_runs_the_worker_of_its_python_or_is_told_where_it_is(
    run_node: Callable[..., subprocess.CompletedProcess[str]], bare_python: str
) -> None:
    for place in (
        {"PYTHONPATH": str(BACKEND / "src")},
        {"FAL_WORKER": str(BACKEND / "src" / "services" / "fal_worker.py")},
    ):
        done = run_node("app.mjs", **place)
        assert (done.stderr, done.returncode) == ("", 0)
        assert json.loads(done.stdout) == ["sandbox:echo installed", "sandbox:echo once"]
    lost = run_node("app.mjs", FAL_PYTHON=bare_python)
    assert lost.returncode == 1
    assert "has no services.fal_worker" in lost.stderr
    assert "pip install" in lost.stderr


@pytest.fixture(scope="session")
def esbuild(node: str) -> Any:
    return npm.packages(node) / "esbuild" / "bin" / "esbuild"


@pytest.mark.nightly
@pytest.mark.parametrize("minified", [[], ["--minify"]], ids=["plain", "minified"])
def test_a_commonjs_bundle_of_it_works(
    minified: list[Any],
    esbuild: Any,
    run_node: Callable[..., subprocess.CompletedProcess[str]],
    node: str,
    bare_python: str,
    tmp_path: Path,
) -> None:
    """As esbuild makes it by default for Node, and as Electron and Lambda take it; there is no `import.meta` there."""
    first, _, rest = IMPORTED.strip().partition("\n")
    (tmp_path / "app.ts").write_text(f"{first}\n(async () => {{ {rest} }})();\n")
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "fal-worker").symlink_to(MODULE, target_is_directory=True)
    options = ["--bundle", "--platform=node", "--outfile=app.cjs", "--log-level=error", *minified]
    subprocess.run([node, str(esbuild), "app.ts", *options], cwd=tmp_path, check=True, timeout=120)
    assert "require(" in (tmp_path / "app.cjs").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "node_modules")
    for place in (
        {"FAL_WORKER": str(BACKEND / "src" / "services" / "fal_worker.py")},
        {"PYTHONPATH": str(BACKEND / "src")},
    ):
        done = run_node("app.cjs", **place)
        assert (done.stderr, done.returncode) == ("", 0)
        assert json.loads(done.stdout) == ["sandbox:echo installed", "sandbox:echo once"]
    assert "has no services.fal_worker" in run_node("app.cjs", FAL_PYTHON=bare_python).stderr


def test_the_python_of_the_projects_own_environment_is_found(
    run_node: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
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


def test_the_package_says_what_it_is() -> None:
    package = json.loads((MODULE / "package.json").read_text(encoding="utf-8"))
    assert package["type"] == "module"
    assert package["engines"] == {"node": ">=18"}
    assert "dependencies" not in package
    for target in package["exports"]["."].values():
        assert target.removeprefix("./") in package["files"]
    project = (BACKEND / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{package["version"]}"' in project


def test_the_module_imports_only_what_comes_with_node() -> None:
    imported = re.findall(r"from '([^']+)'", (MODULE / "fal-worker.mjs").read_text(encoding="utf-8"))
    assert imported
    assert all(name.startswith("node:") for name in imported)
