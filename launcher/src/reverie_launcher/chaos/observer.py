"""`job.state.>` as any other service hears it, on a connection that no fault of the plan touches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import msgspec

from reverie_launcher.chaos.evidence import Connection, Joined, Transition
from reverie_launcher.chaos.nats_wire import NatsWire, WireLost, WireMessage, last_sequence
from reverie_protocol.jobs import Job
from reverie_protocol.subjects import JOB_STATE

RECONNECT_S = 0.05


def note(connection: Connection, told: Transition) -> None:
    """Add to a log.  The stream counts a revision a moment before it is republished: then it is one from before."""
    last = connection.entries[-1] if connection.entries else None
    if isinstance(last, Joined) and told.seq <= last.seq:
        return
    connection.entries.append(told)


class Observer:
    """Follows the republished revisions; `jobs` is the latest of each, `log` what each connection brought,
    `heard` counts all of it."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self.jobs: dict[str, Job] = {}
        self.log: list[Connection] = []
        self.changed = asyncio.Event()
        self.heard = 0

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen while the context is open, over any number of connections."""
        task = asyncio.create_task(self._stay(), name="observer")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stay(self) -> None:
        while True:
            with contextlib.suppress(WireLost):
                await self._listen()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        wire = await NatsWire.open(self._port())
        connection = Connection("observer", f"connection {len(self.log) + 1}")
        try:
            wire.subscribe(JOB_STATE, lambda message: self._hear(connection, message))
            await wire.flush()
            # What came in before is older than where we join, or comes in order after it all the same.
            joined = await last_sequence(wire)
            early = [
                each for each in connection.entries if isinstance(each, Transition) and each.seq > joined
            ]
            connection.entries[:] = [Joined(joined), *early]
            self.log.append(connection)
            await wire.lost
        except msgspec.MsgspecError as error:  # JetStream answers before the stream is there again
            raise WireLost(str(error)) from None
        finally:
            await wire.close()

    def _hear(self, connection: Connection, message: WireMessage) -> None:
        if not message.data or "KV-Operation" in message.headers:
            return
        job = msgspec.json.decode(message.data, type=Job)
        seq = int(message.headers.get("Nats-Sequence", 0))
        note(connection, Transition(job.id, job.state, seq, job.job_seq))
        self.jobs[job.id] = job
        self.heard += 1
        self.changed.set()
