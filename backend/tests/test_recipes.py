"""The recipes of docs/recipes.md do what they say: each is run here as its page types it, against the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

import npm
from conftest import BACKEND, small_photo
from example_server import WITHIN_S, listening
from fal_sandbox.server import Sandbox
from services.fal.errors import FalError
from services.fal_service import FalClient

EXAMPLES = BACKEND / "examples"
SOURCE = str(BACKEND / "src")
NODE_RECIPES = BACKEND / "node" / "examples" / "recipes"
VISION, PHOTOKIT = "openrouter/router/vision", "bria/replace-background"
RUNNER_LOST = {"error": "Runner disconnected", "error_type": "runner_disconnected"}
FOREVER_S = 600


class Recipe(NamedTuple):
    """Gives a recipe's command line, and runs it when it is called itself."""

    command: Callable[..., list[str]]
    run: Callable[..., subprocess.CompletedProcess[str]]

    def __call__(self, name: str, *argv: object) -> subprocess.CompletedProcess[str]:
        return self.run(name, *argv)


@pytest.fixture
def recipe(box: Sandbox, node: str) -> Recipe:
    """Start a recipe by its file's name, with the packages of this Python."""

    def command(name: str, *argv: object) -> list[str]:
        programs = {
            ".py": [sys.executable, str(EXAMPLES / name)],
            ".mjs": [node, str(NODE_RECIPES / name)],
        }
        return [*programs[Path(name).suffix], *map(str, argv)]

    def run(name: str, *argv: object) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "FAL_PYTHON": sys.executable,
            "PYTHONPATH": SOURCE,
        }
        return subprocess.run(
            command(name, *argv), env=env, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
        )

    return Recipe(command, run)


def accepted(box: Sandbox) -> list[str]:
    """The endpoints of the jobs that fal took, in that order."""
    return [job["endpoint"] for job in box.ledger()["jobs"]]


def is_picture(path: str | Path) -> bool:
    return Path(path).read_bytes()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"RIFF")


def test_the_page_shows_every_recipe_and_nothing_that_is_not_there() -> None:
    page = BACKEND / "docs" / "recipes.md"
    shown = {
        (page.parent / link).resolve() for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    }
    assert [str(path) for path in shown if not path.exists()] == []
    no_recipes = {"demo.py", "product.py", "webhook_fastapi.py"}
    there = {path for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".sh") and path.name not in no_recipes}
    there |= {*NODE_RECIPES.glob("*.mjs"), EXAMPLES / "docker" / "Dockerfile", EXAMPLES / "docker" / "compose.yaml"}
    assert there <= shown


# Styles that failed


@pytest.fixture
def incomplete(
    box: Sandbox, run_process: Callable[..., subprocess.CompletedProcess[bytes]], photo_path: Path, tmp_path: Path
) -> Any:
    """The listing of a product with one picture, one style that may be asked for again, and one that may not."""
    box.fault("job", endpoint=PHOTOKIT, fail=RUNNER_LOST)
    box.fault("job", endpoint=PHOTOKIT, fail={"error": "It is not that kind of picture"})
    made = run_process("workflow", "--image", str(photo_path), "--save_dir", str(tmp_path / "out"))
    listing = tmp_path / "out" / "product.json"
    listing.write_bytes(made.stdout)
    product = json.loads(made.stdout)
    assert (product["total_generated"], len(product["errors"])) == (1, 2)
    return listing


@pytest.mark.parametrize("name", ["retry_styles.py", "retry_styles.mjs"])
def test_only_the_style_that_failed_and_may_be_repeated_is_made_again(
    name: str, recipe: Recipe, incomplete: Any, box: Sandbox
) -> None:
    before = json.loads(incomplete.read_bytes())
    again = next(failure["style"] for failure in before["errors"] if failure["retryable"])
    left = [failure for failure in before["errors"] if not failure["retryable"]]
    jobs = len(accepted(box))

    done = recipe(name, incomplete)
    assert done.returncode == 1, done.stderr
    assert "2 of 3 pictures" in done.stdout
    new = accepted(box)[jobs:]
    assert (new.count(PHOTOKIT), new.count(VISION)) == (1, 0)
    after = json.loads(incomplete.read_bytes())
    assert {image["style_name"] for image in after["images"]} == {before["images"][0]["style_name"], again}
    assert (after["errors"], after["total_generated"], after["description"]) == (left, 2, before["description"])

    jobs = len(accepted(box))
    assert recipe(name, incomplete).returncode == 1
    assert len(accepted(box)) == jobs


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("name", ["retry_styles.py", "retry_styles.mjs"])
def test_a_product_that_is_complete_costs_nothing_even_when_a_prompt_had_failed(
    name: str,
    recipe: Recipe,
    box: Sandbox,
    run_process: Callable[..., subprocess.CompletedProcess[bytes]],
    photo_path: Path,
    tmp_path: Path,
) -> None:
    box.fault("job", endpoint="openrouter/router/enterprise", fail=RUNNER_LOST)
    listing = tmp_path / "product.json"
    listing.write_bytes(run_process("workflow", "--image", str(photo_path)).stdout)
    assert [failure["stage"] for failure in json.loads(listing.read_bytes())["errors"]] == ["prompt"]
    jobs = len(accepted(box))
    done = recipe(name, listing)
    assert (done.returncode, len(accepted(box))) == (0, jobs), done.stderr


def test_the_pictures_of_styles_made_again_are_saved_beside_the_others(recipe: Recipe, incomplete: Any) -> None:
    recipe("retry_styles.py", incomplete)
    paths = [image["path"] for image in json.loads(incomplete.read_bytes())["images"]]
    assert all(is_picture(path) and Path(path).parent == incomplete.parent for path in paths)


# Pictures that are saved


@pytest.mark.parametrize("name", ["save_pictures.py", "save_pictures.mjs"])
def test_every_picture_is_saved_and_named(name: str, recipe: Recipe, photo_path: Path, tmp_path: Path) -> None:
    done = recipe(name, photo_path, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert len(printed) == 3
    assert all(is_picture(path) and Path(path).parent == tmp_path / "out" for path in printed)


def test_a_picture_that_node_cannot_have_saved_is_named_by_its_url(
    recipe: Recipe, box: Sandbox, photo_path: Path, tmp_path: Path
) -> None:
    # All but one: the cut-out is downloaded too, as a rule before the pictures.
    box.fault("download", status=404, skip=1, times=None)
    done = recipe("save_pictures.mjs", photo_path, tmp_path / "out")
    assert done.returncode == 0
    assert sum(line.startswith("https://") for line in done.stdout.splitlines()) >= 2
    assert ", download: " in done.stderr


# asyncio


@pytest.fixture
def asyncio_calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import asyncio_calls

    return asyncio_calls


def test_cancelling_a_task_cancels_its_job_at_fal_before_the_task_is_over(
    asyncio_calls: Any, box: Sandbox, client: FalClient, caplog: pytest.LogCaptureFixture
) -> None:
    box.configure(latency=FOREVER_S)
    ended_by = []

    def work(own: FalClient) -> None:
        try:
            own.remove_background("https://example.com/mug.jpg")
        except FalError as error:
            ended_by.append(error.error_type)
            raise

    async def begin_and_cancel() -> dict[str, Any]:
        task = asyncio.create_task(asyncio_calls.in_thread(client, FOREVER_S, work))
        await asyncio.to_thread(box.wait_for, lambda ledger: ledger["running"] == 1, WITHIN_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return box.ledger()

    with caplog.at_level(logging.WARNING, "asyncio"):
        ledger = asyncio.run(begin_and_cancel())
        gc.collect()  # asyncio tells then of exceptions that nobody asked for
    assert (ledger["accepted"], ledger["cancelled"], ledger["running"], ledger["billable"]) == (1, 1, 0, 0)
    assert (ended_by, caplog.records) == (["cancelled"], [])


def test_a_task_that_is_cancelled_leaves_the_others_alone(asyncio_calls: Any, box: Sandbox, client: FalClient) -> None:
    box.configure(latency=1)

    async def two() -> list[Any]:
        tasks = [
            asyncio.create_task(asyncio_calls.in_thread(client, 60, lambda own: own.any_llm_complete("sandbox:echo x")))
            for _ in range(2)
        ]
        await asyncio.to_thread(box.wait_for, lambda ledger: ledger["accepted"] == 2, WITHIN_S)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, made = asyncio.run(two())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert (made["output"], made["error"]) == ("sandbox:echo x", None)


def test_an_error_of_the_thread_is_the_tasks(asyncio_calls: Any, box: Sandbox, client: FalClient) -> None:
    with pytest.raises(ValueError, match="prompt"):
        asyncio.run(asyncio_calls.in_thread(client, 60, lambda own: own.any_llm_complete("")))


def test_the_asyncio_recipe_runs_as_it_is(recipe: Recipe, box: Sandbox) -> None:
    box.configure(latency=1)
    done = recipe("asyncio_calls.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "cancelled, at fal too"
    ledger = box.ledger()
    assert (ledger["billable"], ledger["running"]) == (3, 0)


# Servers


@pytest.fixture(scope="session")
def express(node: str) -> Path | str:
    """The folder of node_modules with Express, or why there is none. npm is run before a test goes to the sandbox."""
    try:
        return npm.express(node)
    except pytest.skip.Exception as skipped:
        return str(skipped)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[contextlib.ExitStack, dict[str, str]]]:
    """The URLs of the servers that run already, and what ends them."""
    with contextlib.ExitStack() as ending:
        yield ending, {}


@pytest.fixture(params=["fastapi", "express"])
def photo_server(
    request: pytest.FixtureRequest, servers: Any, express: Path | str, box: Sandbox, node: str, tmp_path: Path
) -> str:
    """The server of a recipe, started as its page says by the first test that needs it; its URL."""
    ending, urls = servers
    if request.param not in urls:
        urls[request.param] = ending.enter_context(_served(request.param, express, node, tmp_path))
    return f"{urls[request.param]}/products"


def _served(kind: str, express: Path | str, node: str, folder: Path) -> contextlib.AbstractContextManager[str]:
    if kind == "fastapi":
        options = ["--app-dir", str(EXAMPLES), "--port", "0"]
        argv = [sys.executable, "-m", "uvicorn", "photo_fastapi:app", *options]
        return listening(argv, "stderr", PYTHONPATH=SOURCE)
    if isinstance(express, str):
        pytest.skip(express)
    shutil.copytree(express, folder / "node_modules", symlinks=True)
    (folder / "node_modules" / "fal-worker").symlink_to(BACKEND / "node", target_is_directory=True)
    argv = [node, str(shutil.copy(NODE_RECIPES / "photo_express.mjs", folder))]
    return listening(argv, "stdout", PORT="0", FAL_PYTHON=sys.executable)


def post(url: str, photo: bytes) -> requests.Response:
    headers = {"Content-Type": "image/jpeg"}
    return requests.post(url, data=photo, headers=headers, stream=True, timeout=WITHIN_S)


def test_a_photo_that_is_posted_is_answered_with_progress_and_pictures(photo_server: str) -> None:
    with post(photo_server, small_photo()) as answer:
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (200, "application/x-ndjson")
        *events, last = [json.loads(line) for line in answer.iter_lines()]
    assert events[0] == {"step": "upload", "status": "started"}
    made = {event["style"] for event in events if event["step"] == "picture" and event["status"] == "done"}
    assert made == {"Studio", "Lifestyle", "Premium"}
    assert len(last["result"]["images"]) == 3


def test_progress_comes_while_the_product_is_made(photo_server: str, box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    with post(photo_server, small_photo()) as answer:
        lines = answer.iter_lines()
        while json.loads(next(lines)) != {"step": "analysis", "status": "started"}:
            pass
        box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
        assert box.ledger()["billable"] == 0
    # What this call has yet to send must not reach the sandbox of the next test.
    box.wait_for(lambda ledger: ledger["running"] == 0, WITHIN_S)


def test_a_client_that_leaves_cancels_its_jobs_at_fal(photo_server: str, box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    with post(photo_server, small_photo()) as answer:
        lines = answer.iter_lines()  # which, thrown away, would close the connection
        next(lines)
        box.wait_for(lambda ledger: ledger["running"] > 0, WITHIN_S)
    ledger = box.wait_for(lambda ledger: ledger["running"] == 0, WITHIN_S)
    assert (ledger["cancelled"], ledger["billable"]) == (ledger["accepted"], 0)


def test_what_is_no_photo_is_an_error_on_the_last_line(photo_server: str, box: Sandbox) -> None:
    with post(photo_server, b"not a photo") as answer:
        *_, last = [json.loads(line) for line in answer.iter_lines()]
    assert last["error_type"] == "invalid_input"
    assert accepted(box) == []


def test_a_photo_that_is_too_large_is_refused(photo_server: str, box: Sandbox) -> None:
    assert post(photo_server, bytes(21 * 1024 * 1024)).status_code == 413
    assert accepted(box) == []
