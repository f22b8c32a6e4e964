"""Reports versions, settings (the key masked), and whether fal's hosts answer and accept the key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from services.fal.call import Call
from services.fal.endpoints import MODEL_CHAINS, ROLES, chain_for
from services.fal.errors import AuthError, FalError, ServiceError, report
from services.fal.log import logger
from services.fal.model_ends import endings, warning_of
from services.fal.redaction import masked
from services.fal.settings import Settings

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi
    from services.fal.results import DoctorResult

PACKAGES = ("fal-client", "requests", "python-dotenv", "httpx")
# A status of a job that never was: 401 when the key is wrong, 404 when it is not.
KEY_CHECK = "https://queue.fal.run/openrouter/router/requests/00000000-0000-0000-0000-000000000000/status"
HOSTS = {
    "queue.fal.run": KEY_CHECK,
    "rest.fal.ai": "https://rest.fal.ai/",
    "v3.fal.media": "https://v3.fal.media/",
}


def versions() -> dict[str, str]:
    """Of Python and of the packages that this library stands on."""
    import platform  # as importlib.metadata below: slow to import, and no other command needs it

    found = {name: _version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), **found}


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def examine(call: Call, settings: Settings, api: FalApi) -> DoctorResult:
    """What a person who asks for help should send along. Sends no job and costs nothing."""
    hosts = {host: _reach(call, api, url) for host, url in HOSTS.items()}
    from datetime import datetime, timezone  # as platform above

    ending = endings(settings.models, datetime.now(timezone.utc).date())
    warnings = [warning for row in ending if (warning := warning_of(row)) is not None]
    for warning in warnings:
        logger.warning("%s", warning)
    failure = next((row["failure"] for row in hosts.values() if row["failure"]), None)
    document = {
        "versions": versions(),
        "settings": {
            "key": masked(settings.key),
            "timeout_s": settings.timeout_s,
            "max_concurrency": settings.max_concurrency,
            "log": settings.log,
            "store_io": settings.store_io,
            "expires_in_s": settings.expires_in_s,
            "queue_priority": settings.queue_priority,
            "max_usd": settings.max_usd,
            "env_file": None if settings.env_file is None else str(settings.env_file),
            "models": {role: list(settings.models.get(role, chain)) for role, chain in MODEL_CHAINS.items()},
            "endpoints": {role: [row.path for row in chain_for(role, settings.endpoints.get(role))] for role in ROLES},
        },
        "hosts": {
            host: {name: value for name, value in row.items() if name != "failure"} for host, row in hosts.items()
        },
        "endings": ending,
        "warnings": warnings,
        **({"error": None} if failure is None else report(failure)),
    }
    return cast("DoctorResult", document)


def _reach(call: Call, api: FalApi, url: str) -> dict[str, Any]:
    began = time.monotonic()
    failure: FalError | None = None
    try:
        status: int | None = api.ask(call, "GET", url, "doctor", attempts=1).status
    except AuthError as error:
        status, failure = error.status_code, error if url == KEY_CHECK else None
    except ServiceError as error:
        status = error.status_code
    except FalError as error:
        status, failure = None, error
    return {
        "reachable": status is not None,
        "status": status,
        "seconds": round(time.monotonic() - began, 3),
        "failure": failure,
    }
