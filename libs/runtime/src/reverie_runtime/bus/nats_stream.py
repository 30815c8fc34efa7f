"""A JetStream stream that is appended to."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from reverie_runtime.bus import nats_jetstream as jetstream
from reverie_runtime.bus.nats_bucket import WRITE_TIMEOUT_S, Connection
from reverie_runtime.bus.nats_link import Link, LinkLost
from reverie_runtime.bus.nats_watch import NANOSECONDS
from reverie_runtime.bus.port import (
    BusError,
    BusUnavailable,
    NoResponders,
    RequestTimeout,
    StreamConfig,
    WriteUncertain,
)

#: What must be as it was asked for; how long and how much is kept is the operator's choice.
PROMISED: Final = ("subjects", "storage", "mirror", "sources")


class NatsStream:
    """See `reverie_runtime.bus.port.Stream`."""

    def __init__(self, connection: Connection, config: StreamConfig) -> None:
        self._connection = connection
        self._config = config

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self._config.name

    async def append(self, subject: str, data: bytes) -> int:
        """The sequence, when it is durable."""
        link = self._connection.link
        try:
            answer = await link.request(subject, data, timeout=WRITE_TIMEOUT_S)
        except NoResponders:
            with contextlib.suppress(BusError):
                await self.ensure(link)  # somebody deleted the stream: the next try finds it
            raise BusUnavailable(f"stream {self.name} does not answer: nothing was written") from None
        except (LinkLost, RequestTimeout) as error:
            raise WriteUncertain(f"appending to {self.name}: {error}") from None
        return jetstream.decode(answer.data, jetstream.PublishAck).seq

    async def ensure(self, link: Link) -> None:
        """Make the stream if it is absent; BusError naming the difference if it is another one."""
        wanted: dict[str, Any] = {
            "name": self.name,
            "subjects": list(self._config.subjects),
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_age": int(self._config.max_age_s * NANOSECONDS),
            "num_replicas": 1,
        }
        found = await jetstream.stream_ensure(link, wanted)
        differences = [
            f"{name} is {found.get(name)!r} instead of {wanted.get(name)!r}"
            for name in PROMISED
            if (found.get(name) or None) != (wanted.get(name) or None)
        ]
        if differences:
            raise BusError(f"stream {self.name} exists with other properties: {', '.join(differences)}")
