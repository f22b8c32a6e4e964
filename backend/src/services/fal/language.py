"""Language and vision models: what is asked of them, and how their answers are read.

Which endpoint answers is decided by `jobs.py`'s chain; what the prompts say stands in `prompts.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.call import current_call
from services.fal.endpoints import Endpoint
from services.fal.errors import (
    BadOutput,
    FalError,
    JobFailed,
    StreamTruncated,
    Unreachable,
)
from services.fal.fields import usage_of
from services.fal.jobs import Jobs, Result
from services.fal.stderr_log import Watcher
from services.fal.text_request import TextRequest
from services.fal.wire import Wire

if TYPE_CHECKING:
    from services.fal.results import TextEvent

RUN_URL = "https://fal.run"


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


def read_answer(result: Result) -> TextAnswer:
    """The text of a finished job. Raises JobFailed for an error inside a successful answer."""
    output = result.output.get("output")
    if error := result.output.get("error"):
        raise JobFailed(f"The model failed: {error}.", request_id=result.request_id, partial={"raw": result.output})
    if not isinstance(output, str):
        raise BadOutput(
            "fal's answer holds no text under 'output'.",
            request_id=result.request_id,
            partial={"raw": result.output},
        )
    return TextAnswer(output, result)


class Language:
    """Text from models, for one client."""

    def __init__(self, jobs: Jobs, wire: Wire) -> None:
        self._jobs = jobs
        self._wire = wire

    def ask(self, kind: str, request: TextRequest, watch: Watcher | None = None) -> TextAnswer:
        """One question to the endpoint for `kind`, or for vision when it has images."""
        result = self._jobs.run("vision" if request.image_urls else kind, request.arguments, watch)
        return read_answer(result)

    def events(self, request: TextRequest) -> Generator[TextEvent, None, None]:
        """The answer as it is written. Raises StreamTruncated when it ends without its last event."""
        kind = "vision" if request.image_urls else "text"
        with self._jobs.slot():
            begun = self._jobs.on_chain(kind, lambda endpoint: _Begun(self._open(endpoint, request)))
            yield from begun.events()

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
                    text = read["output"]
                    yield read
                    if not read["partial"]:
                        return
            except Unreachable as error:
                raise _truncated(text, request_id, str(error)) from error
            except FalError as error:
                error.partial.setdefault("output", text)
                error.request_id = error.request_id or request_id
                raise
        current_call().check()
        raise _truncated(text, request_id, "It ended without its last event.")


class _Begun:
    """A stream of which the first event was read: from here on its endpoint is known not to be gone."""

    def __init__(self, events: Iterator[TextEvent]) -> None:
        self._first = next(events)
        self._rest = events

    def events(self) -> Iterator[TextEvent]:
        yield self._first
        yield from self._rest


def _read_event(event: dict[str, Any], text: str, request_id: str | None) -> TextEvent:
    if error := event.get("error"):
        raise JobFailed(f"The model failed: {error}.", request_id=request_id)
    output = event.get("output")
    if not isinstance(output, str):
        raise BadOutput("An event of the stream holds no text under 'output'.")
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
