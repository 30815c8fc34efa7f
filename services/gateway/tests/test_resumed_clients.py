"""Clients that come and go, stall and resume on gateways that die: each is told all of its own, once, in order."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry

from reverie_gateway import hub as hub_module
from reverie_gateway import reach
from reverie_gateway.audit import AUDIT_LOG, Auditor
from reverie_gateway.comfy_preflight import Preflight
from reverie_gateway.conversation import Conversation
from reverie_gateway.event_log import EventLog
from reverie_gateway.hub import Hub
from reverie_gateway.identity import Identity
from reverie_gateway.inputs import Inputs
from reverie_gateway.jobs import Jobs
from reverie_gateway.metrics import GatewayMetrics
from reverie_gateway.outbox import Outbox
from reverie_gateway.retention import Janitor
from reverie_gateway.session import Session
from reverie_gateway.standings import Standings
from reverie_gateway.wire import NO_DESCRIPTOR
from reverie_gateway.writer import Turn, Writer
from reverie_jobs.controls import ControlMirror
from reverie_jobs.mirror import JobMirror, WorkerMirror, follow
from reverie_jobs.store import JOBS, JobStore, decode_entry
from reverie_jobs.transitions import Claim, Refused, Superseded, claim, complete, fail, requeue
from reverie_protocol.errors import CLOSE_SLOW_CLIENT, CloseCode, ErrorCode
from reverie_protocol.jobs import GenerateParams, Job, JobError, JobState, JobType, Output, Progress
from reverie_protocol.jobs import Phase as JobPhase
from reverie_protocol.subjects import JOB_PROGRESS, job_progress
from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bucket, Bus, Entry, Message, SnapshotBegin
from reverie_testing.clock import VirtualClock
from reverie_testing.faulty_bucket import FaultyBucket
from reverie_testing.nats_server import NatsServer

OUTPUT = Output(url="/storage/k", key="k")
TRANSITIONS = ("job:state", "job:complete", "job:error")
GENEROUS_S = 60.0
RETENTION_S = 100.0
#: Small, so that clients are too slow within a few steps.
MAX_UNSENT_BYTES = 1500
#: What shows how far a watch is: a record of nobody who is here.
MARKER = Job(
    id="marker",
    owner="nobody",
    type=JobType.GENERATE,
    state=JobState.COMPLETED,
    params=GenerateParams(prompt="p"),
    created_at=0,
    enqueued_at=0,
    updated_at=0,
)
#: What a client does first: those that have a cursor resume, unless they begin afresh.
FIRST = st.sampled_from(["resume", "resume", "hello with cursor", "late", "hello", "submit", "nothing"])
_serial = itertools.count()


class Memory:
    """The bus in memory; logs are so small that they forget within a few steps."""

    max_events = 30

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server: MemoryServer | None = MemoryServer(self.clock)

    async def bus(self) -> Bus:
        assert self.server is not None
        return MemoryBus(self.server)

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def head(self, bucket: Bucket) -> int:
        assert self.server is not None
        return self.server.stores[bucket.name].revision


class Real:
    """A real nats-server, which stays up."""

    max_events = 10_000
    server = None

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock()
        self._url = url

    async def bus(self) -> Bus:
        return await connect_nats(self._url, name="machine")

    async def pause(self) -> None:
        await asyncio.sleep(0.001)

    async def head(self, bucket: Bucket) -> int:
        key = f"marker{next(_serial)}"
        return await bucket.create(key, msgspec.json.encode(msgspec.structs.replace(MARKER, id=key)))


class Gateway:
    """What `composition` makes of a gateway, from the bus to the sessions."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.mirror = JobMirror()
        self.turn = Turn(GatewayMetrics(CollectorRegistry()))
        self.heard_progress = 0

    async def open(
        self, bus: Bus, config: Any, clock: VirtualClock, bits: Callable[[int], int], *, max_events: int
    ) -> None:
        self.stack.push_async_callback(bus.close)
        self.wire = FaultyBucket(await bus.bucket(config))
        log = EventLog(retention_s=RETENTION_S, max_events=max_events)
        self.hub = Hub(self.mirror, log, self.turn, on_watch=lambda _: None, clock=clock)
        await self.stack.enter_async_context(follow(self.mirror, self.wire, history=True))
        await bus.subscribe(JOB_PROGRESS, self._on_progress)
        store = JobStore(self.wire, new_op=lambda: str(next(_serial)))
        self.janitor = Janitor(store, self.mirror, clock=clock, retention_s=RETENTION_S)
        workers = WorkerMirror()
        self.jobs = Jobs(
            bus,
            store,
            self.mirror,
            workers,
            comfy_preflight=Preflight(bus, workers, clock=clock),
            auditor=Auditor(await bus.stream(AUDIT_LOG), clock=clock),
            controls=ControlMirror(),
            inputs=Inputs(None),  # type: ignore[arg-type]  # no job here has a picture
            standings=Standings(self.mirror, clock=clock),
            clock=clock,
            max_queued=1000,
            random_bits=bits,
        )

    def _on_progress(self, message: Message) -> None:
        self.hub.on_progress(message)
        self.heard_progress += 1


class Connection:
    """One socket, as `socket.converse` serves it, and a line that may be congested."""

    descriptor = NO_DESCRIPTOR

    def __init__(self, gateway: Gateway, owner: str) -> None:
        self.gateway = gateway
        self.congested = self.was_congested = False
        self.on_relief: Callable[[], None] | None = None
        self.closed: CloseCode | None = None
        self.unread: list[dict[str, Any]] = []
        self.told: dict[str, int] = {}
        self.ended: set[str] = set()
        self.awaits_resumed = False
        self.asked_epochs: list[str] = []
        self.pending = 0
        self.frames: asyncio.Queue[str] = asyncio.Queue()
        self.outbox = Outbox(max_bytes=MAX_UNSENT_BYTES)
        self.writer = Writer(self.outbox, self, gateway.turn)  # type: ignore[arg-type]  # all that it needs
        self.session = Session(Identity(owner), self.outbox)
        self.session.expect_resume()
        self.writer.follow(self.session, gateway.hub.join(self.session))
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        conversation = Conversation(
            self.session,
            jobs=self.gateway.jobs,
            hub=self.gateway.hub,
            texts=None,  # type: ignore[arg-type]  # nobody stores any
            dream_desk=None,  # type: ignore[arg-type]  # nobody dreams
        )
        while True:
            request = self.session.receive(await self.frames.get())
            assert request is not None
            await conversation.carry_out(request)  # type: ignore[arg-type]  # nobody authenticates late
            self.pending -= 1

    def send(self, **message: Any) -> None:
        self.pending += 1
        self.frames.put_nowait(json.dumps(message))

    def write(self, data: bytes) -> None:
        while data:
            start = {126: 4, 127: 10}.get(data[1], 2)
            length = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
            self.unread.append(json.loads(data[start : start + length]))
            data = data[start + length :]

    def close(self, code: CloseCode) -> None:
        self.closed = code

    def abort(self) -> None:
        raise AssertionError("nobody is cut off")

    async def end(self) -> None:
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        self.gateway.hub.leave(self.session)
        self.writer.stop()


class Client:
    """A client that keeps the rules: its cursor is the highest transition, or `hello:ok`, that it saw."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.connection: Connection | None = None
        self.start_afresh()
        self.epoch = ""

    def start_afresh(self) -> None:
        self.cursor: int | None = None
        self.highest: int | None = None  # all up to here has been told, since some known state
        self.known: dict[str, tuple[int, str]] = {}
        self.retold: dict[str, int] = {}
        self.progress: dict[str, tuple[int, int]] = {}
        self.snapshot_until = 0


class Clients(RuleBasedStateMachine):
    """Three clients of two owners, two gateways, one busy platform."""

    def __init__(self, world: Memory | Real) -> None:
        super().__init__()
        self.world = world
        self.loop = asyncio.new_event_loop()
        self.config = msgspec.structs.replace(JOBS, name=f"resumes{next(_serial)}", republish="")
        self.stack = AsyncExitStack()
        self.truth: dict[int, Job] = {}
        self.committed_at: dict[int, float] = {}
        self.jobs: dict[str, Job] = {}
        self.epoch = ""
        self.head = self.expected = 0
        self.gateways: list[Gateway] = []
        self.clients = [Client("ann"), Client("ann"), Client("bob")]
        self.published = 0
        self.settled = False
        self.serial = itertools.count(1)

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return self.loop.run_until_complete(awaited())

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())
        for which in range(len(self.clients)):
            self.connects(which, which % 2, "hello", wait=True)
            self.submits(which, [None, "k"], wait=True)

    async def _begin(self) -> None:
        self.bus = await self.world.bus()
        self.stack.push_async_callback(self.bus.close)
        self.bucket = await self.bus.bucket(self.config)
        self.store = JobStore(self.bucket, new_op=lambda: str(next(_serial)))
        watching = asyncio.create_task(self._witness())
        self.stack.callback(watching.cancel)
        self.gateways = [await self._open_gateway(), await self._open_gateway()]

    async def _open_gateway(self) -> Gateway:
        gateway = Gateway()
        bus = await self.world.bus()
        bits = self.serial.__next__
        await gateway.open(
            bus, self.config, self.world.clock, lambda _: bits(), max_events=self.world.max_events
        )
        gateway.heard_progress = self.published
        return gateway

    async def _witness(self) -> None:
        async with self.bucket.watch(history=True) as events:
            async for event in events:
                if isinstance(event, SnapshotBegin) and event.epoch != self.epoch:
                    self.epoch = event.epoch
                    self.head = 0
                    for record in (self.truth, self.committed_at, self.jobs):
                        record.clear()
                if not isinstance(event, Entry) or event.revision <= self.head:
                    continue
                self.head = event.revision
                self.committed_at[event.revision] = self.world.clock.time()
                stored = decode_entry(event)
                if stored is not None:
                    self.truth[event.revision] = stored.job
                    if stored.job.owner != MARKER.owner:
                        self.jobs[event.key] = stored.job
                else:
                    self.jobs.pop(event.key, None)

    # -- the pace of things

    def after(self, *, wait: bool) -> None:
        self.settled = False
        if wait:
            self.run(self._settle())
            self.settled = True

    async def _settle(self) -> None:
        for wanted in (self._all_answered, self._all_caught_up):
            if wanted == self._all_caught_up:
                self.expected = await self.world.head(self.bucket)
            async with asyncio.timeout(GENEROUS_S):
                while not wanted():
                    await self.world.pause()
        await self.world.clock.settle()

    def _all_answered(self) -> bool:
        connections = [each.connection for each in self.clients if each.connection is not None]
        return not any(each.pending for each in connections if not each.gateway.wire.lagging)

    def _all_caught_up(self) -> bool:
        return (
            self.head >= self.expected
            and all(each.heard_progress >= self.published for each in self.gateways)
            and all(
                each.wire.lagging or (each.mirror.revision, each.mirror.epoch) == (self.head, self.epoch)
                for each in self.gateways
            )
        )

    @rule()
    def everything_settles(self) -> None:
        self.after(wait=True)

    @rule(seconds=st.sampled_from([1.0, RETENTION_S / 2, RETENTION_S]))
    def time_passes_and_old_jobs_are_forgotten(self, seconds: float) -> None:
        self.run(self.world.clock.advance(seconds))
        self.after(wait=True)
        for gateway in self.gateways:
            self.run(gateway.janitor.clean())
        self.after(wait=True)

    # -- the platform

    @precondition(lambda self: self.jobs)
    @rule(those=st.lists(st.integers(0, 99), min_size=1, max_size=4), wait=st.booleans())
    def jobs_go_on(self, those: list[int], wait: bool) -> None:
        for which in those:
            self._go_on(which)
        self.after(wait=wait)

    def _go_on(self, which: int) -> None:
        job = list(self.jobs.values())[which % len(self.jobs)]
        now = self.world.clock.time()
        held = Claim(job.id, job.worker or "", job.attempt)
        change: Callable[[Job], Job | None]
        if job.state is JobState.QUEUED:
            change = partial(claim, worker=f"w.{which}", now=now)
        elif which % 4 == 0:
            change = partial(requeue, held=held, crashed=False, now=now)
        elif which % 4 == 1:
            change = partial(fail, held=held, error=JobError(ErrorCode.INTERNAL, "bad luck"), now=now)
        else:
            change = partial(complete, held=held, outputs=[OUTPUT], meta=None, now=now)
        if not job.state.terminal:
            self.run(self._apply(job.id, change))

    async def _apply(self, job_id: str, change: Callable[[Job], Job | None]) -> None:
        try:
            await self.store.apply(job_id, change)
        except (Refused, Superseded):
            return  # the machine's own knowledge is behind what happened

    @precondition(lambda self: any(job.state is JobState.RUNNING for job in self.jobs.values()))
    @rule(which=st.integers(0, 99), wait=st.booleans())
    def a_job_makes_progress(self, which: int, wait: bool) -> None:
        running = [job for job in self.jobs.values() if job.state is JobState.RUNNING]
        job = running[which % len(running)]
        self.published += 1
        told = Progress(
            job_id=job.id, attempt=job.attempt, phase=JobPhase.DENOISING, step=self.published, steps=10**6
        )
        self.run(self.bus.publish(job_progress(job.id), msgspec.json.encode(told)))
        self.after(wait=wait)

    @rule(which=st.integers(0, 1))
    def a_gateway_dies_and_another_takes_its_place(self, which: int) -> None:
        self.run(self._restart(which))
        self.after(wait=True)

    async def _restart(self, which: int) -> None:
        gateway = self.gateways[which]
        for client in self.clients:
            if client.connection is not None and client.connection.gateway is gateway:
                await self._hang_up(client)
        await gateway.jobs.close()
        await gateway.stack.aclose()
        self.gateways[which] = await self._open_gateway()

    @rule(which=st.integers(0, 1))
    def a_gateway_falls_behind(self, which: int) -> None:
        self.gateways[which].wire.lag()

    @rule()
    def the_gateways_catch_up(self) -> None:
        for gateway in self.gateways:
            gateway.wire.catch_up()
        self.after(wait=True)

    @precondition(lambda self: self.world.server is not None)
    @rule(wiped=st.sampled_from([False, False, True]))
    def the_server_restarts(self, wiped: bool) -> None:
        self.the_gateways_catch_up()
        if wiped:
            for client in self.clients:
                self.run(self._hang_up(client))
        self.world.server.kill()
        if wiped:
            self.world.server.wipe()
        self.world.server.restart()
        self.after(wait=True)

    # -- clients

    @rule(
        which=st.integers(0, 2),
        where=st.integers(0, 1),
        first=FIRST,
        wait=st.booleans(),
    )
    def connects(self, which: int, where: int, first: str, wait: bool) -> None:
        client = self.clients[which]
        if client.connection is None:
            self.run(self._connect(client, self.gateways[where], first))
            self.after(wait=wait)

    async def _connect(self, client: Client, gateway: Gateway, first: str) -> None:
        connection = client.connection = Connection(gateway, client.owner)
        client.retold.clear()
        client.progress.clear()
        if client.cursor is not None and first not in ("nothing", "hello", "submit"):
            if first == "late":
                gateway.hub.open(connection.session)
            self._resume(client, hello=first == "hello with cursor")
            connection.awaits_resumed = True
            return
        client.start_afresh()
        if first == "hello":
            connection.send(type="hello")
        elif first == "submit":
            self._submit(client, None)
        else:
            gateway.hub.open(connection.session)

    def _resume(self, client: Client, *, hello: bool) -> None:
        assert client.connection is not None
        kind = "hello" if hello else "resume"
        client.connection.asked_epochs.append(client.epoch)
        client.connection.send(type=kind, cursor=client.cursor, epoch=client.epoch)

    def _submit(self, client: Client, key: str | None) -> None:
        assert client.connection is not None
        client.connection.send(type="job:submit", jobType="generate", prompt="p", idempotencyKey=key)

    def online(self, which: int) -> Client | None:
        """The client, connected unless it is about to be closed."""
        client = self.clients[which]
        if client.connection is None:
            self.connects(which, which % 2, "resume", wait=False)
        connection = client.connection
        return None if connection is None or connection.outbox.closing is not None else client

    @rule(
        which=st.integers(0, 2),
        keys=st.lists(st.sampled_from([None, None, "k", "l"]), min_size=1, max_size=3),
        wait=st.booleans(),
    )
    def submits(self, which: int, keys: list[str | None], wait: bool) -> None:
        if (client := self.online(which)) is not None:
            for key in keys:
                self._submit(client, key)
            self.after(wait=wait)

    @rule(which=st.integers(0, 2), hello=st.booleans(), wait=st.booleans())
    def asks_for_what_it_missed_once_more(self, which: int, hello: bool, wait: bool) -> None:
        client = self.online(which)
        if client is not None and client.cursor is not None:
            self._resume(client, hello=hello)
            self.after(wait=wait)

    @rule(which=st.integers(0, 2), wait=st.booleans())
    def says_hello(self, which: int, wait: bool) -> None:
        if (client := self.online(which)) is not None and client.connection is not None:
            client.connection.send(type="hello")
            self.after(wait=wait)

    @precondition(lambda self: self.jobs)
    @rule(which=st.integers(0, 2), job=st.integers(0, 99), wait=st.booleans())
    def cancels(self, which: int, job: int, wait: bool) -> None:
        if (client := self.online(which)) is not None and client.connection is not None:
            client.connection.send(type="job:cancel", jobId=list(self.jobs)[job % len(self.jobs)])
            self.after(wait=wait)

    @rule(which=st.integers(0, 2))
    def stalls(self, which: int) -> None:
        connection = self.clients[which].connection
        if connection is not None:
            connection.congested = connection.was_congested = True

    @rule(which=st.integers(0, 2), wait=st.booleans())
    def takes_more(self, which: int, wait: bool) -> None:
        connection = self.clients[which].connection
        if connection is not None and connection.congested:
            connection.congested = False
            self.loop.call_soon(lambda: connection.on_relief and connection.on_relief())
            self.after(wait=wait)

    @rule(which=st.integers(0, 2), count=st.sampled_from([1, 2, 3, 1000]))
    def reads(self, which: int, count: int) -> None:
        client = self.clients[which]
        connection = client.connection
        if connection is None:
            return
        self.run(self._witness_catches_up())
        unread = connection.unread
        messages, connection.unread = unread[:count], unread[count:]
        for message in messages:
            self._hear(client, connection, message)
        if connection.closed is not None and not connection.unread:
            assert connection.closed is CLOSE_SLOW_CLIENT
            assert connection.was_congested, "a client that reads was closed"
            self.run(self._hang_up(client))

    async def _witness_catches_up(self) -> None:
        expected = await self.world.head(self.bucket)
        while self.head < expected:
            await self.world.pause()

    @rule(
        which=st.integers(0, 2),
        count=st.sampled_from([0, 1, 2, 3, 5]),
        where=st.integers(0, 1),
        first=FIRST,
        wait=st.booleans(),
    )
    def is_cut_off_and_comes_back(self, which: int, count: int, where: int, first: str, wait: bool) -> None:
        self.reads(which, count)
        self.run(self._hang_up(self.clients[which]))
        self.connects(which, where, first, wait)

    @rule(which=st.integers(0, 2))
    def disconnects(self, which: int) -> None:
        self.run(self._hang_up(self.clients[which]))

    async def _hang_up(self, client: Client) -> None:
        """Whatever was on its way is lost."""
        connection, client.connection = client.connection, None
        if connection is not None:
            await connection.end()

    # -- what a client is told

    def _hear(self, client: Client, connection: Connection, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind in TRANSITIONS:
            self._hear_transition(client, connection, message)
        elif kind == "job:progress":
            job_id = message["jobId"]
            assert self._owner_of(job_id) == client.owner, "progress of another's job"
            assert job_id not in connection.ended, "progress of an ended job"
            client.progress[job_id] = (message["attempt"], message["step"])
        elif kind == "job:ack":
            job_id = message["jobId"]
            assert self.truth[message["seq"]].id == job_id
            assert self._owner_of(job_id) == client.owner
            if message.get("existing"):
                client.retold[job_id] = 0
            else:
                assert connection.told.get(job_id, 0) < message["seq"], "the ack came behind its events"
        elif kind == "hello:ok":
            self._join(client, message["seq"], message["epoch"])
        elif kind == "resumed":
            self._hear_resumed(client, connection, message)
        elif kind == "error":
            assert message["code"] == "job_not_found", message

    def _owner_of(self, job_id: str) -> str:
        return next(job.owner for job in self.truth.values() if job.id == job_id)

    def _join(self, client: Client, seq: int, epoch: str) -> None:
        """`hello:ok`: everything up to `seq` has been told."""
        if client.connection is not None and client.connection.awaits_resumed:
            return
        if client.highest is not None:
            assert self._next(client.owner, client.highest) > seq, "joined before all was told"
        client.highest = seq if client.highest is None else max(client.highest, seq)
        client.cursor, client.epoch = max(seq, client.cursor or 0), epoch

    def _next(self, owner: str, after: int) -> float:
        """The owner's first transition after a revision."""
        own = (seq for seq, job in self.truth.items() if seq > after and job.owner == owner)
        return min(own, default=float("inf"))

    def _hear_transition(self, client: Client, connection: Connection, message: dict[str, Any]) -> None:
        seq, job_id = message["seq"], message["jobId"]
        state = message.get("state", "completed")
        committed = self.truth[seq]
        assert committed.owner == client.owner, "a transition of another's job"
        assert (committed.id, committed.state, committed.job_seq) == (job_id, state, message["jobSeq"])
        connection.told[job_id] = seq
        if committed.state.terminal:
            connection.ended.add(job_id)
        if connection.awaits_resumed:
            return  # the present, in case that we do not resume
        client.epoch = client.epoch or self.epoch
        client.cursor = max(client.cursor or 0, seq)
        client.known[job_id] = max(client.known.get(job_id, (0, "")), (seq, state))
        if client.highest is None:
            return
        last = client.retold.get(job_id)
        if last is not None and last < seq <= client.highest:
            client.retold[job_id] = seq
            return
        if client.snapshot_until >= seq and client.highest >= seq:
            return
        assert seq > client.highest, "a transition came again, or late"
        assert seq == self._next(client.owner, client.highest), "a transition was left out"
        client.highest = seq

    def _hear_resumed(self, client: Client, connection: Connection, message: dict[str, Any]) -> None:
        cursor, head = message["from"], message["seq"]
        of_this_bucket = connection.asked_epochs.pop(0) == message["epoch"]
        connection.awaits_resumed = False
        client.epoch = message["epoch"]
        client.snapshot_until = 0
        connection.ended.clear()  # their way to the end may be told again
        if message["recovered"]:
            assert of_this_bucket, "a cursor of another bucket was recovered"
            client.cursor = client.highest = cursor
            return
        young = self.committed_at.get(cursor, 0.0) >= self.world.clock.time() - RETENTION_S
        assert not (of_this_bucket and young and head - cursor < self.world.max_events // 2), (
            "nothing was gone"
        )
        client.start_afresh()
        client.snapshot_until = client.highest = head

    @invariant()
    def who_has_read_everything_knows_everything(self) -> None:
        if not self.settled:
            return
        for client in self.clients:
            connection = client.connection
            if connection is None or connection.congested or connection.closed or connection.unread:
                continue
            if connection.gateway.wire.lagging or connection.session.waiting or connection.awaits_resumed:
                continue
            if client.highest is not None:
                assert self._next(client.owner, client.highest) == float("inf"), "something was not told"
            hub, mirror = connection.gateway.hub, connection.gateway.mirror
            for job in self.jobs.values():
                if job.owner != client.owner:
                    continue
                if job.id in client.known or not job.state.terminal:
                    assert client.known.get(job.id, (0, ""))[1] == job.state, "a state was not told"
                latest = hub.progress_of(mirror.get(job.id))
                if latest is not None:
                    assert client.progress.get(job.id) == (latest.attempt, latest.step)

    def teardown(self) -> None:
        try:
            if self.gateways:
                self._come_to_an_end()
        finally:
            self.run(self._close())
            self.loop.close()

    def _come_to_an_end(self) -> None:
        self.the_gateways_catch_up()
        self.after(wait=True)
        for which in range(len(self.clients)):
            self.takes_more(which, wait=True)
            self.reads(which, 1000)
            self.connects(which, which % 2, "resume", wait=True)
        self._all_read()
        for count in range(1, 4):  # cut off in the middle of being told the present
            for which in range(len(self.clients)):
                self.is_cut_off_and_comes_back(which, 1000, 0, "nothing", wait=True)
                self.is_cut_off_and_comes_back(which, count, 1, "resume", wait=True)
            self._all_read()

    def _all_read(self) -> None:
        for which in range(len(self.clients)):
            self.reads(which, 1000)
        self.who_has_read_everything_knows_everything()

    async def _close(self) -> None:
        for client in self.clients:
            await self._hang_up(client)
        for gateway in self.gateways:
            await gateway.jobs.close()
            await gateway.stack.aclose()
        await self.stack.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is behind is waited for, however slow this machine is."""
    monkeypatch.setattr(hub_module, "REACH_S", GENEROUS_S)
    monkeypatch.setattr(reach, "BUS_TIMEOUT_S", GENEROUS_S)


def test_every_client_is_told_all_of_its_own_once_and_in_order_whatever_happens() -> None:
    run_state_machine_as_test(
        lambda: Clients(Memory()),
        settings=settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True),
    )


def test_on_a_real_server_too(shared_nats_server: NatsServer) -> None:
    run_state_machine_as_test(
        lambda: Clients(Real(shared_nats_server.url)),
        settings=settings(
            max_examples=3,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
