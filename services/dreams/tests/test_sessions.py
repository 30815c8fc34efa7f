"""Sessions from their start to their end, steered, interrupted, taken over and replayed."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
from msgspec.structs import replace

from reverie_dreams.hosting import MOST_BREAKS
from reverie_dreams.replay import differences
from reverie_dreams.session.drafts import Drafts
from reverie_dreams.session.log import DREAM_LOG, read_log
from reverie_dreams.session.records import DREAMS
from reverie_dreams.strategies.library import load_strategies
from reverie_protocol.dream_control import (
    GuideDream,
    ListDreams,
    RecentDreams,
    ShowDream,
    StartDream,
    StopDream,
    TopDreams,
)
from reverie_protocol.dream_log import Adopted, Guided, Proposed, Pruned, Started, Stopped
from reverie_protocol.dreams import DreamGuidance, DreamPlan, DreamState
from reverie_protocol.jobs import Lane
from reverie_runtime.bus.port import BusUnavailable
from reverie_runtime.clock import SystemClock

PLAN = DreamPlan(prompt="fog", duration_s=600, similarity_threshold=0.0, seed=7, top_k=10, render_interval=5)


async def begun(stage, owner="me", **changes):
    answer = await stage.ask(StartDream(owner=owner, plan=replace(PLAN, **changes), draw_seed=False))
    assert not answer.code, answer.message
    return answer.session


def figures(stage, session):
    states = [event.stats for event in stage.states if event.session_id == session.id]
    return states[-1] if states else None


async def scored(stage, session, count):
    await stage.until(lambda: (stats := figures(stage, session)) and stats.scored >= count)


async def over(stage, session):
    ends = (DreamState.STOPPED, DreamState.FINISHED, DreamState.FAILED)
    return await stage.until(
        lambda: next((e for e in stage.states if e.session_id == session.id and e.state in ends), None)
    )


async def logged(stage, session):
    entries, _ = await read_log(await stage.bus.bucket(DREAM_LOG), session.id)
    return entries, [event for entry in entries for event in entry.events]


async def test_a_session_dreams_keeps_its_best_and_renders_them_when_it_is_stopped(stage):
    async with stage.dreams():
        session = await begun(stage)
        await scored(stage, session, 12)
        assert stage.finds[0].session_id == session.id
        assert stage.finds[0].candidate.thumbnail_url.endswith("?thumbnail=256")
        stopped = (await stage.ask(StopDream(owner="me"))).session
        assert stopped.state is DreamState.STOPPING
        assert (await over(stage, session)).state is DreamState.STOPPED

        top = await stage.ask(TopDreams(owner="me", limit=100))
        assert 1 <= len(top.candidates) <= PLAN.top_k
        assert all(candidate.rendered for candidate in top.candidates)
        fitness = [candidate.fitness for candidate in top.candidates]
        assert fitness == sorted(fitness, reverse=True)
        for candidate in top.candidates:
            assert await stage.storage.stat(candidate.url.rpartition("/")[2])
        recent = await stage.ask(RecentDreams(owner="me", limit=3, offset=1))
        ids = [candidate.id for candidate in recent.candidates]
        assert ids == sorted(ids, reverse=True)
        assert recent.total >= 12

        lanes = {job.priority for job in stage.worker.made if "-r" not in job.id}
        assert lanes == {Lane.BACKGROUND}
        assert {job.session for job in stage.worker.made} == {session.id}
        drafts = [job for job in stage.worker.made if "-r" not in job.id]
        assert all((job.params.size, job.params.num_inference_steps) == ("64x64", 6) for job in drafts)
        assert all(job.params.size is None for job in stage.worker.made if "-r" in job.id)
        # A draft and its full picture are the same here; the rest goes, and so do all the jobs.
        kept = {candidate.url.rpartition("/")[2] for candidate in top.candidates}
        async with asyncio.timeout(20):
            while {found.key async for found in stage.storage.objects()} != kept or len(stage.worker.mirror):
                await asyncio.sleep(0.05)


async def test_a_session_ends_by_itself_when_its_time_is_over(stage):
    async with stage.dreams():
        session = await begun(stage, duration_s=3.6)
        assert (await over(stage, session)).state is DreamState.FINISHED
        assert (await stage.ask(ShowDream(owner="me"))).session.state is DreamState.FINISHED


async def test_a_guide_is_in_force_at_once_and_drops_what_does_not_fit_any_more(stage):
    async with stage.dreams():
        session = await begun(stage)
        await scored(stage, session, 3)
        stage.worker.gate.clear()
        await stage.until(lambda: figures(stage, session).in_flight and stage.worker.mirror.queued)
        liked = (await stage.ask(TopDreams(owner="me"))).candidates[0].id
        guidance = DreamGuidance(prompt="sun", strategy="evolutionary", temperature=0.9, more_like=(liked,))
        answer = await stage.ask(GuideDream(owner="me", guidance=guidance))
        assert (answer.session.guidance.prompt, answer.session.guidance.more_like) == ("sun", (liked,))
        stage.worker.gate.set()
        await scored(stage, session, answer.session.stats.scored + 6)
        _, events = await logged(stage, session)
        at = next(i for i, event in enumerate(events) if isinstance(event, Guided))
        later = [event for event in events[at:] if isinstance(event, Proposed)]
        assert all(event.params.prompt.startswith("sun") for event in later)
        assert {event.strategy for event in later} == {"evolutionary"}
        assert not [
            event for event in events[:at] if isinstance(event, Proposed) and "sun" in event.params.prompt
        ]
        assert figures(stage, session).dropped >= 1


async def test_what_a_guide_names_must_be_there_and_the_session_must_dream(stage):
    async with stage.dreams():
        session = await begun(stage)
        for guidance in (DreamGuidance(more_like=(999,)), DreamGuidance(strategy="sleepwalk")):
            assert (await stage.ask(GuideDream(owner="me", guidance=guidance))).code == "invalid_field"
        await stage.ask(StopDream(owner="me"))
        await stage.ask(StopDream(owner="me"))
        await over(stage, session)
        refused = await stage.ask(GuideDream(owner="me", guidance=DreamGuidance(temperature=0.1)))
        assert refused.code == "session_over"


async def test_a_session_is_its_owners_and_one_at_a_time(stage):
    async with stage.dreams():
        session = await begun(stage)
        again = await stage.ask(StartDream(owner="me", plan=PLAN))
        assert again.code == "already_dreaming"
        assert session.id in again.message
        unknown = await stage.ask(StartDream(owner="they", plan=DreamPlan(prompt="x", strategy="sleepwalk")))
        assert (unknown.code, unknown.fields[0].loc) == ("invalid_field", ("strategy",))
        assert "slerp" in unknown.message
        for request in (ShowDream, StopDream, TopDreams, RecentDreams):
            theirs = await stage.ask(request(owner="they", session_id=session.id))
            absent = await stage.ask(request(owner="they", session_id="0" * 16))
            assert theirs == absent
            assert theirs.code == "session_not_found"
        assert (await stage.ask(ShowDream(owner="root", admin=True, session_id=session.id))).session
        assert (await stage.ask(ListDreams(owner="they"))).total == 0
        assert (await stage.ask(ListDreams(owner="root", admin=True))).total == 1


async def test_another_process_goes_on_with_a_session_and_the_replay_makes_the_same_candidates(stage):
    async with stage.dreams(name="one"):
        session = await begun(stage, strategy="evolutionary")
        await scored(stage, session, 6)
    # Its process is gone for good; the other has another name, and waits for the first one's heartbeat to expire.
    before, _ = await logged(stage, session)
    async with stage.dreams(name="two"):
        await stage.until(lambda: figures(stage, session).scored >= 14)
        await stage.ask(StopDream(owner="me"))
        await over(stage, session)
    entries, events = await logged(stage, session)
    assert entries[: len(before)] == before
    assert len({entry.host.partition(".")[0] for entry in entries}) == 2
    numbers = [event.id for event in events if isinstance(event, Proposed)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Stopped)
    assert differences(entries, load_strategies()) == []


async def test_a_process_that_was_superseded_decides_nothing_more(stage):
    async with stage.dreams(name="one") as one:
        session = await begun(stage)
        await scored(stage, session, 3)
        stage.worker.gate.clear()
        async with stage.dreams(name="two") as two:
            await two._store.apply(session.id, lambda held: replace(held, host=two.key))
            await two.take(session.id)
            stage.worker.gate.set()
            async with asyncio.timeout(60):
                while session.id in one.actors:
                    await asyncio.sleep(0.05)
            await stage.until(lambda: figures(stage, session).scored >= 10)
            entries, _ = await logged(stage, session)
            took = next(i for i, entry in enumerate(entries) if entry.host == two.key)
            assert {entry.host for entry in entries[took:]} == {two.key}


async def test_an_adoption_and_a_request_that_want_a_session_at_once_make_one_actor_of_it(stage):
    async with stage.dreams(name="one"):
        session = await begun(stage)
        await scored(stage, session, 3)
    async with stage.dreams(name="two") as two:
        actors = await asyncio.gather(*(two.take(session.id) for _ in range(3)))
        assert {id(actor) for actor in actors} == {id(two.actors[session.id])}
        await stage.until(lambda: figures(stage, session).scored >= 6)
        _, events = await logged(stage, session)
        assert sum(isinstance(event, Adopted) and event.host == two.key for event in events) == 1


async def test_a_session_whose_log_cannot_be_read_keeps_nobody_else_waiting(stage):
    async with stage.dreams(name="one"):
        session = await begun(stage)
        await scored(stage, session, 3)
    records, log = await stage.bus.bucket(DREAMS), await stage.bus.bucket(DREAM_LOG)
    unreadable = replace(session, id="0" * 16, owner="they", host="one.gone")
    await log.put(unreadable.id, b"{")
    await records.put(unreadable.id, msgspec.json.encode(unreadable))
    async with stage.dreams(name="one") as one:
        assert list(one.actors) == [session.id]


async def test_a_session_outlasts_any_number_of_failures_of_the_bus(stage):
    async with stage.dreams() as hosting:
        session = await begun(stage)
        for _ in range(MOST_BREAKS + 1):
            await stage.until(lambda: session.id in hosting.actors)
            actor = hosting.actors[session.id]
            await scored(stage, session, 1)
            actor._strategies = Away()
            actor._wake.set()
            async with asyncio.timeout(60):
                while hosting.actors.get(session.id) in (actor, None):
                    await asyncio.sleep(0.02)
        assert hosting.actors[session.id].search.state is DreamState.DREAMING


class Away(dict):
    """In place of the strategies: what a turn meets when the bus goes away in the middle of it."""

    def get(self, name, default=None):
        raise BusUnavailable("gone")


async def test_a_picture_is_waited_for_while_the_store_is_away(stage):
    key = await stage.storage.put(b"picture", content_type="image/png")
    drafts = Drafts(stage.bus, None, None, stage.storage, clock=SystemClock())
    away = stage.folder.with_name("away")
    stage.folder.rename(away)
    stage.folder.write_text("no folder")
    reading = asyncio.create_task(drafts.picture(key))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.shield(reading)
    assert not reading.done()
    stage.folder.unlink()
    away.rename(stage.folder)
    async with asyncio.timeout(60):
        assert await reading == b"picture"


class Broken:
    def propose(self, search, rng):
        raise RuntimeError("a fault of the plug-in")


async def test_a_strategy_that_breaks_again_and_again_ends_the_session(stage):
    async with stage.dreams() as hosting:
        hosting.strategies["broken"] = Broken()
        session = await begun(stage, strategy="broken")
        assert (await over(stage, session)).state is DreamState.FAILED
        shown = (await stage.ask(ShowDream(owner="me"))).session
        assert "broke again" in shown.error
        assert (await begun(stage)).id != session.id


async def test_two_starts_at_once_begin_one_session(stage):
    async with stage.dreams():
        answers = await asyncio.gather(*(stage.ask(StartDream(owner="me", plan=PLAN)) for _ in range(4)))
        assert sorted(answer.code for answer in answers) == ["", *["already_dreaming"] * 3]


async def test_nats_may_be_killed_while_it_dreams(stage):
    async with stage.dreams():
        session = await begun(stage)
        await scored(stage, session, 3)
        stage.server.kill()
        stage.server.start()
        seen = figures(stage, session).scored
        await stage.until(lambda: figures(stage, session).scored >= seen + 6)
        _, events = await logged(stage, session)
        numbers = [event.id for event in events if isinstance(event, Proposed)]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_drafts_that_look_bad_half_way_are_given_up(stage):
    stage.worker.preview = True
    async with stage.dreams():
        session = await begun(stage)
        await stage.until(lambda: (stats := figures(stage, session)) and stats.pruned >= 3)
        _, events = await logged(stage, session)
        pruned = [event for event in events if isinstance(event, Pruned)]
        assert all(event.progress == 0.5 for event in pruned)
        assert figures(stage, session).scored >= 8
