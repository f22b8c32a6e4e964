"""The one place where a request to fal leaves: bounded by its call, repeated when that is safe, our errors out.

It is an httpx transport, so fal-client's own requests pass through it too. Whatever fails here is raised as one of
our errors, which fal-client's retry loop does not catch: that loop would send a submit again whose answer was lost.
Below it stand httpx's connection pools over a network backend that gives every read, write and handshake no longer
than the current call has left. A submit whose answer leaves open whether fal took the job is settled here: when the
answer names the request, fal is told to cancel it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, cast

import httpx

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
from services.fal.retries import MAX_ATTEMPTS, RetryBudget, backoff_s, may_repeat_answer, may_repeat_failure
from services.fal.stderr_log import logger, outline

BACKUP_HOSTS = {"fal.run": "falrun.com", "queue.fal.run": "queue.falrun.com"}
"""fal's other names for its hosts, tried when the first cannot be connected to."""
CONNECT_S = 5.0
"""How long to try to connect to a host that has another name."""
JSON_STAGES = ("submit", "status", "result")
SUBMITTED = ("request_id", "response_url", "status_url", "cancel_url")
Withdraw = Callable[[str, str], "str | None"]
"""Has fal cancel a job, given by its endpoint and request id: what fal says (see `Wire.cancel`), None when it is not
to be had."""


class FalTransport(httpx.BaseTransport):
    """Sends one request within the current call; raises FalError, never an httpx error.

    Request extensions: `stage` names what is asked for (see `Answer.stage`), `attempts` bounds the tries, `events`
    says that a stream of events is wanted.
    """

    def __init__(self, tls: ssl.SSLContext, keep: int, withdraw: Withdraw) -> None:
        self._connections = Connections(tls, keep)
        self._budget = RetryBudget()
        self._withdraw = withdraw

    def close(self) -> None:
        self._connections.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not is_fal_host(request.url.host):
            request.headers.pop("Authorization", None)
        call = current_call()
        paid = request.method == "POST" and is_run_host(request.url.host)
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

    def _send(self, call: Call, request: httpx.Request, paid: bool) -> httpx.Response:
        exchange = Exchange(request.url.host, paid=paid)
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
                    wanted = request.extensions.get("events", False)
                    # A stream that nobody asked for may never end, and its header has told the id already.
                    body = b"" if streams else response.read()
            except httpx.RequestError as error:
                raise _lost(call, request, exchange, response, error) from error
            finally:
                _log(request, response, began)
            if streams and wanted:
                # It has no id that would still have to be learnt: stopped, it ends at once.
                exchange.paid = False
                response.stream = _EventStream(stream, call, exchange, open_exchange.pop_all())
                response.extensions["exchange"] = exchange
                return response
        answer = _answer(request, response, body)
        _raise_for_answer(answer, paid)
        response.extensions["answer"] = answer
        return response

    def _reach(self, request: httpx.Request, exchange: Exchange, open_exchange: contextlib.ExitStack) -> httpx.Response:
        """Send to fal's own host, or to its backup domain when that cannot be connected to."""

        def connection(host: str) -> httpx.HTTPTransport:
            one = open_exchange.enter_context(self._connections.one(host))
            # Before it is given back: its socket may then serve another request, which must not be shut.
            open_exchange.callback(exchange.end)
            return one

        host = request.url.host
        if (backup_host := BACKUP_HOSTS.get(host)) is None:
            return connection(host).handle_request(request)
        timeouts = request.extensions["timeout"]
        request.extensions["timeout"] = {**timeouts, "connect": min(timeouts["connect"] or CONNECT_S, CONNECT_S)}
        try:
            return connection(host).handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            logger.warning("%s cannot be reached (%s); trying %s", host, type(error).__name__, backup_host)
            moved = _moved_to(backup_host, request)
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return connection(backup_host).handle_request(moved)
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
        request_id = _usable(response.headers.get("x-fal-request-id")) if response is not None else None
        doubted = request_id if _stage(request) == "submit" else None
        return _Failed(ambiguous(why, request_id), repeatable=False, doubted=doubted)
    call.check()
    said = f": {error}" if str(error) else ""
    if exchange.sent:
        failure = Unreachable(f"The connection to {exchange.host} broke ({type(error).__name__}{said}).")
    else:
        failure = Unreachable(
            f"{exchange.host} cannot be reached ({type(error).__name__}{said}).",
            hint="Check the network, HTTPS_PROXY and SSL_CERT_FILE.",
        )
    return _Failed(failure, repeatable=True)


def _answer(request: httpx.Request, response: httpx.Response, body: bytes) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, body, _stage(request), _endpoint(request))


def _stage(request: httpx.Request) -> str:
    """fal-client names none: of its requests, those that start a job are submits."""
    paid = request.method == "POST" and is_run_host(request.url.host)
    return str(request.extensions.get("stage") or ("submit" if paid else "storage"))


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
        self, stream: httpx.SyncByteStream, call: Call, exchange: Exchange, open_exchange: contextlib.ExitStack
    ) -> None:
        self._stream = stream
        self._call = call
        self._exchange = exchange
        self._open_exchange = open_exchange

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._stream)
        while True:
            try:
                with _in_exchange(self._exchange):
                    chunk = next(chunks, None)
            except httpx.RequestError as error:
                self._raise_broken(error)
            if chunk is None:
                return
            yield chunk

    def _raise_broken(self, error: httpx.RequestError) -> NoReturn:
        self._call.check()
        raise Unreachable(f"The stream from {self._exchange.host} broke ({type(error).__name__}).") from error

    def close(self) -> None:
        self._open_exchange.close()
