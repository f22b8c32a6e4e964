"""Which language model is asked, and what is done when fal refuses it before it ran.

A model that the caller did not name comes from a chain: when fal no longer offers it the next one is asked, and the
choice lasts for the process. A model that the caller named is never replaced. How fal wraps what OpenRouter and the
providers say is not documented, so every error that names the model is read, wherever it came from: an answer of 4xx,
a failed job, `error` inside a success, an event of a stream. Sending is `language.py`'s.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from services.fal.endpoints import Endpoints
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    Cancelled,
    DeadlineExceeded,
    FalError,
    ModelGone,
    RateLimited,
    Unreachable,
)
from services.fal.stderr_log import logger
from services.fal.text_request import TextRequest

MODEL_CHAINS: Mapping[str, tuple[str, ...]] = {
    "text": ("google/gemini-2.5-flash-lite", "google/gemini-3.5-flash-lite"),
    "enterprise": ("google/gemini-2.5-pro", "google/gemini-3.8-flash", "google/gemini-3.5-flash-lite"),
    "vision": ("google/gemini-2.5-pro", "google/gemini-3.8-flash", "google/gemini-3.5-flash-lite"),
    "prompt": ("openai/gpt-5-mini", "google/gemini-3.5-flash-lite"),
}
"""The default models. The later ones are what the providers name as successors of the first."""
MODEL_LIST = "https://openrouter.ai/models"

_GONE = (
    r"(?:no longer (?:\w+ )?(?:available|supported|offered|served)|(?:not|isn't) available|does(?: not|n't) exist"
    r"|not (?:a |be )?(?:valid|known|found|supported|recogni[sz]ed|offered)|deprecated|retired|discontinued"
    r"|decommissioned|sunset|shut ?down|removed|end.of.life|gone)"
)
"""What is said of a model, behind its name."""
_NO_SUCH = (
    r"(?:no (?:\w+ )?(?:endpoints?|providers?) (?:\w+ )?found|(?:invalid|unknown|unsupported|no such) model"
    r"|model not found|not a valid model)"
)
"""What is said in front of its name."""
_PASSING = r"temporar|currently|overloaded|rate.?limit|try again|at the moment|right now"
"""Of a model that will be there again."""
_OTHER_INPUT = r"(?<!model )\b(?:parameter|field|argument)s?\b(?!\W{0,4}model\b)|image input"
"""What is gone is something else then: "the parameter `seed` of google/... is deprecated"."""
_NOT_A_CHOICE = r"literal|enum|one_of|const"
"""Types of field errors whose value is not among those that the endpoint takes."""
_MUST_REASON = r"reasoning is (?:mandatory|required)|reasoning cannot be disabled"
_ID = r"[\w.-]+/[\w.-]+(?::\w+)?"
_NAMED = (
    rf"no endpoints found for [`'\"]?(?P<first>{_ID})"
    rf"|(?P<second>{_ID})[`'\"]? (?:is not a valid model|does not exist"
    r"|(?:is|has been|was) (?:no longer|deprecated|retired))"
)
_NOT_REFUSALS = (AuthError, RateLimited, Unreachable, AmbiguousSubmit, DeadlineExceeded, Cancelled)

T = TypeVar("T")


class Models:
    """The models in use for a client's questions."""

    def __init__(self, by_hand: Mapping[str, tuple[str, ...]], endpoints: Endpoints) -> None:
        """`endpoints` remembers, for the process, what was found out on this account."""
        self._chains = {**MODEL_CHAINS, **by_hand}
        self._endpoints = endpoints

    def ask(self, job: str, request: TextRequest, action: Callable[[TextRequest], T]) -> T:
        """`action`, within `read_refusals`, with a model named: the caller's, or the one in use for `job`.

        The only place from which a question is sent again: fal refused it before the model ran.
        """
        while True:
            asked = self._named(job, request)
            try:
                return action(asked)
            except ModelGone as gone:
                if request.model is not None:
                    raise
                self._move_on(job, str(asked.model), gone)
            except MustReason as refused:
                if asked.reasoning:
                    raise refused.error from None
                logger.warning("%s must reason: asking again with reasoning.", asked.model)
                self._endpoints.remember(_reasons(asked.model), 1)

    def answer_of_earlier(self, job: str, action: Callable[[], T]) -> T:
        """`action`, which asks for the result of an earlier submit: there is no later ask, but what it says is kept."""
        try:
            with read_refusals(None):
                return action()
        except ModelGone as gone:
            if (model := named_in(gone.said)) in self._chains[job]:
                with contextlib.suppress(ModelGone):
                    self._move_on(job, str(model), gone)
            raise
        except MustReason as refused:
            refused.error.hint = "Pass reasoning=True (--reasoning true) with this model."
            raise refused.error from None

    def _named(self, job: str, request: TextRequest) -> TextRequest:
        asked = request if request.model is not None else request._replace(model=self._current(job))
        return asked._replace(reasoning=True) if self._endpoints.remembered(_reasons(asked.model)) else asked

    def _current(self, job: str) -> str:
        return next((model for model in self._chains[job] if not self._is_gone(job, model)), self._chains[job][-1])

    def _is_gone(self, job: str, model: str) -> bool:
        return bool(self._endpoints.remembered(f"{job}: {model} is gone"))

    def _move_on(self, job: str, gone: str, reason: ModelGone) -> None:
        """Have the model after `gone` asked from now on; raises `reason` when there is none."""
        chain = self._chains[job]
        if gone == chain[-1]:
            reason.hint = f"Set FAL_{job.upper()}_MODEL to a model of {MODEL_LIST}."
            raise reason
        if self._endpoints.remember(f"{job}: {gone} is gone", 1):
            logger.warning("%s Using %s instead of %s.", reason.args[0], self._current(job), gone)


class MustReason(Exception):
    """fal refused a question because its model cannot be asked without reasoning."""

    def __init__(self, error: FalError) -> None:
        super().__init__(str(error))
        self.error = error


def successor_of(model: str) -> str:
    """The model to name in place of one that is gone."""
    for chain in MODEL_CHAINS.values():
        if model in chain[:-1]:
            return chain[chain.index(model) + 1]
    last = MODEL_CHAINS["text"][-1]
    return MODEL_CHAINS["vision"][1] if model == last else last


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
        return _has(_NOT_A_CHOICE, str(item.get("type"))) or _says_gone(f"{model}: {said}", model)
    return _says_gone(said, model)


def _says_gone(said: str, model: str) -> bool:
    """Whether a text names a model, with or without its provider, as gone; not one whose name only begins alike."""
    short = model.rpartition("/")[2]
    names = [model, short] if re.search(r"[\d-]", short) else [model]
    name = rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w/-]|[.:]\w)"
    in_sentence = r"(?:(?!\. )[^;\n])"
    told = rf"{name}{in_sentence}{{0,80}}?\b{_GONE}\b|\b{_NO_SUCH}\b{in_sentence}{{0,40}}?{name}"
    return _has(told, said) and not (_has(_PASSING, said) or _has(_OTHER_INPUT, said))


def _has(pattern: str, text: str) -> bool:
    # The patterns are not compiled ahead: that would cost every process a millisecond, and few meet a refusal.
    return bool(re.search(pattern, text, re.IGNORECASE))


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
