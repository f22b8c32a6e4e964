"""The smoke test behind `python src/services/fal_service.py`: a few real calls, told on stderr, summed up as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from services.fal import log
from services.fal.errors import AuthError, BalanceExhausted, FalError, Unreachable, as_fal_error, report

SAME_FOR_ALL = {kind.error_type for kind in (Unreachable, AuthError, BalanceExhausted)}
"""What fails one check fails every other one in the same way: it is told once."""
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
        checks = _run_all(_checks(client, options.image_url))
    finally:
        client.close()
    _print({"ok": all(check["ok"] for check in checks), "checks": checks, "error": _summary(checks)})
    return 0 if all(check["ok"] for check in checks) else 1


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


def _run_all(checks: list[tuple[str, Callable[[], Any]]]) -> list[dict[str, Any]]:
    """The checks one after the other; those after one that fails for all of them are skipped."""
    done: list[dict[str, Any]] = []
    for name, check in checks:
        if done and (done[-1].get("skipped") or done[-1].get("error_type") in SAME_FOR_ALL):
            done.append({"name": name, "ok": False, "skipped": True})
        else:
            done.append(_run(name, check))
    return done


def _summary(checks: list[dict[str, Any]]) -> str | None:
    if any("skipped" in check for check in checks):
        return "A check failed, and the others were skipped: they would fail for the same reason."
    return None if all(check["ok"] for check in checks) else "A check failed."


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
