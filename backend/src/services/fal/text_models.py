"""Language and vision models: requests, answers, and what happens when fal refuses a model.

Which endpoint answers is decided by the chains of `endpoints.py`; what the prompts say stands in `prompts.py`.

A model that the caller did not name comes from a chain: when fal no longer offers it the next one is asked, and the
choice lasts for the process. A model that the caller named is never replaced. How fal wraps what OpenRouter and the
providers say is not documented, so every error that names the model is read, wherever it came from: an answer of 4xx, a
failed job, `error` inside a success, an event of a stream.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from services.fal.call import Call
from services.fal.endpoints import MODEL_CHAINS, MODEL_LIST, MODEL_VARIABLES, Endpoint, Endpoints, successor_of
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BadOutput,
    Cancelled,
    DeadlineExceeded,
    FalError,
    JobFailed,
    ModelGone,
    RateLimited,
    StreamTruncated,
    Unreachable,
)
from services.fal.jobs import Job, Jobs
from services.fal.journal import JobKey, Result
from services.fal.log import logger
from services.fal.responses import as_whole, usage_of

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi
    from services.fal.results import TextEvent

RUN_URL = "https://fal.run"
_IMAGE_LINE = r"(?i)image url:\s*<?((?:https?://|data:image/)[^\s<>\"']+)"
_GONE = (
    r"(?:no longer (?:\w+ )?(?:available|supported|offered|served|accessible|exists?|in service)"
    r"|(?:not|isn't) available|does(?: not|n't) exist"
    r"|(?:not|can(?:not|'t)) (?:a |be |one of the )?(?:valid|known|found|supported|recogni[sz]ed|offered)"
    r"|an? (?:invalid|unknown) model|deprecated|retired|discontinued|decommissioned|sunset|shut ?down|removed"
    r"|withdrawn|(?:turned|switched) off|expired|end.of.life|gone)"
)
"""What is said of a model, behind its name."""
_NO_SUCH = (
    r"(?:no (?:\w+ )?(?:endpoints?|providers?) (?:\w+ )?found|(?:invalid|unknown|unsupported|no such) model"
    r"|model[_ ]not[_ ]found|not a valid model)"
)
"""What is said in front of its name."""
_PASSING = r"temporar|currently|overloaded|rate.?limit|try again(?! (?:with|using)\b)|at the moment|right now"
"""Of a model that will be there again."""
_FOR_GOOD = r"no longer|deprecated|retired|discontinued|decommissioned|sunset|end.of.life"
"""Of one that will not, whatever is said besides: "Currently we offer ..., try again with one of them"."""
_OF_THE_MODEL = rf"(?:[^.;\n]{{0,60}}\b(?:model|it)\b|(?:(?:is|was|has|have|been|error|code|\d{{3}})\W+){{0,5}}{_GONE})"
"""What may follow a colon behind the name; else it is about something else: "google/...: temperature is ..."."""
_OTHER_INPUT = r"(?<!model )\b(?:parameter|field|argument)s?\b(?!\W{0,4}model\b)|image input"
"""What is gone is something else then: "the parameter `seed` of google/... is deprecated"."""
_NOT_A_CHOICE = r"literal|enum|one_of|const"
"""Types of field errors whose value is not among those that the endpoint takes."""
_MUST_REASON = (
    r"\b(?:reasoning|thinking) (?:is (?:mandatory|required)|can(?: ?not|'t) be (?:disabled|turned off|switched off))"
    r"|\brequires (?:reasoning|thinking)\b|only works in thinking mode"
)
_ID = r"[\w.-]+/[\w.-]+(?::\w+)?"
_NAMED = (
    rf"no endpoints found for [`'\"]?(?P<first>{_ID})"
    rf"|(?P<second>{_ID})[`'\"]? (?:is not a valid model|does not exist"
    r"|(?:is|has been|was) (?:no longer|deprecated|retired))"
)
_NOT_REFUSALS = (AuthError, RateLimited, Unreachable, AmbiguousSubmit, DeadlineExceeded, Cancelled)

T = TypeVar("T")


class TextRequest(NamedTuple):
    """One question to a model."""

    prompt: str
    model: str | None = None
    """None until one is chosen from the chain of default models; see `models.py`."""
    system_prompt: str | None = None
    temperature: float = 0.7
    max_tokens: int | None = None
    priority: str | None = None
    image_urls: tuple[str, ...] = ()
    reasoning: bool | None = None

    def arguments(self, endpoint: Endpoint) -> dict[str, Any]:
        """The input as `endpoint` takes it."""
        arguments: dict[str, Any] = {
            "prompt": self.prompt,
            "model": self.model,
            "temperature": self.temperature,
            "system_prompt": self.system_prompt,
            "max_tokens": self.max_tokens,
            "reasoning": self.reasoning,
        }
        if endpoint.takes_priority:
            arguments["priority"] = self.priority
        if self.image_urls:
            arguments.update(endpoint.image_input(list(self.image_urls)))
        return {name: value for name, value in arguments.items() if value is not None}


def image_urls_in(prompt: str) -> list[str]:
    """The URLs of lines `Image URL: <url>` in a prompt."""
    return [found.rstrip(".,;:!?)]") for found in re.findall(_IMAGE_LINE, prompt)]


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
    if error := _error_in(result.output):
        # With a text beside it the model has run: then no refusal is looked for in what it says.
        raise JobFailed(f"The model failed: {error}.", said="" if output else str(error), **about)
    if not isinstance(output, str):
        raise BadOutput("fal's answer contains no text under 'output'.", **about)
    if not output.strip():
        raise no_text(result.output, asked, **about)
    return TextAnswer(output, result)


def _error_in(answer: Mapping[str, Any]) -> object:
    """The error inside a success; where no text is, it may stand there as it does in fal's refusals."""
    error = answer.get("error")
    if error is True or (not error and answer.get("output") is None):
        error = answer.get("detail") or answer.get("message") or error
    return error


class NoText(BadOutput):
    """The model ran, and wrote nothing."""


def no_text(answer: Mapping[str, Any], asked: TextRequest | None = None, **about: Any) -> NoText:
    """The error of a text that is empty: reasoning counts inside `max_tokens`, and may have used all of it."""
    limit = asked.max_tokens if asked is not None else None
    usage = answer.get("usage")
    written = as_whole(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if not answer.get("reasoning") and (limit is None or written is None or written < limit):
        return NoText("The model wrote no text.", **about)
    told = "max_tokens" if limit is None else f"max_tokens ({limit})"
    return NoText(
        f"The model wrote no text: reasoning used up its {told}.",
        hint="Raise max_tokens, or omit it; reasoning=False helps with a model that can answer without reasoning.",
        **{**about, "retryable": False},
    )


class TextModels:
    """Text from models, for one client."""

    def __init__(self, jobs: Jobs, api: FalApi, models: Models) -> None:
        self._jobs = jobs
        self._api = api
        self._models = models

    def ask(self, call: Call, role: str, request: TextRequest, key: JobKey, models: str | None = None) -> TextAnswer:
        """One question to the endpoint for `role`, or for vision when it has images.

        A request that names no model takes it from the chain of `models`, which is that of the endpoint by default.
        """
        role = "vision" if request.image_urls else role

        def answer(asked: TextRequest, endpoint: Endpoint) -> TextAnswer:
            return read_answer(self._jobs.run_on(call, role, endpoint, asked.arguments(endpoint), key), asked)

        return self._on_chains(role, models or role, request, answer)

    def submit(self, call: Call, request: TextRequest, webhook_url: str | None) -> Job:
        """Submit a job that nobody waits for."""

        def submitted(asked: TextRequest, endpoint: Endpoint) -> Job:
            arguments = asked.arguments(endpoint)
            # Nobody sees how it ends: what is expected of it counts as spent.
            with self._jobs.estimates.job(call, "text", endpoint, arguments):
                return self._jobs.submit(call, endpoint, arguments, webhook_url=webhook_url, wait=False)

        return self._on_chains("text", "text", request, submitted)

    def result(self, call: Call, request_id: str) -> TextAnswer:
        """The answer to a job that was submitted earlier."""

        def fetched(job: Job) -> Result:
            result = self._jobs.result(call, job)
            self._jobs.estimates.earlier(call, "text", job.endpoint, result.output, result.billable_units)
            return result

        def read(job: Job) -> TextAnswer:
            return self._models.answer_of_earlier("text", lambda: read_answer(fetched(job)))

        return self._jobs.find(call, "text", request_id, read)

    def events(self, call: Call, request: TextRequest) -> Generator[TextEvent, None, None]:
        """The answer as it is written. Raises StreamTruncated when it ends without its last event."""

        def begin(asked: TextRequest, endpoint: Endpoint) -> _Begun:
            return _Begun(self._open(call, endpoint, asked))

        with self._jobs.slots.one(call):
            yield from self._on_chains("text", "text", request, begin).events()

    def _on_chains(
        self, role: str, models: str, request: TextRequest, action: Callable[[TextRequest, Endpoint], T]
    ) -> T:
        """`action` with the first model that fal still offers, on the first endpoint that it still offers."""

        def on_endpoints(asked: TextRequest) -> T:
            def on(endpoint: Endpoint) -> T:
                # Here, since a submit may be refused with a 404 for the model, which leaves the endpoint in place.
                with read_refusals(asked.model):
                    return action(asked, endpoint)

            return self._jobs.on_chain(role, on)

        return self._models.ask(models, request, on_endpoints)

    def _open(self, call: Call, endpoint: Endpoint, request: TextRequest) -> Iterator[TextEvent]:
        text = ""
        url, arguments = f"{RUN_URL}/{endpoint.path}/stream", request.arguments(endpoint)
        with (
            self._jobs.estimates.job(call, "text", endpoint, arguments) as bill,
            self._api.events(call, "POST", url, "stream", body=arguments) as (request_id, events),
        ):
            bill.is_accepted = True
            try:
                for event in events:
                    read = _read_event(event, text, request_id)
                    if not read["partial"]:
                        read["cost_usd"] = bill.settled(event, None)
                    if not (read["partial"] or read["output"].strip()):
                        raise no_text(event, request, retryable=False)
                    text = read["output"]
                    yield read
                    if not read["partial"]:
                        return
            except Unreachable as error:
                raise _truncated(text, request_id, str(error)) from error
            except FalError as error:
                partial = {"output": text, **error.partial}
                # The model runs, and cannot be cancelled: the same once more would be paid twice.
                known_id = error.request_id or request_id
                units = 0.0 if _is_refused(error, request.model) else None
                raise error.but(partial=partial, request_id=known_id, retryable=False, billable_units=units) from error
            call.check()
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
    if error := _error_in(event):
        raise JobFailed(f"The model failed: {error}.", request_id=request_id, said="" if text else str(error))
    output = event.get("output")
    if not isinstance(output, str):
        raise BadOutput("An event of the stream contains no text under 'output'.")
    if not output and event.get("partial") is False:
        # A last event that only tells the usage does not take back what was written.
        output = text
    return {
        # Output is cumulative; a text that does not go on from the one before replaces it.
        "delta": output[len(text) :] if output.startswith(text) else output,
        "output": output,
        "partial": event.get("partial") is not False,
        "usage": usage_of(event),
        "cost_usd": None,
    }


def _truncated(text: str, request_id: str | None, why: str) -> StreamTruncated:
    return StreamTruncated(
        f"The stream broke off. {why}",
        request_id=request_id,
        hint="What arrived is in `output`; fal may have billed the whole answer.",
        partial={"output": text},
    )


class Models:
    """The models in use for a client's questions."""

    def __init__(self, by_hand: Mapping[str, tuple[str, ...]], endpoints: Endpoints) -> None:
        """`endpoints` remembers, for the process, what was found out on this account."""
        self._chains = {**MODEL_CHAINS, **by_hand}
        self._endpoints = endpoints

    def ask(self, role: str, request: TextRequest, action: Callable[[TextRequest], T]) -> T:
        """`action`, within `read_refusals`, with a model named: the caller's, or the one in use for `role`.

        The only place from which a question is sent again: fal refused it before the model ran.
        """
        while True:
            asked = self._named(role, request)
            try:
                return action(asked)
            except ModelGone as gone:
                if request.model is not None:
                    raise
                self._move_on(role, str(asked.model), gone)
            except MustReason as refused:
                if asked.reasoning:
                    raise refused.error from None
                logger.warning("%s must reason: asking again with reasoning.", asked.model)
                self._endpoints.remember(_reasons(asked.model), 1)

    def answer_of_earlier(self, role: str, action: Callable[[], T]) -> T:
        """`action`, which asks for the result of an earlier submit: there is no later ask, but what it says is kept."""
        try:
            with read_refusals(None):
                return action()
        except ModelGone as gone:
            if (model := named_in(gone.said)) in self._chains[role]:
                with contextlib.suppress(ModelGone):
                    self._move_on(role, str(model), gone)
            raise
        except MustReason as refused:
            hint = "Pass reasoning=True (--reasoning true) with this model."
            raise refused.error.but(hint=hint) from refused.error

    def _named(self, role: str, request: TextRequest) -> TextRequest:
        asked = request if request.model is not None else request._replace(model=self._current(role))
        return asked._replace(reasoning=True) if self._endpoints.remembered(_reasons(asked.model)) else asked

    def _current(self, role: str) -> str:
        return next((model for model in self._chains[role] if not self._is_gone(role, model)), self._chains[role][-1])

    def _is_gone(self, role: str, model: str) -> bool:
        return bool(self._endpoints.remembered(f"{role}: {model} is gone"))

    def _move_on(self, role: str, gone: str, reason: ModelGone) -> None:
        """Have the model after `gone` asked from now on; raises `reason` when there is none."""
        chain = self._chains[role]
        if gone == chain[-1]:
            hint = f"Set {MODEL_VARIABLES[role]} to a model of {MODEL_LIST}."
            raise reason.but(hint=hint) from reason
        if self._endpoints.remember(f"{role}: {gone} is gone", 1):
            logger.warning("%s Using %s instead of %s.", reason.args[0], self._current(role), gone)


class MustReason(Exception):
    """fal refused a question because its model cannot be asked without reasoning."""

    def __init__(self, error: FalError) -> None:
        super().__init__(str(error))
        self.error = error


def _is_refused(error: FalError, model: str | None) -> bool:
    """Whether fal refused the model before it ran, which it does not bill."""
    return _has(_MUST_REASON, error.said) or (model is not None and says_gone(error, model))


def named_in(said: str) -> str | None:
    """The model that a refusal names as gone."""
    found = re.search(_NAMED, said, re.IGNORECASE)
    model = (found["first"] or found["second"]).rstrip(".") if found else ""
    # "text/html is no longer supported" speaks of a file.
    return None if model.split("/")[0] in ("", "text", "image", "application", "audio", "video") else model


def says_gone(error: FalError, model: str) -> bool:
    """Whether an error says that `model`, by its name, is not offered."""
    if isinstance(error, _NOT_REFUSALS):
        return False
    if isinstance(error.detail, list):
        return any(_refuses_model(item, model) for item in error.detail)
    return _says_gone(error.said, model)


def _refuses_model(item: object, model: str) -> bool:
    """Whether one of fal's field errors refuses the model, and no other input."""
    if not isinstance(item, dict):
        return _says_gone(str(item), model)
    loc, said = item.get("loc"), str(item.get("msg"))
    where = [part for part in loc if part != "body"] if isinstance(loc, list) else []
    if where not in ([], ["model"]):
        return False
    if where and item.get("input") == model:
        # The field names the model, so the message need not.
        return _has(_NOT_A_CHOICE, str(item.get("type"))) or _says_gone(f"{model} {said}", model)
    return _says_gone(said, model)


def _says_gone(said: str, model: str) -> bool:
    """Whether a text names a model, with or without its provider, as gone; not one whose name only begins alike."""
    short = model.rpartition("/")[2]
    names = [model, short] if re.search(r"[\d-]", short) else [model]
    name = rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w/-]|[.:]\w)"
    in_sentence = r"(?:(?!\. )[^;\n])"
    behind = rf"(?:(?!\. |: (?!{_OF_THE_MODEL})|\bwhich\b)[^;\n])"
    told = _search(
        rf"{name}{behind}{{0,80}}?\b{_GONE}\b|\b{_NO_SUCH}\b{in_sentence}{{0,40}}?{name}"
        rf"|\bmodel\b[^.:;\n]{{0,40}}\b{_GONE}: [`'\"]?{name}",
        said,
    )
    if told is None or _has(_OTHER_INPUT, said):
        return False
    return _has(_FOR_GOOD, told[0]) or not _has(_PASSING, said)


def _has(pattern: str, text: str) -> bool:
    return _search(pattern, text) is not None


def _search(pattern: str, text: str) -> re.Match[str] | None:
    # The patterns are not compiled ahead: that would cost every process a millisecond, and few meet a refusal.
    return re.search(pattern, text.replace("’", "'"), re.IGNORECASE)


@contextlib.contextmanager
def read_refusals(model: str | None) -> Iterator[None]:
    """Turns an error that speaks of the model itself into ModelGone or MustReason."""
    try:
        yield
    except FalError as error:
        if _has(_MUST_REASON, error.said) and not isinstance(error, _NOT_REFUSALS):
            raise MustReason(error) from error
        gone = model if model is not None else named_in(error.said)
        if gone is None or not says_gone(error, gone):
            raise
        raise _model_gone(gone, error) from error


def _model_gone(model: str, error: FalError) -> ModelGone:
    about: dict[str, Any] = {
        "status_code": error.status_code,
        "request_id": error.request_id,
        "detail": error.detail,
        "partial": error.partial,
        "said": error.said,
    }
    said = error.said.rstrip(".")
    hint = f"Name {successor_of(model)} instead, or another model of {MODEL_LIST}."
    return ModelGone(f"fal no longer offers the model {model}: {said}.", hint=hint, **about)


def _reasons(model: str | None) -> str:
    return f"{model} must reason"
