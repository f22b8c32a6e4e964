"""What a command is: a row of the table in `commands.py`, and the options that every command has."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from services.worker.options import Option

if TYPE_CHECKING:
    from services.fal_service import FalClient

Values = Mapping[str, Any]
Document = dict[str, Any]
Handler = Callable[["FalClient", Values], Document]
Local = Callable[[Values], Document]

TIMEOUT = Option("timeout", "number", "seconds that the whole command may take (default: FAL_TIMEOUT_S, else 110)")
ENV_FILE = Option("env_file", "path", "the .env file with FAL_KEY (default: ./.env, then backend/.env)")
COMMON = (TIMEOUT, ENV_FILE)
PROGRESS = Option("progress", "flag", "show each step on stderr (default: only if that is a terminal)")
MAX_USD = Option(
    "max_usd",
    "number",
    "US dollars that the command may cost; it is refused before anything is sent if it is expected to cost more "
    "(default: no limit)",
)
TRACE = Option("trace", "flag", "show an error's traceback on a terminal too (default: only with FAL_LOG)")
ON_COMMAND_LINE = (PROGRESS, TRACE)
"""How a command presents itself to a person: options of the command line alone."""


class Command(NamedTuple):
    """One row of the table. It has a `method`, a `handler` or a `local`, unless it is a program."""

    help: str
    options: tuple[Option, ...]
    method: str = ""
    """The method of FalClient that does it; the options are its arguments."""
    document: Callable[[Any], Document] = dict
    """Makes the document of what the method returns, or a line of what it yields."""
    streams: bool = False
    """Whether the method yields the lines of a JSON Lines answer."""
    handler: Handler | None = None
    """What does it when that is more than one method."""
    local: Local | None = None
    """What does it when it needs no client: no key, and nothing is sent."""
    local_with: str = ""
    """The option with which alone it needs no client; without one named here it never does."""
    is_paid: bool = False
    """Whether it may submit jobs that cost money."""
    tells_jobs: bool = False
    """Whether its document tells the cost of each of its jobs."""
    common: tuple[Option, ...] = COMMON
    """Options that it has beside its own."""
    resumes: bool = False
    """Whether it goes on where it was when it is run again: it has no deadline, and a signal lets it end in peace."""
    is_program: bool = False
    """Whether it takes standard input and output for itself; `fal_worker.py` knows how it is run."""
    when_failed: Mapping[str, Any] = MappingProxyType({})
    """The command's own keys beside an error that was raised."""
    result: str = ""
    """The TypedDict of its document, or of its lines, in `fal/results.py` or `shop/results.py`."""

    @property
    def all_options(self) -> tuple[Option, ...]:
        return (*self.options, *((MAX_USD,) if self.is_paid else ()), *self.common)

    @property
    def options_in_argv(self) -> tuple[Option, ...]:
        return self.all_options if self.is_program else (*self.all_options, *ON_COMMAND_LINE)

    def local_for(self, values: Values) -> Local | None:
        """What does it with these options when it needs no client for them."""
        return self.local if not self.local_with or values.get(self.local_with) else None

    def arguments(self, values: Values) -> dict[str, Any]:
        """The options as the method takes them."""
        options = (*self.options, TIMEOUT)
        return {option.argument or option.name: values[option.name] for option in options if option.name in values}
