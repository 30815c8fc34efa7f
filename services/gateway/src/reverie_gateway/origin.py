"""Which browser pages may drive this gateway: a pure rule over the request's headers.

Two attacks on a gateway that listens on a person's own machine: a page from elsewhere that sends requests to it
(the browser says so in `Origin`), and a page whose host name was re-pointed at 127.0.0.1 (DNS rebinding; then the
`Host` header carries a foreign name).  Programs that are no browser send no `Origin` and are not concerned.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

#: Methods that change nothing; a foreign page may cause them but, without CORS headers, not read the answer.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginRule(msgspec.Struct, frozen=True):
    """Settings of the rule: origins and host names allowed besides same-origin and this machine itself."""

    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may drive the gateway reached as `host` (the Host header)."""
        if "*" in self.origins or origin in self.origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or name is None:
            return False
        return parts.netloc.lower() == host.lower() or is_loopback_name(name)

    def allows_host(self, host: str, server_address: str | None) -> bool:
        """Whether the Host header may name a gateway that was reached at `server_address`.

        An address cannot be rebound, so any literal address is fine; a foreign *name* is refused on loopback.
        """
        name = host_name(host)
        if name is None:
            return False
        if name in self.hosts or is_loopback_name(name) or _address(name) is not None:
            return True
        return not (server_address is not None and is_loopback_name(server_address))


def host_name(host: str) -> str | None:
    """The name in a Host header, without port and brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  # reading it is what validates it
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname


def is_loopback_name(name: str) -> bool:
    """Whether a host name or address always means the same machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first header of that (lower-case) name, None if there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
