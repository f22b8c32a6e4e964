"""The command `batch`: runs another command over a manifest. The command table types the columns."""

from __future__ import annotations

import select
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.batch.batch import Batch, counts_of, how_to_resume, store_of
from services.batch.columns import OWN
from services.batch.journal import COUNTED, BatchIncomplete, as_text
from services.batch.manifest import BadLine, Manifest
from services.batch.recipe import Recipe, RecipeOf, listed, with_stand_in
from services.fal import log
from services.fal.call import LOOK_S, Call
from services.fal.costs import total_usd
from services.fal.errors import Cancelled, FalError, InvalidInput, report
from services.worker.command import ENV_FILE, TIMEOUT, Command, Document, Values
from services.worker.options import Option, parse_value, require, values_of

if TYPE_CHECKING:
    from services.fal_service import FalClient

DEFAULT_COMMAND = "workflow"
ASK_ABOVE = 50
"""Products that are begun without a question."""
NOT_PRICED = ("image", "image_url", "title", "facts", "prompt")
"""Options that do not change what a product costs."""
NOT_WAITED_FOR = "any-llm-submit"
MISSING = "Give it in the manifest, or in --options."
TEXTS = ("text", "path")
"""Kinds of options whose values are texts in a CSV and elsewhere."""


def run(client: FalClient, values: Values, table: Mapping[str, Command]) -> Document:
    """The document of the command, which runs another one of the `table`."""
    output, recipe_of = Path(values["output"]), partial(_recipe_of, table)
    if values.get("dry_run"):
        return _planned(client, values, output, recipe_of)
    if values.get("status") or values.get("pause"):
        return _looked(output, values.get("journal"), pause=bool(values.get("pause")))
    assert client.call is not None
    is_new = values.get("input") is not None
    with Batch(
        values.get("input"),
        output,
        command=values.get("command", DEFAULT_COMMAND if is_new else None),
        options=values.get("options"),
        max_jobs=values.get("max_jobs"),
        max_usd=values.get("max_usd"),
        retry_failed=values.get("retry_failed", False),
        retry_ambiguous=values.get("retry_ambiguous", False),
        settle=values.get("settle", False),
        timeout=values.get(TIMEOUT.name),
        env_file=values.get(ENV_FILE.name),
        on_progress=partial(_tell, client.call),
        confirm=partial(_confirm, client.call, is_sure=values.get("yes", False)),
        within=client.call,
        recipe_of=recipe_of,
        journal=values.get("journal"),
    ) as batch:
        ended: FalError | None = None
        try:
            for _ in batch:
                pass
        except FalError as error:
            ended = error
        counts = batch.counts()
        _tell(client.call, counts)
        left_out = [bad._asdict() for bad in batch.bad_lines]
        seen = {"left_out": left_out, "ignored_columns": batch.ignored_columns}
        document = {**_document(output, counts), **seen, "settled": _settled(batch)}
        return {**document, **_failure(document, batch, ended)}


def _document(output: Path, counts: Document) -> Document:
    seen: Document = {"left_out": [], "ignored_columns": [], "settled": None, "planned": None}
    return {"output": str(output), **counts, **seen, "worked_on": None, "how_to_resume": None, "error": None}


def _settled(batch: Batch) -> Document | None:
    return None if batch.settled is None else batch.settled._asdict()


def _failure(document: Document, batch: Batch, ended: FalError | None) -> Document:
    """The error of a run: what ended it early, else that not every product is done."""
    products, left_out = document["products"], document["left_out"]
    # Of a run that was asked to end, the last jobs may have ended in time.
    if ended is not None and not (isinstance(ended, Cancelled) and not products["waiting"] + products["running"]):
        return report(ended)
    found = {name: products[name] for name in _WORDS if products[name]}
    said = [f"{count:,} of {sum(products.values()):,} products {_WORDS[name]}" for name, count in found.items()]
    if left_out:
        lines = f"{len(left_out):,} lines were" if len(left_out) > 1 else "1 line was"
        said.append(f"{lines} left out, the first in line {left_out[0]['line']}")
    if not said:
        return {}
    hints = [_HINTS[name] for name in found] + (["See `left_out`."] if left_out else [])
    if "waiting" in found:
        hints.append(batch.how_to_resume)
    return report(BatchIncomplete(f"{'; '.join(said)}.", hint=" ".join(hints)))


_WORDS = {"failed": "failed", "ambiguous": "are in doubt", "waiting": "were not made"}
_HINTS = {
    "failed": "results.jsonl and index.html say why. Correct the manifest and pass it again, or use --retry_failed.",
    "ambiguous": "--settle asks fal for their jobs; --retry_ambiguous pays for these once more.",
    "waiting": "The next run makes them.",
}


def _tell(call: Call, counts: Document) -> None:
    products, jobs = counts["products"], counts["jobs"]
    call.progress.tell(
        {
            "step": "batch",
            "status": "running",
            **{name: products[name] for name in ("done", "failed", "ambiguous")},
            "total": sum(products.values()),
            "jobs": jobs.get("intent", 0) + jobs.get("sent", 0),
            "cost_usd": counts["cost_usd"],
            "unknown_costs": counts["unknown_costs"],
        }
    )


def _looked(output: Path, journal: str | None, *, pause: bool) -> Document:
    """How far a batch is, which another process may be working on."""
    store = store_of(journal, output)
    try:
        store.look()
        if pause:
            store.set_paused(True)
        counts, worked_on = counts_of(store), store.is_worked_on()
        products = counts["products"]
        if not worked_on:
            # Whoever was making them was killed: they wait for the next run.
            products |= {"waiting": products["waiting"] + products["running"], "running": 0}
        goes_on = how_to_resume(output, is_shared=journal is not None)
        seen = {"worked_on": worked_on, "how_to_resume": goes_on if products["waiting"] and not worked_on else None}
        return {**_document(output, {**counts, "seconds": 0.0}), **seen}
    finally:
        store.close()


def _planned(client: FalClient, values: Values, output: Path, recipe_of: RecipeOf) -> Document:
    """The calls of a batch, and what they would cost. Nothing is sent to a model, and nothing is written."""
    if values.get("input") is None:
        raise InvalidInput("--dry_run requires --input.", hint="--status shows what a batch has cost so far.")
    recipe = recipe_of(values.get("command", DEFAULT_COMMAND), values.get("options") or {})
    manifest = Manifest(values["input"], recipe.read, recipe.names)
    alike: dict[str, Values] = {}
    lines: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for product in manifest:
        priced = {name: value for name, value in product.input.items() if name not in NOT_PRICED}
        kind = as_text({"options": priced, "given": sorted(set(product.input) & set(NOT_PRICED))})
        counts[kind] += 1
        alike.setdefault(kind, with_stand_in(recipe, product.input))
        lines.setdefault(kind, product.line)
    calls: dict[str, Document] = {}
    left_out = list(manifest.bad_lines)
    wrong: list[InvalidInput] = []
    for kind, options in alike.items():
        try:
            _add(calls, _endpoints(client, recipe, options), counts[kind])
        except InvalidInput as error:
            wrong.append(error)
            more = f" The same holds for {counts[kind] - 1:,} more of the lines after it." if counts[kind] > 1 else ""
            left_out.append(BadLine(lines[kind], f"{error}{more}"))
    if wrong and len(wrong) == len(alike):
        raise wrong[0]  # as a rule, one thing is wrong for all
    costs = [row["cost_usd"] for row in calls.values()]
    return {
        **_document(output, {"products": dict.fromkeys(COUNTED, 0), "jobs": {}, "seconds": 0.0}),
        "products": {**dict.fromkeys(COUNTED, 0), "waiting": manifest.count},
        "cost_usd": total_usd(costs),
        "unknown_costs": 0,
        "committed_usd": 0.0,
        "max_usd": values.get("max_usd"),
        "left_out": [bad._asdict() for bad in sorted(left_out)],
        "ignored_columns": manifest.ignored_columns,
        "planned": list(calls.values()),
    }


def _endpoints(client: FalClient, recipe: Recipe, options: Values) -> Sequence[Mapping[str, Any]]:
    """The calls of one product."""
    with tempfile.TemporaryDirectory() as folder:
        return client.estimate_of(lambda view: recipe.make(view, options, Path(folder)))["endpoints"]


def _add(calls: dict[str, Document], rows: Sequence[Mapping[str, Any]], times: int) -> None:
    for row in rows:
        known = calls.setdefault(f"{row['role']} {row['endpoint']}", {**row, "calls": 0, "cost_usd": 0.0})
        known["calls"] += row["calls"] * times
        known["cost_usd"] = total_usd([known["cost_usd"], row["cost_usd"] and row["cost_usd"] * times])


def _recipe_of(table: Mapping[str, Command], name: str, options: Values) -> Recipe:
    """What a command of the table makes of a product. Raises InvalidInput."""
    command = table.get(name)
    known = [other for other, row in table.items() if row.is_paid and not row.streams and other != NOT_WAITED_FOR]
    if command is None or name not in known:
        raise InvalidInput(f"{name[:100]!r} cannot be run over a manifest. Commands that can: {', '.join(known)}.")
    if not isinstance(options, Mapping):
        raise InvalidInput("--options must be one JSON object with the options of the command.")
    columns = tuple(option for option in command.options if option.name not in OWN)
    given = _read(columns, options)
    read = partial(_read_row, command, columns, given)
    return Recipe(name, given, tuple(option.name for option in columns), read, partial(_make, command))


def _read_row(command: Command, columns: Sequence[Option], given: Values, row: Values) -> Document:
    """A product's own options, with which and those of all products the command can run."""
    values = _read(columns, row)
    require(command.options, {**given, **values}, MISSING)
    return values


def _read(columns: Sequence[Option], row: Values) -> Document:
    """The options in a row, whose values may be texts: those of a CSV all are."""
    kinds = {option.name: option for option in columns}

    def typed(name: str, value: Any) -> Any:
        option = kinds.get(name.replace("-", "_"))
        if option is None or not isinstance(value, str) or option.kind in TEXTS:
            return value
        if option.name == "styles" and (styles := listed(value)):
            return styles
        return parse_value(option, value.strip())

    return values_of(columns, {name: typed(name, value) for name, value in row.items()})


def _make(command: Command, client: FalClient, options: Values, folder: Path) -> Document:
    names = {option.name for option in command.options}
    values = {**options, **({"save_dir": str(folder)} if "save_dir" in names else {})}
    require(command.options, values, MISSING)
    if command.handler is not None:
        return command.handler(client, values)
    return command.document(getattr(client, command.method)(**command.arguments(values)))


def _confirm(call: Call, products: int, *, is_sure: bool) -> None:
    """Ask before many products are begun. Raises InvalidInput, and Cancelled."""
    if is_sure or products <= ASK_ABOVE:
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        raise InvalidInput(
            f"This begins {products:,} products.", hint="Confirm it with --yes; --dry_run shows what they cost."
        )
    log.show(f"This begins {products:,} products; --dry_run shows what they cost. Continue? [y/N]")
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        if call.cancelled or call.winds_down:
            raise Cancelled("The batch did not begin. Nothing was sent.")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("The batch did not begin. Nothing was sent.")
