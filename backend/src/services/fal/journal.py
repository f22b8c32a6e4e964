"""The interface of a journal, which remembers jobs beyond this process.

`jobs.py` asks the journal of a call, if it has one, before each submit. `services/batch` keeps such journals.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from services.fal.errors import AmbiguousSubmit, FalError


class Result(NamedTuple):
    """What a finished job left."""

    request_id: str | None
    output: dict[str, Any]
    billable_units: float | None = None
    """fal's own count of what is billed, when it says so."""
    inference_s: float | None = None
    """fal's own figure for the model's run."""
    cost_usd: float | None = None
    """US dollars, when they are known."""


class JobKey(NamedTuple):
    """Which job of a call this is: the same one each time that the call is made again.

    Not a hash of its arguments: the URL of an upload, a model and an endpoint may be others the next time, and then the
    job would be paid for twice.
    """

    step: str
    """What it is for, such as "cutout" or "analysis"."""
    style: str | None = None
    """The name of the style that it is for."""
    ordinal: int = 0
    """Which one of several for the same: the second analysis, the third variant."""


class Accepted(NamedTuple):
    """A job that fal accepted earlier, and whose end nobody has seen."""

    endpoint: str
    request_id: str


class Later(NamedTuple):
    """No submit now: ask again after so many seconds."""

    seconds: float


class Journal(Protocol):
    """Remembers the jobs of one call beyond this process. Its methods are called from several threads at once.

    Each of them returns when what it was told is on disk.
    """

    def begin(
        self, key: JobKey, endpoint: str, arguments: Mapping[str, Any], expected_usd: Callable[[], float]
    ) -> Result | Accepted | Later | None:
        """What is known of a job before it is submitted. None: nothing, and the intent to submit it is on record.

        `expected_usd` tells what the job is expected to cost. It raises BudgetExceeded when that cannot be known.

        Raises a FalError for a job that must not be submitted: Cancelled when no job may be for now, AmbiguousSubmit
        when this one may be running at fal under an id that nobody knows.
        """

    def sent(self, key: JobKey, request_id: str) -> None:
        """fal accepted the job."""

    def refused(self, key: JobKey, error: FalError) -> bool:
        """The job surely does not run. True: call `begin` again, `error` has passed by then."""

    def in_doubt(self, key: JobKey, error: AmbiguousSubmit) -> None:
        """The submit went out, and whether fal took the job is not known."""

    def done(self, key: JobKey, result: Result) -> None:
        """The job ended, and this is what it left."""

    def failed(self, key: JobKey, error: FalError, cost_usd: float | None) -> None:
        """The job ended without a result. Its cost is None when it is not known."""

    def saved_picture(self, url: str, folder: Path, name: str) -> Path | None:
        """Where the picture at `url` was saved whole in `folder` as `name`, if it is still there."""

    def picture_saved(self, url: str, path: Path, name: str) -> None:
        """The picture at `url` was saved whole at `path`, as `name`."""
