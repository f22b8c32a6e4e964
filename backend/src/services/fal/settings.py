"""Where a client's settings come from: argument, then environment, then `.env`, then default.

Resolved once, when a client is built; nothing is read at import and nothing is written into `os.environ`.
The `.env` file is the one named by the caller, else `./.env`, else the project's `backend/.env`; it is parsed
only when it names a setting that the environment leaves open. What an endpoint may be is `endpoints.py`'s.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from services.fal.endpoints import check_endpoint
from services.fal.errors import InvalidInput, MissingKey
from services.fal.redaction import Secret, remember

DEFAULT_TIMEOUT_S = 110.0
"""Below the 120 s after which the documented Node caller ends the worker."""
DEFAULT_CONCURRENCY = 8
MAX_TIMEOUT_S = 86_400.0
LOG_LEVELS = ("off", "info", "debug")

ENDPOINT_VARIABLES = {
    "text": "FAL_TEXT_ENDPOINT",
    "enterprise": "FAL_ENTERPRISE_ENDPOINT",
    "vision": "FAL_VISION_ENDPOINT",
    "photokit": "FAL_PHOTOKIT_ENDPOINT",
    "cutout": "FAL_CUTOUT_ENDPOINT",
}
KEY_VARIABLES = ("FAL_KEY", "FAL_API_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")
VARIABLES = (
    *KEY_VARIABLES,
    "FAL_TIMEOUT_S",
    "FAL_MAX_CONCURRENCY",
    "FAL_LOG",
    "FAL_DOWNLOAD_HOSTS",
    *ENDPOINT_VARIABLES.values(),
)

MISSING_KEY = (
    "FAL_KEY environment variable is required: no fal key was found. Get one at "
    "https://fal.ai/dashboard/keys and either set FAL_KEY (or FAL_API_KEY, or FAL_KEY_ID and FAL_KEY_SECRET) "
    "in the environment, write FAL_KEY=... into ./.env or backend/.env, name another file with "
    '--env_file or FalClient(env_file="..."), or pass FalClient(key="..."). '
    "To try without a key: python src/sandbox run -- COMMAND."
)
PLACEHOLDER = "your_fal_key_here"
"""What .env.example holds in place of a key."""
_PROJECT = Path(__file__).resolve().parents[3]
_KEY = re.compile(r"[!-~]+")
_T = TypeVar("_T")


class Settings(NamedTuple):
    """What a client was told, checked."""

    key: Secret
    timeout_s: float = DEFAULT_TIMEOUT_S
    max_concurrency: int = DEFAULT_CONCURRENCY
    endpoints: Mapping[str, str] = MappingProxyType({})
    """Endpoints that were set by hand, by job."""
    log: str = "off"
    download_hosts: frozenset[str] = frozenset()
    """Hosts beside fal's own from which pictures may be downloaded."""
    env_file: Path | None = None
    """The .env file that applies, whether or not it had to be parsed."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self._asdict().items() if name != 'key')})"


def resolve(
    *,
    key: str | None = None,
    timeout: float | None = None,
    max_concurrency: int | None = None,
    env_file: str | os.PathLike[str] | None = None,
) -> Settings:
    """The settings of a new client. Raises MissingKey or InvalidInput, naming the variable at fault."""
    path = _env_path(env_file)
    lookup = _Lookup(os.environ, path)
    return Settings(
        key=_key(key, lookup),
        timeout_s=check_timeout(timeout, "timeout")
        if timeout is not None
        else lookup.parsed("FAL_TIMEOUT_S", check_timeout, DEFAULT_TIMEOUT_S),
        max_concurrency=_concurrency(max_concurrency, "max_concurrency")
        if max_concurrency is not None
        else lookup.parsed("FAL_MAX_CONCURRENCY", _concurrency, DEFAULT_CONCURRENCY),
        endpoints={
            job: check_endpoint(value, name, job)
            for job, name in ENDPOINT_VARIABLES.items()
            if (value := lookup.get(name))
        },
        log=lookup.parsed("FAL_LOG", _log_level, "off"),
        download_hosts=lookup.parsed("FAL_DOWNLOAD_HOSTS", _hosts, frozenset()),
        env_file=path,
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


class _Lookup:
    """One setting after another, from the environment or the .env file."""

    def __init__(self, environ: Mapping[str, str], path: Path | None) -> None:
        self._environ = {name: value for name in VARIABLES if (value := environ.get(name, "").strip())}
        self._values = self._environ
        if path is not None:
            self._values = {**_read_env(path, known=self._environ), **self._environ}

    def get(self, name: str) -> str | None:
        return self._values.get(name)

    def key(self) -> tuple[str, str] | None:
        """The key and where it came from; one of the environment, by whatever name, comes before the file's."""
        return _key_in(self._environ) or _key_in(self._values)

    def parsed(self, name: str, parse: Callable[[object, str], _T], default: _T) -> _T:
        value = self.get(name)
        return default if value is None else parse(value, name)


def _env_path(named: str | os.PathLike[str] | None) -> Path | None:
    if named is not None:
        if not os.path.isfile(named):
            raise InvalidInput(f"The env file {os.fspath(named)!r} does not exist. Check --env_file.")
        return Path(named)
    candidates = [Path(".env")]
    if (_PROJECT / "pyproject.toml").is_file():
        candidates.append(_PROJECT / ".env")
    return next((path for path in candidates if path.is_file()), None)


def _read_env(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The env file {str(path)!r} cannot be read: {error}.") from error
    # Parsing takes an import of about 30 ms: only when the file can add something.
    settled = {*known, *(KEY_VARIABLES if _key_in(known) else ())}
    names = "|".join(name for name in VARIABLES if name not in settled)
    if not re.search(rf"^\s*(?:export\s+)?['\"]?(?:{names})\b", text, re.MULTILINE):
        return {}
    import io

    from dotenv import dotenv_values

    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value.strip() for name in VARIABLES if (value := values.get(name)) and value.strip()}


def _key(given: str | None, lookup: _Lookup) -> Secret:
    if given is not None:
        return _checked_key(given, 'FalClient(key="...")')
    if found := lookup.key():
        return _checked_key(*found)
    raise MissingKey(MISSING_KEY)


def _key_in(values: Mapping[str, str]) -> tuple[str, str] | None:
    for name in ("FAL_KEY", "FAL_API_KEY"):
        if value := values.get(name):
            return value, name
    key_id, secret = values.get("FAL_KEY_ID"), values.get("FAL_KEY_SECRET")
    return (f"{key_id}:{secret}", "FAL_KEY_ID and FAL_KEY_SECRET") if key_id and secret else None


def _checked_key(value: str, name: str) -> Secret:
    key = value.strip() if isinstance(value, str) else ""
    if key in ("", PLACEHOLDER):
        raise MissingKey(MISSING_KEY)
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"The key from {name} holds a space, a line break or a character outside ASCII. "
            "Copy it again from https://fal.ai/dashboard/keys, without quotes."
        )
    return remember(key)


def _concurrency(value: object, name: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise InvalidInput(f"{name} must be a whole number from 1 to 1000, not {value!r}.")
    return int(text)


def _log_level(value: object, name: str) -> str:
    level = str(value).lower()
    if level not in LOG_LEVELS:
        raise InvalidInput(f"{name} must be one of {', '.join(LOG_LEVELS)}, not {value!r}.")
    return level


def _hosts(value: object, name: str) -> frozenset[str]:
    hosts = [host.strip().lower() for host in str(value).split(",") if host.strip()]
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
            raise InvalidInput(f"{name} must be host names with commas between them, not {value!r}.")
    return frozenset(hosts)
