"""Which hosts are fal's own: the only ones that a key is sent to."""

from __future__ import annotations

import re

_FAL_HOST = re.compile(r"(.+\.)?(fal\.run|falrun\.com|fal\.ai|fal\.media)", re.IGNORECASE)
_RUN_HOST = re.compile(r"(.+\.)?(fal\.run|falrun\.com)", re.IGNORECASE)


def is_fal_host(host: str) -> bool:
    return bool(_FAL_HOST.fullmatch(host))


def is_run_host(host: str) -> bool:
    """Hosts on which a POST may start a job that costs money."""
    return bool(_RUN_HOST.fullmatch(host))


def is_file_host(host: str) -> bool:
    """Hosts from which results are downloaded."""
    return is_fal_host(host) or host.lower() == "storage.googleapis.com"
