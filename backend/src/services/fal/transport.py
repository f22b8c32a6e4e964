"""The one place where a request leaves: bounded by its call, repeated when that is safe, our errors out.

Downloads and a photokit of the user's own leave here too. The key is put in here, for fal's own hosts only. It is an
httpx transport, so fal-client's own requests pass through it as well. Whatever fails here is raised as one of our
errors, which fal-client's retry loop does not catch: that loop would send a submit again whose answer was lost.
Below it stand the connections of `connections.py`, which give every read, write and handshake no longer than the
current call has left.

A submit whose answer leaves open whether fal took the job is settled here: when the answer names the request, fal is
told to cancel it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, cast

import httpx

from services.fal import bodies
from services.fal.answers import (
    REQUEST_ID,
    Answer,
    ambiguous,
    error_of,
    error_of_start,
    may_have_started,
    retry_after_s,
)
from services.fal.call import Call, Exchange, current_call, current_exchange
from services.fal.connections import Connections
from services.fal.errors import BadOutput, FalError, Unreachable
from services.fal.hosts import is_fal_host, is_run_host
from services.fal.redaction import MASK, Secret, is_clean, redact, redacted_body
from services.fal.retries import MAX_ATTEMPTS, RetryBudget, backoff_s, may_repeat_answer, may_repeat_failure
from services.fal.stderr_log import logger, outline

BACKUP_HOSTS = {"fal.run": "falrun.com", "queue.fal.run": "queue.falrun.com"}
"""fal's other names for its hosts, tried when the first cannot be connected to."""
CONNECT_S = 5.0
"""How long to try to connect to a host that has another name."""
PLACE_OF_THE_KEY = f"Key {MASK}"
"""What requests that want the key carry in its place, so that no object and no frame above holds it."""
JSON_STAGES = ("submit", "status", "result")
SUBMITTED = ("request_id", "response_url", "status_url", "cancel_url")
Withdraw = Callable[[str, str], "str | None"]
"""Has fal cancel a job, given by its endpoint and request id: what fal says (see `Wire.cancel`), None when it is not
to be had."""


class FalTransport(httpx.BaseTransport):
    """Sends one request within the current call; raises FalError, never an httpx error.

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

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._authorize(request)
        call, host = current_call(), _host(request)
        paid = request.extensions.get("paid", request.method == "POST" and is_run_host(host))
        for attempt in itertools.count(1):
            call.check()
            try:
                response = self._send(call, request, paid)
            except _Failed as failed:
                if failed.doubted is not None:
                    failed = self._settled(request, failed, failed.doubted)
                self._pause_or_raise(call, failed, attempt, request.extensions.get("attempts", MAX_ATTEMPTS))
            else:
                self._budget.succeeded()
                return response
        raise AssertionError("unreachable")

    def _authorize(self, request: httpx.Request) -> None:
        """Put the key in its place, for fal's own hosts; nothing that authorizes goes to other hosts."""
        if request.url.scheme != "https" or request.url.userinfo:
            raise BadOutput(f"fal named an address that is not used: {redact(str(request.url))[:200]!r}.")
        if not is_fal_host(_host(request)):
            request.headers.pop("Authorization", None)
        elif request.headers.get("Authorization") == PLACE_OF_THE_KEY:
            request.headers["Authorization"] = f"Key {self._key}"
        if request.headers.get("Accept-Encoding") != "identity":
            request.headers["Accept-Encoding"] = "gzip"

    def _send(self, call: Call, request: httpx.Request, paid: bool) -> httpx.Response:
        host = _host(request)
        public_only = request.extensions.get("public_only", not is_fal_host(host))
        exchange = Exchange(host, paid=paid, public_only=public_only)
        call.submit = exchange if paid else None
        began = time.monotonic()
        response: httpx.Response | None = None
        with contextlib.ExitStack() as open_exchange:
            open_exchange.enter_context(call.open(exchange))
            try:
                with _in_exchange(exchange):
                    response = self._reach(request, exchange, open_exchange)
                    stream = cast("httpx.SyncByteStream", response.stream)
                    open_exchange.callback(stream.close)
                    streams = response.is_success and _is_event_stream(response)
                    # A stream that nobody asked for may never end, and its header has told the id already.
                    body = b"" if streams else _body(request, response, paid)
            except httpx.RequestError as error:
                raise _lost(call, request, exchange, response, error) from error
            finally:
                _log(request, response, began)
            if streams and request.extensions.get("events", False):
                # It has no id that would still have to be learnt: stopped, it ends at once.
                exchange.paid = False
                opened = _EventStream(response, call, exchange, open_exchange.pop_all())
                headers = _masked_headers(response)
                return _rebuilt(request, response, headers, stream=opened, extensions={"exchange": exchange})
        headers = _masked_headers(response)
        answer = Answer(response.status_code, headers, body, _stage(request, paid), _endpoint(request))
        _raise_for_answer(answer, paid)
        return _rebuilt(request, response, answer.headers, content=body, extensions={"answer": answer})

    def _reach(self, request: httpx.Request, exchange: Exchange, open_exchange: contextlib.ExitStack) -> httpx.Response:
        """Send to fal's own host, or to its backup domain when that cannot be connected to."""

        def connection(host: str) -> httpx.HTTPTransport:
            exchange.peer = host
            one = open_exchange.enter_context(self._connections.one(host, public_only=exchange.public_only))
            # Before it is given back: its socket may then serve another request, which must not be shut.
            open_exchange.callback(exchange.end)
            return one

        host = exchange.host
        if (backup_host := BACKUP_HOSTS.get(host)) is None:
            return connection(host).handle_request(request)
        timeouts = request.extensions["timeout"]
        request.extensions["timeout"] = {**timeouts, "connect": min(timeouts["connect"] or CONNECT_S, CONNECT_S)}
        try:
            return connection(host).handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if _is_certificate(error):
                raise
            moved = _moved_to(backup_host, request)
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                response = connection(backup_host).handle_request(moved)
                # Only now: where neither is reached, as without a network, the error says it, and once.
                logger.warning("%s cannot be reached (%s); using %s", host, type(error).__name__, backup_host)
                return response
            raise

    def _settled(self, request: httpx.Request, failed: _Failed, request_id: str) -> _Failed:
        """A submit that fal may have taken under `request_id`: cancelled, and never sent again unless fal refused it.

        fal puts the id on its refusals too, so the id alone says nothing. Only fal's own word that it has no such
        request makes an error answer a refusal, which may then be repeated if fal asked for that.
        """
        outcome = self._withdraw(_endpoint(request), request_id)
        if outcome == "not_found" and failed.refusal is not None:
            return failed.refusal
        why, status_code = str(failed.error.args[0]), failed.error.status_code
        cancelled = outcome in ("cancelled", "requested")
        settled = _Failed(ambiguous(why, request_id, status_code=status_code, cancelled=cancelled), repeatable=False)
        settled.__cause__ = failed.__cause__
        return settled

    def _pause_or_raise(self, call: Call, failed: _Failed, attempt: int, attempts: int) -> None:
        call.submit = None
        if not failed.repeatable or attempt >= attempts or not self._budget.take():
            raise failed.error from failed.__cause__
        pause = backoff_s(attempt) if failed.wait_s is None else failed.wait_s
        if pause >= call.remaining():
            raise failed.error from failed.__cause__
        logger.info("trying again in %.2f s: %s", pause, outline(failed.error))
        call.sleep(pause)


class _Failed(Exception):
    """One try that failed: the error it stands for, and whether the same may be sent again."""

    def __init__(
        self,
        error: FalError,
        *,
        repeatable: bool,
        wait_s: float | None = None,
        doubted: str | None = None,
        refusal: _Failed | None = None,
    ) -> None:
        """`doubted` is the request under which fal may have taken a submit; `refusal` is what it stands for if not."""
        super().__init__(str(error))
        self.error = error
        self.repeatable = repeatable
        self.wait_s = wait_s
        self.doubted = doubted
        self.refusal = refusal


def _raise_for_answer(answer: Answer, paid: bool) -> None:
    if answer.status >= 300:
        raise _refused(answer, paid)
    if answer.stage in JSON_STAGES:
        try:
            body = answer.json()
        except BadOutput as error:
            raise (_unusable(str(error), answer) if paid else _Failed(error, repeatable=True)) from error
        if answer.stage == "submit":
            _check_submitted(body, answer)


def _refused(answer: Answer, paid: bool) -> _Failed:
    """What an error answer stands for; one to a submit that names its request has to be settled first."""
    repeatable, wait_s = may_repeat_answer(answer, paid=paid), retry_after_s(answer)
    if not paid:
        return _Failed(error_of(answer), repeatable=repeatable, wait_s=wait_s)
    unsettled = _Failed(error_of_start(answer), repeatable=repeatable, wait_s=wait_s)
    hinted_503 = answer.status == 503 and not may_have_started(answer)
    if answer.stage == "submit" and (may_have_started(answer) or hinted_503):
        unsettled.doubted = _usable(answer.request_id)
        unsettled.refusal = _Failed(error_of(answer), repeatable=repeatable, wait_s=wait_s)
    return unsettled


def _check_submitted(body: Mapping[str, Any], answer: Answer) -> None:
    """fal-client needs all of these; a job that it cannot name is told with the id that we know."""
    if missing := [name for name in SUBMITTED if name not in body]:
        raise _unusable(f"fal answered the submit without {', '.join(missing)}.", answer, body.get("request_id"))
    if _usable(body["request_id"]) is None:
        raise _unusable("fal's answer to the submit has no usable request id.", answer)


def _unusable(why: str, answer: Answer, named: object = None) -> _Failed:
    """A submit that fal seems to have taken, by an answer that tells no way to wait for its job."""
    request_id = _usable(named) or _usable(answer.request_id)
    return _Failed(ambiguous(why, request_id), repeatable=False, doubted=request_id)


def _usable(request_id: object) -> str | None:
    """A request id that can stand in a URL."""
    return request_id if isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id) else None


def _lost(
    call: Call, request: httpx.Request, exchange: Exchange, response: httpx.Response | None, error: httpx.RequestError
) -> _Failed:
    """What a connection that failed stands for; raises when the call itself is over."""
    if not may_repeat_failure(paid=exchange.paid, sent=exchange.sent):
        why = f"No answer came from {exchange.host} ({type(error).__name__})."
        request_id = _usable(_masked_headers(response).get("x-fal-request-id")) if response is not None else None
        doubted = request_id if _stage(request, exchange.paid) == "submit" else None
        return _Failed(ambiguous(why, request_id), repeatable=False, doubted=doubted)
    call.check()
    said = f": {error}" if str(error) else ""
    if _is_certificate(error) or _is_refusal(error):
        failure = Unreachable(
            f"{exchange.host} cannot be reached ({type(error).__name__}{said}).",
            retryable=False,
            hint="Check SSL_CERT_FILE, SSL_CERT_DIR and REQUESTS_CA_BUNDLE: the certificate is not trusted."
            if _is_certificate(error)
            else "Check the address, the user and the password in HTTPS_PROXY: the proxy refused to connect.",
        )
        return _Failed(failure, repeatable=False)
    if exchange.sent:
        failure = Unreachable(f"The connection to {exchange.host} broke ({type(error).__name__}{said}).")
    else:
        failure = Unreachable(
            f"{exchange.host} cannot be reached ({type(error).__name__}{said}).",
            hint="Check the network, HTTPS_PROXY and SSL_CERT_FILE.",
        )
    return _Failed(failure, repeatable=True)


def _is_certificate(error: BaseException) -> bool:
    """Whether a certificate was not trusted: no other try will change that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__  # httpcore's pool takes the cause off
    return False


def _is_refusal(error: httpx.RequestError) -> bool:
    """Whether the proxy refused to connect: 407, 403 and the like, not what may pass (408, 429, 5xx)."""
    return isinstance(error, httpx.ProxyError) and bool(re.match(r"4(?!08|29)\d\d\b", str(error)))


def _host(request: httpx.Request) -> str:
    return request.url.raw_host.decode("ascii")


def _stage(request: httpx.Request, paid: bool) -> str:
    return str(request.extensions.get("stage") or ("submit" if paid else "storage"))


def _body(request: httpx.Request, response: httpx.Response, paid: bool) -> bytes:
    """The whole body, unpacked; one that is too large is not asked for again."""
    encoding = response.headers.get("content-encoding", "")
    limit = request.extensions.get("max_bytes", bodies.MAX_ANSWER_BYTES)
    try:
        body = bodies.whole(cast("httpx.SyncByteStream", response.stream), encoding, limit)
    except bodies.Corrupt as error:
        raise httpx.DecodingError(str(error), request=request) from error
    except BadOutput as error:
        if not paid:
            raise _Failed(error, repeatable=False) from error
        request_id = _usable(_masked_headers(response).get("x-fal-request-id"))
        doubted = request_id if _stage(request, paid) == "submit" else None
        raise _Failed(ambiguous(str(error), request_id), repeatable=False, doubted=doubted) from error
    return body if _stage(request, paid) == "download" else redacted_body(body)


def _masked_headers(response: httpx.Response) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    if is_clean("\n".join(headers.values())):  # one look at all of them: every poll passes here
        return headers
    return {name: redact(value) for name, value in headers.items()}


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


@contextlib.contextmanager
def _in_exchange(exchange: Exchange) -> Iterator[None]:
    token = current_exchange.set(exchange)
    try:
        yield
    finally:
        current_exchange.reset(token)


class _EventStream(httpx.SyncByteStream):
    """A body that is read as it comes, still bounded and stopped by its call."""

    def __init__(
        self, response: httpx.Response, call: Call, exchange: Exchange, open_exchange: contextlib.ExitStack
    ) -> None:
        unpacked = bodies.unpacked(
            cast("httpx.SyncByteStream", response.stream), response.headers.get("content-encoding", "")
        )
        self._chunks = bodies.events_bounded(unpacked)
        self._call = call
        self._exchange = exchange
        self._open_exchange = open_exchange

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                with _in_exchange(self._exchange):
                    chunk = next(self._chunks, None)
            except (httpx.RequestError, bodies.Corrupt) as error:
                self._raise_broken(error)
            if chunk is None:
                return
            yield chunk

    def _raise_broken(self, error: Exception) -> NoReturn:
        self._call.check()
        raise Unreachable(f"The stream from {self._exchange.host} broke ({type(error).__name__}).") from error

    def close(self) -> None:
        self._open_exchange.close()
