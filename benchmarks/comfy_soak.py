"""Whether the connection to a ComfyUI holds: hours of it, with jobs now and then, and every loss with its reason.

    .venv/bin/python benchmarks/comfy_soak.py --url http://host:8188 [--minutes 60] [--every 10]

A gateway and a bridge as processes of their own; every `--every` seconds a job that needs no model (the workflow
`filters`, another picture each time), by HTTP.  At the end: how often the connection was lost, by the bridge's own
reason codes, how long it stood in all, how many jobs ended how, and the longest that one took.  Without `--url`
the fake ComfyUI is used.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import tempfile
import time
from pathlib import Path

import httpx
from comfy import NAME, Client, running

from reverie_testing.fake_comfy import FakeComfy

ENDED = {"done", "error", "canceled"}
JOB_S = 120.0


async def one_job(http: httpx.AsyncClient, number: int) -> tuple[str, float]:
    """How a job ended, and how long it took in seconds; `stuck` for one that did not."""
    began_at = time.monotonic()
    wish = {"workflowId": "filters", "params": {"width": 256 + 8 * (number % 16), "blur": 1 + number % 5}}
    response = await http.post("/v1/comfy/jobs", json=wish)
    if response.status_code != 200:
        return f"refused {response.json().get('code')}", time.monotonic() - began_at
    job_id = response.json()["id"]
    while time.monotonic() < began_at + JOB_S:
        told = (await http.get(f"/v1/comfy/jobs/{job_id}")).json()
        if told["status"] in ENDED:
            pictures = [(await http.get(output["url"])).status_code for output in told["outputs"]]
            whole = told["status"] != "done" or pictures == [200]
            return (told["status"] if whole else "done without its picture"), time.monotonic() - began_at
        await asyncio.sleep(0.2)
    return "stuck", time.monotonic() - began_at


async def soak(gateway: str, minutes: float, every_s: float) -> None:
    """Jobs until the time is over, then the figures."""
    ends: collections.Counter[str] = collections.Counter()
    longest = connected_s = 0.0
    over_at = time.monotonic() + minutes * 60
    looked_at = began_at = time.monotonic()
    number = 0
    async with httpx.AsyncClient(base_url=gateway, timeout=30) as http:
        while time.monotonic() < over_at:
            number += 1
            state, seconds = await one_job(http, number)
            ends[state] += 1
            longest = max(longest, seconds)
            instance = (await http.get(f"/v1/comfy/instances/{NAME}")).json()
            now = time.monotonic()
            connected_s += (now - looked_at) if instance["status"] == "connected" else 0.0
            looked_at = now
            await asyncio.sleep(max(0.0, every_s - seconds))
        instance = (await http.get(f"/v1/comfy/instances/{NAME}")).json()
    lost = sum(instance["disconnects"].values())
    print(f"minutes        {(time.monotonic() - began_at) / 60:.1f}, ComfyUI {instance['version']}")
    print(f"jobs           {sum(ends.values())}: {dict(ends)}, longest {longest:.1f} s")
    print(f"disconnects    {lost} by reason {instance['disconnects']}")
    print(f"connected      {100 * connected_s / (looked_at - began_at):.2f} % of the looks")


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", default="")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        if options.url:
            async with running(Path(folder), options.url) as (client, _, _):
                await soak(_gateway(client), options.minutes, options.every)
        else:
            async with FakeComfy() as fake, running(Path(folder), fake.url) as (client, _, _):
                await soak(_gateway(client), options.minutes, options.every)


def _gateway(client: Client) -> str:
    host, port = client._socket.remote_address[:2]
    return f"http://{host}:{port}"


if __name__ == "__main__":
    asyncio.run(main())
