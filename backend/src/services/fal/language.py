"""Language and vision models: what is asked of them, and how their answers are read.

Which endpoint answers is decided by `jobs.py`'s chain, which model by `models.py`'s; what the prompts say stands in
`prompts.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from services.fal.call import current_call
from services.fal.endpoints import Endpoint
from services.fal.errors import (
    BadOutput,
    FalError,
    JobFailed,
    StreamTruncated,
    Unreachable,
)
from services.fal.fields import as_whole, usage_of
from services.fal.jobs import Job, Jobs, Result
from services.fal.models import Models, read_refusals
from services.fal.progress import Progress
from services.fal.text_request import TextRequest
from services.fal.wire import Wire

if TYPE_CHECKING:
    from services.fal.results import TextEvent

RUN_URL = "https://fal.run"
T = TypeVar("T")


class TextAnswer(NamedTuple):
    """What a model wrote, and what fal said about it."""

    output: str
    result: Result

    def fields(self) -> dict[str, Any]:
        """What results carry beside their own keys."""
        return {
            "usage": usage_of(self.result.output),
            "request_id": self.result.request_id,
            "billable_units": self.result.billable_units,
        }


def read_answer(result: Result, asked: TextRequest | None = None) -> TextAnswer:
    """The text of a finished job. Raises JobFailed for an error inside a successful answer, BadOutput for no text."""
    output = result.output.get("output")
    about: dict[str, Any] = {"request_id": result.request_id, "partial": {"raw": result.output}}
    if error := result.output.get("error"):
        # With a text beside it the model has run: then no refusal is looked for in what it says.
        raise JobFailed(f"The model failed: {error}.", said="" if output else str(error), **about)
    if not isinstance(output, str):
        raise BadOutput("fal's answer holds no text under 'output'.", **about)
    if not output.strip():
        raise no_text(result.output, asked, **about)
    return TextAnswer(output, result)


def no_text(answer: Mapping[str, Any], asked: TextRequest | None = None, **about: Any) -> BadOutput:
    """The error of a text that is empty: reasoning counts inside `max_tokens`, and may have used all of it."""
    limit = asked.max_tokens if asked is not None else None
    usage = answer.get("usage")
    written = as_whole(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if not answer.get("reasoning") and (limit is None or written is None or written < limit):
        return BadOutput("The model wrote no text.", **about)
    told = "max_tokens" if limit is None else f"max_tokens ({limit})"
    return BadOutput(
        f"The model wrote no text: reasoning used up its {told}.",
        hint="Raise max_tokens, or leave it out; reasoning=False helps with a model that can do without.",
        **{**about, "retryable": False},
    )


class Language:
    """Text from models, for one client."""

    def __init__(self, jobs: Jobs, wire: Wire, models: Models) -> None:
        self._jobs = jobs
        self._wire = wire
        self._models = models

    def ask(
        self, kind: str, request: TextRequest, watch: Progress | None = None, models: str | None = None
    ) -> TextAnswer:
        """One question to the endpoint for `kind`, or for vision when it has images.

        A request that names no model takes it from the chain of `models`, which is that of the endpoint by default.
        """
        kind = "vision" if request.image_urls else kind

        def answer(asked: TextRequest, endpoint: Endpoint) -> TextAnswer:
            return read_answer(self._jobs.run_on(endpoint, asked.arguments(endpoint), watch), asked)

        return self._on_chains(kind, models or kind, request, answer)

    def submit(self, request: TextRequest, webhook_url: str | None) -> Job:
        """Submit a job that nobody waits for."""

        def submitted(asked: TextRequest, endpoint: Endpoint) -> Job:
            return self._jobs.submit(endpoint, asked.arguments(endpoint), webhook_url=webhook_url, wait=False)

        return self._on_chains("text", "text", request, submitted)

    def result(self, request_id: str) -> TextAnswer:
        """The answer to a job that was submitted earlier."""

        def read(job: Job) -> TextAnswer:
            return self._models.answer_of_earlier("text", lambda: read_answer(self._jobs.result(job)))

        return self._jobs.find("text", request_id, read)

    def events(self, request: TextRequest) -> Generator[TextEvent, None, None]:
        """The answer as it is written. Raises StreamTruncated when it ends without its last event."""
        with self._jobs.slot():
            begun = self._on_chains(
                "text", "text", request, lambda asked, endpoint: _Begun(self._open(endpoint, asked))
            )
            yield from begun.events()

    def _on_chains(
        self, kind: str, models: str, request: TextRequest, action: Callable[[TextRequest, Endpoint], T]
    ) -> T:
        """`action` with the first model that fal still offers, on the first endpoint that it still offers."""

        def on_endpoints(asked: TextRequest) -> T:
            def on(endpoint: Endpoint) -> T:
                # Here, since a submit may be refused with a 404 for the model, which leaves the endpoint in place.
                with read_refusals(asked.model):
                    return action(asked, endpoint)

            return self._jobs.on_chain(kind, on)

        return self._models.ask(models, request, on_endpoints)

    def _open(self, endpoint: Endpoint, request: TextRequest) -> Iterator[TextEvent]:
        text = ""
        url = f"{RUN_URL}/{endpoint.path}/stream"
        with self._wire.events("POST", url, "stream", body=request.arguments(endpoint)) as (
            request_id,
            events,
        ):
            try:
                for event in events:
                    read = _read_event(event, text, request_id)
                    if not (read["partial"] or read["output"].strip()):
                        raise no_text(event, request, retryable=False)
                    text = read["output"]
                    yield read
                    if not read["partial"]:
                        return
            except Unreachable as error:
                raise _truncated(text, request_id, str(error)) from error
            except FalError as error:
                error.partial.setdefault("output", text)
                error.request_id = error.request_id or request_id
                # The model runs, and cannot be cancelled: the same once more would be paid twice.
                error.retryable = False
                raise
        current_call().check()
        raise _truncated(text, request_id, "It ended without its last event.")


class _Begun:
    """A stream that was read up to its first text: from here on neither endpoint nor model can be gone."""

    def __init__(self, events: Iterator[TextEvent]) -> None:
        self._first = []
        for event in events:
            self._first.append(event)
            if event["output"]:
                break
        self._rest = events

    def events(self) -> Iterator[TextEvent]:
        yield from self._first
        yield from self._rest


def _read_event(event: dict[str, Any], text: str, request_id: str | None) -> TextEvent:
    if error := event.get("error"):
        raise JobFailed(f"The model failed: {error}.", request_id=request_id, said="" if text else str(error))
    output = event.get("output")
    if not isinstance(output, str):
        raise BadOutput("An event of the stream holds no text under 'output'.")
    if not output and event.get("partial") is False:
        # A last event that only tells the usage does not take back what was written.
        output = text
    return {
        # Output is cumulative; a text that does not go on from the one before replaces it.
        "delta": output[len(text) :] if output.startswith(text) else output,
        "output": output,
        "partial": event.get("partial") is not False,
        "usage": usage_of(event),
    }


def _truncated(text: str, request_id: str | None, why: str) -> StreamTruncated:
    return StreamTruncated(
        f"The stream broke off. {why}",
        request_id=request_id,
        hint="What came so far is in `output`; fal may have billed the whole answer.",
        partial={"output": text},
    )
