"""A headless Chromium for tests, spoken to in the DevTools protocol over two pipes: no port, no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
"""The shell first: without the browser around it, a page takes a quarter of the processor's time."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)
WITHIN_S = 120.0
"""For what comes to pass at once, but on a busy machine much later."""
Json = dict[str, Any]
WIDER = "document.documentElement.scrollWidth > innerWidth"
"""Whether the page is wider than its window."""
CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 && element.parentElement ? behind(element.parentElement) : colour;
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([element.textContent.trim().slice(0, 30), ratio]);
  }
  return poor;
})()
"""
"""The texts of the page whose contrast is less than WCAG asks for."""


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chromium:
    """One browser with one page, for a `with` block."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # The protocol's pipes are 3 and 4 in the browser.
        script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._changed = threading.Condition()
        self._answers: dict[int, Json] = {}
        self._events: list[Json] = []
        self._ended = False
        self._last_id = 0
        self._session: str | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Chromium:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)
        try:
            self._process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(WITHIN_S)
        os.close(self._from)

    # The protocol

    def send(self, method: str, **params: Any) -> Json:
        """The result of one command; an AssertionError when the browser refuses it or does not answer."""
        with self._changed:
            self._last_id += 1
            number = self._last_id
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        with self._changed:
            answered = self._changed.wait_for(lambda: number in self._answers or self._ended, WITHIN_S)
            assert answered, f"no answer to {method}"
            assert number in self._answers, f"the browser ended before it answered {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return answer["result"]

    def events(self, method: str) -> list[Json]:
        with self._changed:
            return [event["params"] for event in self._events if event["method"] == method]

    def _read(self) -> None:
        rest = b""
        while chunk := os.read(self._from, 1 << 16):
            *messages, rest = (rest + chunk).split(b"\0")
            with self._changed:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self._events.append(message)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # The page

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited when it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, script: str, within_s: float = WITHIN_S) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + within_s
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"not within {within_s} s: {script}; the page says {self.text()!r}"
            time.sleep(0.02)

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def choose_file(self, selector: str, path: Path) -> None:
        found = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.send("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def press(self, key: str, *, shift: bool = False) -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27, "ArrowDown": 40}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        modifiers = 8 if shift else 0
        self.send(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, modifiers=modifiers, **about
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **about)

    def show(self, width: int, height: int, *, dark: bool = False, still: bool = False) -> None:
        """The size of the window, and what the visitor prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"})
        self.send("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path, *, whole: bool = True) -> bytes:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
        return path.read_bytes()

    def forget(self) -> None:
        """Leave the page, and forget what was told about it."""
        self.send("Page.navigate", url="about:blank")
        with self._changed:
            self._events.clear()

    def complaints(self) -> list[str]:
        """What the console tells of errors and warnings, of the page and of the browser about it."""
        logged = [event["entry"] for event in self.events("Log.entryAdded")]
        said = [
            entry["text"] + " " + entry.get("url", "") for entry in logged if entry["level"] in ("error", "warning")
        ]
        thrown = [event["exceptionDetails"] for event in self.events("Runtime.exceptionThrown")]
        said += [details.get("exception", {}).get("description") or details["text"] for details in thrown]
        called = [event for event in self.events("Runtime.consoleAPICalled") if event["type"] in ("error", "warning")]
        return said + [str(event["args"]) for event in called]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium: make chromium")
    with Chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
