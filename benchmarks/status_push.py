"""A change of `system:status` to 1,000 sockets: how long until the last one has it, and CPU per delivery.

    .venv/bin/python benchmarks/status_push.py [--sockets 1000] [--rounds 3] [--changes 40]

A change is what a monitor says on NATS: the memory of its node's GPU is another.  The clock starts before that
message is sent and stops when every socket has the new status.  The gateway is the real one in a process of its
own; it gathers changes for a tenth of a second on purpose, which is part of what is measured and named beside it.
The baseline is a bare asyncio server that is told over a socket of its own to write the very same bytes to as many
clients.  Both take turns; medians count.  CPU is user and system time of the server's process.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
from gateway_stage import Stage, gateway_stage
from product import percentile
from raw_socket import Crowd, RawSocket
from websockets.sync.client import connect

from reverie_gateway.frame import text_frame
from reverie_gateway.status import DEBOUNCE_S
from reverie_protocol.jobs import Vram
from reverie_protocol.nodes import NodeStatus
from reverie_protocol.server_messages import QueueState, StorageHealth, SystemStatus
from reverie_protocol.subjects import SYSTEM_STATUS

MARKER = b'"system:status"'
BASELINE = Path(__file__).resolve().parent / "baselines" / "asyncio_server.py"
ARRIVAL_S = 20.0


class Taken(msgspec.Struct):
    """What one round found."""

    seconds: list[float]
    cpu_us: float


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def monitor_says(used_gb: float) -> bytes:
    """The message of a monitor whose only GPU has this much in use."""
    node = NodeStatus(node="benchmark", vram=Vram(device="GPU", total_gb=24.0, used_gb=used_gb))
    status = SystemStatus(
        mode=None,
        vram=node.vram,
        storage=StorageHealth(ok=True, provider="filesystem"),
        queue_state=QueueState(pending=0, running=0, depth=0),
        nodes=(node,),
    )
    return msgspec.json.encode(status)


def measure(crowd: Crowd, process: psutil.Process, change: Callable[[], None], *, changes: int) -> Taken:
    """Each change is made after everybody has the one before."""
    seconds = []
    expected = crowd.members[0].counted
    begun = cpu_seconds(process)
    for _ in range(changes):
        expected += 1
        started = time.perf_counter()
        change()
        if not crowd.read_until(expected, within_s=ARRIVAL_S):
            raise SystemExit(f"not every socket had the change within {ARRIVAL_S:g} s")
        seconds.append(time.perf_counter() - started)
    spent = cpu_seconds(process) - begun
    return Taken(seconds, spent / (changes * len(crowd.members)) * 1e6)


def level(crowd: Crowd) -> None:
    """Read what came for other reasons, until it is quiet, and count anew."""
    while crowd.read(0.5):
        pass
    for member in crowd.members:
        member.counted = 0


@contextmanager
def reverie_crowd(stage: Stage, sockets: int) -> Iterator[Crowd]:
    """Clients of the gateway that have said hello."""
    members = []
    for _ in range(sockets):
        member = RawSocket(stage.port, "/v1/ws", marker=MARKER, greeting=[b'{"type":"hello"}'])
        member.wait_for(b'"hello:ok"')
        members.append(member)
    crowd = Crowd(members)
    with contextlib.closing(crowd):
        yield crowd


@contextmanager
def bare(payload: bytes, sockets: int) -> Iterator[tuple[Crowd, psutil.Process, Callable[[], None]]]:
    """The baseline with its clients, and what makes it write."""
    process = subprocess.Popen([sys.executable, str(BASELINE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(text_frame(payload))
        process.stdin.close()
        port = int(process.stdout.readline())
        publisher = RawSocket(port, "/publish", marker=MARKER)
        crowd = Crowd([RawSocket(port, "/", marker=MARKER) for _ in range(sockets)])
        with contextlib.closing(publisher), contextlib.closing(crowd):
            yield crowd, psutil.Process(process.pid), lambda: publisher.send(b"now")
    finally:
        process.kill()
        process.wait()


def row(server: str, taken: list[Taken], **more: object) -> dict[str, object]:
    """One line of the result."""
    seconds = [each for one in taken for each in one.seconds]
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {
        "server": server,
        "changes": len(seconds),
        **{
            f"last_socket_{name}_ms": round(percentile(seconds, share) * 1e3, 1)
            for name, share in shares.items()
        },
        "cpu_us_per_delivery": round(statistics.median(each.cpu_us for each in taken), 2),
        **more,
    }


def main() -> None:
    """Print one JSON line per server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--changes", type=int, default=40)
    options = parser.parse_args()
    figures = itertools.count(1)
    ours: list[Taken] = []
    plain: list[Taken] = []
    with gateway_stage(jobs=0) as stage, reverie_crowd(stage, options.sockets) as crowd:

        def change() -> None:
            stage.publish(SYSTEM_STATUS, monitor_says(next(figures) / 1000))

        change()
        with connect(f"ws://127.0.0.1:{stage.port}/v1/ws") as newcomer:
            payload = str(newcomer.recv()).encode()
        with bare(payload, options.sockets) as (others, process, write):
            for _ in range(options.rounds):
                level(crowd)
                ours.append(measure(crowd, stage.process, change, changes=options.changes))
                plain.append(measure(others, process, write, changes=options.changes))
    base = row("bare asyncio", plain, bytes=len(payload))
    mine = row("reverie", ours, bytes=len(payload), of_which_gathering_ms=DEBOUNCE_S * 1e3)
    ratio = float(str(mine["cpu_us_per_delivery"])) / float(str(base["cpu_us_per_delivery"]))
    print(json.dumps(base), flush=True)
    print(json.dumps(mine | {"sockets": options.sockets, "cpu_of_bare": round(ratio, 2)}), flush=True)


if __name__ == "__main__":
    main()
