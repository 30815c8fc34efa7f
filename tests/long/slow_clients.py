"""Hold many half-sent requests open against a running gateway, and see that they are cut while others are served.

    .venv/bin/python tests/long/slow_clients.py [--url http://127.0.0.1:4200] [--clients 1000] [--within 10]

Prints one JSON line; exit code 1 if a client was not cut in time or a bystander was not served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter

import httpx

_HOST = b"Host: 127.0.0.1\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
_JSON = _HOST + b"Content-Length: 50000\r\n\r\n"
#: How each kind of slow client begins, and whether it then sends one byte a second or nothing more.
KINDS = (
    ("silence", b"", False),
    ("half a head", b"GET /health HTTP/1.1\r\nX-Slow: a", False),
    ("dripping head", b"GET /health HTTP/1.1\r\nX-Slow: a", True),
    ("half a handshake", b"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", False),
    (
        "half a body",
        b"POST /v1/jobs HTTP/1.1\r\n" + _JSON + b" " * 25_000,
        False,
    ),
    ("dripping body", b"POST /generate HTTP/1.1\r\n" + _JSON + b"{", True),
    ("dripping upload", b"POST /v1/upload HTTP/1.1\r\n" + _HOST + _FORM + _PART, True),
    ("refused upload", b"POST /nothing HTTP/1.1\r\n" + _HOST + _FORM + _PART, True),
)


async def slow_client(port: int, begin: bytes, drip: bool, give_up_s: float) -> float:
    """Seconds until the gateway hung up; `give_up_s` if it did not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()

    async def dripping() -> None:
        while True:
            await asyncio.sleep(1)
            writer.write(b"a")

    feeding = asyncio.create_task(dripping()) if drip else None
    try:
        writer.write(begin)
        async with asyncio.timeout(give_up_s):
            while await reader.read(65536):
                pass
    except (ConnectionError, TimeoutError):
        pass
    finally:
        if feeding is not None:
            feeding.cancel()
        writer.close()
    return time.monotonic() - began


async def bystander(url: str, slow: asyncio.Future[list[float]]) -> list[float]:
    """How long ordinary requests took meanwhile, in seconds; an error ends the run."""
    took = []
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
        while not slow.done():
            began = time.monotonic()
            (await client.get("/v1/queue")).raise_for_status()
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return took


async def measure(url: str, clients: int, within_s: float) -> bool:
    """Run it and print what was seen; whether all is well."""
    port = httpx.URL(url).port or 80
    plan = [KINDS[number % len(KINDS)] for number in range(clients)]
    slow = asyncio.gather(*(slow_client(port, begin, drip, 3 * within_s) for _, begin, drip in plan))
    took = await bystander(url, slow)
    seconds = await slow
    late = Counter(kind for (kind, _, _), after in zip(plan, seconds, strict=True) if after > within_s)
    row = {
        "figure": "slow clients cut",
        "clients": clients,
        "first_s": round(min(seconds), 2),
        "last_s": round(max(seconds), 2),
        "late": dict(late),
        "bystander_requests": len(took),
        "bystander_max_ms": round(max(took) * 1e3, 1),
    }
    print(json.dumps(row))
    return not late


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:4200")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--within", type=float, default=10.0, help="seconds")
    options = parser.parse_args()
    return 0 if asyncio.run(measure(options.url, options.clients, options.within)) else 1


if __name__ == "__main__":
    sys.exit(main())
