"""The servers of the examples and recipes, as processes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

WITHIN_S = 120.0
"""For what comes at once, but on a busy machine a little later."""


@contextlib.contextmanager
def listening(argv: list[str], told_on: str, **more: str) -> Iterator[str]:
    """A server while it runs: the URL that it prints."""
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": None, told_on: subprocess.PIPE}
    with subprocess.Popen(argv, env={**os.environ, **more}, text=True, **streams) as server:
        told, lines = getattr(server, told_on), []
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", line := told.readline())):
            lines.append(line)
            assert line, lines
        threading.Thread(target=told.read, daemon=True).start()
        try:
            yield found[0]
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(WITHIN_S)
            server.kill()
