"""The one place where a request leaves: bounded by its call, repeated when that is safe, our errors out.

fal-client's own requests, downloads, and a photokit of the user's own all leave here, so they share the connections,
the retry rule and the deadline. (`webhooks.py` stands beside the core and fetches fal's public keys without a key or
a call.)

- The key is put in here, for fal's own hosts only: no object and no frame above holds it.
- Whatever fails is raised as one of our errors. fal-client repeats httpx errors and answers of its own choice
  (`_maybe_retry_request` in https://github.com/fal-ai/fal/blob/main/projects/fal_client/src/fal_client/client.py); it
  does not catch ours, so a submit whose answer was lost is not sent again behind our back.
- A submit has no idempotency key at fal: it is repeated only when it surely did not arrive, or when fal says so. One
  whose answer leaves open whether fal took the job is settled here: when the answer names the request, fal is told to
  cancel it.
- A retry takes tokens from a budget that a client's threads share, and a success gives some back, so that many
  threads do not storm a fal that is down
  (https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpcore
import httpx

from services.fal.call import Call, RequestInFlight
from services.fal.connections import NETWORK_ERRORS, Connection, Connections
from services.fal.errors import BadOutput, FalError, InvalidInput, Unreachable
from services.fal.hosts import is_fal_host, is_run_host
from services.fal.log import logger, outline
from services.fal.redaction import MASK, Secret, is_clean, redact, redacted_body
from services.fal.responses import (
    Answer,
    CorruptBody,
    ambiguous,
    asks_for_retry,
    error_of,
    error_of_start,
    events_bounded,
    may_have_started,
    retry_after_s,
    unpacked,
    usable_id,
    whole_body,
)

BACKUP_HOSTS = {"fal.run": "falrun.com", "queue.fal.run": "queue.falrun.com"}
"""fal's other names for its hosts, tried when the first cannot be connected to, as fal-client does
(`BackupDomainTransport`)."""
CONNECT_S = 5.0
"""How long to try to connect to a host that has another name."""
PLACE_OF_THE_KEY = f"Key {MASK}"
"""What requests that want the key carry in its place, so that no object and no frame above holds it."""
JSON_STAGES = ("submit", "status", "result")
SUBMITTED = ("request_id", "response_url", "status_url", "cancel_url")
MAX_ATTEMPTS = 5
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
BUDGET_TOKENS = 100.0
COST_PER_RETRY = 5.0
REFUND_PER_SUCCESS = 1.0

Withdraw = Callable[[str, str], "str | None"]
"""Has fal cancel a job, given by its endpoint and request id: what fal says (see `FalApi.cancel`), None when it is not
to be had."""


class Transport:
    """Sends requests, each within a call; raises FalError, never an error of httpx or httpcore.

    Request extensions: `stage` names what is asked for (see `Answer.stage`), `attempts` bounds the tries, `max_bytes`
    the answer; `events` says that a stream of events is wanted, `paid` whether a POST may start something that costs
    money, `public_only` that only public addresses may be connected to. Without the last two the host decides.
    """

    def __init__(self, tls: ssl.SSLContext, keep: int, key: Secret, withdraw: Withdraw) -> None:
        self._connections = Connections(tls, keep)
        self._budget = RetryBudget()
        self._key = key
        self._withdraw = withdraw

    def close(self) -> None:
        self._connections.close()

    def send(self, call: Call, request: httpx.Request) -> httpx.Response:
        """The answer to a request, its body read unless it is a stream of events."""
        self._authorize(request)
        host = _host(request)
        paid = request.extensions.get("paid", request.method == "POST" and is_run_host(host))
        attempts = request.extensions.get("attempts", MAX_ATTEMPTS)
        for attempt in itertools.count(1):
            call.check()
            outcome = self._attempt(call, request, paid)
            if isinstance(outcome, httpx.Response):
                self._budget.succeeded()
                return outcome
            failure = outcome if outcome.doubted is None else self._settled(request, outcome, outcome.doubted)
            call.submit = None
            pause_s = self._pause_s(call, failure, attempt, attempts)
            if pause_s is None:
                raise failure.error from failure.cause
            logger.info("trying again in %.2f s: %s", pause_s, outline(failure.error))
            call.sleep(pause_s)
        raise AssertionError("unreachable")

    def _authorize(self, request: httpx.Request) -> None:
        """Put the key in its place, for fal's own hosts; nothing that authorizes goes to other hosts."""
        if request.url.scheme != "https" or request.url.userinfo:
            raise BadOutput(f"fal returned a URL that cannot be used: {redact(str(request.url))[:200]!r}.")
        if not is_fal_host(_host(request)):
            request.headers.pop("Authorization", None)
        elif request.headers.get("Authorization") == PLACE_OF_THE_KEY:
            request.headers["Authorization"] = f"Key {self._key}"
        # fal-client and httpx would also offer br and zstd, which are not unpacked in bounded pieces here.
        if request.headers.get("Accept-Encoding") not in ("identity", "gzip"):
            request.headers["Accept-Encoding"] = "gzip"

    def _attempt(self, call: Call, request: httpx.Request, paid: bool) -> httpx.Response | _Failure:
        """Send once: the answer, or what kept it from coming. Raises what ends the call."""
        host = _host(request)
        public_only = request.extensions.get("public_only", not is_fal_host(host))
        in_flight = RequestInFlight(call, host, paid=paid, public_only=public_only)
        call.submit = in_flight if paid else None
        began = time.monotonic()
        response: httpx.Response | None = None
        with contextlib.ExitStack() as connection:
            connection.enter_context(call.sending(in_flight))
            try:
                response = self._reach(request, in_flight, connection)
                connection.callback(_stream_of(response).close)
                streams = response.is_success and _is_event_stream(response)
                # A stream that nobody asked for may never end, and its header has told the id already.
                body = b"" if streams else _body(request, response)
            except (*NETWORK_ERRORS, CorruptBody) as error:
                return _lost(request, in_flight, response, error)
            except BadOutput as error:
                return _oversized(request, response, error, paid=paid)
            finally:
                _log(request, response, began)
            if streams and request.extensions.get("events", False):
                # It has no id that would still have to be learnt: stopped, it ends at once.
                in_flight.paid = False
                opened = _EventStream(response, in_flight, connection.pop_all())
                extensions = {"request": in_flight}
                return _rebuilt(request, response, _masked_headers(response), stream=opened, extensions=extensions)
        headers = _masked_headers(response)
        answer = Answer(response.status_code, headers, body, _stage(request, paid), _endpoint(request))
        failure = _failure_in(answer, paid)
        if failure is not None:
            return failure
        return _rebuilt(request, response, answer.headers, content=body, extensions={"answer": answer})

    def _reach(self, request: httpx.Request, in_flight: RequestInFlight, stack: contextlib.ExitStack) -> httpx.Response:
        """Send to fal's own host, or to its backup domain when that cannot be connected to."""

        def connection(host: str) -> Connection:
            in_flight.peer = host
            return stack.enter_context(self._connections.one(in_flight))

        host = in_flight.host
        if (backup_host := BACKUP_HOSTS.get(host)) is None:
            return connection(host).send(request)
        # fal-client caps it too, so that a host that is down leaves time for the other one.
        timeouts = request.extensions["timeout"]
        request.extensions["timeout"] = {**timeouts, "connect": min(timeouts["connect"] or CONNECT_S, CONNECT_S)}
        try:
            return connection(host).send(request)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            if _is_certificate(error):
                raise
            moved = _moved_to(backup_host, request)
            # InvalidInput: NO_PROXY may name the one host, and leave the other to a proxy that cannot be used.
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout, InvalidInput):
                response = connection(backup_host).send(moved)
                # Only now: where neither is reached, as without a network, the error says it, and once.
                logger.warning("%s cannot be reached (%s); using %s", host, type(error).__name__, backup_host)
                return response
            raise

    def _settled(self, request: httpx.Request, failure: _Failure, request_id: str) -> _Failure:
        """A submit that fal may have taken under `request_id`: cancelled, and never sent again unless fal refused it.

        fal puts the id on its refusals too, so the id alone says nothing. Only fal's own word that it has no such
        request makes an error answer a refusal, which may then be repeated if fal asked for that.
        """
        outcome = self._withdraw(_endpoint(request), request_id)
        if outcome == "not_found" and failure.refusal is not None:
            return _Failure(failure.refusal, repeatable=failure.repeatable, wait_s=failure.wait_s)
        why, status_code = str(failure.error.args[0]), failure.error.status_code
        cancelled = outcome in ("cancelled", "requested")
        error = ambiguous(why, request_id, status_code=status_code, cancelled=cancelled)
        return _Failure(error, cause=failure.cause)

    def _pause_s(self, call: Call, failure: _Failure, attempt: int, attempts: int) -> float | None:
        """How long to wait before the next try; None when there is none."""
        if not failure.repeatable or attempt >= attempts or not self._budget.take():
            return None
        pause_s = backoff_s(attempt) if failure.wait_s is None else failure.wait_s
        return pause_s if pause_s < call.remaining() else None


class _Failure(NamedTuple):
    """One try that failed: the error it stands for, and whether the same may be sent again."""

    error: FalError
    cause: BaseException | None = None
    repeatable: bool = False
    wait_s: float | None = None
    """How long fal asks to wait before that."""
    doubted: str | None = None
    """The request id under which fal may have taken a submit."""
    refusal: FalError | None = None
    """What the answer stands for when fal did not take it."""


def _failure_in(answer: Answer, paid: bool) -> _Failure | None:
    """What is wrong with an answer, if anything."""
    if answer.status >= 300:
        return _refused(answer, paid)
    if answer.stage not in JSON_STAGES:
        return None
    try:
        body = answer.json()
    except BadOutput as error:
        return _unusable(str(error), answer, cause=error) if paid else _Failure(error, repeatable=True)
    return _unfit_submit(body, answer) if answer.stage == "submit" else None


def _refused(answer: Answer, paid: bool) -> _Failure:
    """What an error answer stands for; one to a submit that names its request has to be settled first."""
    repeatable, wait_s = may_repeat_answer(answer, paid=paid), retry_after_s(answer)
    if not paid:
        return _Failure(error_of(answer), repeatable=repeatable, wait_s=wait_s)
    hinted_503 = answer.status == 503 and not may_have_started(answer)
    in_doubt = answer.stage == "submit" and (may_have_started(answer) or hinted_503)
    return _Failure(
        error_of_start(answer),
        repeatable=repeatable,
        wait_s=wait_s,
        doubted=usable_id(answer.request_id) if in_doubt else None,
        refusal=error_of(answer) if in_doubt else None,
    )


def _unfit_submit(body: Mapping[str, Any], answer: Answer) -> _Failure | None:
    """fal-client needs all of these; a job that it cannot name is told with the id that we know."""
    if missing := [name for name in SUBMITTED if name not in body]:
        return _unusable(f"fal answered the submit without {', '.join(missing)}.", answer, body.get("request_id"))
    if usable_id(body["request_id"]) is None:
        return _unusable("fal's answer to the submit contains no valid request id.", answer)
    return None


def _unusable(why: str, answer: Answer, named: object = None, cause: FalError | None = None) -> _Failure:
    """A submit that fal seems to have taken, by an answer that tells no way to wait for its job."""
    request_id = usable_id(named) or usable_id(answer.request_id)
    return _Failure(ambiguous(why, request_id), cause=cause, doubted=request_id)


def _lost(
    request: httpx.Request, in_flight: RequestInFlight, response: httpx.Response | None, error: Exception
) -> _Failure:
    """What a connection that failed stands for; raises when the call itself is over."""
    name = type(error).__name__
    if in_flight.paid and in_flight.sent:
        return _in_doubt(f"No answer came from {in_flight.host} ({name}).", request, response, error)
    in_flight.call.check()
    said = f": {error}" if str(error) else ""
    if _is_certificate(error) or _is_refusal(error):
        failure = Unreachable(
            f"{in_flight.host} cannot be reached ({name}{said}).",
            retryable=False,
            hint="Check SSL_CERT_FILE, SSL_CERT_DIR and REQUESTS_CA_BUNDLE: the certificate is not trusted."
            if _is_certificate(error)
            else "Check the address, the user and the password in HTTPS_PROXY: the proxy refused to connect.",
        )
        return _Failure(failure, cause=error)
    if in_flight.sent:
        failure = Unreachable(f"The connection to {in_flight.host} broke ({name}{said}).")
    else:
        failure = Unreachable(
            f"{in_flight.host} cannot be reached ({name}{said}).",
            hint="Check the network, HTTPS_PROXY and SSL_CERT_FILE.",
        )
    return _Failure(failure, cause=error, repeatable=True)


def _oversized(request: httpx.Request, response: httpx.Response | None, error: BadOutput, *, paid: bool) -> _Failure:
    """A body that is too large, or packed as was not asked for: the same would come again."""
    return _in_doubt(str(error), request, response, error) if paid else _Failure(error, cause=error.__cause__)


def _in_doubt(why: str, request: httpx.Request, response: httpx.Response | None, cause: Exception) -> _Failure:
    """A request that may have started a job, whose answer did not come as a whole."""
    headers = {} if response is None else _masked_headers(response)
    request_id = usable_id(headers.get("x-fal-request-id"))
    doubted = request_id if _stage(request, paid=True) == "submit" else None
    return _Failure(ambiguous(why, request_id), cause=cause, doubted=doubted)


def _is_certificate(error: BaseException) -> bool:
    """Whether a certificate was not trusted: no other try will change that."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    # Two errors of two hosts can stand in each other's context: a circle.
    while cause is not None and cause not in seen:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__  # httpcore's pool takes the cause off
    return False


def _is_refusal(error: Exception) -> bool:
    """Whether the proxy refused to connect: 407, 403 and the like, not what may pass (408, 429, 5xx)."""
    return isinstance(error, httpcore.ProxyError) and bool(re.match(r"4(?!08|29)\d\d\b", str(error)))


def _host(request: httpx.Request) -> str:
    return request.url.raw_host.decode("ascii")


def _stage(request: httpx.Request, paid: bool) -> str:
    return str(request.extensions.get("stage") or ("submit" if paid else "storage"))


def _body(request: httpx.Request, response: httpx.Response) -> bytes:
    """The whole body, unpacked. Raises CorruptBody, and BadOutput for one that is too large."""
    encoding = response.headers.get("content-encoding", "")
    body = whole_body(_stream_of(response), encoding, request.extensions.get("max_bytes"))
    if request.extensions.get("stage") == "download":
        return body
    # An upload token that fal gives to a second client of this process is a secret already.
    return body if response.is_success and request.extensions.get("tells_secret") else redacted_body(body)


def _stream_of(response: httpx.Response) -> httpx.SyncByteStream:
    assert isinstance(response.stream, httpx.SyncByteStream)
    return response.stream


def _masked_headers(response: httpx.Response) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if is_clean("\n".join(headers.values())):  # one look at all of them: every poll passes here
        return headers
    return {name: redact(value) for name, value in headers.items()}


# They describe the body as it came, and httpx would unpack it a second time.
_FRAMING = ("content-encoding", "content-length", "transfer-encoding")


def _rebuilt(
    request: httpx.Request, response: httpx.Response, headers: Mapping[str, str], **made: Any
) -> httpx.Response:
    """`response` with masked headers, and a body that was unpacked."""
    kept = {name: value for name, value in headers.items() if name not in _FRAMING}
    return httpx.Response(response.status_code, headers=kept, request=request, **made)


def _endpoint(request: httpx.Request) -> str:
    """Of a request that is to start a job, at the queue or as a stream."""
    return request.url.path.strip("/").removesuffix("/stream")


def _moved_to(host: str, request: httpx.Request) -> httpx.Request:
    headers = request.headers.copy()
    headers["Host"] = host
    url = request.url.copy_with(host=host)
    return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _log(request: httpx.Request, response: httpx.Response | None, began: float) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        outcome = response.status_code if response is not None else "no answer"
        logger.debug("%s %s: %s, %.3f s", request.method, request.url, outcome, time.monotonic() - began)


class _EventStream(httpx.SyncByteStream):
    """A body that is read as it comes, still bounded and stopped by its call."""

    def __init__(self, response: httpx.Response, in_flight: RequestInFlight, connection: contextlib.ExitStack) -> None:
        encoding = response.headers.get("content-encoding", "")
        self._chunks = events_bounded(unpacked(_stream_of(response), encoding))
        self._in_flight = in_flight
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except (*NETWORK_ERRORS, CorruptBody) as error:
            self._in_flight.call.check()
            raise Unreachable(f"The stream from {self._in_flight.host} broke ({type(error).__name__}).") from error

    def close(self) -> None:
        self._connection.close()


def may_repeat_answer(answer: Answer, *, paid: bool) -> bool:
    """After an answer that is an error."""
    # The start deadline that we sent has passed (https://fal.ai/docs/documentation/model-apis/common-parameters).
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return False
    # Refused before a job was made (https://fal.ai/docs/documentation/model-apis/concurrency-limits).
    if answer.status == 429:
        return True
    if paid:
        # A queue's 503 that carries a request id gets here when fal said that it does not know that request.
        return answer.status == 503 and asks_for_retry(answer)
    return answer.status >= 500 or answer.status in (408, 409)


def backoff_s(attempt: int) -> float:
    """The pause after failure number `attempt`, counted from 1, with jitter."""
    # Jitter keeps clients that failed together from coming back together
    # (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    pause = min(BACKOFF_FIRST_S * 2.0**attempt, BACKOFF_MAX_S)
    return pause * random.uniform(0.5, 1.0)


class RetryBudget:
    """Tokens that retries take and successes give back, shared by all threads of a client."""

    def __init__(self) -> None:
        self._tokens = BUDGET_TOKENS
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more retry may be made."""
        with self._lock:
            if self._tokens < COST_PER_RETRY:
                return False
            self._tokens -= COST_PER_RETRY
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._tokens = min(BUDGET_TOKENS, self._tokens + REFUND_PER_SUCCESS)
