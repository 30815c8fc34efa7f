"""Where a ComfyUI instance may be: its URL is an administrator's word, and still not taken as it comes."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit, urlunsplit

MAX_URL_CHARS: Final = 500

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?", re.ASCII)
#: What resolvers take for an address although it is not written as one: 2852039166, 0xa9fea9fe, 0251.254.1.
_DISGUISED: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*", re.ASCII | re.IGNORECASE)
#: Where clouds keep the credentials of a machine, besides link-local addresses.
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "instance-data"})
_METADATA_ADDRESSES: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "fd00:ec2::254"))
)


def instance_url(text: str) -> str:
    """An instance's URL in one form, without a slash at its end; ValueError says what is allowed.

    http or https, a host, perhaps a port and a path; no credentials, query or fragment.  Private addresses are
    where GPUs are and allowed; link-local ones, where clouds keep credentials, are not.
    """
    if len(text) > MAX_URL_CHARS or not text.isascii() or re.search(r"[\s\\%]|[\x00-\x1f\x7f]", text):
        raise ValueError("must be http(s)://host[:port][/path], in at most 500 plain characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("must be http(s)://host[:port][/path]") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("must hold no credentials")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("must have no query and no fragment")
    if port == 0:
        raise ValueError("must have a port of 1..65535")
    if ".." in parts.path.split("/"):
        raise ValueError("must have a path without ..")
    _require_allowed_host(host)
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port is None else f"{shown}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def may_connect(address: str) -> bool:
    """Whether an instance may be at this IP address, as a name resolves to it: checked again when connecting."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not _is_refused(parsed)


def _require_allowed_host(host: str) -> None:
    try:
        address: _Address | None = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None:
        if _DISGUISED.fullmatch(host) or _HOST_NAME.fullmatch(host) is None:
            raise ValueError("must name its host by a name, or by an address in its usual form")
        if host.rstrip(".").lower() in _METADATA_NAMES:
            raise ValueError("must not be where clouds keep a machine's credentials")
    elif _is_refused(address):
        raise ValueError("must not be a link-local, multicast or reserved address")


def _is_refused(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or _nat64(address)
        if inner is not None:
            return _is_refused(inner)
    reserved = address.is_reserved and not address.is_loopback
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or reserved
        or address in _METADATA_ADDRESSES
    )


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
