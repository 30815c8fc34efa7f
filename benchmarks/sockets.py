"""Many sockets on one gateway process: memory of an idle one, answers to thousands, the cost of a stalled one.

    .venv/bin/python benchmarks/sockets.py [--idle 5000] [--sockets 100] [--rounds 10]

*Idle*: the growth of the gateway's resident memory over so many greeted sockets, and whether each gets its pong.
*Stalled*: among so many sockets one stops reading.  Measured are the latencies of an event (progress, published on
NATS, until a client has it) for the others, in rounds with and without a stalled client by turns, and what clients
that do not read cost in memory, each, until they are cut off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import time
from typing import Any

from gateway_stage import PROGRESS_MARKER, Stage, gateway_stage
from product import percentile
from raw_socket import Crowd, RawSocket

IDLE_TARGET_KIB = 25.0
STALLED_TARGET_BYTES = 1 << 20
P99_TARGET = 1.10
#: How many sockets are opened before memory is looked at: what the first ones make is made once.
WARM_UP = 200
ANSWER_S = 60.0
#: A long name of a node makes an event large, so that a client that does not read is noticed soon.
FILL = "x" * 4000
EVENTS = 100
PAUSE_S = 0.005


def joined(stage: Stage, marker: bytes = PROGRESS_MARKER, *, receive_buffer: int = 0) -> RawSocket:
    """A client that has heard everything about the present."""
    client = RawSocket(
        stage.port,
        "/v1/ws",
        marker=marker,
        greeting=[b'{"type":"hello"}'],
        receive_buffer=receive_buffer,
    )
    client.wait_for(b'"hello:ok"')
    client.counted = 0
    return client


def memory(stage: Stage) -> int:
    """Resident bytes of the gateway."""
    return int(stage.process.memory_info().rss)


def idle(stage: Stage, count: int) -> dict[str, Any]:
    """Open `count` sockets, weigh them, and ask each of them."""
    with contextlib.ExitStack() as stack:
        for _ in range(WARM_UP):
            stack.callback(joined(stage).close)
        before = memory(stage)
        crowd = Crowd([joined(stage, b'"pong"') for _ in range(count)])
        stack.callback(crowd.close)
        grown = memory(stage) - before
        started = time.monotonic()
        for member in crowd.members:
            member.send(b'{"type":"ping","id":1}')
        answered = crowd.read_until(1, within_s=ANSWER_S)
        seconds = time.monotonic() - started
        each_kib = grown / count / 1024
        return {
            "measure": "idle sockets",
            "sockets": count,
            "kib_each": round(each_kib, 1),
            "answered": sum(member.counted == 1 for member in crowd.members),
            "seconds_to_answer_all": round(seconds, 2),
            "within_target": each_kib <= IDLE_TARGET_KIB and answered,
        }


def latencies(stage: Stage, crowd: Crowd, *, node: str) -> list[float]:
    """Seconds from publishing to arrival, one per event and client."""
    seconds: list[float] = []
    for member in crowd.members:
        member.counted = 0
    for number in range(1, EVENTS + 1):
        published = time.perf_counter()
        stage.progress(1, node=node)
        late = set(crowd.members)
        while late:
            read = crowd.read(ANSWER_S)
            now = time.perf_counter()
            here = {member for member in read if member.counted >= number} & late
            seconds += [now - published] * len(here)
            late -= here
            if not read:
                raise SystemExit("an event did not arrive")
        crowd.read_for(PAUSE_S)
    return seconds


def stalled(stage: Stage, count: int, rounds: int) -> dict[str, Any]:
    """The others' latencies without and with a client that does not read, by turns."""
    crowd = Crowd([joined(stage) for _ in range(count - 1)])
    figures: dict[bool, list[float]] = {False: [], True: []}
    latencies(stage, crowd, node=FILL)
    try:
        for number in range(2 * rounds):
            is_stalled = number % 2 == 1
            other = joined(stage, receive_buffer=4096)
            if is_stalled:
                figures[True] += latencies(stage, crowd, node=FILL)
            else:
                figures[False] += latencies(stage, Crowd([*crowd.members, other]), node=FILL)
            other.close()
    finally:
        crowd.close()
    without, beside = (percentile(figures[each], 0.99) for each in (False, True))
    return {
        "measure": "one stalled client",
        "sockets": count,
        "p99_ms_without": round(without * 1e3, 2),
        "p99_ms_with": round(beside * 1e3, 2),
        "ratio": round(beside / without, 2),
        "within_target": beside <= P99_TARGET * without,
    }


def stalled_memory(stage: Stage, clients: int) -> dict[str, Any]:
    """What clients that stop reading cost, each, at the most, until they are cut off."""
    reader = Crowd([joined(stage)])
    asking = b'{"type":"nonsense","id":"' + b"x" * 190 + b'"}'
    before = memory(stage)
    stallers = [joined(stage, receive_buffer=4096) for _ in range(clients)]
    highest = memory(stage)
    for _ in range(200):  # each is owed some 60 kB more with each round, and takes nothing
        for staller in stallers:
            with contextlib.suppress(OSError):
                staller.send(asking, times=200)
        stage.progress(32, node=FILL)
        reader.read_for(0.02)
        highest = max(highest, memory(stage))
    each = (highest - before) / clients
    for staller in stallers:
        staller.close()
    reader.close()
    return {
        "measure": "memory of a stalled client",
        "clients": clients,
        "kib_each": round(each / 1024),
        "within_target": each <= STALLED_TARGET_BYTES,
    }


def main() -> None:
    """Print one JSON line per measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--sockets", type=int, default=100)
    parser.add_argument("--stallers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the gateway inherits it
    with gateway_stage(jobs=0) as stage:
        print(json.dumps(idle(stage, options.idle)), flush=True)
    with gateway_stage(jobs=32) as stage:
        print(json.dumps(stalled(stage, options.sockets, options.rounds)), flush=True)
        print(json.dumps(stalled_memory(stage, options.stallers)), flush=True)


if __name__ == "__main__":
    main()
