"""Verifies fal's webhooks: that a request to your server comes from fal, unchanged and recently.

fal signs each delivery with Ed25519 over four lines: the request id, the user id, the time in Unix seconds and the
SHA-256 of the raw body in hex. It publishes its keys at KEYS_URL, and delivers again whatever is not answered with a
2xx (https://fal.ai/docs/documentation/model-apis/inference/webhooks).

Needs `cryptography` (the extra `webhooks`), which is imported only to verify. Nothing here needs a key of yours, and
FalClient does not use it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.errors import BadOutput, FalError, FalUnavailable, InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["Webhook", "WebhookRejected", "WebhookVerifier", "verify_webhook"]

KEYS_URL = "https://rest.fal.ai/.well-known/jwks.json"
KEYS_MAX_AGE_S = 24 * 3600.0
"""fal asks not to keep its keys longer."""
MOST_LOOKS = 5
LOOKS_WITHIN_S = 60.0
"""fal is asked for its keys no more often: neither wrong signatures nor an outage make us ask at every request."""
FETCH_S = 10.0
"""For a look; fal gives up on a first delivery after 15 s."""
MAX_KEYS_BYTES = 64 * 1024
MAX_KEYS = 16
TOLERANCE_S = 300
"""How far the time of a delivery may lie from ours, either way."""
REMEMBERED = 10_000
"""Request ids that are kept to tell repeats."""

Text = str | bytes
Headers = Mapping[str, Text] | Mapping[bytes, Text] | Iterable[tuple[Text, Text]]
Fetch = Callable[[], bytes]

REQUEST_ID = "x-fal-webhook-request-id"
USER_ID = "x-fal-webhook-user-id"
TIMESTAMP = "x-fal-webhook-timestamp"
SIGNATURE = "x-fal-webhook-signature"
_WANTED = (REQUEST_ID, USER_ID, TIMESTAMP, SIGNATURE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DIGITS = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-fA-F]{128}")


class WebhookRejected(FalError):
    """The request is not one of fal's, or not as fal sent it: answer 401 and do nothing else."""

    error_type = "webhook_rejected"

    reason: str
    """missing_header, malformed_header, too_old, too_new or bad_signature."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Webhook:
    """One delivery that fal has signed."""

    request_id: str
    """The job's, as the submit gave it."""
    user_id: str
    timestamp: int
    """When fal sent it, in Unix seconds."""
    repeat: bool
    """Whether a delivery of this job has been verified before: fal may send it several times."""
    body: bytes
    """As it came; `json` reads it."""
    _forget: Callable[[str], None] = field(repr=False, compare=False)

    def json(self) -> dict[str, Any]:
        """The body: `{"request_id", "gateway_request_id", "status": "OK" | "ERROR", "payload", ...}`.

        `payload` is the job's result, or None with `payload_error`; with "ERROR" there is `error`. Raises BadOutput
        when it is no JSON object.
        """
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadOutput("The webhook's body is not JSON.", request_id=self.request_id, retryable=False) from error
        if not isinstance(document, dict):
            raise BadOutput("The webhook's body is not a JSON object.", request_id=self.request_id, retryable=False)
        return document

    def forget(self) -> None:
        """Let fal's next delivery of the job count as the first: for a server that could not deal with this one."""
        self._forget(self.request_id)


def verify_webhook(headers: Headers, body: bytes) -> Webhook:
    """`WebhookVerifier.verify` with keys and a memory that the whole process shares."""
    return _SHARED.verify(headers, body)


def fetch_keys() -> bytes:
    """The document with fal's public keys. Raises FalUnavailable."""
    import requests

    ends_at = time.monotonic() + FETCH_S
    # `auth` keeps a password of ~/.netrc at home.
    options: dict[str, Any] = {"timeout": FETCH_S / 2, "allow_redirects": False, "stream": True, "auth": _no_auth}
    document = b""
    try:
        with requests.get(KEYS_URL, **options) as answer:
            if answer.status_code != 200:
                raise FalUnavailable(f"{KEYS_URL} answered {answer.status_code}.", status_code=answer.status_code)
            for chunk in answer.iter_content(8192):
                document += chunk
                if len(document) > MAX_KEYS_BYTES or time.monotonic() > ends_at:
                    raise FalUnavailable(f"{KEYS_URL} sent too much data, or sent it too slowly.")
    except requests.RequestException as error:
        raise FalUnavailable(f"{KEYS_URL} could not be read: {error}.") from error
    return document


class WebhookVerifier:
    """Verifies webhooks with fal's keys, which it keeps, and tells repeats. Safe to share between threads."""

    def __init__(
        self, *, fetch: Fetch = fetch_keys, clock: Callable[[], float] = time.time, remembered: int = REMEMBERED
    ) -> None:
        """`fetch` gives fal's JWKS document, `clock` Unix seconds; `remembered` is the most request ids to keep."""
        self._keys = _Keys(fetch, clock)
        self._clock = clock
        self._limit = remembered
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def verify(self, headers: Headers, body: bytes) -> Webhook:
        """What fal has signed.

        `headers` are the request's, as a mapping or as pairs; `body` is its raw bytes, before any JSON parser. Raises
        WebhookRejected; FalUnavailable when fal's keys cannot be had (answer 503, and fal delivers again); InvalidInput
        when the arguments are of other types or `cryptography` is not installed.
        """
        _require_cryptography()
        claim = _claim(headers, body)
        self._check_time(claim.timestamp)
        keys = self._keys.current()
        # Several spellings and keys, none of them secret: the first that fits is enough.
        if not claim.fits(keys) and not claim.fits(self._keys.renewed(keys)):
            raise WebhookRejected("The webhook's signature is not fal's for this body.", "bad_signature")
        repeat = self._remember(claim.request_id)
        return Webhook(claim.request_id, claim.user_id, claim.timestamp, repeat, bytes(body), self._forget)

    def _check_time(self, timestamp: int) -> None:
        late_s = int(self._clock()) - timestamp
        if late_s > TOLERANCE_S:
            raise WebhookRejected(f"The webhook is {late_s} s old; fal sends it again with a new time.", "too_old")
        if -late_s > TOLERANCE_S:
            raise WebhookRejected(
                f"The webhook is dated {-late_s} s in the future. Set this machine's clock.", "too_new"
            )

    def _remember(self, request_id: str) -> bool:
        with self._lock:
            known = request_id in self._seen
            self._seen[request_id] = None
            self._seen.move_to_end(request_id)
            while len(self._seen) > self._limit:
                self._seen.popitem(last=False)
        return known

    def _forget(self, request_id: str) -> None:
        with self._lock:
            self._seen.pop(request_id, None)


class _Keys:
    """fal's public keys: fetched when they are first needed, when they are old, and when a signature fits none."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[Ed25519PublicKey, ...] = ()
        self._fetched_at = float("-inf")
        self._looks: deque[float] = deque(maxlen=MOST_LOOKS)
        """When the latest began."""
        self._ended = 0
        """How many have ended."""
        self._problem: str | None = None
        """Why the last look failed."""

    def current(self) -> tuple[Ed25519PublicKey, ...]:
        # Without the lock: a look that a wrong signature has begun must not hold up those that are right.
        known, ended = self._known, self._ended
        if known and self._within(self._fetched_at, KEYS_MAX_AGE_S):
            return known
        with self._lock:
            if not self._within(self._fetched_at, KEYS_MAX_AGE_S):
                self._known = ()
                self._look(ended)
            return self._known

    def renewed(self, known: tuple[Ed25519PublicKey, ...]) -> tuple[Ed25519PublicKey, ...]:
        """The keys, fetched again when nobody else has done so since `known`, and not too often."""
        ended = self._ended
        with self._lock:
            if self._known is known:
                self._look(ended)
            return self._known

    def _look(self, ended: int) -> None:
        """Fetch the keys, unless a look has ended since `ended` were counted: its outcome is as good."""
        often = len(self._looks) == MOST_LOOKS and self._within(self._looks[0], LOOKS_WITHIN_S)
        if self._ended == ended and not often:
            began = self._clock()
            self._looks.append(began)
            try:
                self._known, self._problem = _public_keys(self._fetch()), None
                self._fetched_at = began
            except FalError as error:
                self._problem = str(error)
            finally:
                self._ended += 1
        if self._problem:
            raise FalUnavailable(
                f"fal's webhook keys are not available: {self._problem}",
                hint="Answer 503: fal delivers the webhook again.",
            )

    def _within(self, moment: float, seconds: float) -> bool:
        # A clock that was set back makes nothing last longer.
        return 0 <= self._clock() - moment < seconds


class _Claim(NamedTuple):
    """What a request says of itself; nothing is proven yet."""

    request_id: str
    user_id: str
    timestamp: int
    signature: bytes
    messages: tuple[bytes, ...]
    """What may have been signed."""

    def fits(self, keys: tuple[Ed25519PublicKey, ...]) -> bool:
        return any(_is_signed(key, self.signature, message) for key in keys for message in self.messages)


def _claim(headers: Headers, body: bytes) -> _Claim:
    """The four headers, read. Raises WebhookRejected, and InvalidInput."""
    if not isinstance(body, bytes | bytearray | memoryview):
        kind = type(body).__name__
        raise InvalidInput(f"body must be the raw bytes of the request, not {kind}. Read it before any parser does.")
    found = _found(headers)
    if missing := [name for name in _WANTED if not found.get(name)]:
        raise WebhookRejected(
            f"The request has no {', '.join(missing)}: it is not a webhook from fal.", "missing_header"
        )
    for name, form in ((TIMESTAMP, _DIGITS), (SIGNATURE, _HEX)):
        if not form.fullmatch(found[name]):
            raise WebhookRejected(f"{name} is not what fal sends.", "malformed_header")
    digest = hashlib.sha256(body).hexdigest()
    parts = (found[REQUEST_ID], found[USER_ID], found[TIMESTAMP], digest)
    return _Claim(
        found[REQUEST_ID],
        found[USER_ID],
        int(found[TIMESTAMP]),
        bytes.fromhex(found[SIGNATURE]),
        _spelled("\n".join(parts)),
    )


def _found(headers: Headers) -> dict[str, str]:
    """The headers of fal's among all, by their names in small letters."""
    # What servers call headers is not always a Mapping.
    items: Any = getattr(headers, "items", lambda: headers)
    found: dict[str, str] = {}
    try:
        for key, value in items():
            name = _text(key).lower()
            if name not in _WANTED:
                continue
            text = _text(value).strip(" \t")
            # A line break would let the signed lines be cut in another way.
            if _CONTROL.search(text) or found.get(name, text) != text:
                raise WebhookRejected(f"{name} is not what fal sends.", "malformed_header")
            found[name] = text
    except (TypeError, ValueError) as error:
        raise InvalidInput("headers must be a mapping of names to strings, or pairs of them.") from error
    return found


def _text(value: Text) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError(type(value).__name__)


def _spelled(message: str) -> tuple[bytes, ...]:
    """The bytes that came over the wire: some servers read headers as Latin-1, others as UTF-8."""
    spellings = []
    for encoding, errors in (("latin-1", "strict"), ("utf-8", "surrogateescape")):
        try:
            spellings.append(message.encode(encoding, errors))
        except UnicodeEncodeError:
            continue
    return tuple(dict.fromkeys(spellings))


def _is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _public_keys(document: bytes) -> tuple[Ed25519PublicKey, ...]:
    """The Ed25519 keys of a JWKS document. Raises BadOutput when there is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        rows = json.loads(document)["keys"]
        found = [key for row in rows if (key := _key_bytes(row)) is not None]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BadOutput(f"{KEYS_URL} does not contain a JWKS document.") from error
    if not found:
        raise BadOutput(f"{KEYS_URL} contains no Ed25519 key.")
    return tuple(Ed25519PublicKey.from_public_bytes(key) for key in found[:MAX_KEYS])


def _key_bytes(row: Mapping[str, Any]) -> bytes | None:
    if row.get("kty") != "OKP" or row.get("crv") != "Ed25519":
        return None
    try:
        key = base64.urlsafe_b64decode(row["x"] + "==")
    except (binascii.Error, ValueError, LookupError, TypeError):
        return None
    return key if len(key) == 32 else None


def _require_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
            "Verifying webhooks requires the package cryptography, which is not installed.",
            hint="Install it: pip install cryptography, or this project with its extra `webhooks`.",
        ) from error


def _no_auth(request: Any) -> Any:
    return request


_SHARED = WebhookVerifier()
