"""What calls cost: told by every result, estimated before anything is sent, and held below a limit."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import peer
from fal_sandbox.server import Sandbox
from peer import Peer
from services.fal import prices
from services.fal.call import Call
from services.fal.costs import Costs, Purse
from services.fal.errors import AmbiguousSubmit, BudgetExceeded, FalError, InvalidInput, Unreachable
from services.fal_service import FalClient

shared = peer.shared
worker = peer.worker

TEXT, VISION = "openrouter/router", "openrouter/router/vision"
CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
BANANA = "google/nano-banana-2.1/edit"
CUT_USD, SCENE_USD = 0.018, 0.04
PLATFORM = "platform"
PICTURE = {"image": {"url": "https://v3.fal.media/files/b/scene.png", "width": 9, "height": 6}}
CATEGORIES = {"main_product_type": "Kitchenware", "vibe": "Cozy"}
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def quick(box: Sandbox) -> Sandbox:
    """The sandbox, whose pictures are there at once."""
    for endpoint in (CUTOUT, PHOTOKIT, BANANA):
        box.fault("job", endpoint=endpoint, times=None, output=PICTURE)
    return box


@pytest.fixture
def capped(box: Sandbox) -> Iterator[Callable[..., FalClient]]:
    """Makes clients, such as ones with a limit."""
    made: list[FalClient] = []

    def client(**given: Any) -> FalClient:
        made.append(FalClient(timeout=60, **given))
        return made[-1]

    yield client
    for one in made:
        one.close()


def jobs_of(box: Sandbox) -> Counter[str]:
    return Counter(job["endpoint"] for job in box.ledger()["jobs"])


def sent(box: Sandbox) -> list[str]:
    """The stages of the requests that reached fal, but for its price list."""
    return [row["stage"] for row in box.journal() if row["stage"] not in (PLATFORM, "connect")]


def cut_out(client: FalClient, photo_url: str) -> Any:
    return client.remove_background(image_url=photo_url)


# Results


def test_a_text_costs_what_its_model_says(box: Sandbox, client: FalClient) -> None:
    result = client.any_llm_complete("A short pitch.")
    assert result["cost_usd"] == result["usage"]["cost"] > 0
    *earlier, last = client.iter_any_llm("A short pitch.")
    assert last["cost_usd"] == last["usage"]["cost"] > 0
    assert {event["cost_usd"] for event in earlier} == {None}
    request_id = client.any_llm_submit("A short pitch.")
    box.wait_for(lambda ledger: ledger["completed"] == 3)
    assert client.any_llm_result(request_id)["cost_usd"] == result["cost_usd"]
    # No price is needed for any of them.
    assert not [row for row in box.journal() if row["stage"] == PLATFORM]


def test_a_picture_costs_its_units_at_the_price_that_is_read_once_for_the_process(
    quick: Sandbox, client: FalClient, photo_url: str
) -> None:
    assert cut_out(client, photo_url)["cost_usd"] == CUT_USD
    result = client.background_replace(image_url=photo_url, prompt="oak", num_images=2)
    assert result["cost_usd"] == pytest.approx(CUT_USD + 2 * SCENE_USD)
    assert [(one["step"], one["endpoint"], one["cost_usd"]) for one in result["costs"]] == [
        ("cutout", CUTOUT, CUT_USD),
        *[("picture", PHOTOKIT, SCENE_USD)] * 2,
    ]
    with FalClient() as another:
        assert cut_out(another, photo_url)["cost_usd"] == CUT_USD
    assert len([row for row in quick.journal() if row["stage"] == PLATFORM]) == 1


def test_a_workflow_tells_the_sum_and_each_of_its_jobs(quick: Sandbox, client: FalClient, photo_url: str) -> None:
    result = client.product_workflow(photo_url, styles=["Studio", "Premium"])
    assert Counter(one["endpoint"] for one in result["costs"]) == jobs_of(quick)
    assert result["cost_usd"] == pytest.approx(sum(one["cost_usd"] for one in result["costs"]))
    steps = {(one["step"], one["style"]) for one in result["costs"]}
    assert {("analysis", None), ("cutout", None), ("prompt", "Premium"), ("picture", "Studio")} < steps
    assert [image["cost_usd"] for image in result["images"]] == [SCENE_USD] * 2


def test_several_pictures_of_one_job_share_its_cost(
    box: Sandbox, capped: Callable[..., FalClient], monkeypatch: pytest.MonkeyPatch, photo_url: str
) -> None:
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", BANANA)
    box.fault("job", endpoint=BANANA, times=None, output={"images": [PICTURE["image"]] * 2})
    result = capped().generate_multiple_backgrounds(
        image_url=photo_url, categories=CATEGORIES, styles=["Studio"], remove_bg=False, num_images=2
    )
    assert [image["cost_usd"] for image in result["images"]] == [0.04] * 2


def test_a_question_that_is_asked_twice_costs_both(box: Sandbox, client: FalClient, photo_url: str) -> None:
    box.say("I cannot tell.", endpoint=VISION)
    result = client.analyze_product_image(image_url=photo_url)
    assert box.ledger()["billable"] == 2
    assert result["cost_usd"] > result["usage"]["cost"] > 0


@pytest.mark.parametrize(
    ("fail", "cost_usd"),
    [
        ({"error": "Runner disconnected", "error_type": "runner_disconnected"}, CUT_USD),
        ({"error": "no", "status": 422, "body": {"detail": "no"}}, None),
    ],
    ids=["fal bills none of its own failures", "a refusal after the start may be billed"],
)
def test_a_failure_tells_what_was_spent_by_then(
    box: Sandbox, run: Run, photo_url: str, fail: dict[str, Any], cost_usd: float | None
) -> None:
    box.fault("job", endpoint=CUTOUT, output=PICTURE)
    box.fault("job", endpoint=PHOTOKIT, fail=fail)
    code, document = run("background", "--image_url", photo_url, "--prompt", "oak")
    assert code == 1
    assert document["cost_usd"] == cost_usd
    assert [one["cost_usd"] for one in document["costs"]] == [CUT_USD, 0 if cost_usd else None]


def test_what_was_refused_costs_nothing_and_is_no_job(box: Sandbox, run: Run, photo_url: str) -> None:
    box.fault("submit", status=422)
    _, document = run("remove-background", "--image_url", photo_url)
    assert document["error_type"] == "model_rejected"
    assert "cost_usd" not in document


# When the prices are not there

UNREADABLE = [
    pytest.param({"status": 403}, id="refused"),
    pytest.param({"status": 503}, id="down"),
    pytest.param({"garbage": "html"}, id="garbage"),
    pytest.param({"drop": "connect"}, id="no connection"),
]


@pytest.mark.parametrize("fault", UNREADABLE)
def test_without_prices_all_works_and_the_cost_is_not_known_but_a_limit_refuses_to_guess(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str, fault: dict[str, Any]
) -> None:
    quick.fault(PLATFORM, times=None, **fault)
    assert cut_out(capped(), photo_url)["cost_usd"] is None
    before = sent(quick)
    with pytest.raises(BudgetExceeded, match="prices cannot be read") as refused:
        cut_out(capped(max_usd=5), photo_url)
    assert sent(quick) == before
    assert "Leave max_usd out" in refused.value.hint
    assert refused.value.retryable is (fault != {"status": 403})
    assert ("API scope" in refused.value.hint) is (fault == {"status": 403})


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"endpoint_id": "another/one", "unit_price": 1, "unit": "images", "currency": "USD"}, "tells no price"),
        ({"endpoint_id": CUTOUT, "unit_price": 1, "unit": "images", "currency": "EUR"}, "in EUR, not in USD"),
        ({"endpoint_id": CUTOUT, "unit_price": "1", "unit": "images", "currency": "USD"}, "tells no price"),
        ({"endpoint_id": CUTOUT, "unit_price": 1, "unit": "megapixels", "currency": "USD"}, "How many megapixels"),
        (
            {"endpoint_id": CUTOUT, "unit_price": 1, "unit": "compute seconds", "currency": "USD"},
            "How many compute",
        ),
    ],
    ids=["unknown", "another currency", "a text", "megapixels", "seconds"],
)
def test_a_price_that_does_not_tell_the_cost_ahead_is_no_estimate_and_no_limit_is_held_by_it(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str, row: dict[str, Any], why: str
) -> None:
    quick.fault(PLATFORM, times=None, status=200, body={"prices": [row]})
    client = capped(max_usd=5)
    estimate = client.estimate("remove_background")
    assert (estimate["cost_usd"], estimate["endpoints"][0]["cost_usd"]) == (None, None)
    assert why in estimate["unknown"]
    with pytest.raises(BudgetExceeded, match=why):
        cut_out(client, photo_url)
    assert sent(quick) == []
    # Afterwards fal has counted the units.
    counted = why.startswith("How many")
    assert cut_out(capped(), photo_url)["cost_usd"] == (1 if counted else None)


def test_a_failed_reading_is_tried_again_after_a_while(
    quick: Sandbox, client: FalClient, photo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.fault(PLATFORM, status=403)
    assert cut_out(client, photo_url)["cost_usd"] is None
    assert cut_out(client, photo_url)["cost_usd"] is None
    assert len([row for row in quick.journal() if row["stage"] == PLATFORM]) == 1
    monkeypatch.setattr(prices, "RETRY_S", 0.0)
    assert cut_out(client, photo_url)["cost_usd"] == CUT_USD


def test_a_price_that_does_not_come_holds_up_one_job_for_a_moment_and_leaves_no_thread(
    quick: Sandbox, client: FalClient, photo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "WAIT_S", 0.05)
    quick.fault(PLATFORM, times=None, silent=600)
    for _ in range(3):
        assert cut_out(client, photo_url)["cost_usd"] is None
    for thread in threading.enumerate():
        if thread.name == "fal-prices":
            thread.join(30)
            assert not thread.is_alive()
    assert len([row for row in quick.journal() if row["stage"] == PLATFORM]) == 1


def test_one_endpoint_that_fal_does_not_know_spoils_no_other_price(quick: Sandbox, client: FalClient) -> None:
    rows = client.prices([CUTOUT, "no/such-endpoint"])
    assert [(row["endpoint"], row["role"], row["unit_price"], row["unit"], row["currency"]) for row in rows] == [
        (CUTOUT, "cutout", CUT_USD, "images", "USD"),
        ("no/such-endpoint", None, None, None, None),
    ]


def test_prices_are_those_of_the_endpoints_in_use(box: Sandbox, run: Run) -> None:
    _, document = run("prices")
    in_use = {row["role"]: row["endpoint"] for row in document["prices"]}
    assert in_use["cutout"] == CUTOUT
    assert in_use["photokit"] == PHOTOKIT
    assert set(in_use) == {"text", "enterprise", "vision", "photokit", "cutout"}
    code, document = run("prices", "--endpoints", "nonsense")
    assert (code, document["error_type"]) == (1, "invalid_input")


# Estimates

ESTIMATED: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "text": ("any_llm_complete", {}, ""),
    "enterprise": ("any_llm_enterprise", {}, ""),
    "vision": ("any_llm_enterprise", {"image_urls": ["PHOTO"]}, ""),
    "analysis": ("analyze_product_image", {}, ""),
    "prompt": ("generate_background_prompt", {}, ""),
    "cut-out": ("remove_background", {}, ""),
    "picture": ("background_replace", {}, ""),
    "picture of a cut-out": ("background_replace", {"remove_bg": False}, ""),
    "variants, a job each": ("background_replace", {"num_images": 3}, ""),
    "variants of one job": ("background_replace", {"num_images": 3, "remove_bg": False}, BANANA),
    "a dearer resolution": ("background_replace", {"resolution": "4K", "remove_bg": False}, BANANA),
    "styles": ("generate_multiple_backgrounds", {"styles": ["Studio", "Premium"], "num_images": 2}, ""),
    "workflow": ("product_workflow", {"styles": ["Studio"]}, ""),
    "workflow with a cut-out": ("product_workflow", {"cutout": "PHOTO"}, ""),
}
NEEDED = {"prompt": "oak", "image": "PHOTO", "categories": CATEGORIES, "style_type": "white"}
REQUIRED = {
    "any_llm_complete": ("prompt",),
    "any_llm_enterprise": ("prompt",),
    "analyze_product_image": ("image",),
    "generate_background_prompt": ("categories", "style_type"),
    "remove_background": ("image",),
    "background_replace": ("image", "prompt"),
    "generate_multiple_backgrounds": ("image", "categories"),
    "product_workflow": ("image",),
}


@pytest.mark.parametrize("name", ESTIMATED)
def test_an_estimate_counts_the_jobs_that_the_call_submits_and_sends_nothing(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method, options, endpoint = ESTIMATED[name]
    if endpoint:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", endpoint)
    client = capped()
    given = {key: [photo_url] if value == ["PHOTO"] else photo_url if value == "PHOTO" else value
             for key, value in options.items()}  # fmt: skip
    estimate = client.estimate(method, **given)
    assert sent(quick) == []

    needed = {key: photo_url if NEEDED[key] == "PHOTO" else NEEDED[key] for key in REQUIRED[method]}
    result = getattr(client, method)(**needed, **given)
    calls: Counter[str] = Counter()
    for row in estimate["endpoints"]:
        calls[row["endpoint"]] += row["calls"]
    assert calls == jobs_of(quick)
    # The sandbox bills a picture as one unit, whatever its size; fal's documents know the factor.
    known = [row["cost_usd"] for row in estimate["endpoints"] if not row["about"]]
    units = 2 * SCENE_USD if name == "a dearer resolution" else None
    paid = [one["cost_usd"] for one in result.get("costs", []) if one["endpoint"] in (CUTOUT, PHOTOKIT, BANANA)]
    if name == "variants of one job":
        assert known == [pytest.approx(3 * SCENE_USD)]
    elif "costs" in result:
        assert sum(known) == pytest.approx(units if units else sum(paid))
    assert estimate["about"] is any(row["about"] for row in estimate["endpoints"])
    assert estimate["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in estimate["endpoints"]))


def test_a_question_is_estimated_by_the_dearest_answer_so_far(box: Sandbox, client: FalClient) -> None:
    before = client.estimate("any_llm_complete")
    assert (before["cost_usd"], before["about"]) == (prices.QUESTION_USD, True)
    costs = [client.any_llm_complete(prompt)["cost_usd"] for prompt in ("A long prompt. " * 50, "Short.")]
    assert client.estimate("any_llm_complete")["cost_usd"] == max(costs) == costs[0]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("product_workflow", {"num_images": 7}),
        ("product_workflow", {"resolution": "4K"}),
        ("product_workflow", {"no_such_option": 1}),
        ("background_replace", {"prompt": " "}),
        ("generate_multiple_backgrounds", {"styles": ["Nonsense"]}),
        ("upload_file", {"path": "photo.jpg"}),
        ("nonsense", {}),
    ],
    ids=str,
)
def test_an_estimate_refuses_what_the_method_would_refuse(
    box: Sandbox, client: FalClient, method: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        client.estimate(method, **options)
    assert box.journal() == []


@pytest.mark.parametrize(
    ("command", "options", "calls"),
    [
        ("workflow", '{"styles": ["Studio"], "num_images": 2}', {VISION: 1, CUTOUT: 1, PHOTOKIT: 2, TEXT: 1}),
        ("workflow", '{"listing": true, "packshot": true, "save_dir": "new", "styles": ["Studio"]}', {TEXT: 2}),
        ("packshot", '{"for": "amazon"}', {CUTOUT: 1}),
        ("listing", '{"languages": "Turkish,German"}', {VISION: 1, TEXT: 2}),
        ("listing", '{"categories": {"vibe": "calm"}}', {TEXT: 1}),
    ],
    ids=str,
)
def test_the_command_estimates_commands(
    box: Sandbox, run: Run, command: str, options: str, calls: dict[str, int]
) -> None:
    code, document = run("estimate", command, "--options", options)
    assert (code, document["error"]) == (0, None)
    found = {row["endpoint"]: row["calls"] for row in document["endpoints"]}
    assert calls.items() <= found.items()
    assert sent(box) == []
    assert not Path("new").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ["upload-file"],
        ["nonsense"],
        ["workflow", "--options", "[1]"],
        ["workflow", "--options", '{"num_images": 9}'],
        ["workflow", "--options", '{"nonsense": 9}'],
        ["workflow", "--options", '{"packshot": true}'],
    ],
    ids=str,
)
def test_the_command_refuses_what_the_commands_would_refuse(box: Sandbox, run: Run, argv: list[str]) -> None:
    code, document = run("estimate", *argv)
    assert (code, document["error_type"]) == (1, "invalid_input")
    assert box.journal() == []


def test_a_batch_is_estimated_by_its_dry_run(box: Sandbox, run: Run) -> None:
    assert "--dry_run" in run("estimate", "batch")[1]["error"]
    assert box.journal() == []


def test_what_costs_nothing_is_estimated_as_nothing_and_writes_nothing(box: Sandbox, run: Run) -> None:
    Image.new("RGBA", (60, 60), (200, 30, 30, 255)).crop((-20, -20, 80, 80)).save("cutout.png")
    code, document = run("estimate", "packshot", "--options", '{"cutout": "cutout.png", "for": "etsy"}')
    assert (code, document["cost_usd"], document["endpoints"]) == (0, 0, [])
    Path("shop.jsonl").write_text('{"key": "A", "cutout": "cutout.png", "size": "200x200"}')
    code, document = run("batch", "--input", "shop.jsonl", "--output", "o", "--command", "packshot", "--dry_run")
    assert (code, document["cost_usd"], document["planned"]) == (0, 0, [])
    assert sorted(path.name for path in Path().iterdir()) == ["cutout.png", "shop.jsonl"]
    assert box.journal() == []


# Limits


@pytest.mark.parametrize(
    "argv",
    [
        ["workflow", "--image", "FILE", "--listing"],
        ["background", "--image", "FILE", "--prompt", "oak"],
        ["remove-background", "--image", "FILE"],
        ["packshot", "--image", "FILE", "--save_dir", "out"],
        ["listing", "--image", "FILE"],
        ["analyze-product", "--image", "FILE"],
        ["any-llm-complete", "--prompt", "Hi"],
        ["any-llm-submit", "--prompt", "Hi"],
        ["any-llm-stream", "--prompt", "Hi"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_command_that_would_cost_more_than_its_limit_sends_nothing_at_all(
    box: Sandbox, run: Run, photo_path: Path, argv: list[str]
) -> None:
    words = [str(photo_path) if word == "FILE" else word for word in argv]
    code, document = run(*words, "--max_usd", "0.004")
    assert (code, document["error_type"], document["retryable"]) == (1, "budget_exceeded", False)
    assert "--max_usd" in document["hint"]
    assert sent(box) == []
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["files"]) == (0, 0)


def test_a_limit_holds_exactly_for_eight_threads(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str
) -> None:
    client = capped(max_usd=3 * CUT_USD)

    def one(_: int) -> str:
        try:
            return str(cut_out(client, photo_url)["cost_usd"])
        except BudgetExceeded:
            return "refused"

    with ThreadPoolExecutor(8) as threads:
        outcomes = Counter(threads.map(one, range(8)))
    assert outcomes == {str(CUT_USD): 3, "refused": 5}
    assert quick.ledger()["accepted"] == 3


def test_what_a_call_set_aside_and_did_not_spend_is_there_for_the_next_one(
    box: Sandbox, capped: Callable[..., FalClient], photo_url: str
) -> None:
    client = capped(max_usd=2 * SCENE_USD + CUT_USD)
    box.fault("job", endpoint=CUTOUT, fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    box.fault("job", times=None, output=PICTURE)
    with pytest.raises(FalError):
        client.background_replace(image_url=photo_url, prompt="oak", num_images=2)
    assert client.background_replace(image_url=photo_url, prompt="oak", num_images=2)["cost_usd"]
    with pytest.raises(BudgetExceeded):
        cut_out(client, photo_url)


@pytest.mark.parametrize("units", ["-1000", "1e300"])
def test_a_count_that_is_no_bill_does_not_move_a_limit(
    box: Sandbox, capped: Callable[..., FalClient], photo_url: str, units: str
) -> None:
    box.fault("result", status=200, body=PICTURE, headers={"x-fal-billable-units": units}, times=None)
    client = capped(max_usd=2 * CUT_USD)
    assert [cut_out(client, photo_url)["cost_usd"] for _ in range(2)] == [None, None]
    with pytest.raises(BudgetExceeded):
        cut_out(client, photo_url)
    assert len(box.ledger()["jobs"]) == 2


def test_an_answer_whose_cost_no_float_can_hold_is_not_lost(box: Sandbox, client: FalClient) -> None:
    box.fault("job", endpoint=TEXT, output={"output": "A mug.", "usage": {"cost": 10**400, "total_tokens": 10**400}})
    result = client.any_llm_complete("A short pitch.")
    assert (result["output"], result["cost_usd"]) == ("A mug.", None)


def test_a_refused_submit_gives_its_part_back_and_one_in_doubt_does_not(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str
) -> None:
    client = capped(max_usd=CUT_USD)
    quick.fault("submit", status=422)
    with pytest.raises(FalError):
        cut_out(client, photo_url)
    quick.fault("submit", drop="after")
    with pytest.raises(AmbiguousSubmit):
        cut_out(client, photo_url)
    with pytest.raises(BudgetExceeded):
        cut_out(client, photo_url)


def test_an_endpoint_that_follows_one_that_is_gone_is_counted_at_its_own_price(
    quick: Sandbox, capped: Callable[..., FalClient], photo_url: str
) -> None:
    quick.configure(gone=[PHOTOKIT])
    quick.fault("job", endpoint="fal-ai/bria/background/replace", output=PICTURE)
    client = capped(max_usd=SCENE_USD)
    with pytest.raises(BudgetExceeded, match="tells no price"):
        client.background_replace(image_url=photo_url, prompt="oak", remove_bg=False)
    capped().background_replace(image_url=photo_url, prompt="oak", remove_bg=False)
    quick.fault("job", endpoint="fal-ai/bria/background/replace", output=PICTURE)
    made = client.background_replace(image_url=photo_url, prompt="oak", remove_bg=False)
    assert made["costs"][0]["endpoint"] == "fal-ai/bria/background/replace"
    assert made["cost_usd"] == SCENE_USD


def test_one_call_of_python_has_a_limit_of_its_own(quick: Sandbox, client: FalClient, photo_url: str) -> None:
    call = Call(60, max_usd=1.5 * CUT_USD)
    view = client.within(call)
    cut_out(view, photo_url)
    with pytest.raises(BudgetExceeded):
        cut_out(view, photo_url)
    assert call.costs.total() == CUT_USD
    assert cut_out(client, photo_url)["cost_usd"] == CUT_USD
    with pytest.raises(InvalidInput):
        Call(60, max_usd=-1)


def test_a_stream_that_is_left_early_counts_as_spent(quick: Sandbox, capped: Callable[..., FalClient]) -> None:
    client = capped(max_usd=prices.QUESTION_USD)
    events = client.iter_any_llm("A story.")
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert client.any_llm_complete("Hi")["error_type"] == "budget_exceeded"


def test_a_call_of_serve_has_a_limit_of_its_own(worker: Peer, box: Sandbox, photo_url: str) -> None:
    box.fault("job", endpoint=CUTOUT, times=None, output=PICTURE)
    params = {"image_url": photo_url}
    error = worker.ask("remove-background", {**params, "max_usd": 0.01})["error"]
    assert error["data"]["error_type"] == "budget_exceeded"
    assert sent(box) == []
    assert worker.ask("remove-background", {**params, "max_usd": 0.02})["result"]["cost_usd"] == CUT_USD
    assert worker.ask("remove-background", params)["result"]["cost_usd"] == CUT_USD
    assert "max_usd" in worker.ask("remove-background", {**params, "max_usd": 0})["error"]["message"]


def test_what_a_call_keeps_for_later_is_not_lent_to_others() -> None:
    life = Purse(10)
    outer = Costs(max_usd=6, life=life)
    outer.purse.set_aside(5)
    inner = Costs(outer, life=life)
    inner.purse.set_aside(3)
    other = Costs(life=life)
    with pytest.raises(BudgetExceeded):
        other.purse.take(5.01)
    inner.purse.take(2)
    inner.purse.settle(2, 1)
    inner.purse.close()
    # One of the inner call's three is spent, and two are the outer call's again.
    outer.purse.take(4)
    with pytest.raises(BudgetExceeded):
        outer.purse.take(1.5)
    outer.purse.settle(4, 4.5)
    outer.purse.close()
    other.purse.take(4.5)
    with pytest.raises(BudgetExceeded):
        other.purse.take(0.01)


def test_prices_obey_the_deadline_of_their_call(quick: Sandbox, client: FalClient) -> None:
    quick.fault(PLATFORM, times=None, silent=600)
    began = time.monotonic()
    with pytest.raises((TimeoutError, Unreachable)):
        client.prices(timeout=0.5)
    assert time.monotonic() - began < 20
