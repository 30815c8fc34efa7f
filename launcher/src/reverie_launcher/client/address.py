"""Where a Reverie server is."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from reverie_launcher.exits import ExitCode, Failure

DEFAULT_URL = "http://127.0.0.1:4200"


class Address(NamedTuple):
    """Base URL of the HTTP API (no slash at its end), whether that is on this machine, and the token to show."""

    url: str
    local: bool
    token: str | None = None

    @property
    def credentials(self) -> dict[str, str]:
        """Headers that say who we are; only for requests to this very server."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @property
    def socket_url(self) -> str:
        """URL of the WebSocket."""
        return f"ws{self.url.removeprefix('http')}/v1/ws"

    def absolute(self, path: str) -> str:
        """A URL that the server gave, which may be relative to it."""
        return path if "://" in path else f"{self.url}/{path.lstrip('/')}"


def parse_address(text: str, *, token: str | None = None) -> Address:
    """The address in what a person typed: a URL, or host and port; Failure for anything else."""
    given = text.strip()
    url = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise Failure(
            ExitCode.USAGE,
            f"{text!r} is no address of a Reverie server.",
            advice=f"Give one like {DEFAULT_URL} with --url or in REVERIE_URL.",
        )
    return Address(url.rstrip("/"), _is_local(host), token)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
