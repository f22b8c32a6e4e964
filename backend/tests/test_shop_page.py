"""The example shop's page in a headless Chromium, on the sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import shop_server
from chromium import CONTRASTS, WIDER, Chromium
from fal_sandbox.server import Sandbox
from services.shop.places import PLACES
from shop_server import HOLDS_S, SHOP, Shop

shop = shop_server.shop


@pytest.fixture
def page(browser: Chromium, shop: Shop) -> Iterator[Chromium]:
    """The shop's page; at the end of a test nobody may have complained, or asked another server."""
    browser.show(1280, 900, still=True)
    browser.forget()
    browser.open(shop.url)
    browser.wait_for("[...document.images].every((image) => image.complete)")
    yield browser
    assert browser.complaints() == []
    asked = [event["request"]["url"] for event in browser.events("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith((shop.url, f"blob:{shop.url}", "about:"))] == []


FINISHED = "document.body.dataset.state === 'finished'"
FOCUSED = "document.activeElement.id"
ANNOUNCED = "document.querySelector('#announced').textContent"
PICTURES = "[...document.querySelectorAll('.cards img')].filter((image) => image.complete && image.naturalWidth).length"


def choose(page: Chromium, photo: Path) -> None:
    page.choose_file("#photo", photo)
    page.wait_for("document.body.dataset.state === 'chosen' && document.querySelector('#preview-image').naturalWidth")


def tick(page: Chromium, *values: str) -> None:
    for value in values:
        page.run(f"document.querySelector('input[value={value}]').click()")


def one_scene(page: Chromium) -> None:
    """What is made the fastest."""
    tick(page, "Lifestyle", "Premium")
    page.run("document.querySelector('#start').focus()")


def test_a_photo_becomes_all_that_a_shop_publishes(
    page: Chromium, shop: Shop, photo_path: Path, tmp_path: Path
) -> None:
    choose(page, photo_path)
    assert page.run(FOCUSED) == "start"
    tick(page, "Premium", "packshot", "listing", "amazon", "tiktok")
    page.wait_for("document.querySelector('#estimate').textContent.includes('This costs about $')")
    page.run("document.querySelector('#start').focus()")
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 4")
    text = page.text()
    for said in ("Kitchenware", "Mugs", "Cozy", "Bu kupa", "2 pictures in", "Studio", "Lifestyle"):
        assert said in text
    assert page.run("document.querySelector('blockquote').lang") == "tr"
    links = page.run("[...document.querySelectorAll('a[download]')].map((a) => [a.getAttribute('href'), a.download])")
    assert [name.rpartition(".")[0] for _, name in links] == [
        "mugs-studio",
        "mugs-lifestyle",
        "coffee-amazon",
        "coffee-tiktok",
    ]
    for href, _ in links:
        assert shop.ask("GET", href).headers["content-type"].startswith("image/")
    scenes = page.run("[...document.querySelectorAll('#cards > li')].map((card) => card.innerText)")
    assert all("Amazon Fails" in card for card in scenes)
    shots = page.run("[...document.querySelectorAll('#packshots > li')].map((card) => card.innerText)")
    assert "Amazon" in shots[0]
    assert "TikTok (US) Passes" in shots[1]
    page.run("document.querySelector('#packshots summary').click()")
    assert "measured" in page.run("document.querySelector('#packshots details[open] .rules').innerText")
    assert "Facts and claims" in page.run("document.querySelector('#listing').innerText")
    assert re.search(
        r"Cut-out\s+fal-ai/bria/background/remove\s+\$0.018", page.run("document.querySelector('#cost').innerText")
    )
    assert re.search(r"Total\s+\$", text)
    assert page.run(FOCUSED) == "again"
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.run("document.querySelector('#description button').click()")
    page.wait_for("getSelection().toString().startsWith('Bu kupa')")
    assert "Selected" in page.run("document.querySelector('#description button').textContent")
    assert len(page.screenshot(tmp_path / "finished.png")) > 50_000
    page.open(shop.url + links[0][0])
    assert page.run("getComputedStyle(document.body).margin") == "0px"


SANDBOX = "Sandbox: no model was asked. Texts follow a script, pictures are cut and painted by plain code."
BAND = "document.querySelector('#sandbox')"


def test_the_page_says_aloud_that_the_sandbox_answered(page: Chromium, photo_path: Path, tmp_path: Path) -> None:
    assert page.run(f"{BAND}.hidden")
    nothing = tmp_path / "nothing.png"
    nothing.write_bytes(cv2.imencode(".png", np.full((300, 400, 3), 128, np.uint8))[1].tobytes())
    choose(page, nothing)
    one_scene(page)
    page.press("Enter")
    page.wait_for(FINISHED)
    said, remark = page.run(f"[...{BAND}.children].map((line) => line.textContent)")
    assert said == SANDBOX
    assert "could not be told from its background" in remark
    page.run("document.querySelector('#again').click()")
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert page.run(f"[...{BAND}.children].map((line) => line.textContent)") == [SANDBOX]


def test_the_keyboard_is_enough_also_for_a_second_run(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    page.press("Tab")
    assert page.run(FOCUSED) == "photo"
    shown = "getComputedStyle(document.querySelector('.drop .main')).outlineStyle"
    assert page.run(shown) == "solid"
    page.press("Tab")
    assert page.run("document.activeElement.dataset.sample") == "coffee.jpg"
    box.configure(in_place=True)
    choose(page, photo_path)
    page.run("document.querySelector('#language').focus()")
    # Studio and Lifestyle are taken away, the comparison with the product is added.
    for _ in range(4):
        page.press("Tab")
        if page.run("document.activeElement.value") != "Premium":
            page.press(" ")
    page.run("[...document.querySelectorAll('[name=place]')].at(-1).focus()")
    page.press("Tab")
    assert page.run(f"{FOCUSED} + document.activeElement.textContent") == "startMake the picture"
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 1")
    [card] = page.run("[...document.querySelectorAll('#cards > li')].map((card) => card.innerText)")
    assert re.search(r"True to the product\s+Passes\s+The product’s original pixels were put back", card)
    assert "The file says: composite with a part made by a model" in card
    reached = []
    for _ in range(5):
        page.press("Tab")
        reached.append(page.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.tagName"))
    assert reached == ["A", "Download Premium", "A", "SUMMARY", "Copy: the description"]
    assert "Finished: 1 picture in" in page.run(ANNOUNCED)
    # Nothing of it is told in the next run.
    assert page.run("document.title").startswith("1 picture in")
    page.run("document.querySelector('#again').focus()")
    page.press("Enter")
    assert page.run("document.title") == "Product studio"
    box.configure(latency=HOLDS_S)
    page.press("Enter")
    box.wait_for(lambda now: now["running"] == 1)
    assert page.run("document.title") == "Product studio"
    assert page.run(ANNOUNCED).strip() == "The work has begun."
    assert page.run("document.querySelector('#announced').ariaAtomic") == "false"


JUDGED = """
(async () => {
  const { Card } = await import('/cards.js');
  const card = new Card('Studio');
  document.body.append(card.row);
  const image = { url: '/samples/coffee.jpg', prompt: 'oak', style_description: 'on oak' };
  const shown = async (url) => {
    while (!card.frame.querySelector(`img[src="${url}"]`)) await new Promise(requestAnimationFrame);
  };
  const other = '/samples/coffee.jpg?restored';
  card.done({ image }, 'Mug');
  await shown(image.url);
  card.row.querySelector(SELECTOR).focus();
  card.judged({ ...image, url: other });
  await shown(other);
  const [picture, download] = ['.frame a', '.download'].map((link) => card.row.querySelector(link).search);
  return [document.activeElement.matches(SELECTOR), picture, download];
})()
"""


@pytest.mark.parametrize("control", [".frame a", ".download", "summary"])
def test_a_picture_that_takes_the_place_of_another_leaves_the_focus_where_it_is(page: Chromium, control: str) -> None:
    kept, shown, downloaded = page.run(JUDGED.replace("SELECTOR", f"'{control}'"))
    assert kept
    assert shown == downloaded == "?restored"


def test_a_failure_is_shown_with_what_to_do(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="openrouter/router/vision", fail={"error": "out of memory", "error_type": "oom"})
    choose(page, photo_path)
    one_scene(page)
    page.press("Enter")
    page.wait_for("document.querySelector('[role=alert] #retry')")
    assert "out of memory" in page.run("document.querySelector('[role=alert]').textContent")
    page.run("document.querySelector('#retry').click()")
    page.wait_for(FINISHED)
    assert page.run("document.querySelector('#problem').hidden")


def test_a_sample_that_cannot_be_had_is_told(page: Chromium) -> None:
    page.run("document.querySelector('[data-sample]').dataset.sample = 'none.jpg'")
    page.run("document.querySelector('[data-sample]').click()")
    page.wait_for("document.querySelector('#problem').textContent.includes('There is no such sample.')")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.send("Network.emulateNetworkConditions", **offline)
    try:
        page.run("document.querySelector('[data-sample]').click()")
        page.wait_for("document.querySelector('#problem').textContent.includes('The shop cannot be reached')")
    finally:
        page.send("Network.emulateNetworkConditions", **{**offline, "offline": False})
    assert page.events("Runtime.exceptionThrown") == []
    # The browser itself complains of answers that are none.
    page.forget()


def test_when_all_fail_what_is_known_stays_with_each_error(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    gone = {"error": "no cutout", "error_type": "oom"}
    box.fault("job", endpoint="fal-ai/bria/background/remove", times=None, fail=gone)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    text = page.text()
    for said in ("Kitchenware", "Bu kupa", "No picture was made"):
        assert said in text
    assert "See `errors`" not in text
    shown = page.run("[...document.querySelectorAll('.cards [data-status=failed] .frame')].map((f) => f.textContent)")
    assert len(shown) == 3
    assert all("no cutout" in error for error in shown)


def test_what_is_known_stays_after_a_late_cancel(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="bria/replace-background", times=None, delay=HOLDS_S)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for("document.querySelector('blockquote') && document.querySelector('dd:not(.blank)')")
    page.press("Enter")
    page.wait_for(FINISHED)
    assert "Kitchenware" in page.text()
    assert page.run("document.querySelectorAll('.cards [data-status=stopped]').length") == 3
    assert page.run(FOCUSED) == "again"


def test_a_picture_that_cannot_be_shown_is_not_called_ready(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("download", times=None, status=404)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert "0 of 3 pictures in" in page.text()
    assert "ready" not in page.run(ANNOUNCED)


def test_cancel_stops_the_jobs_at_fal(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.configure(latency=HOLDS_S)
    choose(page, photo_path)
    page.press("Enter")
    box.wait_for(lambda now: now["running"] == 1)
    assert page.run(FOCUSED) == "cancel"
    page.press("Enter")
    page.wait_for("document.body.innerText.includes('Cancelled after')")
    assert page.run(FOCUSED) == "start"
    assert box.wait_for(lambda now: now["running"] == 0)["cancelled"] == 1


def test_what_is_no_photo_is_refused_at_once(page: Chromium, box: Sandbox, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    page.choose_file("#photo", notes)
    page.wait_for("!document.querySelector('[role=alert]').hidden")
    assert "notes.txt is not a picture" in page.text()
    empty = tmp_path / "empty.jpg"
    empty.touch()
    page.choose_file("#photo", empty)
    page.wait_for("document.body.innerText.includes('empty.jpg is empty')")
    assert box.ledger()["files"] == 0


def test_a_photo_that_cannot_be_read_is_not_promised_to_work(page: Chromium, tmp_path: Path) -> None:
    missing = "document.querySelector('#preview-missing').checkVisibility()"
    for name, said in (("photo.heic", "It can be used all the same."), ("photo.jpg", "It may be damaged")):
        photo = tmp_path / name
        photo.write_text("no picture")
        page.choose_file("#photo", photo)
        page.wait_for(f"{missing} && document.body.innerText.includes({json.dumps(said)})")
    page.press("Enter")
    page.wait_for("!document.querySelector('#problem').hidden")
    assert "The photo 'photo.jpg' is not a picture" in page.text()
    assert "invalid_input" not in page.text()
    assert not page.run("Boolean(document.querySelector('#retry'))")
    # The browser itself complains of the answer's status.
    page.forget()


DROP = """
(async () => {
  const blob = await (await fetch('/samples/lamp.jpg')).blob();
  const dataTransfer = new DataTransfer();
  for (const name of ['one.jpg', 'two.jpg']) dataTransfer.items.add(new File([blob], name, { type: blob.type }));
  for (const kind of ['dragenter', 'drop', 'dragenter']) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  }
})()
"""


def test_of_two_photos_that_are_dropped_one_is_taken(page: Chromium, photo_path: Path) -> None:
    page.run(DROP)
    page.wait_for("document.body.dataset.state === 'chosen'")
    assert "One photo is taken at a time: one.jpg." in page.text()
    assert "one.jpg" in page.run(ANNOUNCED)
    assert page.run("document.body.classList.contains('dropping')")
    choose(page, photo_path)
    assert not page.run("document.body.classList.contains('dropping')")


TOPS = "[...document.querySelectorAll('#cards > li')].map((card) => card.getBoundingClientRect().top)"
HEIGHTS = "[...document.querySelectorAll('#cards > li')].map((card) => card.getBoundingClientRect().height)"
CLIPPED = "[...document.querySelectorAll('.frame p')].some((p) => p.offsetHeight > p.parentElement.clientHeight)"
UNREADABLE = f"{WIDER} ? ['wider than the window'] : {CONTRASTS.strip()}"


def test_it_can_be_read_on_a_phone_in_light_and_dark(
    page: Chromium, box: Sandbox, photo_path: Path, tmp_path: Path
) -> None:
    def unreadable() -> list[object]:
        found = []
        for dark in (False, True):
            page.show(360, 780, dark=dark, still=True)
            found += page.run(UNREADABLE)
        return found

    box.fault("job", endpoint="bria/replace-background", fail={"error": "out of memory", "error_type": "oom"})
    assert unreadable() == []
    choose(page, photo_path)
    tick(page, "packshot", "listing", "amazon", "tiktok")
    assert unreadable() == []
    page.run("document.querySelector('#start').click()")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 4")
    assert page.run("document.querySelectorAll('.cards [data-status=failed]').length") == 1
    assert "2 of 3 pictures in" in page.text()
    page.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert unreadable() == []
    pictures = page.run("document.querySelector('#packshots').getBoundingClientRect().bottom")
    assert pictures < page.run("document.querySelector('#categories').getBoundingClientRect().top")
    page.screenshot(tmp_path / "phone.png")
    # Wider: three cards stand in a row, and one that is opened leaves the others as they are.
    page.run("for (const part of document.querySelectorAll('details')) part.open = false")
    page.show(640, 900, still=True)
    assert len(set(page.run(TOPS))) == 1
    assert not page.run(CLIPPED)
    before = page.run(HEIGHTS)
    page.run("document.querySelector('summary').click()")
    assert sum(new != old for new, old in zip(page.run(HEIGHTS), before, strict=True)) == 1


def test_the_page_offers_every_place_there_is() -> None:
    offered = (SHOP / "page" / "places.js").read_text(encoding="utf-8")
    assert set(re.findall(r"^  (\w+): '", offered, re.MULTILINE)) == set(PLACES)
