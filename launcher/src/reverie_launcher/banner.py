"""What the banner of `reverie up` tells."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from reverie_launcher.client.address import DEFAULT_URL, Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.data_directory import DataDirectory
from reverie_launcher.exits import Failure
from reverie_launcher.plan import Plan
from reverie_protocol.jobs import Vram


async def banner_rows(
    address: Address, plan: Plan, data: DataDirectory, nats_url: str
) -> list[tuple[str, str]]:
    """Labels and values, the address first."""
    elsewhere = "" if address.url == DEFAULT_URL else f" --url {address.url}"
    return [
        ("address", address.url),
        ("modes", short_path(plan.modes)) if plan.modes else ("model", short_path(plan.model)),
        ("device", await _device(address)),
        *([("comfy", ", ".join(plan.comfy))] if plan.comfy else []),
        ("data", short_path(str(data.path))),
        ("nats", without_credentials(nats_url)),
        *([] if address.token is None else [("login", "export REVERIE_TOKEN=$(reverie token --sub NAME)")]),
        ("try", f'reverie generate "a red circle on a blue background"{elsewhere}'),
        ("stop", "Ctrl-C"),
    ]


async def _device(address: Address) -> str:
    try:
        async with HttpClient(address) as http:
            device = (await http.status()).vram.device
    except Failure:
        return "unknown"
    return "CPU" if device == Vram().device else device


def short_path(path: str) -> str:
    """A path from here or from home where that is shorter."""
    absolute = Path(path)
    for base, prefix in ((Path.cwd(), "."), (Path.home(), "~")):
        if absolute.is_absolute() and absolute.is_relative_to(base):
            return f"{prefix}/{absolute.relative_to(base)}"
    return path


def without_credentials(urls: str) -> str:
    """NATS URLs, separated by commas, without user and password."""
    parts = (urlsplit(url) for url in urls.split(","))
    return ",".join(part._replace(netloc=part.netloc.rpartition("@")[2]).geturl() for part in parts)
