"""A batch: one recipe over a catalogue, which can be resumed at any time and pays for no job twice.

    with Batch("shop.csv", "out", max_usd=250) as batch:
        for line in batch:
            print(line["key"], line["status"])

Its truth is the journal in the output's folder: begun again with the same output it goes on where it was, whatever
ended it. Products are made side by side in threads, a page of them at a time.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import shlex
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union

from services.batch.attempt import attempt
from services.batch.brake import Brake
from services.batch.journal import COUNTED, JournalError, Product, ProductState, Store, check_recipe
from services.batch.keys import folder_of
from services.batch.manifest import BadLine, Manifest
from services.batch.page import Page
from services.batch.postgres_journal import PostgresStore
from services.batch.product_journal import PASSING, ProductJournal
from services.batch.recipe import Recipe, RecipeOf, check_products, of_method
from services.batch.results_file import ResultsFile
from services.batch.settle import Settled
from services.batch.settle import settle as settle_jobs
from services.batch.sqlite_journal import SqliteStore
from services.fal.arguments import folder
from services.fal.call import Call
from services.fal.costs import check_max_usd
from services.fal.errors import AuthError, BudgetExceeded, Cancelled, FalError, InvalidInput, as_fal_error
from services.fal.log import logger
from services.fal.progress import Progress
from services.fal_service import FalClient

DEFAULT_COMMAND = "product_workflow"
DEFAULT_TIMEOUT_S = 900.0
"""Of one product, the waits for a place at fal included."""
PAGE = 32
"""Products that are claimed at once."""
MOST_PRODUCTS = 64
"""Products that are made at once: more would only wait for the same places."""
DRAIN_S = 10.0
"""How long jobs may still run when a batch ends early. After it they go on at fal, and the next run picks them up."""
TELL_S = 1.0
"""How often it is told how far the batch is."""
LOOK_S = 0.25
"""How often it is looked whether the batch was stopped or paused."""
SHOW_EVERY_S = 10.0
"""How often index.html is brought up to date."""

Source = Union[str, "os.PathLike[str]", Iterable[Mapping[str, Any]]]
OnProgress = Callable[[dict[str, Any]], object]


class Batch:
    """A run over a batch. Iterate over it once: it yields the lines of results.jsonl as products end."""

    def __init__(
        self,
        input: Source | None,
        output: str | os.PathLike[str],
        *,
        command: str | None = None,
        options: Mapping[str, Any] | None = None,
        max_jobs: int | None = None,
        max_usd: float | None = None,
        retry_failed: bool = False,
        retry_ambiguous: bool = False,
        settle: bool = False,
        timeout: float | None = None,
        env_file: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
        confirm: Callable[[int], object] | None = None,
        within: Call | None = None,
        recipe_of: RecipeOf = of_method,
        journal: str | None = None,
    ) -> None:
        """
        - input: a manifest (JSON Lines or CSV), a folder of photos, or mappings with `key` and the options of a
          product; None resumes the batch that is in `output`
        - output: the folder for the journal, results.jsonl, and a folder of pictures for each product
        - command: the method of FalClient that makes a product (default: product_workflow)
        - options: its options for all products
        - max_jobs: how many jobs run at fal at once (default: 10)
        - max_usd: what the batch may spend, in US dollars
        - retry_failed: make the products that failed once more; jobs that are done are not paid again
        - retry_ambiguous: submit jobs again of which nobody knows whether fal runs and bills them
        - settle: first ask fal for these jobs, among its past requests
        - timeout: seconds for one product (default: 900)
        - on_progress: called with `counts()` every second
        - confirm: called with the number of products that are new, before they are begun; may raise
        - within: a call that another thread may cancel
        - recipe_of: makes the recipe of a command and its options
        - journal: the URL of a PostgreSQL database, for a batch that several machines make (the extra `cluster`);
          with `input` it begins there, without it this machine takes part (default: SQLite in the output's folder)

        Raises InvalidInput and MissingKey before anything is sent, and JournalError.
        """
        self.output = folder(output, "output")
        self._timeout_s = DEFAULT_TIMEOUT_S if timeout is None else timeout
        self._retry_ambiguous = retry_ambiguous
        self._brake = Brake()
        self._call = Call(math.inf, parent=within, progress=Progress())
        self._around = within
        self._on_progress = on_progress
        self._confirm = confirm or (lambda products: None)
        self.bad_lines: list[BadLine] = []
        """Lines of the manifest that were left out."""
        self.ignored_columns: list[str] = []
        """Its columns that are not options of the command."""
        self.settled: Settled | None = None
        """What came of asking fal for the jobs that were in doubt."""
        self._is_shared = journal is not None
        self._store = store_of(journal, self.output)
        self._began = time.monotonic()
        try:
            self._open(input, command, options, recipe_of, max_jobs, max_usd, env_file)
            if settle:
                self.settled = settle_jobs(self._store, self._client.settings, self._call)
            wanted: dict[ProductState, bool] = {"failed": retry_failed, "ambiguous": retry_ambiguous}
            if again := [state for state, is_wanted in wanted.items() if is_wanted]:
                self._store.again(again)
            self._results = ResultsFile(self.output, self._store)
        except BaseException:
            self._store.close()
            raise
        self._index = Page(self.output)
        self._show_at = self._began + SHOW_EVERY_S
        self._page: deque[Product] = deque()
        self._paging = threading.Lock()
        self._ended: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=MOST_PRODUCTS)
        self._threads: list[threading.Thread] = []
        self._drained_at = math.inf
        """When the jobs that still run have had their time, by the monotonic clock."""
        self._told_at = -math.inf
        self._closed = False

    def _open(
        self,
        source: Source | None,
        command: str | None,
        options: Mapping[str, Any] | None,
        recipe_of: RecipeOf,
        max_jobs: int | None,
        max_usd: float | None,
        env_file: str | os.PathLike[str] | None,
    ) -> None:
        """The client, the journal, and the products in it; what is wrong with them is told before anything is sent."""
        # Settings that make no sense are refused before the journal has them.
        client = FalClient(timeout=self._timeout_s, max_concurrency=max_jobs, env_file=env_file)
        settings = client.settings
        if max_usd is not None:
            check_max_usd(max_usd)
        fixed = {"endpoints": dict(settings.endpoints), "models": {k: list(v) for k, v in settings.models.items()}}
        recipe: Recipe | None = None
        if source is not None or command is not None or options is not None:
            recipe = recipe_of(command or DEFAULT_COMMAND, options or {})
        manifest: Manifest | None = None
        if source is not None and recipe is not None:
            manifest = Manifest(source, recipe.read, recipe.names)
        is_new = not self._store.is_there()
        if manifest is not None and recipe is not None and is_new:
            check_products(recipe, client, manifest)
            self._confirm(manifest.count)
        if recipe is not None or not is_new:  # a wrong --output leaves no folder behind
            make_folder(self.output)
        named = recipe and {"command": recipe.command, "options": dict(recipe.options), **fixed}
        row = self._store.open(named, max_jobs, max_usd)
        check_recipe(row.recipe, {**row.recipe, **fixed})
        self._recipe = recipe or recipe_of(row.recipe["command"], row.recipe["options"])
        self._add(manifest, is_new=is_new)
        self.max_jobs = row.max_jobs
        self._has_limit = row.max_usd is not None
        self._client = FalClient(timeout=self._timeout_s, max_concurrency=row.max_jobs, env_file=env_file)

    def _add(self, manifest: Manifest | None, *, is_new: bool) -> None:
        if manifest is not None:
            self.bad_lines, self.ignored_columns = manifest.bad_lines, manifest.ignored_columns
            if not is_new:
                self._confirm(manifest.count - sum(counts_of(self._store)["products"].values()))
            self._store.add(manifest)
        elif not self._store.has_products():
            # Its first run was ended before it had read its input.
            raise InvalidInput(f"The batch in {str(self.output)!r} has no products.", hint="Run it again with --input.")

    # The run

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The line of each product that ends. Raises the error that ended the run early, when there is one."""
        if self._threads or self._closed:
            raise InvalidInput("A batch is iterated over once. Make another one to resume it.")
        self._start()
        over = 0
        while over < len(self._threads):
            line = self._ended.get()
            if line is None:
                over += 1
            else:
                yield line
        self._give_back()
        if not isinstance(self._brake.reason, JournalError):
            self._results.make_whole()
        if self._brake.reason is not None:
            raise self._brake.reason

    def drain(self, why: str = "stopped") -> None:
        """Submit no more jobs, and let those that run go on for DRAIN_S. May be called by another thread."""
        self._brake.stop(Cancelled(f"The batch was {why}.", hint=self.how_to_resume))
        self._drained_at = min(self._drained_at, time.monotonic() + DRAIN_S)

    def stop(self) -> None:
        """End at once. What runs at fal goes on there, and is picked up when the batch is resumed."""
        self._brake.stop(Cancelled("The batch was stopped.", hint=self.how_to_resume))
        self._call.cancel()

    def close(self) -> None:
        """End, after DRAIN_S at the latest, and let go of the journal."""
        if self._closed:
            return
        self._closed = True
        if any(thread.is_alive() for thread in self._threads):
            self.drain()
        try:
            self._join()
        except BaseException:  # Ctrl-C once more
            self.stop()
            self._join()
            raise
        finally:
            self._give_back()
            self._show()
            self._results.close()
            self._store.close()
            self._client.close()

    @property
    def how_to_resume(self) -> str:
        return how_to_resume(self.output, is_shared=self._is_shared)

    def counts(self) -> dict[str, Any]:
        """How far it is: products by their state, jobs by theirs, US dollars, and seconds."""
        return {**counts_of(self._store), "seconds": round(time.monotonic() - self._began, 3)}

    # Threads

    def _give_back(self) -> None:
        """The products that were claimed and not begun, so that they are not counted as running."""
        with contextlib.suppress(JournalError):  # it was told already, and the next run takes them back itself
            while self._page:
                self._store.put_back(self._page.popleft().id, 0.0)

    def _start(self) -> None:
        count = min(self.max_jobs, MOST_PRODUCTS)
        self._threads = [threading.Thread(target=self._work, name="fal-batch", daemon=True) for _ in range(count)]
        for thread in (*self._threads, threading.Thread(target=self._watch, name="fal-batch-watch", daemon=True)):
            thread.start()

    def _join(self) -> None:
        """Wait for the threads, whose last lines nobody takes any more."""
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=LOOK_S / 5)

    def _work(self) -> None:
        try:
            while (product := self._next()) is not None:
                self._make(product)
        except BaseException as error:
            self._brake.stop(as_fal_error(error))
        finally:
            self._ended.put(None)

    def _next(self) -> Product | None:
        """The next product; None when there is none, or the run ends."""
        while self._brake.reason is None:
            if self._call.cancelled:
                self.stop()  # else products would be begun, and put back, until `_watch` looks
                return None
            if pause_s := self._brake.pause_s():
                self._brake.wait(pause_s)
                continue
            with self._paging:
                if not self._page:
                    self._page.extend(self._store.claim(PAGE))
                if self._page:
                    return self._page.popleft()
            if not self._store.unfinished():
                return None
            self._brake.wait(LOOK_S)
        return None

    def _make(self, product: Product) -> None:
        journal = ProductJournal(
            self._store,
            product.id,
            self._brake,
            has_limit=self._has_limit,
            retry_ambiguous=self._retry_ambiguous,
        )
        call = Call(self._timeout_s, parent=self._call, progress=Progress(), journal=journal)
        outcome = attempt(self._client, call, journal, self._recipe, product, self.output / folder_of(product.key))
        if outcome is not None and isinstance(outcome.error, AuthError | BudgetExceeded):
            self._brake.stop(outcome.error)
            outcome = None
        if outcome is None:
            self._store.put_back(product.id, journal.later_s or 0.0)
            return
        if isinstance(outcome.error, PASSING):
            # So that an outage, of the network here too, does not go through the whole catalogue.
            self._brake.trouble(outcome.error)
        if outcome.unusable:
            self._store.unusable(product.id, outcome.unusable)
        line = outcome.as_bytes()
        self._store.finish(product.id, outcome.state, line)
        self._results.append(line)
        self._ended.put(outcome.line)

    def _watch(self) -> None:
        """Notice that the run is to end, and tell how far it is."""
        while any(thread.is_alive() for thread in self._threads):
            try:
                self._look()
            except FalError as error:
                self._brake.stop(error)
            time.sleep(LOOK_S)

    def _look(self) -> None:
        if self._call.cancelled or self._drained_at <= time.monotonic():
            self.stop()
        elif self._brake.reason is None and self._around is not None and self._around.winds_down:
            self.drain()
        elif self._brake.reason is None and self._store.batch().paused:
            self.drain("paused")
        if self._show_at <= time.monotonic():
            self._show_at = time.monotonic() + SHOW_EVERY_S
            self._show()
        if self._on_progress is not None and self._told_at + TELL_S <= time.monotonic():
            self._told_at = time.monotonic()
            self._on_progress(self.counts())

    def _show(self) -> None:
        """Bring index.html up to date. Where it cannot be written, what is paid for goes on."""
        try:
            self._index.update(total=sum(self.counts()["products"].values()))
        except (OSError, FalError) as error:
            logger.warning(f"index.html cannot be written: {error}")


def how_to_resume(output: Path, *, is_shared: bool) -> str:
    """For messages. `is_shared`: whether the journal is a database, whose URL may hold a password."""
    where = "the same --journal and " if is_shared else ""
    return f"It goes on where it was when it is run again with {where}--output {shlex.quote(str(output))} alone."


def store_of(journal: str | None, output: Path) -> Store:
    """What keeps the journal: the database at a URL, or a file in the output's folder."""
    return SqliteStore(output) if journal is None else PostgresStore(journal)


def counts_of(store: Store) -> dict[str, Any]:
    """How far a batch is, by its journal."""
    counts, row = store.counts(), store.batch()
    return {
        "products": {state: getattr(counts, state) for state in COUNTED},
        "jobs": dict(counts.jobs),
        "cost_usd": round(counts.cost_usd, 6),
        "unknown_costs": counts.unknown_costs,
        "committed_usd": round(row.committed, 6),
        "max_usd": row.max_usd,
    }


def make_folder(path: Path) -> None:
    """Raises InvalidInput when no folder can be made there, or nothing can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InvalidInput(f"The output {str(path)!r} cannot be written to: {error.strerror or error}.") from error
