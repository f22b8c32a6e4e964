"""JSON Schemas (2020-12) of the commands' options and documents: the output of the command `schema`.

They stand in `schemas.json`, which docs/generate.py writes (`make docs`) from the command table and `fal/results.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from services.fal.errors import InvalidInput

FILE = Path(__file__).with_name("schemas.json")


def schemas(name: str | None = None) -> dict[str, Any]:
    """The schemas of the command `name`, or of all commands and of the progress that `serve` tells."""
    everything: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    if name is None:
        return everything
    commands = everything["commands"]
    if name not in commands:
        raise InvalidInput(f"There is no schema of {name[:100]!r}. Known: {', '.join(commands)}.")
    return {"commands": {name: commands[name]}}
