"""One request as the handlers see it: plain values, no aiohttp.

A fault decides whether the body is read at all and whether the answer is sent, so a handler may run for a connection
that is cut already. It gets what was read, and nothing that it could wait for or write to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import MultiMapping

from fal_sandbox.state import State
from fal_sandbox.wire_types import Json


@dataclass(slots=True)
class WireRequest:
    """One request on its way through the sandbox."""

    state: State
    stage: str
    """The name faults and the journal use for this kind of request."""
    method: str
    host: str
    path: str
    query: MultiMapping[str]
    headers: Mapping[str, str]
    params: dict[str, str]
    """What the route's pattern named in the path."""
    chunks: tuple[bytes, ...] = field(default=())
    """The body as it came in; a large one is never joined."""

    @property
    def body(self) -> bytes:
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    def json_body(self) -> Json:
        """The body as JSON; a ValueError when it is not (`NaN` and `Infinity` are not), or is nested too deeply."""
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
