"""CPU per delivered event: one event to many sockets, in bursts of 1, 8 and 32, beside six other servers.

    .venv/bin/python benchmarks/fanout.py [--sockets 100] [--rounds 3] [--cpu-s 1.0] [--only reverie,picows]

CPU is user and system time of the server's process; clients and publisher are another process.  Each burst is given
to the server in one write, and the next one follows a pause after every client has all of it, so single events stay
single, as they are in a service that waits for its work; `--pause-ms 0` measures them back to back.
The gateway is the real one with everything on: its events are progress of running jobs, published on NATS by their
worker (each burst one message of each of so many jobs), and nothing is subtracted.  `reverie, job records` are
durable changes of one job's record instead.  The servers take turns; the median over the rounds counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from typing import Any

import psutil
from fanout_servers import Missing, Server, gateway_stage, openers
from raw_socket import Crowd

BURSTS = (1, 8, 32)
#: Of nats-server's CPU, by burst.
TARGETS = {1: 0.65, 8: 1.0, 32: 1.0}
ARRIVAL_S = 20.0
#: The size of the gateway's own progress message.
EVENT = {
    "type": "job:progress",
    "jobId": "0123456789abcdef0123456789abcdef",
    "attempt": 1,
    "phase": "denoising",
    "step": 1234,
    "steps": 1000000,
    "progress": 0.001234,
    "etaSeconds": 49938.3,
    "seq": 12345,
}


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(server: Server, burst: int, options: argparse.Namespace) -> float | None:
    """Microseconds of CPU per delivered event; None if an event did not arrive."""
    crowd = Crowd([server.join() for _ in range(options.sockets)])
    with contextlib.closing(crowd), server.publishing() as publish:
        expected = 0
        for _ in range(20):
            publish(burst)
            expected += burst
            if not crowd.read_until(expected, within_s=ARRIVAL_S):
                return None
        started, begun = expected, cpu_seconds(server.process)
        while cpu_seconds(server.process) - begun < options.cpu_s:
            for _ in range(max(1, 100 // burst)):
                publish(burst)
                expected += burst
                if not crowd.read_until(expected, within_s=ARRIVAL_S):
                    return None
                crowd.read_for(options.pause_ms / 1000)
        spent = cpu_seconds(server.process) - begun
        crowd.read_for(0.05)
        if any(member.counted != expected for member in crowd.members):
            return None
        return float(spent / ((expected - started) * options.sockets) * 1e6)


def rounds(options: argparse.Namespace) -> dict[tuple[str, int], list[float | None]]:
    """Every figure of every round, by server and burst."""
    figures: dict[tuple[str, int], list[float | None]] = {}
    payload = json.dumps(EVENT, separators=(",", ":")).encode()
    with gateway_stage(jobs=max(BURSTS)) as stage, contextlib.ExitStack() as stack:
        servers: list[Server] = []
        for name, opened in openers(stage, payload).items():
            if options.only and name not in options.only.split(","):
                continue
            try:
                servers.append(stack.enter_context(opened()))
            except Missing as reason:
                print(json.dumps({"server": name, "missing": str(reason)}), flush=True)
        for _ in range(options.rounds):
            for burst in BURSTS:
                for server in servers:
                    if burst <= server.most_at_once:
                        figures.setdefault((server.name, burst), []).append(measure(server, burst, options))
    return figures


def rows(figures: dict[tuple[str, int], list[float | None]]) -> list[dict[str, Any]]:
    """One row per figure, with what it is of nats-server's."""
    medians = {
        key: statistics.median(each for each in values if each is not None)
        for key, values in figures.items()
        if None not in values
    }
    table: list[dict[str, Any]] = []
    for (name, burst), values in figures.items():
        row: dict[str, Any] = {"server": name, "burst": burst}
        if (name, burst) not in medians:
            table.append(row | {"failed": "not every event arrived"})
            continue
        own = medians[name, burst]
        row |= {
            "cpu_us_per_delivery": round(own, 2),
            "rounds": [round(each, 2) for each in values if each is not None],
        }
        of_nats = medians.get(("nats-server websocket", burst))
        if of_nats:
            row["of_nats_server"] = round(own / of_nats, 2)
        if name == "reverie" and of_nats:
            row["within_target"] = own <= TARGETS[burst] * of_nats
        if name == "python-socketio" and ("reverie", burst) in medians:
            row["times_reverie"] = round(own / medians["reverie", burst], 1)
        table.append(row)
    return table


def main() -> None:
    """Print one JSON line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cpu-s", type=float, default=1.0, help="CPU seconds of a server per figure and round"
    )
    parser.add_argument(
        "--pause-ms", type=float, default=1.0, help="between a burst's arrival and the next burst"
    )
    parser.add_argument("--only", default="", help="names of servers, separated by commas")
    options = parser.parse_args()
    for row in rows(rounds(options)):
        print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
