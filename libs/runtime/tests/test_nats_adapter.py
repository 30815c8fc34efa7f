"""What is particular to NATS: other clients, frozen servers, operators."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from reverie_runtime.bus.nats import NatsBus, connect_nats
from reverie_runtime.bus.nats_jetstream import stream_info
from reverie_runtime.bus.nats_watch import HEARTBEAT_S
from reverie_runtime.bus.port import (
    BucketConfig,
    BusError,
    BusUnavailable,
    Entry,
    SnapshotBegin,
    SnapshotEnd,
    WriteUncertain,
)
from reverie_testing.bus_conformance import Inbox, connection, persist, snapshot, take
from reverie_testing.nats_server import NatsServer

LONG_HISTORY, LONG_VALUE = 700, b"x" * 25_000
#: More than nats-server sends before it wants to hear that it was read: 2 MiB in the beginning.
WINDOW_REVISIONS, WINDOW_VALUE = 100, b"x" * 25_000
JOBS = BucketConfig("jobs", history=64, republish="job.state")


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[NatsBus]:
    connected = await connect_nats(nats_server.url, name="test")
    assert isinstance(connected, NatsBus)
    yield connected
    await connected.close()


async def test_any_kv_client_reads_and_writes_a_bucket(bus: NatsBus, nats_server: NatsServer) -> None:
    bucket = await bus.bucket(JOBS)
    revision = await bucket.create("a.b", b"ours")
    other = await nats.connect(nats_server.url)
    kv = await other.jetstream().key_value("jobs")
    found = await kv.get("a.b")
    assert (found.value, found.revision) == (b"ours", revision)
    async with bucket.watch() as events:
        await snapshot(events)
        theirs = await kv.update("a.b", b"theirs", last=revision)
        assert await take(events) == Entry("a.b", b"theirs", theirs)
        await kv.delete("a.b")
        assert await take(events) == Entry("a.b", None, theirs + 1)
        await kv.purge("a.b")
        assert await take(events) == Entry("a.b", None, theirs + 2)
    await other.close()


async def test_an_operator_may_limit_the_size_of_a_bucket(bus: NatsBus, nats_server: NatsServer) -> None:
    await bus.bucket(JOBS)
    other = await nats.connect(nats_server.url)
    stream = (await other.jetstream().stream_info("KV_jobs")).config
    stream.max_bytes = 50_000_000
    await other.jetstream().update_stream(stream)
    await bus.bucket(JOBS)
    await other.close()


async def test_a_server_that_freezes_is_noticed_and_one_that_thaws_is_used_again(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    bucket = await bus.bucket(JOBS)
    async with bucket.watch() as events:
        await snapshot(events)
        nats_server.pause()
        with pytest.raises(WriteUncertain):
            await bucket.put("k", b"perhaps")
        await connection(bus, up=False)
        nats_server.resume()
        await connection(bus, up=True)
        revision = await persist(bucket, "k", b"surely")
        while await take(events) != Entry("k", b"surely", revision):
            pass


async def test_senders_do_not_wait_for_a_frozen_server_without_end(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    nats_server.pause()
    async with asyncio.timeout(30):
        for _ in range(200):
            await bus.publish("a", bytes(500_000))
    await connection(bus, up=False)
    nats_server.resume()
    await connection(bus, up=True)


async def test_many_large_messages_in_one_go_all_arrive(bus: NatsBus) -> None:
    done = asyncio.Event()
    count = 0

    async def handler(_: object) -> None:
        nonlocal count
        count += 1
        if count == 100:
            done.set()

    await bus.subscribe("a", handler)
    for _ in range(100):
        await bus.publish("a", bytes(200_000))
    async with asyncio.timeout(30):
        await done.wait()


async def test_a_message_above_the_servers_limit_is_refused_with_the_reason(bus: NatsBus) -> None:
    with pytest.raises(BusError, match="max_payload"):
        await bus.request("a", bytes(2_000_000), timeout=1)
    await bus.check(timeout=5)


async def test_a_bucket_that_somebody_deleted_is_made_again_by_its_next_writer(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    bucket = await bus.bucket(JOBS)
    await bucket.put("old", b"")
    other = await nats.connect(nats_server.url)
    async with bucket.watch() as events:
        await snapshot(events)
        await other.jetstream().delete_stream("KV_jobs")
        with pytest.raises(BusUnavailable):
            await bucket.put("new", b"1")
        revision = await bucket.put("new", b"1")
        assert isinstance(await take(events), SnapshotBegin)
        assert await take(events) == Entry("new", b"1", revision)
    await other.close()


async def test_a_bucket_that_somebody_deleted_is_made_again_by_its_watch(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    bucket = await bus.bucket(JOBS)
    await bucket.put("old", b"")
    other = await nats.connect(nats_server.url)
    async with bucket.watch() as events:
        await snapshot(events)
        await other.jetstream().delete_stream("KV_jobs")
        assert await snapshot(events) == {}
    await other.close()


async def test_a_subscription_made_while_the_server_is_away_starts_with_it(
    bus: NatsBus, nats_server: NatsServer
) -> None:
    nats_server.kill()
    await connection(bus, up=False)
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    nats_server.start()
    await connection(bus, up=True)
    await bus.publish("a", b"1")
    assert (await inbox.take()).data == b"1"


async def test_a_url_that_is_none_is_an_error_in_words() -> None:
    with pytest.raises(BusUnavailable, match="cannot be reached"):
        await connect_nats("nats://host:port", name="test", connect_timeout=0.5)


async def test_a_watch_continues_where_it_was_after_its_connection_broke(bus: NatsBus) -> None:
    bucket = await bus.bucket(BucketConfig("long", history=64))
    async with bucket.watch() as events:
        await snapshot(events)
        bus.link.drop()
        await connection(bus, up=False)
        await connection(bus, up=True)
        wanted = [Entry("k", b"%d" % number, await bucket.put("k", b"%d" % number)) for number in range(20)]
        assert [await take(events) for _ in wanted] == wanted


async def test_a_watch_begins_anew_if_history_was_discarded_while_it_was_away(bus: NatsBus) -> None:
    bucket = await bus.bucket(BucketConfig("short", history=2))
    async with bucket.watch() as events:
        await snapshot(events)
        bus.link.drop()
        await connection(bus, up=False)
        await connection(bus, up=True)
        for number in range(20):
            await bucket.put("k", b"%d" % number)
        assert await snapshot(events) == {"k": Entry("k", b"19", 20)}


async def test_connecting_to_nothing_says_where_and_why(nats_server: NatsServer) -> None:
    nats_server.kill()
    with pytest.raises(
        BusUnavailable, match=f"127.0.0.1:{nats_server.port} cannot be reached: .*refused|Connect"
    ):
        await connect_nats(
            f"nats://user:secret@127.0.0.1:{nats_server.port}", name="test", connect_timeout=0.3
        )


async def test_a_password_never_shows_in_an_error(nats_server: NatsServer) -> None:
    nats_server.kill()
    with pytest.raises(BusUnavailable) as raised:
        await connect_nats(
            f"nats://user:secret@127.0.0.1:{nats_server.port}", name="test", connect_timeout=0.3
        )
    assert "secret" not in str(raised.value)


async def test_a_server_without_jetstream_is_named_as_such(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)
    server.start()
    try:
        with pytest.raises(BusUnavailable, match="-js"):
            await connect_nats(server.url, name="test")
    finally:
        server.stop()


async def test_a_long_history_is_told_in_one_go_to_a_reader_that_hogs_the_loop(
    bus: NatsBus,
) -> None:
    bucket = await bus.bucket(BucketConfig("things", history=64))
    for number in range(LONG_HISTORY):  # unacknowledged, or it would take a minute
        await bus.publish(f"$KV.things.key{number}", LONG_VALUE)
    async with asyncio.timeout(60):
        while (await stream_info(bus.link, "KV_things")).state.last_seq < LONG_HISTORY:
            await asyncio.sleep(0.05)
    seen = []
    async with bucket.watch(history=True) as events:
        async for event in events:
            seen.append(event)
            time.sleep(0.008)  # a busy process: the echo lies far behind in the socket
            if isinstance(event, SnapshotEnd):
                break
    assert [type(event) for event in seen].count(SnapshotBegin) == 1
    assert len(seen) == LONG_HISTORY + 2
    assert bus.connected


async def test_a_history_has_ended_only_behind_its_last_revision_although_its_reader_kept_the_server_waiting(
    bus: NatsBus,
) -> None:
    bucket = await bus.bucket(BucketConfig("things", history=64))
    keys = [f"k{number}" for number in range(WINDOW_REVISIONS)]
    for key in (*keys, *keys, "last-key", *keys[:20]):
        await bucket.put(key, WINDOW_VALUE)
    async with bucket.watch(history=True) as events:
        begun = await take(events)
        # The server fills its window, and its heartbeats say that it waits; they are read when we go on.
        await asyncio.sleep(1.5 * HEARTBEAT_S)
        told = [begun]
        while not isinstance(told[-1], SnapshotEnd):
            told.append(await take(events))
    assert [type(event) for event in told].count(SnapshotBegin) == 1
    assert [event.key for event in told if isinstance(event, Entry)] == [*keys, *keys, "last-key", *keys[:20]]
