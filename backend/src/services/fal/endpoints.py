"""Which fal endpoint does which job, and how they differ: one row each.

A job has a chain. When fal's answer to a submit, or to the opening of a stream, says that an endpoint is gone (404
for the application, 410, "deprecated"), the next one is used, and the choice lasts for the process. An endpoint that
was set by hand has no chain. Sending requests is `jobs.py`'s, which model is asked `models.py`'s.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from services.fal.errors import EndpointGone, InvalidInput
from services.fal.hosts import parse
from services.fal.redaction import shown
from services.fal.stderr_log import logger

JOBS = ("text", "enterprise", "vision", "photokit", "cutout")


class Endpoint(NamedTuple):
    """What a caller of one endpoint has to know."""

    path: str
    """`owner/app` with an optional subpath, or an https:// URL of the user's own (photokit only)."""
    image_field: str = "image_url"
    """The input that takes the image; one that ends in `s` takes a list."""
    takes_priority: bool = False
    """Whether `priority` is part of its input."""

    @property
    def is_own_url(self) -> bool:
        return self.path.startswith("https://")

    def image_input(self, image_urls: list[str]) -> dict[str, object]:
        """The image inputs as this endpoint names them."""
        if self.image_field.endswith("s"):
            return {self.image_field: image_urls}
        return {self.image_field: image_urls[0]}


CHAINS: Mapping[str, tuple[Endpoint, ...]] = {
    "text": (
        Endpoint("openrouter/router"),
        Endpoint("fal-ai/any-llm", takes_priority=True),
    ),
    "enterprise": (
        Endpoint("openrouter/router/enterprise"),
        Endpoint("fal-ai/any-llm/enterprise", takes_priority=True),
    ),
    "vision": (
        Endpoint("openrouter/router/vision", image_field="image_urls"),
        Endpoint("fal-ai/any-llm/vision", image_field="image_urls", takes_priority=True),
    ),
    "photokit": (
        Endpoint("bria/replace-background"),
        Endpoint("fal-ai/bria/background/replace"),
    ),
    "cutout": (
        Endpoint("fal-ai/bria/background/remove"),
        Endpoint("fal-ai/birefnet/v2"),
    ),
}
BY_HAND = (
    Endpoint("fal-ai/nano-banana/edit", image_field="image_urls"),
    Endpoint("fal-ai/nano-banana-2/edit", image_field="image_urls"),
)
"""Known endpoints outside the chains: they redraw the product, so they are used only when asked for."""

_KNOWN = {row.path: row for row in (*(row for chain in CHAINS.values() for row in chain), *BY_HAND)}
_PATH = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)+")


def check_endpoint(value: str, name: str, job: str) -> str:
    """`value` when it can be an endpoint for `job`; `name` is the variable that an error names."""
    if job == "photokit" and "://" in value:
        try:
            own = parse(value)
        except ValueError as error:
            raise InvalidInput(f"{name} cannot be used as a URL, since {error}: {shown(value, 200)!r}.") from error
        if own.scheme == "https":
            return own.whole
    if not _PATH.fullmatch(value) or ".." in value:
        or_own = ", or an https:// URL of your own" if job == "photokit" else ""
        raise InvalidInput(f"{name} must look like owner/app{or_own}, not {shown(value, 200)!r}.")
    return value


def chain_for(job: str, by_hand: str | None) -> tuple[Endpoint, ...]:
    """The endpoints that may do `job`, in order."""
    if by_hand is None:
        return CHAINS[job]
    if by_hand in _KNOWN:
        return (_KNOWN[by_hand],)
    field = "image_urls" if job == "vision" else "image_url"
    return (Endpoint(by_hand, image_field=field),)


class Endpoints:
    """The endpoint in use for each job of a client."""

    _moved: dict[tuple[int, str], int] = {}  # noqa: RUF012 - shared: what was found out lasts for the process
    _lock = threading.Lock()

    def __init__(self, by_hand: Mapping[str, str], account: int) -> None:
        """`account` tells apart accounts and routes to fal, for which other endpoints may be gone."""
        self._by_hand = by_hand
        self._account = account

    def chain(self, job: str) -> tuple[Endpoint, ...]:
        return chain_for(job, self._by_hand.get(job))

    def current(self, job: str) -> Endpoint:
        return self.chain(job)[self._index(job)]

    def candidates(self, job: str) -> Iterator[Endpoint]:
        """The endpoint in use, then those it may have been before: for requests made earlier."""
        chain, index = self.chain(job), self._index(job)
        yield chain[index]
        yield from (row for at, row in enumerate(chain) if at != index)

    def move_on(self, job: str, gone: Endpoint, reason: EndpointGone) -> Endpoint:
        """The endpoint after `gone`; raises `reason` when there is none."""
        chain = self.chain(job)
        following = chain.index(gone) + 1
        if following >= len(chain):
            raise EndpointGone(
                str(reason),
                status_code=reason.status_code,
                request_id=reason.request_id,
                hint=f"Set FAL_{job.upper()}_ENDPOINT to an endpoint that fal offers.",
            ) from reason
        if self.remember(job, following):
            logger.warning("%s: %s Using %s instead.", gone.path, reason, chain[following].path)
        return chain[following]

    def remembered(self, name: str) -> int:
        """What was found out under `name` on this account, 0 at first."""
        return self._moved.get((self._account, name), 0)

    def remember(self, name: str, value: int) -> bool:
        """Keep `value` for the process unless as much is known; whether it was news, for one thread of many."""
        with self._lock:
            if value <= self.remembered(name):
                return False
            self._moved[self._account, name] = value
            return True

    def _index(self, job: str) -> int:
        return 0 if job in self._by_hand else self.remembered(job)
