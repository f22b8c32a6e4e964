"""The worker in a container: a read-only root, no HOME, a user who owns nothing; and the recipe for one.

There is no container engine here. Each part is held against what an engine would do with it, and the commands run
under the same conditions (container.py).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import container
from conftest import BACKEND, small_photo
from example_server import WITHIN_S, listening
from fal_sandbox.server import Sandbox
from test_recipes import express  # noqa: F401

RECIPE = BACKEND / "examples" / "docker"
DOCKERFILE = container.instructions(RECIPE / "Dockerfile")
LAYOUTS = {"/app": "backend/src /app", "/": "backend/src /", "/app/src": "backend/src /app/src"}
NO_HOME = {"LANG": "C.UTF-8"}

needs_roots = pytest.mark.skipif(not container.CAN_MAKE_ROOTS, reason="a root of its own takes root's rights")


def arguments(word: str) -> list[str]:
    return [rest for instruction, rest in DOCKERFILE if instruction == word]


# The files of the recipe


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this platform")
    found = subprocess.run([hadolint, str(RECIPE / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.fixture
def compose() -> dict[str, Any]:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((RECIPE / "compose.yaml").read_text(encoding="utf-8"))["services"]["products"]


def test_compose_is_true_to_its_specification() -> None:
    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(RECIPE / "compose.yaml")]
    done = subprocess.run([sys.executable, *check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_builds_the_dockerfile_from_the_projects_folder_and_reaches_its_port(compose: dict[str, Any]) -> None:
    context = (RECIPE / compose["build"]["context"]).resolve()
    assert context == BACKEND.parent
    assert context / compose["build"]["dockerfile"] == RECIPE / "Dockerfile"
    assert [port.rpartition(":")[2] for port in compose["ports"]] == arguments("EXPOSE")
    assert f"PORT={arguments('EXPOSE')[0]}" in arguments("ENV")[0].split()


def test_the_container_can_do_little_and_is_given_time_to_finish(compose: dict[str, Any]) -> None:
    assert (compose["read_only"], compose["init"], compose["tmpfs"]) == (True, True, ["/tmp"])
    assert (compose["cap_drop"], compose["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert int(arguments("USER")[-1].partition(":")[0]) > 0
    # The longest call of the recipe, and what its worker needs to end.
    assert compose["stop_grace_period"] == "2m"


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_engine() -> None:
    sources = {source for copy in arguments("COPY") for source in shlex.split(copy)[:-1]}
    assert all((BACKEND.parent / source).exists() for source in sources)
    ignored = (RECIPE / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert sent == {re.sub(r"(/recipes)/.*", r"\1", source) for source in sources}


def test_the_image_installs_what_the_project_needs() -> None:
    runs = " ".join(arguments("RUN"))
    assert "--requirement /app/requirements.txt" in runs
    assert "express@5" in runs


# The conditions


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="fal-container-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)
    shutil.rmtree(f"{folder}-made", ignore_errors=True)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["a root of its own", "no write bits"])
def contained(request: pytest.FixtureRequest, box: Sandbox, place: Path) -> Callable[[str], Run]:
    """Lays `backend/src` out as a COPY with these arguments does; gives what runs a command of that container."""

    def lay_out(copy: str) -> Run:
        image = container.image([copy], place / "image")
        (image / "photo.jpg").write_bytes(small_photo())
        container.without_write_bits(image)
        own_root = request.param == "a root of its own"

        def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
            env = {**box.env(), **NO_HOME}
            if own_root:
                argv = container.read_only_root(image, command, env, **options)
            else:
                # The paths of the container, where they are here.
                here = [
                    str(image) + word if (image / word.lstrip("/")).exists() and word.startswith("/") else word
                    for word in command
                ]
                argv = container.as_stranger(here, env, image)
            return subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)

        if own_root and not container.CAN_MAKE_ROOTS:
            pytest.skip("a root of its own takes root's rights")
        if run(sys.executable, "-c", "").returncode != 0:
            pytest.skip("another user of this machine cannot run this Python")
        return run

    return lay_out


@pytest.mark.sampled(6)
@pytest.mark.parametrize("copy", LAYOUTS.values(), ids=LAYOUTS)
def test_the_worker_runs_as_anybody_where_nothing_but_tmp_can_be_written_to(
    copy: str, contained: Callable[[str], Run], place: Path
) -> None:
    run, made = contained(copy), f"{place}-made"
    worker = f"{copy.split()[1].rstrip('/')}/services/fal_worker.py"
    options = ["--image", "/photo.jpg", "--styles", '["Studio"]', "--save_dir", made, "--report"]
    done = run(sys.executable, worker, "workflow", *options)
    document = json.loads(done.stdout)
    assert (done.returncode, document["error"], done.stderr) == (0, None, "")
    assert document["images"][0]["path"] == f"{made}/1-studio.png"
    asked = run(sys.executable, worker, "doctor")
    assert (asked.returncode, json.loads(asked.stdout)["error"]) == (0, None)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("copy", LAYOUTS.values(), ids=LAYOUTS)
def test_serve_runs_there_too(copy: str, contained: Callable[[str], Run]) -> None:
    run = contained(copy)
    worker = f"{copy.split()[1].rstrip('/')}/services/fal_worker.py"
    ping = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    done = run("sh", "-c", f"""echo '{ping}' | exec "$@" """, "sh", sys.executable, worker, "serve")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["result"]["pong"] is True


@pytest.mark.nightly
def test_the_smoke_test_and_the_sandbox_run_there_too(contained: Callable[[str], Run]) -> None:
    run = contained("backend/src /app")
    smoke = run(sys.executable, "/app/services/fal_service.py")
    assert (smoke.returncode, json.loads(smoke.stdout)["ok"]) == (0, True)
    ask = [sys.executable, "-c", "import os; print(os.environ['HTTPS_PROXY'])"]
    boxed = run(sys.executable, "/app/fal_sandbox", "run", "--", *ask)
    assert (boxed.returncode, boxed.stdout[:17], boxed.stderr) == (0, "http://127.0.0.1:", "")


def test_a_folder_that_cannot_be_written_to_is_told_before_money_is_spent(
    contained: Callable[[str], Run], box: Sandbox
) -> None:
    run = contained("backend/src /app")
    options = ["--image", "/photo.jpg", "--save_dir", "out"]
    done = run(sys.executable, "/app/services/fal_worker.py", "workflow", *options)
    document = json.loads(done.stdout)
    assert (done.returncode, document["error_type"]) == (1, "invalid_input")
    assert "--save_dir" in document["error"]
    assert box.ledger()["accepted"] == 0


@needs_roots
@pytest.mark.nightly
def test_without_a_writable_tmp_the_worker_works_and_the_sandbox_says_what_is_missing(
    box: Sandbox, place: Path
) -> None:
    image = container.image(["backend/src /app"], place / "image")
    (image / "photo.jpg").write_bytes(small_photo())

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        argv = container.read_only_root(image, command, {**box.env(), **NO_HOME}, tmp_writable=False)
        return subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)

    # /dev/shm is no temporary folder to Python.
    worker = [sys.executable, "/app/services/fal_worker.py", "workflow", "--styles", '["Studio"]']
    done = run(*worker, "--image", "/photo.jpg")
    assert (done.returncode, json.loads(done.stdout)["error"], done.stderr) == (0, None, "")

    for command in (["run", "--", "true"], ["serve", "--port", "0"]):
        boxed = run(sys.executable, "/app/fal_sandbox", *command)
        assert (boxed.returncode, boxed.stderr.count("\n")) == (1, 1)
        assert "temporary folder" in boxed.stderr
        assert "Mount a tmpfs at /tmp" in boxed.stderr


# The image of the recipe


@pytest.mark.nightly
@needs_roots
def test_the_image_serves_photos_as_compose_runs_it(express: Any, box: Sandbox, node: str, place: Path) -> None:  # noqa: F811
    """Its files as the Dockerfile copies them, its packages as it installs them, its command, its user."""
    if isinstance(express, str):
        pytest.skip(express)
    server = next(rest for word, rest in DOCKERFILE if word == "WORKDIR")
    copies = [copy[: -len("./")] + f"{server}/" if copy.endswith("./") else copy for copy in arguments("COPY")]
    image = container.image(copies, place / "image")
    python = image / "app" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    packages = image / server.lstrip("/") / "node_modules"
    shutil.copytree(express, packages, symlinks=True)
    (packages / "fal-worker").symlink_to("/app/node")
    (image / "usr" / "bin").mkdir(parents=True, exist_ok=True)

    program, *rest = json.loads(arguments("CMD")[0])
    assert program == "node"
    settings = dict(pair.split("=") for pair in arguments("ENV")[0].split())
    env = {**box.env(), **settings, "HOST": "127.0.0.1", "PORT": "0", **NO_HOME}
    argv = container.read_only_root(image, [node, *rest], env, cwd=server)
    with listening(argv, "stdout") as url:
        headers = {"Content-Type": "image/jpeg"}
        answer = requests.post(f"{url}/products", data=small_photo(), headers=headers, timeout=WITHIN_S)
    last = json.loads(answer.text.splitlines()[-1])
    assert len(last["result"]["images"]) == 3
