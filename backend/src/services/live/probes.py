"""The paid half of a live run: one probe of each kind, from an upload to a model that does not exist.

Requests are sent once. A job that was submitted is known here until fal says that it is over: whatever ends the run
early cancels those that are left.
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any, NamedTuple, Protocol

from services.fal.call import CLEANUP_S, Call
from services.fal.endpoints import CHAINS, MODEL_CHAINS
from services.fal.errors import BadOutput, Cancelled, DeadlineExceeded, FalError, NotReady
from services.fal.hosts import is_file_host, parse
from services.fal.jobs import own_url
from services.fal.model_ends import ends_on
from services.fal.prices import LOOK_USD, QUESTION_USD, Price
from services.fal.redaction import remember
from services.fal.responses import as_amount, usable_id
from services.live.asking import Asker, Raw, is_last_event, reason_of
from services.live.budget import Budget, picture_usd
from services.live.facts import FACTS
from services.live.photo import mug_png
from services.live.recordings import Recordings
from services.live.shapes import Difference

QUEUE = "https://queue.fal.run"
DIRECT = "https://fal.run"
UPLOAD_TOKEN = "https://rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3"
UPLOAD = "https://v3.fal.media/files/upload"
QUESTIONS = 6
"""The questions of a run: three that are to be answered, and three that are to be refused."""
FIRST_POLL_S, POLL_S = 0.1, 1.0
JOB_S = 60.0
"""How long one job is waited for."""
NO_SUCH_MODEL = "openai/no-such-model"
CUTOUT, PHOTOKIT = CHAINS["cutout"][0].path, CHAINS["photokit"][0].path
TEXT, VISION = CHAINS["text"][0].path, CHAINS["vision"][0].path


class Asks(Protocol):
    """What of FalClient is used: whether it sees what the answers mean."""

    def any_llm_complete(self, prompt: str, *, model: str, max_tokens: int) -> Any: ...


class Seen(NamedTuple):
    """What was seen of one fact."""

    differences: list[Difference] | None
    """None when it was not seen."""
    reason: str = ""
    """Why it was not."""
    failed: bool = False
    """Whether it was not seen because something failed."""

    @property
    def text(self) -> str:
        if self.differences is None:
            return f"not seen: {self.reason}"
        differing = "; ".join(row.text for row in self.differences if not row.is_new)
        more = ", ".join(row.text for row in self.differences if row.is_new)
        told = f"differs: {differing}" if differing else "same"
        return f"{told}; also there: {more}" if more else told

    @property
    def matters(self) -> bool:
        """Whether the library cannot rely on the fact."""
        return self.failed or any(row.matters for row in self.differences or ())


def needed_usd(prices: Mapping[str, Price]) -> float:
    """What all of it costs at most. Raises BadOutput when a price is not known."""
    questions = QUESTIONS * QUESTION_USD + LOOK_USD
    return questions + picture_usd(CUTOUT, prices) + picture_usd(PHOTOKIT, prices)


def model_for(job: str, today: date) -> str:
    """The first default model that is there, as far as it is known."""
    chain = MODEL_CHAINS[job]
    return next((model for model in chain if (ends := ends_on(model)) is None or ends > today), chain[-1])


class Facts:
    """What was seen so far; each fact is judged and recorded as it is seen."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self.seen: dict[str, Seen] = {}

    def see(self, name: str, raw: Raw, more: list[Difference] | None = None) -> bool:
        """Compare an answer with its fact; whether nothing differs that the library relies on."""
        fact = FACTS[name]
        self._recordings.keep(fact, raw)
        found = [*fact.differences(raw.status, raw.headers, raw.value()), *(more or [])]
        self.seen[name] = Seen(found)
        return not any(row.matters for row in found)

    def miss(self, reason: str, *names: str, failed: bool = False) -> None:
        """These were not seen, unless they were."""
        for name in names:
            self.seen.setdefault(name, Seen(None, reason, failed))


class Job(NamedTuple):
    """A job at the queue."""

    request_id: str
    url: str

    def at(self, what: str) -> str:
        return f"{self.url}/{what}"


class Jobs:
    """Submits jobs, and knows those that are not over."""

    def __init__(self, call: Call, asker: Asker) -> None:
        self._call = call
        self._asker = asker
        self._open: dict[str, str] = {}
        """Cancel URLs by request id."""

    def submit(self, endpoint: str, arguments: Mapping[str, Any]) -> tuple[Raw, Job | None]:
        """Start a job; None for it when fal did not take it."""
        base = f"{QUEUE}/{'/'.join(endpoint.split('/')[:2])}/requests"
        known: list[str] = []

        def learn_id(request_id: str) -> None:
            if usable_id(request_id):
                known.append(request_id)
                self._open[request_id] = f"{base}/{request_id}/cancel"

        raw = self._asker.ask(self._call, "POST", f"{QUEUE}/{endpoint}", body=dict(arguments), learn_id=learn_id)
        value = raw.value()
        named = usable_id(value.get("request_id")) if isinstance(value, dict) else None
        if raw.status >= 300:
            for request_id in known:
                self._open.pop(request_id)
            return raw, None
        if named is None:
            return raw, None
        self._open[named] = f"{base}/{named}/cancel"
        return raw, Job(named, own_url(value.get("response_url"), f"{base}/{named}"))

    def wait(self, job: Job) -> Raw:
        """The status of a job when it is over. Raises NotReady when that takes too long."""
        until, pause_s = time.monotonic() + JOB_S, FIRST_POLL_S
        while time.monotonic() < until:
            raw = self._asker.ask(self._call, "GET", job.at("status"))
            value = raw.value()
            state = value.get("status") if isinstance(value, dict) else None
            if state == "COMPLETED":
                self._open.pop(job.request_id, None)
            if raw.status not in (200, 202) or state not in ("IN_QUEUE", "IN_PROGRESS"):
                return raw
            self._call.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)
        raise NotReady(f"The job was not over within {JOB_S:g} s.", request_id=job.request_id)

    def cancel_open(self) -> None:
        """Cancel what is not over, each within a moment of its own."""
        for request_id, url in list(self._open.items()):
            try:
                self._asker.ask(Call(CLEANUP_S), "PUT", url)
            except FalError:
                continue
            self._open.pop(request_id, None)

    @property
    def left(self) -> list[str]:
        """The jobs that may still run."""
        return list(self._open)


class Probes:
    """Runs one of each."""

    def __init__(
        self,
        call: Call,
        asker: Asker,
        client: Asks,
        facts: Facts,
        budget: Budget,
        prices: Mapping[str, Price],
        today: date,
    ) -> None:
        self._call = call
        self._asker = asker
        self._client = client
        self._facts = facts
        self._budget = budget
        self._prices = prices
        self._text_model = model_for("text", today)
        self._vision_model = model_for("vision", today)
        self._photo_url = ""
        self.jobs = Jobs(call, asker)

    def run(self, tell: Callable[[str], None]) -> None:
        """All of it. Raises DeadlineExceeded, Cancelled; any other failure is told of its facts."""
        for names, step in STEPS:
            tell(f"{', '.join(names)} ...")
            with self._told(*names):
                step(self)

    @contextmanager
    def _told(self, *names: str) -> Iterator[None]:
        reason = "what comes before it differs"
        try:
            yield
        except (DeadlineExceeded, Cancelled):
            raise
        except FalError as error:
            reason = reason_of(error)
        self._facts.miss(reason, *names, failed=True)

    def _upload(self) -> None:
        token = self._asker.ask(self._call, "POST", UPLOAD_TOKEN, body={})
        if not self._facts.see("upload token", token):
            return
        said = token.value()
        authorization = f"{said['token_type']} {remember(said['token'])}"
        if not re.fullmatch("[!-~]+ [!-~]+", authorization):
            raise BadOutput("The upload token is not text that can be sent.", retryable=False)
        headers = {"Authorization": authorization, "Content-Type": "image/png", "X-Fal-File-Name": "mug.png"}
        stored = self._asker.ask(self._call, "POST", UPLOAD, data=mug_png(), headers=headers)
        if not self._facts.see("upload", stored):
            return
        self._photo_url = own_file(str(stored.value()["access_url"]))
        file = self._asker.ask(self._call, "GET", self._photo_url)
        same = [] if file.body == mug_png() else [Difference("not the bytes that were uploaded", True)]
        self._facts.see("download", file, same)

    def _cancel(self) -> None:
        """A long text: its result is asked for too early, then it is cancelled."""
        self._budget.take(QUESTION_USD)
        raw, job = self.jobs.submit(TEXT, self._question("Count from 1 to 900 in words, one a line.", 1500))
        self._facts.see("submit", raw)
        if job is None:
            return
        early = self._asker.ask(self._call, "GET", job.url)
        status = self._asker.ask(self._call, "GET", job.at("status"))
        self._see_unless_over("early result", early, early.status == 200)
        self._see_unless_over("status while it runs", status, _is_over(status))
        cancelled = self._asker.ask(self._call, "PUT", job.at("cancel"))
        too_late = cancelled.status == 400 and "ALREADY_COMPLETED" in cancelled.body.decode("utf-8", "replace")
        self._see_unless_over("cancel in queue", cancelled, too_late)
        if not too_late and cancelled.status >= 300:
            self._facts.miss("fal did not cancel the job", "cancelled result")
            return
        self.jobs.wait(job)
        result = self._asker.ask(self._call, "GET", job.url)
        self._see_unless_over("cancelled result", result, result.status == 200)
        self._settle(QUESTION_USD, result)

    def _see_unless_over(self, name: str, raw: Raw, over: bool) -> None:
        if over:
            self._facts.miss("the job was over too soon", name)
        else:
            self._facts.see(name, raw)

    def _text(self) -> None:
        self._budget.take(QUESTION_USD)
        _, job = self.jobs.submit(TEXT, self._question("Write one short sentence about a mug.", 64))
        if job is None:
            return
        stream = self._asker.ask(self._call, "GET", job.at("status/stream"))
        events = stream.value() if stream.is_events else []
        ended = [] if any(map(is_last_event, events or [])) else [Difference("it ends before COMPLETED", True)]
        self._facts.see("status stream", stream, ended)
        self._facts.see("status when it is over", self.jobs.wait(job))
        result = self._asker.ask(self._call, "GET", job.url)
        self._facts.see("text", result, _told_error(result))
        self._settle(QUESTION_USD, result)
        self._facts.see("cancel late", self._asker.ask(self._call, "PUT", job.at("cancel")))

    def _stream(self) -> None:
        self._budget.take(QUESTION_USD)
        question = self._question("Write two short sentences about a lamp.", 64)
        raw = self._asker.ask(
            self._call,
            "POST",
            f"{DIRECT}/{TEXT}/stream",
            body=question,
            headers={"Accept": "text/event-stream"},
            learn_id=_ignored,
        )
        events = raw.value() if raw.is_events else []
        last = events[-1] if events else None
        ended = [] if is_last_event(last) else [Difference("its last event has no partial: false", True)]
        self._facts.see("stream", raw, [*ended, *_not_cumulative(events or [])])
        self._settle(QUESTION_USD, raw, last)

    def _vision(self) -> None:
        photo_url = self._photo()
        self._budget.take(LOOK_USD)
        asked = {"prompt": "What is this? One word.", "model": self._vision_model, "max_tokens": 400}
        # Some of the models that see refuse to answer without having thought.
        result = self._result(VISION, {**asked, "reasoning": True, "image_urls": [photo_url]})
        self._facts.see("vision", result, _told_error(result))
        self._settle(LOOK_USD, result)

    def _cut_out(self) -> None:
        self._picture("cut-out", CUTOUT, {})

    def _background(self) -> None:
        self._picture("background", PHOTOKIT, {"prompt": "an oak table, morning light"})

    def _picture(self, name: str, endpoint: str, arguments: Mapping[str, Any]) -> None:
        photo_url, price = self._photo(), picture_usd(endpoint, self._prices)
        self._budget.take(price)
        result = self._result(endpoint, {"image_url": photo_url, **arguments})
        self._facts.see(name, result)
        units = _number(result.headers.get("x-fal-billable-units", ""))
        self._budget.correct(price, None if units is None else units * price)

    def _photo(self) -> str:
        if not self._photo_url:
            raise BadOutput("There is no uploaded photo to use.", retryable=False)
        return self._photo_url

    def _unknown_id(self) -> None:
        url = f"{QUEUE}/{TEXT}/requests/{uuid.uuid4()}/status"
        self._facts.see("unknown id", self._asker.ask(self._call, "GET", url))

    def _refused_input(self) -> None:
        """A question without its prompt, which costs nothing: it never runs."""
        self._budget.take(QUESTION_USD)
        result = self._result(TEXT, {"model": self._text_model})
        self._facts.see("refused input", result)
        self._budget.correct(QUESTION_USD, 0.0 if result.status == 422 else None)

    def _no_such_model(self) -> None:
        question = {**self._question("Say hello.", 16), "model": NO_SUCH_MODEL}
        self._budget.take(2 * QUESTION_USD)
        raw = self._result(TEXT, question)
        read = self._client.any_llm_complete("Say hello.", model=NO_SUCH_MODEL, max_tokens=16)
        kind = read.get("error_type")
        unread = (
            [] if kind == "model_gone" else [Difference(f"the library reads it as {kind}, not as model_gone", True)]
        )
        self._facts.see("model that does not exist", raw, unread)
        if not unread:
            self._budget.correct(2 * QUESTION_USD, 0.0)

    def _result(self, endpoint: str, arguments: Mapping[str, Any]) -> Raw:
        """The result of one job; the answer to the submit, when fal did not take it."""
        raw, job = self.jobs.submit(endpoint, arguments)
        if job is None:
            return raw
        self.jobs.wait(job)
        return self._asker.ask(self._call, "GET", job.url)

    def _question(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        return {"prompt": prompt, "model": self._text_model, "max_tokens": max_tokens}

    def _settle(self, estimated_usd: float, raw: Raw, value: Any = None) -> None:
        told = raw.value() if value is None else value
        usage = told.get("usage") if isinstance(told, dict) else None
        self._budget.correct(estimated_usd, as_amount(usage.get("cost")) if isinstance(usage, dict) else None)


STEPS: tuple[tuple[tuple[str, ...], Callable[[Probes], None]], ...] = (
    (("upload token", "upload", "download"), Probes._upload),
    (
        ("submit", "early result", "status while it runs", "cancel in queue", "cancelled result"),
        Probes._cancel,
    ),
    (("status stream", "status when it is over", "text", "cancel late"), Probes._text),
    (("stream",), Probes._stream),
    (("vision",), Probes._vision),
    (("cut-out",), Probes._cut_out),
    (("background",), Probes._background),
    (("unknown id",), Probes._unknown_id),
    (("refused input",), Probes._refused_input),
    (("model that does not exist",), Probes._no_such_model),
)
"""Which facts each step looks at."""


def own_file(url: str) -> str:
    """`url` when it is a file of fal's. Raises BadOutput."""
    try:
        if is_file_host(parse(url).host):
            return url
    except ValueError:
        pass
    raise BadOutput("The uploaded file is not at one of fal's hosts.", retryable=False)


def _ignored(request_id: str) -> None:
    """A stream has no job that could be cancelled: it is short, and ends with its connection."""


def _is_over(status: Raw) -> bool:
    value = status.value()
    return isinstance(value, dict) and value.get("status") == "COMPLETED"


def _told_error(result: Raw) -> list[Difference]:
    """An error inside a success."""
    value = result.value()
    error = value.get("error") if isinstance(value, dict) else None
    return [Difference(f"error is {str(error)[:200]!r}", True)] if error else []


def _not_cumulative(events: list[Any]) -> Iterator[Difference]:
    """A stream whose events tell only what is new would be read wrongly."""
    texts = [str(event.get("output", "")) for event in events if isinstance(event, dict)]
    if not all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts)):
        yield Difference("an event does not repeat the text before it", True)


def _number(text: str) -> float | None:
    try:
        return as_amount(float(text))
    except ValueError:
        return None
