"""photokit at an https:// URL of the user's own: one POST with requests, never sent twice.

The key goes along only when the URL is one of fal's hosts. The answer has fal's shape: `image` or `images[0]`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from services.fal.answers import ambiguous, error_of_start
from services.fal.call import Call
from services.fal.errors import BadOutput, DeadlineExceeded, Unreachable
from services.fal.hosts import is_fal_host
from services.fal.jobs import Result

MAX_ANSWER_BYTES = 32 * 1024 * 1024


class OwnPhotokit:
    """The user's own background replacement service."""

    def __init__(self, key: str, tls: ssl.SSLContext) -> None:
        self._key = key
        self._tls = tls

    def post(self, url: str, arguments: Mapping[str, Any], call: Call) -> Result:
        """Send one request. Raises AmbiguousSubmit when it was sent and not answered."""
        import requests

        from services.fal.plain_http import Session, never_connected

        call.check()
        host = urlsplit(url).hostname or ""
        headers = {"Authorization": f"Key {self._key}"} if is_fal_host(host) else {}
        try:
            with Session(self._tls, call) as session:
                answer = session.fetch("POST", url, "photokit", MAX_ANSWER_BYTES, json=dict(arguments), headers=headers)
        except requests.RequestException as error:
            if never_connected(error):
                raise Unreachable(f"{host} cannot be reached ({type(error).__name__}).") from error
            raise ambiguous(f"No answer came from {host} ({type(error).__name__}).", None) from error
        except (BadOutput, DeadlineExceeded) as error:
            # It has the request: the same once more could cost twice.
            error.retryable = False
            raise
        if answer.status >= 300:
            raise error_of_start(answer)
        try:
            return Result(answer.request_id, answer.json(), answer.billable_units)
        except BadOutput as error:
            error.retryable = False
            raise
