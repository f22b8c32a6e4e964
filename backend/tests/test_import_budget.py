"""What the worker's commands may load: start-up is most of what a short command takes.

Of this project exactly the modules listed here; of others' packages no more than `import fal_client` itself loads where
nothing but requirements.txt is installed: httpx's command line is left out, whose packages the tests' tools bring. The
standard library's own imports differ between versions of Python and are not counted.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from fal_sandbox.server import Sandbox
from services.fal.categories import CATEGORY_NAMES
from services.fal_service import FalClient
from services.worker.commands import COMMANDS
from services.worker.serve import HEAVY

WORKER = Path(__file__).resolve().parents[1] / "src" / "services" / "fal_worker.py"

START = {
    *("fal", "fal.errors", "fal.redaction"),
    *(
        "worker",
        "worker.command",
        "worker.command_line",
        "worker.commands",
        "worker.early_signals",
        "worker.options",
        "worker.output",
    ),
}
"""Help and whatever is refused before a command begins: nothing that talks to fal."""
SUPERVISED = {*START, "worker.supervisor", "fal.call", "fal.costs", "fal.journal", "fal.log", "fal.progress"}
SERVICE = {
    *SUPERVISED,
    *("worker.one_shot", "fal_service", "fal.arguments", "fal.categories", "fal.certificates", "fal.doctor"),
    *("fal.downloads", "fal.endpoints", "fal.env_files", "fal.estimates", "fal.hosts", "fal.image_files", "fal.jobs"),
    *("fal.loose_json", "fal.model_ends", "fal.prices"),
    *("fal.picture_models", "fal.product", "fal.prompts", "fal.responses", "fal.settings", "fal.text_models"),
}
"""The client itself, before its first call: neither httpx nor fal-client."""
CLIENT = {*SERVICE, "fal.fal_api", "fal.transport", "fal.connections"}
SAVED = {*CLIENT, "saved_files"}
REPORT = {f"worker.report{part}" for part in ("", "_checks", "_html", "_listing", "_page", "_steps")}
REPORTED = {*SAVED, *REPORT, "page_look"}
SCHEMA = {*SERVICE, "worker.schemas"}
SHOP = {
    *("worker.shop_commands", "shop", "shop.shop", "shop.casing", "shop.languages", "shop.places"),
    *("shop.product_files", "shop.text_check", "shop.text_rules", "shop.text_units", "shop.text_words"),
}
"""Without numpy, OpenCV and Pillow: those are imported when a picture is worked on."""
PACKSHOT = {
    *SHOP,
    *("shop.backdrop", "shop.foreground", "shop.packshot", "shop.picture_check", "shop.picture_file"),
    "shop.source_type",
}
LISTING = {
    *("shop.fact_check", "shop.listing", "shop.listing_answer", "shop.listing_prompts", "shop.listing_writer"),
    *("shop.materials", "fal.results"),
}
JUDGED = {
    *("shop.backdrop", "shop.fidelity", "shop.foreground", "shop.judge", "shop.packshot", "shop.picture_check"),
    *("shop.picture_file", "shop.pixel_lock", "shop.placement", "shop.source_type", "fal.results"),
}
LISTEN = {
    *SUPERVISED,
    *("worker.webhook_listen", "webhooks", "fal.env_files", "fal.hosts", "fal.endpoints", "fal.settings"),
}
AHEAD = {name.removeprefix("services.") for name in HEAVY}
"""What `serve` loads for its calls to come, by name: -X importtime does not see these themselves."""
SERVE = {*REPORTED, "worker.serve", "worker.jsonrpc", "worker.version"} - {*AHEAD, "worker.one_shot"}
LIVE = {"live"} | {
    f"live.{name}"
    for name in ("asking", "budget", "catalogue", "check", "facts", "inputs", "photo", "probes", "recordings", "shapes")
}
BATCH = {
    *("batch", "live", "live.asking", "page_look", "worker.batch_command", "worker.batch_meter", "worker.terminal"),
    *(f"batch.{name}" for name in ("attempt", "batch", "brake", "columns", "journal", "keys", "manifest")),
    *(f"batch.{name}" for name in ("page", "page_entry")),
    *(f"batch.{name}" for name in ("product_journal", "recipe", "results_file", "settle", "sqlite_journal")),
    # Without asyncpg and PgQueuer, which only a --journal needs.
    *(f"batch.{name}" for name in ("postgres", "postgres_journal", "postgres_tables")),
}
BUDGETS = {
    "any-llm-complete": CLIENT,
    "any-llm-enterprise": CLIENT,
    "any-llm-stream": CLIENT,
    "any-llm-submit": CLIENT,
    "any-llm-status": CLIENT,
    "any-llm-result": CLIENT,
    "any-llm-cancel": CLIENT,
    "background": CLIENT,
    "remove-background": CLIENT,
    "remove-background --check": {*SAVED, *PACKSHOT, "worker.publishing"} - {"worker.shop_commands"},
    "analyze-product": CLIENT,
    "generate-bg-prompt": CLIENT,
    "generate-multiple-bg": CLIENT,
    "upload-file": CLIENT,
    "workflow": CLIENT,
    "workflow --save_dir": SAVED,
    "workflow --progress": {*CLIENT, "worker.terminal"},
    "workflow --report": REPORTED,
    "packshot": {*SERVICE, *PACKSHOT},
    "check-image": {*SERVICE, *PACKSHOT} - {"shop.foreground", "shop.packshot", "shop.source_type"},
    "listing": {*CLIENT, *SHOP, *LISTING},
    "prices": CLIENT,
    "estimate": CLIENT,
    "batch": {*SAVED, *BATCH, *SHOP} - {"worker.shop_commands"},
    "doctor": CLIENT,
    "doctor --live": {*CLIENT, *LIVE},
    "schema": SCHEMA,
    "serve": SERVE,
    "webhook-listen": LISTEN,
}


@pytest.fixture
def options(box: Sandbox, client: FalClient, tmp_path: Path) -> Mapping[str, list[str]]:
    """Options with which each command of BUDGETS succeeds, the models' answers being ready."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))
    cutout = tmp_path / "cutout.png"
    Image.new("RGBA", (400, 400), (200, 30, 30, 255)).crop((-50, -50, 450, 450)).save(cutout)
    url = box.put_file(photo.read_bytes(), "photo.jpg", "image/jpeg")
    for endpoint in ("bria/replace-background", "fal-ai/bria/background/remove"):
        box.fault("job", endpoint=endpoint, times=None, output={"image": {"url": url}})
    categories = json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mugs"))
    box.fault("job", endpoint="openrouter/router/vision", times=None, output={"output": categories})
    prompt, image = ["--prompt", "A mug."], ["--image_url", url]
    job = ["--request_id", client.any_llm_submit("A mug.")]
    manifest = tmp_path / "shop.jsonl"
    manifest.write_text(json.dumps({"key": "mug", "image_url": url}))
    styles, whole = ["--styles", '["Studio"]'], ["--image", str(photo), "--styles", '["Studio"]']
    return {
        "any-llm-complete": prompt,
        "any-llm-enterprise": prompt,
        "any-llm-stream": prompt,
        "any-llm-submit": prompt,
        **dict.fromkeys(("any-llm-status", "any-llm-result", "any-llm-cancel"), job),
        "prices": [],
        "estimate": ["workflow"],
        "batch": ["--input", str(manifest), "--output", str(tmp_path / "batch"), "--command", "remove-background"],
        "doctor": [],
        "doctor --live": ["--live"],
        "schema": [],
        "serve": [],
        "webhook-listen": ["--port", "0", "--timeout", "0.1"],
        "background": [*image, *prompt],
        "remove-background": image,
        "remove-background --check": [*image, "--save_dir", str(tmp_path / "saved"), "--check", "--for", "etsy"],
        "analyze-product": image,
        "generate-bg-prompt": ["--categories", categories, "--style_type", "Studio"],
        "generate-multiple-bg": [*image, "--categories", categories, *styles],
        "upload-file": ["--file_path", str(photo)],
        "packshot": ["--cutout", str(cutout), "--for", "shopify", "--check", "--save_dir", str(tmp_path / "saved")],
        "check-image": [str(cutout), "--for", "shopify"],
        "listing": ["--categories", categories, "--languages", "Turkish"],
        "workflow": whole,
        "workflow --progress": [*whole, "--progress"],
        "workflow --save_dir": [*whole, "--save_dir", str(tmp_path / "saved")],
        "workflow --report": [*whole, "--save_dir", str(tmp_path / "saved"), "--report"],
    }


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["any-llm-complete", "--help"],
        ["serve", "--help"],
        ["any-llm-complete", "--promt", "A mug."],
        ["any-llm-complete"],
        ["workflow", "--image", "photo.jpg", "--styles", "{"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_help_and_wrong_options_load_nothing_that_talks_to_fal(argv: list[str]) -> None:
    own, foreign = loaded(str(WORKER), *argv)
    of_a_command = argv[-1] == "--help" and len(argv) > 1
    text = {"worker.version"} if argv == ["--version"] else {"worker.examples"} if of_a_command else set()
    assert own == START | text
    assert foreign == set()


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", BUDGETS)
def test_a_command_loads_what_it_needs_and_no_more(name: str, options: Mapping[str, list[str]]) -> None:
    command = name.partition(" ")[0]
    own, foreign = loaded(str(WORKER), command, *options[name], succeeds=True)
    assert own == BUDGETS[name]
    assert foreign <= allowed(name)


def test_the_env_file_is_parsed_only_when_the_key_is_in_it(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"FAL_KEY={os.environ['FAL_KEY']}\n")
    argv = (str(WORKER), "any-llm-complete", "--prompt", "A mug.")
    assert "dotenv" not in loaded(*argv, succeeds=True)[1]
    assert "dotenv" in loaded(*argv, succeeds=True, without="FAL_KEY")[1]


def test_no_pattern_is_compiled_before_it_is_used() -> None:
    modules = [importlib.import_module(f"services.{name}") for name in sorted(CLIENT)]
    named = [(module.__name__, name) for module in modules for name, value in vars(module).items() if _compiled(value)]
    assert named == []


def _compiled(value: object) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return any(isinstance(one, re.Pattern) for one in values)


def test_every_command_has_a_budget() -> None:
    assert {name.partition(" ")[0] for name in BUDGETS} == set(COMMANDS)


def allowed(name: str) -> set[str]:
    """Others' packages that a command of BUDGETS may load."""
    if name in ("schema", "webhook-listen"):
        return set()
    image_extra = {"numpy", "cv2", "PIL", "mmap"} if "shop.picture_check" in BUDGETS[name] else set()
    return of_fal_client() | image_extra


@cache
def of_fal_client() -> set[str]:
    lines = (
        "import sys",
        "sys.modules['httpx._main'] = None",
        "import fal_client",
        "fal_client.SyncClient(key='k')._client",
    )
    return loaded("-c", "; ".join(lines), succeeds=True)[1]


def loaded(*argv: str, succeeds: bool = False, without: str = "") -> tuple[set[str], set[str]]:
    """What a Python process loads: this project's modules below `services`, and other packages by name."""
    modules = imported(argv, succeeds, without) - at_every_start()
    own = {name.removeprefix("services.") for name in modules if name.startswith("services.")}
    others = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"services"}
    # What was looked for in vain is listed too.
    return own, {name for name in others if importlib.util.find_spec(name) is not None}


@cache
def at_every_start() -> frozenset[str]:
    """What the interpreter itself loads, and what the environment's .pth files do."""
    return frozenset(imported(("-c", "pass"), True, ""))


def imported(argv: tuple[str, ...], succeeds: bool, without: str) -> set[str]:
    env = {name: value for name, value in os.environ.items() if name != without}
    command = [sys.executable, "-X", "importtime", *argv]
    ran = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=180, check=False
    )
    assert ran.returncode == 0 or not succeeds, ran.stdout
    return set(re.findall(r"^import time:[^|]*\|[^|]*\| *(\S+)$", ran.stderr, re.MULTILINE))
