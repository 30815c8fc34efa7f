"""What every adapter of the bus must do: one suite, run on each of them.

A test module makes a fixture `bus_server` that yields a `BusServer`, and imports the tests:
`from reverie_testing.bus_conformance import *`.
"""

# ruff: noqa: D102, D103 -- these are tests: their names are the sentences

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from reverie_runtime.bus.port import (
    Bucket,
    BucketConfig,
    Bus,
    BusError,
    BusUnavailable,
    Entry,
    Message,
    NoResponders,
    RequestTimeout,
    RevisionConflict,
    SnapshotBegin,
    SnapshotEnd,
    WatchEvent,
    WriteUncertain,
)

#: Generous: a test that waits this long has failed.
PATIENCE_S = 30.0
SNAPSHOTS = 300
SNAPSHOTS_DURING_WRITES = 150
RESTARTS = 3


class BusServer(Protocol):
    """A server under test, and connections to it."""

    def start(self) -> None:
        """Come (back) up with what was stored."""

    def kill(self) -> None:
        """Go away without warning."""

    def wipe(self) -> None:
        """Lose what was stored, while away."""

    async def connect(self) -> Bus:
        """A new connection, closed after the test."""

    async def consumers(self, bucket: Bucket) -> int:
        """How many watches the server still serves on a bucket."""


@pytest.fixture
async def bus(bus_server: BusServer) -> Bus:
    return await bus_server.connect()


@pytest.fixture
async def bucket(bus: Bus) -> Bucket:
    return await bus.bucket(BucketConfig("things", history=64, republish="thing.state"))


class Inbox:
    """A handler that keeps what it got."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()

    async def __call__(self, message: Message) -> None:
        await self.messages.put(message)

    async def take(self) -> Message:
        async with asyncio.timeout(PATIENCE_S):
            return await self.messages.get()


async def take(events: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(events)


async def snapshot(events: AsyncIterator[WatchEvent]) -> dict[str, Entry]:
    """One whole snapshot; AssertionError if something else comes first."""
    assert isinstance(await take(events), SnapshotBegin)
    mirror: dict[str, Entry] = {}
    while not isinstance(event := await take(events), SnapshotEnd):
        assert isinstance(event, Entry)
        mirror[event.key] = event
    return mirror


async def persist(bucket: Bucket, key: str, value: bytes) -> int:
    """Write until it is certain, as callers do: an uncertain write is looked up before it is repeated."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                found = await bucket.get(key)
                if found is not None and found.value == value:
                    return found.revision
                return await bucket.put(key, value)
            except (BusUnavailable, WriteUncertain):
                await asyncio.sleep(0.01)


async def connection(bus: Bus, *, up: bool) -> None:
    """Wait until the bus is connected, or is not."""
    changed = asyncio.Event()
    bus.on_connection(lambda _: changed.set())
    async with asyncio.timeout(PATIENCE_S):
        while bus.connected is not up:
            await changed.wait()
            changed.clear()


# --- subjects ---------------------------------------------------------------------------------------------


async def test_messages_of_one_publisher_arrive_in_order(bus: Bus) -> None:
    inbox = Inbox()
    await bus.subscribe("a.*", inbox)
    for number in range(200):
        await bus.publish("a.b", str(number).encode())
    assert [int((await inbox.take()).data) for _ in range(200)] == list(range(200))


async def test_wildcards_select_parts_of_a_subject(bus: Bus) -> None:
    one, rest = Inbox(), Inbox()
    await bus.subscribe("a.*.c", one)
    await bus.subscribe("a.>", rest)
    for subject in ("a", "a.b", "a.b.c", "a.b.c.d"):
        await bus.publish(subject, b"")
    await bus.publish("a.x.c", b"last")
    assert [(await one.take()).subject for _ in range(2)] == ["a.b.c", "a.x.c"]
    assert [(await rest.take()).subject for _ in range(4)] == ["a.b", "a.b.c", "a.b.c.d", "a.x.c"]


async def test_a_queue_group_shares_messages(bus: Bus) -> None:
    group, everything = Inbox(), Inbox()
    await bus.subscribe("work", group, queue="workers")
    await bus.subscribe("work", group, queue="workers")
    await bus.subscribe("work", everything)
    for number in range(40):
        await bus.publish("work", str(number).encode())
    for inbox in (everything, group):
        assert {int((await inbox.take()).data) for _ in range(40)} == set(range(40))
    assert group.messages.empty()


async def test_a_failing_handler_keeps_its_subscription(bus: Bus) -> None:
    seen = Inbox()

    async def handler(message: Message) -> None:
        await seen(message)
        raise RuntimeError("on purpose")

    await bus.subscribe("a", handler)
    await bus.publish("a", b"1")
    await bus.publish("a", b"2")
    assert [(await seen.take()).data for _ in range(2)] == [b"1", b"2"]


async def test_a_plain_function_hears_every_message_in_order_whatever_it_raises(bus: Bus) -> None:
    heard: list[bytes] = []
    all_heard = asyncio.Event()

    def handler(message: Message) -> None:
        heard.append(message.data)
        if len(heard) == 20:
            all_heard.set()
        raise RuntimeError("on purpose")

    subscription = await bus.subscribe("a", handler)
    for number in range(20):
        await bus.publish("a", b"%d" % number)
    async with asyncio.timeout(PATIENCE_S):
        await all_heard.wait()
    assert heard == [b"%d" % number for number in range(20)]
    await subscription.unsubscribe()
    running = Inbox()
    await bus.subscribe("a", running)
    await bus.publish("a", b"")
    await running.take()
    assert len(heard) == 20


async def test_unsubscribing_twice_stops_once(bus: Bus) -> None:
    stopped, running = Inbox(), Inbox()
    subscription = await bus.subscribe("a", stopped)
    await bus.subscribe("a", running)
    await subscription.unsubscribe()
    await subscription.unsubscribe()
    await bus.publish("a", b"")
    await running.take()
    assert stopped.messages.empty()


async def test_a_handler_may_end_its_own_subscription(bus: Bus) -> None:
    ended = asyncio.Event()

    async def handler(_: Message) -> None:
        await subscription.unsubscribe()
        ended.set()

    subscription = await bus.subscribe("a", handler)
    await bus.publish("a", b"")
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()


async def test_a_request_is_answered(bus: Bus) -> None:
    async def answer(message: Message) -> None:
        await bus.publish(message.reply, message.data.upper())

    await bus.subscribe("ask", answer)
    answers = await asyncio.gather(*(bus.request("ask", b"q%d" % n, timeout=PATIENCE_S) for n in range(20)))
    assert [message.data for message in answers] == [b"Q%d" % n for n in range(20)]


async def test_a_request_that_nobody_hears_fails_at_once(bus: Bus) -> None:
    with pytest.raises(NoResponders):
        await bus.request("nobody", b"", timeout=PATIENCE_S)


async def test_a_request_that_nobody_answers_times_out(bus: Bus) -> None:
    await bus.subscribe("silent", Inbox())
    with pytest.raises(RequestTimeout):
        await bus.request("silent", b"", timeout=0.05)


async def test_a_request_that_waits_when_the_server_goes_fails_at_once(
    bus: Bus, bus_server: BusServer
) -> None:
    heard = Inbox()
    await bus.subscribe("silent", heard)
    asking = asyncio.create_task(bus.request("silent", b"", timeout=PATIENCE_S))
    await heard.take()
    bus_server.kill()
    with pytest.raises(BusUnavailable):
        await asking


async def test_a_subscription_survives_a_restart_of_the_server(bus: Bus, bus_server: BusServer) -> None:
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.start()
    await connection(bus, up=True)
    await bus.publish("a", b"after")
    assert (await inbox.take()).data == b"after"


async def test_a_message_published_while_the_server_is_away_is_dropped(
    bus: Bus, bus_server: BusServer
) -> None:
    inbox = Inbox()
    await bus.subscribe("a", inbox)
    bus_server.kill()
    await connection(bus, up=False)
    await bus.publish("a", b"away")
    bus_server.start()
    await connection(bus, up=True)
    await bus.publish("a", b"back")
    assert (await inbox.take()).data == b"back"


async def test_every_call_fails_soon_while_the_server_is_away(
    bus: Bus, bucket: Bucket, bus_server: BusServer
) -> None:
    bus_server.kill()
    await connection(bus, up=False)
    calls = (
        bus.request("a", b"", timeout=1),
        bus.check(timeout=1),
        bus.bucket(BucketConfig("other")),
        bucket.get("k"),
        bucket.history("k"),
        bucket.create("k", b""),
        bucket.update("k", b"", 1),
        bucket.put("k", b""),
        bucket.delete("k"),
        bucket.purge("k"),
    )
    async with asyncio.timeout(PATIENCE_S):
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [BusUnavailable] * len(calls)


async def test_listeners_hear_of_a_loss_and_of_the_return(bus: Bus, bus_server: BusServer) -> None:
    heard: list[bool] = []
    bus.on_connection(heard.append)
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.start()
    await connection(bus, up=True)
    assert heard == [False, True]


async def test_a_check_passes_while_the_server_is_there(bus: Bus) -> None:
    await bus.check(timeout=PATIENCE_S)


async def test_closing_twice_closes_once(bus: Bus) -> None:
    await bus.close()
    await bus.close()
    assert not bus.connected
    with pytest.raises(BusUnavailable):
        await bus.request("a", b"", timeout=1)


# --- buckets ----------------------------------------------------------------------------------------------


async def test_of_concurrent_writers_of_one_revision_exactly_one_wins(bucket: Bucket) -> None:
    revision = await bucket.create("k", b"0")
    for round_ in range(10):
        writes = (bucket.update("k", b"%d.%d" % (round_, n), revision) for n in range(8))
        results = await asyncio.gather(*writes, return_exceptions=True)
        won = [result for result in results if isinstance(result, int)]
        assert len(won) == 1
        assert sum(isinstance(result, RevisionConflict) for result in results) == 7
        revision = won[0]
    assert len(await bucket.history("k")) == 11


async def test_of_concurrent_creators_exactly_one_wins(bucket: Bucket) -> None:
    results = await asyncio.gather(*(bucket.create("k", b"%d" % n) for n in range(8)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, RevisionConflict) for result in results) == 7


async def test_revisions_increase_over_all_keys_and_over_a_restart(
    bus: Bus, bucket: Bucket, bus_server: BusServer
) -> None:
    before = [await bucket.put(f"k{n % 3}", b"") for n in range(9)]
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.start()
    await connection(bus, up=True)
    after = [await bucket.put(f"k{n % 3}", b"") for n in range(9)]
    revisions = before + after
    assert revisions == sorted(set(revisions))


async def test_a_write_is_still_there_after_a_kill(bus: Bus, bucket: Bucket, bus_server: BusServer) -> None:
    revision = await bucket.create("k", b"durable")
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.start()
    await connection(bus, up=True)
    assert await bucket.get("k") == Entry("k", b"durable", revision)


async def test_history_holds_the_revisions_of_one_key_oldest_first(bucket: Bucket) -> None:
    first = await bucket.create("a.b", b"1")
    await bucket.put("a.c", b"x")
    second = await bucket.update("a.b", b"2", first)
    assert await bucket.history("a.b") == [Entry("a.b", b"1", first), Entry("a.b", b"2", second)]
    assert await bucket.history("a") == []


async def test_history_is_as_long_as_configured(bus: Bus) -> None:
    bucket = await bus.bucket(BucketConfig("short", history=2))
    for number in range(5):
        await bucket.put("k", b"%d" % number)
    assert [entry.value for entry in await bucket.history("k")] == [b"3", b"4"]


async def test_a_deleted_key_is_absent_and_can_be_created_again(bucket: Bucket) -> None:
    await bucket.create("k", b"1")
    await bucket.delete("k")
    assert await bucket.get("k") is None
    revision = await bucket.create("k", b"2")
    assert await bucket.get("k") == Entry("k", b"2", revision)
    with pytest.raises(RevisionConflict):
        await bucket.create("k", b"3")


async def test_a_purge_of_a_revision_spares_what_was_written_since(bucket: Bucket) -> None:
    old = await bucket.put("k", b"1")
    new = await bucket.put("k", b"2")
    with pytest.raises(RevisionConflict):
        await bucket.purge("k", revision=old)
    assert await bucket.get("k") == Entry("k", b"2", new)
    await bucket.purge("k", revision=new)
    assert await bucket.get("k") is None


async def test_a_purged_key_has_no_history_and_can_be_created_again(bucket: Bucket) -> None:
    await bucket.create("k", b"1")
    await bucket.put("other", b"1")
    await bucket.purge("k")
    assert [entry.value for entry in await bucket.history("k")] == [None]
    assert await bucket.get("other") is not None
    await bucket.create("k", b"2")


@pytest.mark.parametrize("key", ["", "*", "a.*", ">", "a..b", ".a", "a b", "ä", "a/b"])
async def test_what_is_no_key_is_refused(bucket: Bucket, key: str) -> None:
    for call in (bucket.get(key), bucket.put(key, b""), bucket.purge(key), bucket.history(key)):
        with pytest.raises(BusError):
            await call


async def test_commits_are_republished_and_refused_writes_are_not(bus: Bus, bucket: Bucket) -> None:
    inbox = Inbox()
    await bus.subscribe("thing.state.>", inbox)
    revision = await bucket.create("a.b", b"1")
    with pytest.raises(RevisionConflict):
        await bucket.create("a.b", b"refused")
    await bucket.update("a.b", b"2", revision)
    heard = [await inbox.take(), await inbox.take()]
    assert [(message.subject, message.data) for message in heard] == [
        ("thing.state.a.b", b"1"),
        ("thing.state.a.b", b"2"),
    ]


async def test_a_bucket_that_exists_with_other_properties_is_refused_by_name(
    bus: Bus, bucket: Bucket
) -> None:
    with pytest.raises(BusError, match=r"things.*64.*5"):
        await bus.bucket(BucketConfig("things", history=5, republish="thing.state"))


# --- watching ---------------------------------------------------------------------------------------------


async def test_a_watch_of_an_empty_bucket_says_so(bucket: Bucket) -> None:
    async with bucket.watch() as events:
        assert isinstance(await take(events), SnapshotBegin)
        assert await take(events) == SnapshotEnd(0)


async def test_a_snapshot_holds_the_latest_revision_of_what_exists(bucket: Bucket) -> None:
    await bucket.put("gone", b"1")
    await bucket.put("kept", b"1")
    await bucket.delete("gone")
    latest = await bucket.put("kept", b"2")
    async with bucket.watch() as events:
        assert await snapshot(events) == {"kept": Entry("kept", b"2", latest)}


async def test_what_follows_a_snapshot_is_every_revision_in_order(bucket: Bucket) -> None:
    async with bucket.watch() as events:
        await snapshot(events)
        wanted = [Entry(f"k{n % 3}", b"%d" % n, await bucket.put(f"k{n % 3}", b"%d" % n)) for n in range(30)]
        assert [await take(events) for _ in range(30)] == wanted
        await bucket.delete("k0")
        await bucket.purge("k1")
        last = wanted[-1].revision
        assert [await take(events) for _ in range(2)] == [
            Entry("k0", None, last + 1),
            Entry("k1", None, last + 2),
        ]


async def test_a_watch_with_history_begins_with_every_kept_revision_and_goes_on_without_a_gap(
    bus: Bus,
) -> None:
    bucket = await bus.bucket(BucketConfig("told", history=64))
    wanted = [Entry(f"k{n % 5}", b"%d" % n, await bucket.put(f"k{n % 5}", b"%d" % n)) for n in range(60)]
    async with bucket.watch(history=True) as events:
        assert isinstance(await take(events), SnapshotBegin)
        assert [await take(events) for _ in range(60)] == wanted
        assert await take(events) == SnapshotEnd(wanted[-1].revision)
        revision = await bucket.put("k0", b"live")
        assert await take(events) == Entry("k0", b"live", revision)


async def test_a_watch_with_history_is_whole_also_while_somebody_writes(bus: Bus) -> None:
    bucket = await bus.bucket(BucketConfig("told-busy", history=64))

    async def write() -> None:
        for number in range(400):
            await bucket.put(f"k{number % 20}", b"%d" % number)

    writer = asyncio.create_task(write())
    async with bucket.watch(history=True) as events:
        values: list[bytes | None] = []
        while len(values) < 400:
            event = await take(events)
            if isinstance(event, Entry):
                values.append(event.value)
    await writer
    assert values == [b"%d" % number for number in range(400)]


async def test_every_watch_of_a_bucket_names_the_same_epoch_until_it_is_made_anew(
    bus: Bus, bucket: Bucket, bus_server: BusServer
) -> None:
    async def epoch() -> str:
        async with bucket.watch() as events:
            begin = await take(events)
            assert isinstance(begin, SnapshotBegin)
            return begin.epoch

    first = await epoch()
    assert first
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.start()
    await persist(bucket, "kept", b"1")
    assert await epoch() == first
    bus_server.kill()
    await connection(bus, up=False)
    bus_server.wipe()
    bus_server.start()
    await persist(bucket, "new", b"1")
    assert await epoch() != first


async def test_a_snapshot_is_never_short(bucket: Bucket) -> None:
    keys = {f"k{n}" for n in range(50)}
    for key in keys:
        await bucket.put(key, b"x" * 100)
    for _ in range(SNAPSHOTS):
        async with bucket.watch() as events:
            assert set(await snapshot(events)) == keys


@pytest.mark.parametrize("history", [1, 64])
async def test_a_snapshot_is_never_short_while_somebody_writes(bus: Bus, history: int) -> None:
    bucket = await bus.bucket(BucketConfig("busy", history=history))
    keys = {f"k{n}" for n in range(50)}
    for key in keys:
        await bucket.put(key, b"x" * 100)

    async def write() -> None:
        while True:
            for key in sorted(keys):
                await bucket.put(key, b"y" * 100)
                await asyncio.sleep(0)

    writer = asyncio.create_task(write())
    for _ in range(SNAPSHOTS_DURING_WRITES):
        async with bucket.watch() as events:
            assert set(await snapshot(events)) == keys
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_a_watch_misses_nothing_and_repeats_nothing_over_kills_while_somebody_writes(
    bus: Bus, bucket: Bucket, bus_server: BusServer
) -> None:
    keys = [f"k{n}" for n in range(40)]
    seen: list[Entry] = []
    grown = asyncio.Condition()
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            await persist(bucket, keys[number % len(keys)], b"%d" % number)
            number += 1

    async def follow(events: AsyncIterator[WatchEvent]) -> None:
        async for event in events:
            assert isinstance(event, Entry), "the watch had to begin anew"
            async with grown:
                seen.append(event)
                grown.notify_all()

    async def until_seen(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S), grown:
            await grown.wait_for(lambda: len(seen) >= count)

    async with bucket.watch() as events:
        await snapshot(events)
        writer, follower = asyncio.create_task(write()), asyncio.create_task(follow(events))
        for _ in range(RESTARTS):
            await until_seen(len(seen) + 25)
            bus_server.kill()
            await connection(bus, up=False)
            bus_server.start()
            await connection(bus, up=True)
        stop.set()
        await writer
        last = await persist(bucket, "last", b"")
        await until_seen(last)
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    stored = [entry for key in [*keys, "last"] for entry in await bucket.history(key)]
    kept = sorted(stored, key=lambda entry: entry.revision)
    assert seen[-len(kept) :] == kept
    assert [entry.revision for entry in seen] == list(range(1, last + 1))


async def test_a_wiped_server_is_set_up_again_and_watches_begin_anew(
    bus: Bus, bucket: Bucket, bus_server: BusServer
) -> None:
    for number in range(5):
        await bucket.put("old", b"%d" % number)
    async with bucket.watch() as events:
        assert set(await snapshot(events)) == {"old"}
        bus_server.kill()
        await connection(bus, up=False)
        bus_server.wipe()
        bus_server.start()
        await persist(bucket, "new", b"1")
        mirror = await snapshot(events)
        if not mirror:  # the watch was faster than the write
            event = await take(events)
            assert isinstance(event, Entry)
            mirror = {event.key: event}
    assert set(mirror) == {"new"}
    assert await bucket.get("old") is None


async def test_each_of_several_watches_sees_everything(bucket: Bucket) -> None:
    async with bucket.watch() as first, bucket.watch() as second:
        await snapshot(first)
        await snapshot(second)
        revision = await bucket.put("k", b"1")
        assert await take(first) == await take(second) == Entry("k", b"1", revision)


async def test_an_ended_watch_leaves_nothing_on_the_server(bucket: Bucket, bus_server: BusServer) -> None:
    for _ in range(5):
        async with bucket.watch() as events:
            await snapshot(events)
    assert await bus_server.consumers(bucket) == 0


async def test_a_watch_that_was_cancelled_anywhere_leaves_nothing_on_the_server(
    bucket: Bucket, bus_server: BusServer
) -> None:
    async def watch() -> None:
        async with bucket.watch() as events:
            await snapshot(events)

    for turns in range(40):
        watching = asyncio.create_task(watch())
        for _ in range(turns):
            await asyncio.sleep(0.0001)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    # Less than the time after which a server forgets abandoned consumers by itself.
    async with asyncio.timeout(8):
        while await bus_server.consumers(bucket) != 0:  # noqa: ASYNC110 -- a server has no event for it
            await asyncio.sleep(0.01)


async def test_a_cancelled_wait_for_the_next_event_loses_none(bucket: Bucket) -> None:
    async with bucket.watch() as events:
        await snapshot(events)
        for number in range(20):
            waiting = asyncio.create_task(take(events))
            await asyncio.sleep(0)
            write = asyncio.create_task(bucket.put("k", b"%d" % number))
            await asyncio.sleep(0)
            waiting.cancel()
            got = (await asyncio.gather(waiting, return_exceptions=True))[0]
            revision = await write
            event = got if isinstance(got, Entry) else await take(events)
            assert event == Entry("k", b"%d" % number, revision)


async def test_a_cancelled_call_leaves_the_connection_usable(bus: Bus, bucket: Bucket) -> None:
    await bus.subscribe("silent", Inbox())
    for _ in range(20):
        calls = [
            asyncio.create_task(bus.request("silent", b"", timeout=PATIENCE_S)),
            asyncio.create_task(bucket.put("k", b"")),
        ]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
    await bucket.put("k", b"last")
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"last"


async def test_an_entry_that_expires_is_seen_as_deleted(bus: Bus) -> None:
    bucket = await bus.bucket(BucketConfig("brief", ttl_s=1.0))
    async with bucket.watch() as events:
        await snapshot(events)
        revision = await bucket.put("k", b"1")
        assert await take(events) == Entry("k", b"1", revision)
        gone = await take(events)
    assert isinstance(gone, Entry)
    assert (gone.key, gone.value) == ("k", None)
    assert await bucket.get("k") is None
