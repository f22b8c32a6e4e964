"""The smoke test behind `python src/services/fal_service.py`: a few real calls, told on stderr, summed up as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from services.fal import log
from services.fal.errors import FalError, as_fal_error, report

CATEGORIES = {"main_product_type": "Footwear", "subcategory": "Sneakers", "vibe": "Urban/Street"}


class Client(Protocol):
    """The methods that the smoke test calls."""

    def any_llm_complete(self, prompt: str, *, max_tokens: int) -> Any: ...
    def any_llm_enterprise(self, prompt: str) -> Any: ...
    def generate_background_prompt(self, categories: dict[str, str], style_type: str) -> Any: ...
    def analyze_product_image(self, image: str) -> Any: ...
    def close(self) -> None: ...


def main(make_client: Callable[..., Client], argv: Sequence[str] | None = None) -> int:
    """Run the checks; exit code 1 when one of them failed."""
    parser = argparse.ArgumentParser(
        prog="fal_service.py", description="Smoke test: a few small calls to fal (they cost a little)."
    )
    parser.add_argument("--image_url", help="also analyse the product in this picture")
    parser.add_argument("--env_file", help="the .env file with FAL_KEY")
    options = parser.parse_args(argv)
    log.to_stderr()
    try:
        client = make_client(env_file=options.env_file)
    except FalError as error:
        _print({"ok": False, "checks": [], **report(error)})
        return 1
    try:
        checks = [_run(name, check) for name, check in _checks(client, options.image_url)]
    finally:
        client.close()
    ok = all(check["ok"] for check in checks)
    _print({"ok": ok, "checks": checks, "error": None if ok else "A check failed."})
    return 0 if ok else 1


def _checks(client: Client, image_url: str | None) -> list[tuple[str, Callable[[], Any]]]:
    style = "Clean white studio background for e-commerce"
    checks: list[tuple[str, Callable[[], Any]]] = [
        (
            "completion",
            lambda: client.any_llm_complete("Write one short sentence about a mug.", max_tokens=60),
        ),
        ("enterprise", lambda: client.any_llm_enterprise("Say hello in one word.")),
        ("background_prompt", lambda: client.generate_background_prompt(CATEGORIES, style)),
    ]
    if image_url:
        checks.append(("analysis", lambda: client.analyze_product_image(image_url)))
    return checks


def _run(name: str, check: Callable[[], Any]) -> dict[str, Any]:
    print(f"{name} ...", file=sys.stderr, flush=True)  # noqa: T201
    began = time.monotonic()
    try:
        result = check()
    except Exception as error:
        result = report(as_fal_error(error))
    seconds = round(time.monotonic() - began, 3)
    failure = result["error"]
    print(f"{name}: {'ok' if failure is None else failure} ({seconds} s)", file=sys.stderr, flush=True)  # noqa: T201
    shown = ("output", "prompt", "categories", "error", "error_type", "request_id")
    return {
        "name": name,
        "ok": failure is None,
        "seconds": seconds,
        **{key: result[key] for key in shown if key in result},
    }


def _print(document: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n")
    sys.stdout.flush()
