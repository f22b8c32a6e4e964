"""Who may call: the key checks fal makes, by rule instead of by account.

Every well-formed `id:secret` is a key, but for three ids that stand for fal's refusals: `bad` (nobody has
it), `broke` (no balance left) and `noscope` (may not call models). At the CDN only the sandbox's own upload
token counts.
"""

from __future__ import annotations

import re

from sandbox.answers import Answer, Refused, detail
from sandbox.call import Call

KEY = "sandbox-key-id:sandbox-key-secret"

_WELL_FORMED = re.compile(r"[!-9;-~]+:[!-~]+")
_NO_USER = "No user found for Key ID and Secret"
_BALANCE = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
_REFUSALS: dict[str, tuple[int, str]] = {
    "bad": (401, _NO_USER),
    "broke": (403, _BALANCE),
    "noscope": (403, "Key lacks the API scope"),
}


def check_key(call: Call, *, required: bool = True) -> None:
    """Refuses a call whose key fal would refuse; `required=False` lets a call without any key pass."""
    given = call.headers.get("Authorization")
    if given is None and not required:
        return
    if (refusal := _judge(given)) is not None:
        raise Refused(refusal)


def _judge(given: str | None) -> Answer | None:
    if given is None:
        return detail(401, "Authentication is required to access this application.")
    scheme, _, key = given.partition(" ")
    if scheme.lower() == "bearer":
        return detail(401, "Could not decode the issuer of the token")
    if scheme.lower() != "key" or _WELL_FORMED.fullmatch(key) is None:
        return detail(401, "invalid key credentials")
    refusal = _REFUSALS.get(key.partition(":")[0])
    return None if refusal is None else detail(*refusal)


def check_upload_token(call: Call) -> None:
    """Refuses an upload that carries neither the CDN token nor a signature in its URL."""
    if call.query.get("signature") == call.state.upload_token:
        return
    if call.headers.get("Authorization", "") != f"Bearer {call.state.upload_token}":
        raise Refused(detail(401, "Invalid or missing CDN token"))
