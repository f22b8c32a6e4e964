"""The version of this project."""

from __future__ import annotations

import contextlib
import re
from importlib import metadata
from pathlib import Path


def version() -> str:
    """This project's version: from the checkout that this file stands in, else of the installed package."""
    # Not `parents[3]`: src/ may stand at the root, as in a container.
    project = Path(__file__).resolve().parent.parent.parent.parent
    with contextlib.suppress(OSError):
        text = (project / "pyproject.toml").read_text(encoding="utf-8")
        if found := re.search(r'^name = "fal-python-services"\nversion = "(.+)"$', text, re.MULTILINE):
            return found[1]
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("fal-python-services")
    return "unknown"
