"""What the fault benchmarks share: gateways, light workers and nats-server as processes that may be killed.

The workers are those of `reverie chaos` that only pretend to paint (`reverie_launcher.chaos.light_worker`): claim,
heartbeat, storing and the record are the product's, the picture costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from product import BUILTIN_MODEL, percentile

from reverie_launcher.chaos.cluster import Cluster, running
from reverie_launcher.chaos.member import Member

#: Steps of a job that runs for about 0.7 s on a light worker: long enough to be hit.
LONG, SHORT = 150, 2


@contextlib.asynccontextmanager
async def running_cluster(*, seed: int, gateways: int = 2, light: int = 3) -> AsyncIterator[Cluster]:
    """Everything ready, in an empty folder; nothing is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder:
        cluster = running(
            Path(folder),
            gateways=gateways,
            workers=0,
            light=light,
            model=str(BUILTIN_MODEL),
            rng=random.Random(seed),
            proxied=False,
        )
        async with cluster as started:
            yield started


async def killed_and_back(member: Member, *, down_s: float) -> None:
    """Kill a member; return when its next process is ready."""
    past = len(member.life)
    member.kill(down_s=down_s)
    while not any(each.what == "ready" for each in member.life[past:]):  # noqa: ASYNC110  # another process starts
        await asyncio.sleep(0.01)


def http_client() -> httpx.AsyncClient:
    """For ports of this machine: no proxy, no certificates."""
    return httpx.AsyncClient(timeout=5.0, trust_env=False, verify=False)


def body(number: int, *, steps: int = SHORT) -> dict[str, Any]:
    """A job, as `POST /v1/jobs` takes it."""
    return {
        "jobType": "generate",
        "prompt": f"benchmark {number}",
        "size": "64x64",
        "seed": number,
        "num_inference_steps": steps,
    }


async def submit(http: httpx.AsyncClient, url: str, number: int, *, steps: int = SHORT) -> str:
    """The acknowledged job's id; httpx.HTTPError if it was not."""
    answer = await http.post(f"{url}/v1/jobs", json=body(number, steps=steps))
    answer.raise_for_status()
    return str(answer.json()["jobId"])


def figure(
    name: str,
    seconds: Sequence[float],
    *,
    targets: dict[str, float],
    flaws: Mapping[str, int] | None = None,
    **more: Any,
) -> None:
    """Print one JSON line: percentiles of seconds, and whether each target (`p50`, `p99`, `max`) is met.

    `flaws` are counts that all must be 0.
    """
    values = list(seconds)
    measured = {
        "p50": round(percentile(values, 0.5), 3),
        "p99": round(percentile(values, 0.99), 3),
        "max": round(max(values), 3),
    }
    row = {
        "figure": name,
        "count": len(values),
        **{f"{key}_s": value for key, value in measured.items()},
        "targets_s": targets,
        "met": all(measured[key] <= limit for key, limit in targets.items())
        and not any((flaws or {}).values()),
        **(flaws or {}),
        **more,
    }
    print(json.dumps(row, ensure_ascii=False), flush=True)
