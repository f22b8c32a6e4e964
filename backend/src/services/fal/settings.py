"""Where a client's settings come from: argument, then environment, then `.env`, then default.

Resolved once, when a client is built; nothing is read at import and nothing is written into `os.environ`. The `.env`
file is the one named by the caller; else each setting is looked for in `./.env`, then in the project's
`backend/.env`. A file is parsed only when it names a setting that is open still. How `.env` files are read is decided
in `env_files.py`, what an endpoint may be in `endpoints.py`.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from services.fal import env_files
from services.fal.costs import check_max_usd
from services.fal.endpoints import ENDPOINT_VARIABLES, MODEL_VARIABLES, check_endpoint
from services.fal.env_files import EnvFile
from services.fal.errors import InvalidInput, MissingKey
from services.fal.redaction import Secret, remember

DEFAULT_TIMEOUT_S = 110.0
"""Below the 120 s after which the documented Node caller ends the worker."""
DEFAULT_CONCURRENCY = 8
MAX_TIMEOUT_S = 86_400.0
MAX_LIFETIME_S = 100 * 365 * 86_400
# As the worker reads its switches (worker/options.py), which must start without this module.
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")
LOG_LEVELS = ("off", "info", "debug")
QUEUE_PRIORITIES = ("normal", "low")

KEY_VARIABLES = ("FAL_KEY", "FAL_API_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")
VARIABLES = (
    *KEY_VARIABLES,
    "FAL_TIMEOUT_S",
    "FAL_MAX_CONCURRENCY",
    "FAL_LOG",
    "FAL_DOWNLOAD_HOSTS",
    "FAL_STORE_IO",
    "FAL_EXPIRES_IN_S",
    "FAL_QUEUE_PRIORITY",
    "FAL_MAX_USD",
    *ENDPOINT_VARIABLES.values(),
    *MODEL_VARIABLES.values(),
)

REMEDIES = (
    "Get one at https://fal.ai/dashboard/keys and either set FAL_KEY (or FAL_API_KEY, or FAL_KEY_ID and "
    "FAL_KEY_SECRET) in the environment, write FAL_KEY=... into ./.env or backend/.env, name another file with "
    '--env_file or FalClient(env_file="..."), or pass FalClient(key="..."). '
    "To try without a key: python src/fal_sandbox run -- COMMAND."
)
# Of src/services/fal/settings.py in a checkout; `parent` ends at the root where the package stands there.
_PROJECT = Path(__file__).resolve().parent.parent.parent.parent
_QUOTES = ('""', "''", "``", "“”", "‘’")
_SHOWN_CHARS = 40
"""A real key is longer: so one that somebody wrote into a template's brackets is never shown."""
_ORDERS = ("your", "my", "insert", "enter", "paste", "put", "add", "replace", "change")
_NOTHING = ("undefined", "null", "none", "nil", "nan", "todo", "tbd", "fixme", "placeholder")
_STAND_IN = rf"""(?xi)
    (?:{"|".join(_ORDERS)}) [\w -]* (?:key|token|id|secret|here|me|it|this)
    | {"|".join(_NOTHING)}
    | \$ (?: \w+ | \{{\w+ (?:[:?+-][^}}]*)? \}} ) | %\w+% | \$? \{{\{{? [\w .-]+ \}}?\}} | < [\w .-]* > | \[ [\w .-]* \]
    | (?: fal[_-]?key | (?:fal[_-]?)? api[_-]?key | key (?= [_-] (?:id|secret) \Z) ) (?: [_-] (?:id|secret|here) )?
    | x{{3,}} | \*+ | \.{{2,}} | …+
    """
_BEGINNINGS = (*_ORDERS, *_NOTHING, *"$%{<[*…", "fal", "api", "key", "xxx", "..")
"""Of everything that the pattern knows: most keys begin otherwise, and compiling it takes half a millisecond."""
_T = TypeVar("_T")


class Settings(NamedTuple):
    """What a client was told, checked."""

    key: Secret
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_concurrency: int = DEFAULT_CONCURRENCY
    endpoints: Mapping[str, str] = MappingProxyType({})
    """Endpoints that were set by hand, by role."""
    models: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Default models that were set by hand, by role, in the order in which they are asked."""
    log: str = "off"
    download_hosts: frozenset[str] = frozenset()
    """Hosts beside fal's own from which pictures may be downloaded."""
    store_io: bool = True
    """Whether fal keeps the inputs and outputs of jobs."""
    expires_in_s: int | None = None
    """How long fal keeps files: uploads and pictures; None leaves it to the account's own setting."""
    queue_priority: str = "normal"
    max_usd: float | None = None
    """What all calls of the client together may cost, in US dollars."""
    env_file: Path | None = None
    """The first .env file that applies, whether or not it had to be parsed."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self._asdict().items() if name != 'key')})"


def resolve(
    *,
    key: str | None = None,
    timeout: float | None = None,
    max_concurrency: int | None = None,
    env_file: str | os.PathLike[str] | None = None,
    store_io: bool | None = None,
    expires_in: int | None = None,
    queue_priority: str | None = None,
    max_usd: float | None = None,
) -> Settings:
    """The settings of a new client. Raises MissingKey or InvalidInput, naming the variable at fault."""
    lookup = _Lookup(os.environ, _env_files(env_file, key, timeout))
    return Settings(
        key=_key(key, lookup),
        timeout_s=check_timeout(timeout, "timeout")
        if timeout is not None
        else lookup.parsed("FAL_TIMEOUT_S", check_timeout, DEFAULT_TIMEOUT_S),
        max_concurrency=_concurrency(max_concurrency, "max_concurrency")
        if max_concurrency is not None
        else lookup.parsed("FAL_MAX_CONCURRENCY", _concurrency, DEFAULT_CONCURRENCY),
        endpoints={
            role: check_endpoint(value, name, role)
            for role, name in ENDPOINT_VARIABLES.items()
            if (value := lookup.get(name))
        },
        models={
            role: _model_chain(value, name) for role, name in MODEL_VARIABLES.items() if (value := lookup.get(name))
        },
        log=lookup.parsed("FAL_LOG", _log_level, "off"),
        download_hosts=lookup.parsed("FAL_DOWNLOAD_HOSTS", _hosts, frozenset()),
        store_io=_flag(store_io, "store_io") if store_io is not None else lookup.parsed("FAL_STORE_IO", _flag, True),
        expires_in_s=_lifetime(expires_in, "expires_in")
        if expires_in is not None
        else lookup.parsed("FAL_EXPIRES_IN_S", _lifetime, None),
        queue_priority=_queue_priority(queue_priority, "queue_priority")
        if queue_priority is not None
        else lookup.parsed("FAL_QUEUE_PRIORITY", _queue_priority, "normal"),
        max_usd=check_max_usd(max_usd) if max_usd is not None else lookup.parsed("FAL_MAX_USD", check_max_usd, None),
        env_file=lookup.first_file,
    )


def check_timeout(value: object, name: str = "timeout") -> float:
    """`value` as seconds, when it is a number above 0 and of at most a day."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool) or not 0 < seconds <= MAX_TIMEOUT_S:
        raise InvalidInput(
            f"{name} must be a number of seconds above 0 and at most {MAX_TIMEOUT_S:.0f}, not {value!r}."
        )
    return seconds


class _Source(NamedTuple):
    """One place that settings stand in."""

    values: Mapping[str, str]
    place: str
    """For a message: where a setting from here stands."""


class _Lookup:
    """One setting after another, from the environment, then from each .env file."""

    def __init__(self, environ: Mapping[str, str], files: list[EnvFile]) -> None:
        self._files = files
        self._sources = [_Source(_given(environ), "")]
        for file in files:
            values = _parsed(file.text, self._settled())
            self._sources.append(_Source(values, f" in {_full(file.path)}"))

    @property
    def first_file(self) -> Path | None:
        return next((Path(file.path) for file in self._files if file.problem is None), None)

    def get(self, name: str) -> str | None:
        return next((source.values[name] for source in self._sources if name in source.values), None)

    def parsed(self, name: str, parse: Callable[[object, str], _T], default: _T) -> _T:
        source = next((source for source in self._sources if name in source.values), None)
        return default if source is None else parse(source.values[name], f"{name}{source.place}")

    def key(self) -> tuple[str, str]:
        """The key and what it is called; one of the environment, by whatever name, comes before a file's.

        A placeholder is no key. Raises MissingKey.
        """
        halves = {name: value for name in ("FAL_KEY_ID", "FAL_KEY_SECRET") if (value := self.get(name))}
        placeholders: dict[str, str] = {}
        for source in (*self._sources, _Source(halves, "")):
            for value, name in _keys_in(source):
                if not is_placeholder(value):
                    return value, name
                placeholders.setdefault(value, f"{name} holds {shown_placeholder(value)}.")
        raise missing_key(*placeholders.values(), *self._told())

    def _settled(self) -> set[str]:
        """The settings that no further file can change."""
        settled = {name for source in self._sources for name in source.values if name not in KEY_VARIABLES}
        keys = (value for source in self._sources for value, _ in _keys_in(source))
        return settled | (set(KEY_VARIABLES) if any(not is_placeholder(key) for key in keys) else set())

    def _told(self) -> list[str]:
        """Which files were read, and which could not be."""
        read = [_full(file.path) for file in self._files if file.problem is None]
        where = f"The environment and {' and '.join(read)} were searched." if read else "No .env file was read."
        return [where, *(f"{_full(file.path)} cannot be read: {file.problem}." for file in self._files if file.problem)]


def missing_key(*reasons: str) -> MissingKey:
    about = " ".join(("FAL_KEY environment variable is required: no fal key was found.", *reasons))
    return MissingKey(f"{about} {REMEDIES}")


def _env_files(
    named: str | os.PathLike[str] | None,
    key: str | None,
    timeout: float | None,
    environ: Mapping[str, str] = os.environ,
) -> list[EnvFile]:
    given = _given(environ)
    try:
        # Half of a call's time at most: what is waited for here, the call itself has beside it.
        wait_s = min(env_files.MAX_WAIT_S, check_timeout(timeout or given.get("FAL_TIMEOUT_S", DEFAULT_TIMEOUT_S)) / 2)
    except InvalidInput:
        wait_s = env_files.GLANCE_S  # the time-out is refused in a moment, by its own name
    if named is not None:
        return [env_files.named(named, wait_s)]
    if key is not None or any(not is_placeholder(value) for value, _ in _keys_in(_Source(given, ""))):
        wait_s = min(wait_s, env_files.GLANCE_S)
    in_project = [str(_PROJECT / ".env")] if os.path.isfile(_PROJECT / "pyproject.toml") else []
    return env_files.found([".env", *in_project], wait_s)


def _full(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # the working folder was deleted
        return path


def _given(values: Mapping[str, str | None]) -> dict[str, str]:
    """The settings that `values` holds something for."""
    return {name: value for name in VARIABLES if (value := unquoted(values.get(name) or ""))}


def _parsed(text: str, settled: set[str]) -> dict[str, str]:
    # Parsing takes an import of about 30 ms: only when the file can add something.
    names = "|".join(name for name in VARIABLES if name not in settled)
    if not names or not re.search(rf"^\s*(?:export\s+)?['\"]?(?:{names})\b", text, re.MULTILINE):
        return {}
    import io

    from dotenv import dotenv_values

    return _given(dotenv_values(stream=io.StringIO(text), interpolate=False))


def _key(given: str | None, lookup: _Lookup) -> Secret:
    if given is None:
        value, name = lookup.key()
    else:
        name = 'FalClient(key="...")'
        value = unquoted(given) if isinstance(given, str) else ""
        if not value or is_placeholder(value):
            raise missing_key(*([f"{name} holds {shown_placeholder(value)}."] if value else []))
    if not _is_word(value):
        raise InvalidInput(
            f"The key from {name} contains a space, a line break or a non-ASCII character. "
            "Copy it again from https://fal.ai/dashboard/keys."
        )
    return remember(value)


def _keys_in(source: _Source) -> Iterator[tuple[str, str]]:
    for name in ("FAL_KEY", "FAL_API_KEY"):
        if value := source.values.get(name):
            yield value, f"{name}{source.place}"
    key_id, secret = source.values.get("FAL_KEY_ID"), source.values.get("FAL_KEY_SECRET")
    if key_id and secret:
        yield f"{key_id}:{secret}", f"FAL_KEY_ID and FAL_KEY_SECRET{source.place}"


def _concurrency(value: object, name: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise InvalidInput(f"{name} must be a whole number from 1 to 1000, not {value!r}.")
    return int(text)


def _flag(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if not isinstance(value, str) or word not in (*TRUE, *FALSE):
        raise InvalidInput(f"{name} must be true or false, not {value!r}.")
    return word in TRUE


def _lifetime(value: object, name: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= MAX_LIFETIME_S:
        raise InvalidInput(f"{name} must be a whole number of seconds from 1 to {MAX_LIFETIME_S}, not {value!r}.")
    return int(text)


def _queue_priority(value: object, name: str) -> str:
    priority = str(value).lower()
    if priority not in QUEUE_PRIORITIES:
        raise InvalidInput(f"{name} must be one of {', '.join(QUEUE_PRIORITIES)}, not {value!r}.")
    return priority


def _log_level(value: object, name: str) -> str:
    level = str(value).lower()
    if level not in LOG_LEVELS:
        raise InvalidInput(f"{name} must be one of {', '.join(LOG_LEVELS)}, not {value!r}.")
    return level


def _model_chain(value: str, name: str) -> tuple[str, ...]:
    # Each once: the last of a chain is known by its name. Shells and files leave quotes around each of them.
    models = tuple(dict.fromkeys(model for part in value.split(",") if (model := part.strip(" \t'\""))))
    if not models or not all(map(_is_word, models)):
        raise InvalidInput(f"{name} must be a comma-separated list of model names, not {value!r}.")
    return models


def _hosts(value: object, name: str) -> frozenset[str]:
    hosts = [host.strip().lower() for host in str(value).split(",") if host.strip()]
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
            raise InvalidInput(f"{name} must be a comma-separated list of host names, not {value!r}.")
    return frozenset(hosts)


# What stands in place of a key in templates, and around one in files


def unquoted(value: str) -> str:
    """`value` without the blanks and the pair of quotes around it: docker's --env-file, for one, keeps those."""
    text = value.strip()
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def _is_word(value: str) -> bool:
    """Whether `value` is of ASCII's visible letters alone: it can stand in a header."""
    return value.isascii() and value.isprintable() and value != "" and " " not in value


def is_placeholder(key: str) -> bool:
    """Whether `key`, or a half of it, is what a template holds, or a program that had none."""
    return any(map(_is_stand_in, (key, *key.split(":"))))


def _is_stand_in(text: str) -> bool:
    return text.lower().startswith(_BEGINNINGS) and re.fullmatch(_STAND_IN, text) is not None


def shown_placeholder(placeholder: str) -> str:
    """`placeholder` for a message."""
    whole = _is_stand_in(placeholder) and len(placeholder) <= _SHOWN_CHARS
    return f"the placeholder {placeholder!r}" if whole else "a placeholder"
