"""What can be broken in the fake ComfyUI breaks as it was recorded to break."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest

from reverie_testing.comfy_client import PATIENCE_S, Comfy, comfy_at, loop_graph, picture_graph
from reverie_testing.fake_comfy import FakeComfy, Storm


@pytest.fixture
async def fake() -> AsyncIterator[FakeComfy]:
    async with FakeComfy(pace=0.2) as fake:
        yield fake


@pytest.fixture
async def comfy(fake: FakeComfy) -> AsyncIterator[Comfy]:
    async with comfy_at(fake.url) as comfy:
        yield comfy


async def test_a_killed_worker_keeps_its_prompt_for_ever(fake: FakeComfy, comfy: Comfy) -> None:
    async with comfy.socket("me") as sock:
        stuck = await comfy.submit(loop_graph(1000), "me")
        await sock.until(lambda frame: frame[0] == "progress")
        fake.kill_worker()
        never = await comfy.submit(picture_graph(), "me")
        await comfy.post("/interrupt", {"prompt_id": stuck})
        await sock.statuses(4)
        assert await comfy.queue() == ([stuck], [never])
    await fake.restart()
    assert fake.starts == 2
    _, entry = await comfy.run(picture_graph())
    assert entry["status"]["completed"] is True


async def test_the_history_can_come_later_than_the_success_but_not_than_the_end(
    fake: FakeComfy, comfy: Comfy
) -> None:
    fake.faults.history_delay_s = 0.2
    async with comfy.socket("me") as sock:
        prompt_id = await comfy.submit(picture_graph(), "me")
        await sock.until(lambda frame: frame[0] == "execution_success")
        assert await comfy.get(f"/history/{prompt_id}") == {}
        await sock.end_of(prompt_id)
        assert await comfy.history(prompt_id)


async def test_an_interrupt_can_be_lost_though_it_is_answered(fake: FakeComfy, comfy: Comfy) -> None:
    fake.faults.lost_interrupts = 1
    async with comfy.socket("me") as sock:
        prompt_id = await comfy.submit(loop_graph(1000, 10), "me")
        await sock.until(lambda frame: frame[0] == "progress")
        assert (await comfy.post("/interrupt", {"prompt_id": prompt_id})).status_code == 200
        count = len(sock.about(prompt_id))
        await sock.until(lambda _: len(sock.about(prompt_id)) > count + 4)
        await comfy.post("/interrupt", {"prompt_id": prompt_id})
        await sock.end_of(prompt_id)
    assert fake.ended == [(prompt_id, "interrupted")]


async def test_a_submission_can_fail_or_be_told_as_failed_or_not_be_answered(
    fake: FakeComfy, comfy: Comfy
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    fake.faults.refused_posts = 1
    body = {"prompt": picture_graph(), "prompt_id": ids[0]}
    assert (await comfy.post("/prompt", body)).status_code == 500
    fake.faults.misreported_posts = 1
    body = {"prompt": picture_graph(), "prompt_id": ids[1]}
    assert (await comfy.post("/prompt", body)).status_code == 500
    fake.faults.unanswered_posts = 1
    body = {"prompt": picture_graph(), "prompt_id": ids[2]}
    with pytest.raises(httpx.TransportError):
        await comfy.post("/prompt", body)
    await comfy.idle()
    assert fake.ended == [(ids[1], "success"), (ids[2], "success")]


async def test_answers_can_be_held_up(fake: FakeComfy, comfy: Comfy) -> None:
    fake.faults.stall(lambda request: request.path == "/queue")
    asking = asyncio.create_task(comfy.queue())
    for _ in range(5):
        await comfy.get("/prompt")
    assert not asking.done()
    fake.faults.release()
    assert await asking == ([], [])


async def test_frames_can_be_lost_doubled_late_and_out_of_order(fake: FakeComfy, comfy: Comfy) -> None:
    frames = fake.faults.frames
    frames.only = lambda frame: isinstance(frame, str) and '"progress"' in frame
    heard = []
    for chances in ({"drop": 1.0}, {"duplicate": 1.0}, {"reorder": 0.5}, {"delay": 1.0}):
        frames.drop, frames.duplicate, frames.reorder, frames.delay = (
            chances.get(name, 0.0) for name in ("drop", "duplicate", "reorder", "delay")
        )
        async with comfy.socket("me") as sock:
            await sock.end_of(await comfy.submit(loop_graph(6, 20, "JPEG"), "me"))
            if "delay" in chances:
                await sock.until(lambda _, sock=sock: sock.kinds().count("progress") == 6)
            heard.append([data["value"] for kind, data in sock.frames if kind == "progress"])
            assert sock.kinds().count("binary 4") == 6
    lost, doubled, swapped, late = heard
    assert lost == []
    assert doubled == [value for value in range(1, 7) for _ in range(2)]
    assert sorted(swapped) == sorted(late) == [1, 2, 3, 4, 5, 6]


async def test_a_cached_run_names_a_file_that_may_be_gone(fake: FakeComfy, comfy: Comfy) -> None:
    graph = picture_graph()
    await comfy.run(graph)
    assert fake.delete_outputs() == 1
    _, entry = await comfy.run(graph)
    assert [response.status_code for response in await comfy.files(entry)] == [404]


async def test_who_came_back_goes_deaf_when_the_end_of_its_half_open_link_is_noticed(
    fake: FakeComfy, comfy: Comfy
) -> None:
    old = await comfy.connect("me")
    fake.freeze_sockets()
    old.connection.transport.abort()
    async with comfy.socket("me") as new, comfy.socket("witness") as witness:
        await new.end_of(await comfy.submit(picture_graph(), "me"))
        fake.thaw_sockets()
        await witness.connection.ping()
        count = len(new.frames)
        prompt_id = await comfy.submit(picture_graph(), "me")
        await comfy.idle()
        await witness.statuses(7)
        async with asyncio.timeout(PATIENCE_S):
            await (await new.connection.ping())
        assert new.frames[count:] == []
        assert await comfy.history(prompt_id)


async def test_sockets_can_be_dropped_closed_and_deafened(fake: FakeComfy, comfy: Comfy) -> None:
    async with comfy.socket("a") as sock:
        fake.abort_sockets()
        await sock.connection.wait_closed()
        assert sock.connection.close_code == 1006
    async with comfy.socket("b") as sock:
        await fake.close_sockets(1001)
        await sock.connection.wait_closed()
        assert sock.connection.close_code == 1001
    async with comfy.socket("c") as sock:
        fake.deafen()
        count = len(sock.frames)
        await comfy.submit(picture_graph(), "c")
        await comfy.idle()
        async with asyncio.timeout(PATIENCE_S):
            await (await sock.connection.ping())
        assert sock.frames[count:] == []


async def test_events_can_be_held_up_while_answers_go_on(fake: FakeComfy, comfy: Comfy) -> None:
    async with comfy.socket("me") as sock:
        fake.freeze_events()
        prompt_id = await comfy.submit(picture_graph(), "me")
        await comfy.idle()
        assert await comfy.history(prompt_id)
        assert sock.about(prompt_id) == []
        fake.thaw_events()
        await sock.end_of(prompt_id)


async def test_a_storm_is_the_same_for_the_same_seed_and_leaves_a_healthy_server(
    fake: FakeComfy, comfy: Comfy
) -> None:
    drawn = []
    for _ in range(2):
        storm = Storm(7, every_s=0.01, for_s=0.01)
        async with storm.over(fake), asyncio.timeout(PATIENCE_S):
            while len(storm.happened) < 30:
                await asyncio.sleep(0.01)
        drawn.append(storm.happened[:30])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 5
    await comfy.run(picture_graph())


async def test_a_storm_fakes_no_result(fake: FakeComfy, comfy: Comfy) -> None:
    """Under faults too, what the history says has ended did end, and once."""
    ids = [str(uuid.uuid4()) for _ in range(40)]
    seen: set[str] = set()
    async with Storm(3, every_s=0.05, for_s=0.05).over(fake):
        for prompt_id in ids:
            body = {"prompt": picture_graph(), "prompt_id": prompt_id, "client_id": "me"}
            try:
                async with asyncio.timeout(1):
                    await comfy.post("/prompt", body)
                    seen |= set(await comfy.get("/history"))
            except (httpx.TransportError, TimeoutError):
                continue
    ended = [prompt_id for prompt_id, _ in fake.ended]
    assert len(ended) == len(set(ended))
    assert seen <= set(ended) <= set(ids)


async def test_the_fake_runs_as_a_program_whose_faults_are_asked_for_by_http() -> None:
    command = (sys.executable, "-m", "reverie_testing.fake_comfy", "--port", "0", "--version", "0.3.43")
    program = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert program.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await program.stdout.readline()).decode()
        assert "fake ComfyUI 0.3.43 on http://" in line
        async with comfy_at(line.split()[-1]) as comfy:
            assert comfy.features.version == "0.3.43"
            faults = {"refused_posts": 1, "frames": {"drop": 1.0}}
            assert (await comfy.post("/fake/faults", faults)).status_code == 200
            assert (await comfy.post("/prompt", {"prompt": picture_graph()})).status_code == 500
            assert (await comfy.post("/fake/faults", {"nothing": 1})).status_code == 400
            assert (await comfy.post("/fake/nothing")).status_code == 400
            prompt_id = await comfy.submit(picture_graph())
            await comfy.idle()
            log = {"starts": 1, "ended": [[prompt_id, "success"]]}
            assert await comfy.get("/fake/log") == log
            await comfy.post("/fake/restart", {"away_s": 0})
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        if (await comfy.get("/fake/log"))["starts"] == 2:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.01)
    finally:
        program.kill()
        await program.wait()
