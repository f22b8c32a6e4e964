"""The trusted certificates: certifi's, or those that the environment names.

Nothing here needs httpx: the certificates, which take OpenSSL 20 ms and more, are read in a thread while it is
imported.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from pathlib import Path

from services.fal.errors import InvalidInput

_HASHED = r"[0-9a-f]{8}\.\d+"
"""How OpenSSL names the files of a folder, so that it reads only the one it needs."""
_PEM_SUFFIXES = (".pem", ".crt", ".cer")


def tls_context() -> ssl.SSLContext:
    """What all connections of a client verify certificates with. Raises InvalidInput, naming the variable at fault.

    SSL_CERT_FILE and SSL_CERT_DIR replace certifi's certificates; REQUESTS_CA_BUNDLE (else CURL_CA_BUNDLE) is added.
    Each may be a file or a folder, SSL_CERT_DIR several of them.
    """
    named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    context = _empty_context() if named else _default_context()
    added = "REQUESTS_CA_BUNDLE" if os.environ.get("REQUESTS_CA_BUNDLE") else "CURL_CA_BUNDLE"
    for name in (*named, added):
        value = os.environ.get(name, "")
        for place in filter(None, value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]):
            _load(context, name, Path(place))
    return context


def _default_context() -> ssl.SSLContext:
    """As httpx makes it (https://www.python-httpx.org/advanced/ssl/)."""
    import certifi  # imports importlib.resources, and is not needed where the environment names certificates

    return ssl.create_default_context(cafile=certifi.where())


def _empty_context() -> ssl.SSLContext:
    """As `ssl.create_default_context`, trusting nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):  # as create_default_context does, which would load the system's certificates
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def _load(context: ssl.SSLContext, name: str, place: Path) -> None:
    try:
        if not place.is_dir():
            context.load_verify_locations(cafile=place)
            return
        files = sorted(os.listdir(place))
        if any(re.fullmatch(_HASHED, file) for file in files):
            context.load_verify_locations(capath=place)
            return
        certificates = [file for file in files if file.lower().endswith(_PEM_SUFFIXES)]
        if not certificates:
            raise OSError("the folder holds no certificates (*.pem, *.crt, or names as `openssl rehash` makes them)")
        for file in certificates:
            context.load_verify_locations(cafile=place / file)
    except OSError as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) and error.strerror else error
        raise InvalidInput(
            f"The trusted certificates of {name} ({str(place)!r}) cannot be read: {reason}. "
            f"Correct {name}, or unset it to trust the usual ones."
        ) from error
