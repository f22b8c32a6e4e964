"""The errors of a call: one class and one stable `error_type` for each kind of failure.

    FalError (RuntimeError)
    ├── InvalidInput (ValueError)          invalid_input      you asked wrongly; nothing was sent
    │   └── MissingKey                     missing_key
    ├── ServiceError                                          fal answered, and refused
    │   ├── AuthError                      auth               401, 403
    │   │   └── BalanceExhausted           balance_exhausted  403 that speaks of the balance
    │   ├── RateLimited                    rate_limited       429
    │   ├── ModelRejected                  model_rejected     422 and other 4xx; fal's list in `detail`
    │   ├── ModelGone                      model_gone         fal no longer offers the model that was asked for
    │   ├── EndpointGone                   endpoint_gone      a submit: 404 for the application, 410, "deprecated"
    │   ├── NotFound                       not_found          404 for a request or a file
    │   ├── NotReady                       not_ready          result asked for too early
    │   └── FalUnavailable                 fal_unavailable    5xx, 408, 409
    ├── JobFailed                          job_failed         the job ran and failed
    ├── Unreachable                        unreachable        no connection, nothing was sent
    ├── DeadlineExceeded (TimeoutError)    timeout            the call's own deadline passed
    ├── AmbiguousSubmit                    ambiguous_submit   sent, no usable answer: fal may run and bill it
    ├── StreamTruncated                    stream_truncated   a stream ended without its final event
    ├── BadOutput                          bad_output         an answer that cannot be used
    ├── BudgetExceeded                     budget_exceeded    it would cost more than max_usd leaves; nothing was sent
    ├── Cancelled                          cancelled          by the caller, a signal, or at fal
    └── InternalError                      internal           a defect of this library

Beside them stand those of modules that use the core: `Busy` of the worker, `WebhookRejected` of webhooks.py. Answers
are turned into these classes in `responses.py`, and these into output by `report` here.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from services.fal.redaction import redact, redacted

E = TypeVar("E", bound="FalError")

MAX_SAID = 2000
"""Characters of a reason that are looked at."""


class FalError(RuntimeError):
    """Base of every error that leaves this library."""

    error_type: ClassVar[str] = "internal"
    """Stable name of this kind of failure."""
    default_retryable: ClassVar[bool] = False

    status_code: int | None
    """HTTP status of fal's answer, when there was one."""
    request_id: str | None
    """fal's id of the job this is about, when it is known."""
    retryable: bool
    """Whether the same call may succeed later without costing twice for one result."""
    hint: str | None
    """What to do next; the message ends with it."""
    detail: Any
    """fal's own `detail`: a list of field errors, a text, or None."""
    partial: dict[str, Any]
    """What the call had already made, under its own result's keys."""
    said: str
    """The reason in fal's or the model's own words, when there was one."""
    billable_units: float | None
    """What fal counted for it all the same, when it said so."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        hint: str | None = None,
        detail: Any = None,
        partial: dict[str, Any] | None = None,
        said: str = "",
        billable_units: float | None = None,
    ) -> None:
        super().__init__(redact(message))
        self.status_code = status_code
        self.request_id = None if request_id is None else redact(request_id)
        self.retryable = self.default_retryable if retryable is None else retryable
        self.hint = None if hint is None else redact(hint)
        self.detail = redacted(detail)
        self.partial = redacted(partial or {})
        self.said = redact(said)[:MAX_SAID]
        self.billable_units = billable_units

    def but(self: E, **changes: Any) -> E:
        """The same error with other fields, for who knows more of it: raise that one `from` this one."""
        fields = ("status_code", "request_id", "retryable", "hint", "detail", "partial", "said", "billable_units")
        return type(self)(str(self.args[0]), **{name: getattr(self, name) for name in fields} | changes)

    def __str__(self) -> str:
        about = f"Request id: {self.request_id}." if self.request_id else None
        return " ".join(part for part in (str(self.args[0]), about, self.hint) if part)


class InvalidInput(FalError, ValueError):
    error_type = "invalid_input"


class MissingKey(InvalidInput):
    error_type = "missing_key"


class ServiceError(FalError):
    """fal answered, and refused."""


class AuthError(ServiceError):
    error_type = "auth"


class BalanceExhausted(AuthError):
    error_type = "balance_exhausted"


class RateLimited(ServiceError):
    error_type = "rate_limited"
    default_retryable = True


class ModelRejected(ServiceError):
    error_type = "model_rejected"


class ModelGone(ServiceError):
    error_type = "model_gone"


class EndpointGone(ServiceError):
    error_type = "endpoint_gone"


class NotFound(ServiceError):
    error_type = "not_found"


class NotReady(ServiceError):
    error_type = "not_ready"
    default_retryable = True


class FalUnavailable(ServiceError):
    error_type = "fal_unavailable"
    default_retryable = True


class JobFailed(FalError):
    error_type = "job_failed"


class Unreachable(FalError):
    error_type = "unreachable"
    default_retryable = True


class DeadlineExceeded(FalError, TimeoutError):
    error_type = "timeout"
    default_retryable = True


class AmbiguousSubmit(FalError):
    error_type = "ambiguous_submit"


class StreamTruncated(FalError):
    error_type = "stream_truncated"


class BadOutput(FalError):
    error_type = "bad_output"
    default_retryable = True


class BudgetExceeded(FalError):
    error_type = "budget_exceeded"


class Cancelled(FalError):
    error_type = "cancelled"


class InternalError(FalError):
    error_type = "internal"


def as_fal_error(error: BaseException) -> FalError:
    """`error` itself when it is ours, else an InternalError that is caused by it."""
    if isinstance(error, FalError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return _caused(Cancelled("The call was interrupted."), error)
    hint = None
    if isinstance(error, ImportError):
        hint = "Install the packages: pip install -r requirements.txt, or make setup."
    return _caused(InternalError(f"{type(error).__name__}: {error}.", hint=hint), error)


def _caused(wrapper: FalError, cause: BaseException) -> FalError:
    wrapper.__cause__ = cause
    return wrapper


def summary(error: FalError) -> dict[str, Any]:
    """The fields that every reported failure has, without a traceback."""
    fields: dict[str, Any] = {
        "error": str(error),
        "error_type": error.error_type,
        "retryable": error.retryable,
        "status_code": error.status_code,
        "request_id": error.request_id,
        "hint": error.hint,
    }
    if error.detail is not None:
        fields["detail"] = error.detail
    return fields


def report(error: FalError) -> dict[str, Any]:
    """`error` as a JSON-ready dict: what was made already, then the fields of `summary` and `trace`."""
    import traceback

    trace = redact("".join(traceback.format_exception(error)))
    return {**error.partial, **summary(error), "trace": trace}
