"""Whether a request that failed may be sent again, and when.

A submit has no idempotency key at fal: it is repeated only when it surely did not arrive, or when fal says so.
Everything else may be repeated. Whether is a pure function, how long is another; the budget that a client's
threads share keeps them from storming a fal that is down. The waiting itself is `transport.py`'s.
"""

from __future__ import annotations

import random
import threading

from services.fal.answers import Answer, asks_for_retry

MAX_ATTEMPTS = 5
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
BUDGET_TOKENS = 100.0
COST_PER_RETRY = 5.0
REFUND_PER_SUCCESS = 1.0


def may_repeat_failure(*, paid: bool, sent: bool) -> bool:
    """After a connection that failed without an answer."""
    return not (paid and sent)


def may_repeat_answer(answer: Answer, *, paid: bool) -> bool:
    """After an answer that is an error."""
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return False
    if answer.status == 429:
        return True
    if paid:
        # A queue's 503 that carries a request id gets here when fal said that it does not know that request.
        return answer.status == 503 and asks_for_retry(answer)
    return answer.status >= 500 or answer.status in (408, 409)


def backoff_s(attempt: int) -> float:
    """The pause after failure number `attempt`, counted from 1, with jitter."""
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
