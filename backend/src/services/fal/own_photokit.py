"""photokit at an https:// URL of the user's own: one POST, never sent twice.

The key goes along only when the URL is one of fal's hosts. The answer has fal's shape: `image` or `images[0]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.fal.errors import BadOutput
from services.fal.hosts import parse
from services.fal.jobs import Result
from services.fal.wire import Wire


class OwnPhotokit:
    """The user's own background replacement service."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def post(self, url: str, arguments: Mapping[str, Any]) -> Result:
        """Send one request. Raises AmbiguousSubmit when it was sent and not answered."""
        answer = self._wire.post_once(parse(url), arguments, "photokit")
        try:
            output = answer.json()
        except BadOutput as error:
            # It has made, and may bill, the picture: the same once more could cost twice.
            raise BadOutput(
                str(error.args[0]), status_code=answer.status, request_id=answer.request_id, retryable=False
            ) from error
        return Result(answer.request_id, output, answer.billable_units)
