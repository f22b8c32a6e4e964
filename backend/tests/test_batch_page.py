"""The page of a batch in a headless Chromium: opened from its folder, with every product, and nothing that escapes."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chromium import CONTRASTS, WIDER, Chromium
from services.batch import Batch
from services.batch.keys import folder_of
from services.batch.page import PER_FILE, Page
from services.fal import redaction

HOSTILE = "\"'><script>hacked = 1</script><img src=x onerror='hacked = 2'></script><!-- </style>\x00\x9b\u202e\ud800"
TOLD = "document.querySelector('#told').textContent"
KEYS = "[...document.querySelectorAll('#products h2')].map((heading) => heading.textContent)"
SEEN = "[...document.images].filter((image) => image.complete && image.naturalWidth).map((image) => image.alt)"
PNG = cv2.imencode(".png", np.full((40, 60, 3), 128, np.uint8))[1].tobytes()


def product(number: int, **more: Any) -> dict[str, Any]:
    """A line of results.jsonl."""
    known = {"key": f"SKU-{number:04}", "line": number, "status": "done", "result": {}, "error": None}
    return {**known, "error_type": None, "hint": None, "attempts": 1, "seconds": 12.34, "cost_usd": 0.25, **more}


def failed(number: int, status: str = "failed", **more: Any) -> dict[str, Any]:
    why = {"error": "The call took too long.", "error_type": "timeout", "hint": "Raise --timeout."}
    return product(number, status=status, result=None, **{**why, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def append(folder: Path) -> Callable[..., None]:
    def write(*rows: Mapping[str, Any]) -> None:
        with open(folder / "results.jsonl", "a", encoding="utf-8") as results:
            results.writelines(json.dumps(row) + "\n" for row in rows)

    return write


@pytest.fixture
def picture(folder: Path) -> Callable[[str], str]:
    def write(name: str) -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(PNG)
        return str(folder / name)

    return write


@pytest.fixture
def opened(browser: Chromium, folder: Path) -> Iterator[Callable[..., Chromium]]:
    """The page as it is opened from its folder; nothing but files of that folder may be asked for."""

    def open_page(asked: str = "", **shown: Any) -> Chromium:
        browser.show(shown.pop("width", 1280), 900, still=True, **shown)
        browser.forget()
        browser.open((folder / "index.html").as_uri() + asked)
        browser.wait_for(TOLD)
        return browser

    yield open_page
    asked = [event["request"]["url"] for event in browser.events("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith((folder.as_uri(), "about:"))] == []


def whole(number: int, picture: Callable[[str], str]) -> dict[str, Any]:
    """A product of `workflow --packshot --listing`, with one style that failed and a packshot that breaks a rule."""
    own = f"SKU-{number:04}"
    rules = [{"rule": "width", "verdict": "fail", "reason": "It is 60 px; at least 500 px is asked."}]
    image = {"width": 60, "height": 40}
    listing = {
        "language": "German",
        "title": "Tischlampe",
        "bullets": ["Warmes Licht"],
        "description": "Für abends.",
    }
    result = {
        "original_path": picture(f"{own}/original.png"),
        "categories": {"main_product_type": "Lighting", "subcategory": "Unknown"},
        "cutout": {"path": picture(f"{own}/cutout.png"), **image},
        "images": [{"style_name": "Studio", "path": picture(f"{own}/1-stüdyo #1.png"), **image}],
        "packshots": [
            {
                "place": "amazon",
                "path": picture(f"{own}/lamp-amazon.png"),
                "check": {"place": "amazon", "verdict": "fail", "rules": rules},
            }
        ],
        "description": "Bir lamba.",
        "listing": {"listings": [listing]},
        "errors": [{"stage": "picture", "style": "Premium", "error": "Runner disconnected.", "hint": "Try again."}],
    }
    return product(number, result=result, cost_usd=None, attempts=2)


def test_a_product_is_shown_with_its_pictures_texts_cost_and_what_it_lacks(
    folder: Path, append: Callable[..., None], picture: Callable[[str], str], opened: Callable[..., Chromium]
) -> None:
    lost = {"stage": "picture", "style": "Studio", "error": "The call took too long.", "hint": "Raise --timeout."}
    append(whole(7, picture), failed(8) | {"result": {"errors": [lost]}}, failed(9, error="No photo.", cost_usd=0.0))
    Page(folder).update(total=10)
    page = opened()
    page.wait_for(f"{SEEN}.length === 4")
    assert page.run(SEEN) == [f"SKU-0007, {name}" for name in ("Original", "Cut-out", "Studio", "amazon")]
    page.run("document.querySelector('summary').click()")
    text = page.text()
    for said in (
        "3 of 10 products · at least $0.25: the cost of 1 is not known",
        "Lighting · cost not known · 12.3 s · 2 attempts · line 7",
        "$0 · 12.3 s · line 9",
        "Picture Premium: Runner disconnected. Try again.",
        "fail: It is 60 px; at least 500 px is asked.",
        "Bir lamba.",
        "Tischlampe",
        "Warmes Licht",
        "Für abends.",
        "Picture Studio: The call took too long. Raise --timeout.",
    ):
        assert said in text
    assert text.count("The call took too long.") == 1
    assert page.run("[...document.querySelectorAll('.state')].map((state) => state.textContent)") == [
        "Done, with problems",
        "Failed",
        "Failed",
    ]
    assert page.run("document.querySelector('details h3').lang") == "de"
    assert page.complaints() == []


def test_products_are_found_by_state_and_key_on_all_pages_together(
    folder: Path, append: Callable[..., None], opened: Callable[..., Chromium]
) -> None:
    numbers = range(1, 2 * PER_FILE + 21)
    append(*(failed(n, "ambiguous" if n % 40 == 0 else "failed") if n % 20 == 0 else product(n) for n in numbers))
    Page(folder).update()
    page = opened()
    assert page.run(TOLD) == "Products 1 to 50 of 120"
    page.run("document.querySelector('#next').click()")
    page.wait_for(f"{TOLD} === 'Products 51 to 100 of 120'")
    assert page.run(KEYS)[0] == "SKU-0051"
    assert page.run("document.activeElement.id") == "told"
    page.run("document.querySelector('#states [value=failed]').click()")
    page.wait_for(f"{TOLD} === 'Products 1 to 3 of 3'")
    assert page.run(KEYS) == ["SKU-0020", "SKU-0060", "SKU-0100"]
    page.run("document.querySelector('#key').focus()")
    page.send("Input.insertText", text="sku-006")
    page.wait_for(f"{TOLD} === 'Products 1 to 1 of 1'")
    assert page.run("location.hash") == "#state=failed&key=sku-006"
    page.run("history.back()")
    page.wait_for(f"{TOLD} === 'Products 51 to 100 of 120'")
    page.run("location.hash = '#state=ambiguous&key=none'")
    page.wait_for(f"{TOLD} === 'No product matches.'")
    assert page.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_on_a_phone(
    folder: Path,
    append: Callable[..., None],
    picture: Callable[[str], str],
    opened: Callable[..., Chromium],
    dark: bool,
) -> None:
    append(whole(1, picture), failed(2, key="K" * 90), *(product(number) for number in range(3, PER_FILE + 3)))
    Page(folder).update()
    page = opened(width=360, dark=dark)
    page.run("document.querySelector('summary').click()")
    assert not page.run(WIDER)
    assert page.run(CONTRASTS) == []


def test_hostile_texts_stay_texts_and_no_file_outside_the_folder_is_shown(
    folder: Path, append: Callable[..., None], picture: Callable[[str], str], opened: Callable[..., Chromium]
) -> None:
    key = "../javascript:\"'><script>hacked = 1</script>"
    own = folder_of(key)
    picture("other/secret.png")
    paths = [f"{own}/..", f"{own}/../../secret.png", "other/secret.png", "/etc/passwd", "javascript:x", HOSTILE, 7]
    images = [{"style_name": HOSTILE, "path": path} for path in [picture(f"{own}/javascript:b#?%2e.png"), *paths]]
    listing = {"language": HOSTILE, "title": HOSTILE, "bullets": [HOSTILE], "description": HOSTILE}
    error = {"stage": HOSTILE, "style": HOSTILE, "error": HOSTILE, "hint": HOSTILE}
    result = {
        "images": images,
        "description": HOSTILE,
        "categories": {"main_product_type": HOSTILE, "__proto__": HOSTILE},
        "listings": [listing],
        "errors": [error],
        "report_path": f"{own}/javascript:hacked=4\0",
    }
    append(product(1, key=key, result=result), failed(2, error=HOSTILE, hint=HOSTILE))
    Page(folder).update()
    page = opened()
    page.wait_for(f"{SEEN}.length === 1")
    page.run("document.querySelector('summary').click()")
    assert page.run("typeof hacked") == "undefined"
    assert page.run("document.querySelectorAll('#products :is(script, style)').length") == 0
    assert page.run("document.images.length") == 1
    links = page.run("[...document.querySelectorAll('#products a')].map((link) => link.protocol)")
    assert set(links) == {"file:"}
    assert page.text().count("<script>hacked = 1</script>") >= 8
    assert page.complaints() == []


def test_the_page_keeps_what_is_pasted_into_it_from_running(
    folder: Path, append: Callable[..., None], opened: Callable[..., Chromium]
) -> None:
    """The policy holds even if a text became HTML one day."""
    append(product(1))
    Page(folder).update()
    page = opened()
    page.run("document.body.insertAdjacentHTML('beforeend', `<img src='x' onerror='hacked = 1'>`)")
    page.wait_for("document.images[0].complete")
    page.run("document.body.append(Object.assign(document.createElement('script'), { textContent: 'hacked = 2' }))")
    assert page.run("typeof hacked") == "undefined"


def test_a_folder_that_is_moved_without_its_pages_says_so(
    folder: Path, append: Callable[..., None], opened: Callable[..., Chromium]
) -> None:
    append(product(1))
    Page(folder).update()
    (folder / "index.pages" / "1.js").unlink()
    assert opened().run(TOLD) == 'index.pages/1.js cannot be loaded. Keep the folder "index.pages" beside this page.'


def entries(folder: Path, name: str = "1") -> Any:
    text = (folder / "index.pages" / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix(f'arrived("{name}", ').removesuffix(");\n"))


@pytest.mark.usefixtures("box")
def test_a_batch_leaves_its_page(folder: Path, photo_path: Path, opened: Callable[..., Chromium]) -> None:
    rows = [{"key": "cup", "image": str(photo_path)}, {"key": "gone", "image": str(photo_path) + "x"}]
    with Batch(rows, folder, options={"styles": ["Studio"]}) as batch:
        assert sorted(line["status"] for line in batch) == ["done", "failed"]
    page = opened("#key=cup")
    page.wait_for(f"{SEEN}.length === 3")
    assert page.run(SEEN) == ["cup, Original", "cup, Cut-out", "cup, Studio"]
    assert "2 products" in page.text()


def test_only_new_lines_are_read_and_one_that_is_still_being_written_is_left(
    folder: Path, append: Callable[..., None]
) -> None:
    page = Page(folder)
    page.update()
    assert "0 products" in (folder / "index.html").read_text()
    append(*(product(number) for number in range(1, PER_FILE + 2)))
    page.update()
    whole_script = os.stat(folder / "index.pages" / "1.js").st_ino
    results = folder / "results.jsonl"
    results.write_bytes(results.read_bytes() + b'{"key": "SKU-')
    page.update()
    results.write_bytes(results.read_bytes() + b'cut off\n{"status": "what"}\n')
    append(product(99))
    page.update()
    assert os.stat(folder / "index.pages" / "1.js").st_ino == whole_script
    assert [entry["key"] for entry in entries(folder, "2")] == ["SKU-0051", "SKU-0099"]
    assert entries(folder, "keys-1") == {"states": "d" * 52, "keys": [*(e["key"] for e in entries(folder)), *KEYS_ON_2]}
    assert "52 products · $13.00 · 2 lines of results.jsonl cannot be read" in (folder / "index.html").read_text()
    assert sorted(os.listdir(folder / "index.pages")) == ["1.js", "2.js", "keys-1.js"]


KEYS_ON_2 = ["SKU-0051", "SKU-0099"]


def test_results_that_are_made_anew_make_the_page_anew(folder: Path, append: Callable[..., None]) -> None:
    page = Page(folder)
    append(failed(1), failed(2))
    page.update()
    (folder / "results.jsonl").rename(folder / "before")
    append(product(2), product(1))
    page.update()
    assert [(entry["key"], entry["state"]) for entry in entries(folder)] == [("SKU-0002", "done"), ("SKU-0001", "done")]
    assert "2 products · $0.50" in (folder / "index.html").read_text()


def test_the_page_of_a_batch_that_has_nothing_to_do_is_not_written_again(
    folder: Path, append: Callable[..., None]
) -> None:
    append(product(1))
    written = os.stat(Page(folder).update())
    os.utime(folder / "results.jsonl", ns=(written.st_mtime_ns - 1,) * 2)
    assert os.stat(Page(folder).update()).st_ino == written.st_ino
    append(product(2))
    os.utime(folder / "results.jsonl", ns=(written.st_mtime_ns + 1,) * 2)
    assert os.stat(Page(folder).update()).st_ino != written.st_ino


def test_the_lines_are_never_all_in_memory(folder: Path, append: Callable[..., None]) -> None:
    append(*(product(number, result={"raw": "x" * 20_000}) for number in range(1, 501)))
    tracemalloc.start()
    try:
        Page(folder).update()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_secrets_are_masked(folder: Path, append: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", {"planted-secret"})
    append(product(1, result={"description": "say planted-secret"}))
    Page(folder).update()
    assert entries(folder)[0]["texts"][0]["body"] == "say ***"
