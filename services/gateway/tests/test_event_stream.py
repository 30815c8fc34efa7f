"""Server-sent events without a socket: who leaves is forgotten, whenever that is."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from prometheus_client import CollectorRegistry

from reverie_gateway.authentication import Gatekeeper
from reverie_gateway.entrance import Entrance
from reverie_gateway.event_log import EventLog
from reverie_gateway.http_events import _events
from reverie_gateway.hub import Hub
from reverie_gateway.identity import LOCAL
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.session import Session
from reverie_gateway.writer import Turn
from reverie_jobs.mirror import JobMirror
from reverie_runtime.clock import SystemClock


async def test_a_client_that_leaves_while_its_cursor_is_waited_for_is_forgotten() -> None:
    mirror, clock = JobMirror(), SystemClock()
    turn = Turn(GatewayMetrics(CollectorRegistry()))
    hub = Hub(mirror, EventLog(retention_s=60), turn, on_watch=lambda job_id: None, clock=clock)
    outbox = Outbox()
    entrance = Entrance(outbox, Gatekeeper(None, clock=clock))
    # All that it asks of the jobs is the mirror's.
    jobs = cast(Any, mirror)
    ahead = (None, mirror.revision + 1)
    events = _events(Session(LOCAL, outbox), asyncio.Event(), ahead, entrance, jobs=jobs, hub=hub)
    reading = asyncio.ensure_future(anext(aiter(events)))
    while not len(hub):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert len(hub) == 0
