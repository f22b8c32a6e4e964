"""Which URLs may be requested, which hosts are fal's own (only they get the key), and which addresses are public.

A URL is taken apart here once. What is fetched is put together again from those parts (`WebUrl.whole`), so no second
parser can see another host in it.
"""

import ipaddress
import re
from typing import NamedTuple

_RUN_DOMAINS = ("fal.run", "falrun.com")
_FAL_DOMAINS = (*_RUN_DOMAINS, "fal.ai", "fal.media")
# Patterns here and elsewhere are texts, which `re` compiles when they are used first: compiling at import all that a
# command may need would take a tenth of a short command's time.
_URL = r"(?i)(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)"
_HOST = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]"
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
_NOT_PUBLIC = (
    "100.64.0.0/10",  # carrier-grade NAT
    "192.88.99.0/24",  # 6to4 relays
    "::/96",  # IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "64:ff9b::/96",  # NAT64
    "64:ff9b:1::/48",  # NAT64 of a network's own
    "2001::/32",  # Teredo
    "2002::/16",  # 6to4
    "fec0::/10",  # site-local
)
"""Beside what `ipaddress` itself calls private: these lead to an IPv4 address inside, or into a local network."""


class WebUrl(NamedTuple):
    """An http(s) URL that has one meaning only."""

    scheme: str
    host: str
    """In lower case; an IPv6 address in brackets."""
    port: int | None
    """None for the scheme's own."""
    rest: str
    """Path and query."""

    @property
    def whole(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.rest or '/'}"

    @property
    def is_plain_https(self) -> bool:
        return self.scheme == "https" and self.port is None


def fault_of(url: str) -> str | None:
    """What makes `url` one that programs read differently, as the end of a sentence; None when it is fine."""
    if re.search(_CONTROL, url):
        return "it holds a line break or another control character"
    if "\\" in url:
        return "it holds a backslash"
    found = re.match(_URL, url)
    if found is None:
        return "it does not begin with http:// or https://"
    if "@" in found["authority"]:
        return "it holds a user name or a password"
    if re.search(r"\s", url):
        return "it holds a space (write %20)"
    return None


def parse(url: str) -> WebUrl:
    """`url` in its parts. Raises ValueError, which says what is wrong with it, for one that is not fetched."""
    if fault := fault_of(url):
        raise ValueError(fault)
    found = re.match(_URL, url)
    assert found is not None
    host, port = _host_and_port(found["authority"])
    scheme = found["scheme"].lower()
    own_port = {"https": 443, "http": 80}[scheme]
    return WebUrl(scheme, host, None if port == own_port else port, found["rest"])


def _host_and_port(authority: str) -> tuple[str, int | None]:
    host, _, port = authority.rpartition(":") if re.search(r":\d*\Z", authority) else (authority, "", "")
    if not re.fullmatch(_HOST, host) or ".." in host:
        raise ValueError("its host is not a name in ASCII (an international name begins with xn--)")
    if port and (len(port) > 5 or not 0 < int(port) < 65_536):
        raise ValueError("its port is not a number from 1 to 65535")
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError("its host is not an IPv6 address") from None
    return host.lower(), int(port) if port else None


def is_fal_host(host: str) -> bool:
    return _is_in(host, _FAL_DOMAINS)


def is_run_host(host: str) -> bool:
    """Hosts on which a POST may start a job that costs money."""
    return _is_in(host, _RUN_DOMAINS)


def _is_in(host: str, domains: tuple[str, ...]) -> bool:
    """Whether `host` is one of `domains`, or inside one."""
    name = host.lower()
    return name in domains or any(name.endswith(f".{domain}") for domain in domains)


def is_file_host(host: str) -> bool:
    """Hosts from which results are downloaded."""
    return is_fal_host(host) or host.lower() == "storage.googleapis.com"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, and surely leads to no private network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if not found.is_global or found.is_multicast or found.is_reserved:
        return False
    networks = map(ipaddress.ip_network, _NOT_PUBLIC)
    return not any(found in network for network in networks if network.version == found.version)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
