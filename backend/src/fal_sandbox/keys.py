"""Checks keys as fal does, by rule instead of by account.

Every well-formed `id:secret` is a key, but for three ids that stand for fal's refusals: `bad` (nobody has
it), `broke` (no balance left) and `noscope` (may not call models). At the CDN only the sandbox's own upload
token counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fal_sandbox.replies import Refusal, detail
from fal_sandbox.wire_request import WireRequest

KEY = "sandbox-key-id:sandbox-key-secret"

_WELL_FORMED = re.compile(r"[!-9;-~]+:[!-~]+")
_NO_USER = "No user found for Key ID and Secret"
_BALANCE = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
_REFUSALS: dict[str, tuple[int, str]] = {
    "bad": (401, _NO_USER),
    "broke": (403, _BALANCE),
    "noscope": (403, "Key lacks the API scope"),
}


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """Why a key is refused."""

    status: int
    text: str


def check_key(call: WireRequest, *, required: bool = True) -> None:
    """Refuses a call whose key fal would refuse; `required=False` lets a call without any key pass."""
    given = call.headers.get("Authorization")
    if given is None and not required:
        return
    if (refusal := refusal_of(given)) is not None:
        raise Refusal(detail(refusal.status, refusal.text))


def key_id(call: WireRequest) -> str:
    """The part of a key before its colon."""
    return call.headers.get("Authorization", "").partition(" ")[2].partition(":")[0]


def refusal_of(given: str | None) -> KeyRefusal | None:
    """What is wrong with the value of an `Authorization` header; None when it is a key."""
    if given is None:
        return KeyRefusal(401, "Authentication is required to access this application.")
    scheme, _, key = given.partition(" ")
    if scheme.lower() == "bearer":
        return KeyRefusal(401, "Could not decode the issuer of the token")
    if scheme.lower() != "key" or _WELL_FORMED.fullmatch(key) is None:
        return KeyRefusal(401, "invalid key credentials")
    refusal = _REFUSALS.get(key.partition(":")[0])
    return None if refusal is None else KeyRefusal(*refusal)


def check_upload_token(call: WireRequest) -> None:
    """Refuses an upload that carries neither the CDN token nor a signature in its URL."""
    if call.query.get("signature") == call.state.upload_token:
        return
    if call.headers.get("Authorization", "") != f"Bearer {call.state.upload_token}":
        raise Refusal(detail(401, "Invalid or missing CDN token"))
