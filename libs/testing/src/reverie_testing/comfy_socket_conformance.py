"""What a ComfyUI tells whom on its sockets; imported by a test module beside `comfy_conformance`."""

# ruff: noqa: D103 -- these are tests: their names are the sentences

from __future__ import annotations

import asyncio
import json
import struct
import uuid

import pytest

from reverie_testing.comfy_client import PATIENCE_S, Comfy, loop_graph, node, picture_graph, unique
from reverie_testing.comfy_conformance import needs


async def test_a_socket_is_greeted_with_the_queue_and_its_id(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client, flags=False) as sock:
        kind, data = sock.frames[0]
        assert kind == "status"
        assert data == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client}
    async with comfy.socket(None, flags=False) as sock:
        assert sock.frames[0][1]["sid"]


async def test_flags_are_answered_with_the_servers_own_by_versions_that_have_some(comfy: Comfy) -> None:
    async with comfy.socket(uuid.uuid4().hex) as sock:
        flags = [data for kind, data in sock.frames if kind == "feature_flags"]
    assert len(flags) == comfy.features.progress_state
    if flags:
        assert flags[0]["supports_preview_metadata"] is True


async def test_a_protocol_ping_is_answered(comfy: Comfy) -> None:
    async with comfy.socket(uuid.uuid4().hex) as sock, asyncio.timeout(PATIENCE_S):
        await (await sock.connection.ping())


async def test_previews_name_their_node_only_for_those_who_can_read_it(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    for flags in (True, False):
        async with comfy.socket(client, flags=flags) as sock:
            prompt_id = await comfy.submit(loop_graph(3, 30, "JPEG"), client)
            await sock.end_of(prompt_id)
            binary = [(kind, data) for kind, data in sock.frames if kind.startswith("binary")]
        named = flags and comfy.features.progress_state
        assert [kind for kind, _ in binary] == ["binary 4" if named else "binary 1"] * 3
        [length] = struct.unpack(">I", binary[0][1][:4])
        if named:
            metadata = json.loads(binary[0][1][4 : 4 + length])
            assert metadata == {
                "node_id": "1",
                "prompt_id": prompt_id,
                "display_node_id": "1",
                "parent_node_id": None,
                "real_node_id": "1",
                "image_type": "image/jpeg",
            }
            assert binary[0][1][4 + length :].startswith(b"\xff\xd8\xff")
        else:
            assert length == 1
            assert binary[0][1][4:].startswith(b"\xff\xd8\xff")


async def test_a_preview_comes_before_its_progress_with_a_name_and_after_it_without(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    for flags in (True, False):
        async with comfy.socket(client, flags=flags) as sock:
            await sock.end_of(await comfy.submit(loop_graph(2, 30, "PNG"), client))
            told = [kind for kind in sock.kinds() if kind == "progress" or kind.startswith("binary")]
        if flags and comfy.features.progress_state:
            assert told == ["binary 4", "progress"] * 2
        else:
            assert told == ["progress", "binary 1"] * 2


async def test_text_about_a_node_is_a_binary_frame_of_its_own(comfy: Comfy) -> None:
    needs(comfy.features.text_frames, "text frames")
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        await sock.end_of(await comfy.submit(loop_graph(2, 20, text=True), client))
        texts = [data for kind, data in sock.frames if kind == "binary 3"]
    assert texts == [b"\x00\x00\x00\x011step 1/2", b"\x00\x00\x00\x011step 2/2"]


async def test_pictures_for_the_socket_are_told_only_there(comfy: Comfy) -> None:
    if "SaveImageWebsocket" not in comfy.classes:
        pytest.skip("the server lacks SaveImageWebsocket")
    graph = {
        "1": node("EmptyImage", width=16, height=16, batch_size=2, color=unique()),
        "2": node("SaveImageWebsocket", images=["1", 0]),
    }
    client = uuid.uuid4().hex
    async with comfy.socket(client, flags=False) as sock:
        prompt_id = await comfy.submit(graph, client)
        await sock.end_of(prompt_id)
        pictures = [data for kind, data in sock.frames if kind == "binary 1"]
    assert [data[:8] for data in pictures] == [b"\x00\x00\x00\x02\x89PNG"] * 2
    entry = await comfy.history(prompt_id)
    assert entry["outputs"] == {}
    assert entry["status"]["completed"] is True


async def test_a_prompt_is_told_to_its_owner_and_the_queue_to_all(comfy: Comfy) -> None:
    owner, other = uuid.uuid4().hex, uuid.uuid4().hex
    async with comfy.socket(owner) as mine, comfy.socket(other) as theirs:
        prompt_id = await comfy.submit(loop_graph(3, 20, "JPEG"), owner)
        assert await mine.end_of(prompt_id)
        await theirs.statuses(4)
        heard = {kind for kind in theirs.kinds() if kind not in ("status", "feature_flags")}
    assert heard == ({"progress_state"} if comfy.features.progress_state_to_all else set())


async def test_progress_of_a_prompt_without_owner_goes_to_all_and_its_end_to_none(comfy: Comfy) -> None:
    async with comfy.socket(uuid.uuid4().hex) as first, comfy.socket(None) as second:
        prompt_id = await comfy.submit(loop_graph(2, 30, "JPEG"))
        for sock in (first, second):
            await sock.statuses(4)
            about = {kind for kind, _ in sock.about(prompt_id)}
            assert about - {"progress_state"} == {"progress"}
            assert "binary 1" in sock.kinds()
    assert (await comfy.history(prompt_id))["status"]["completed"] is True


async def test_the_interruption_of_a_prompt_without_owner_is_told_to_all(comfy: Comfy) -> None:
    async with comfy.socket(uuid.uuid4().hex) as sock:
        prompt_id = await comfy.submit(loop_graph(500, 20, "JPEG"))
        await sock.until(lambda frame: frame[0] == "progress")
        await comfy.post("/interrupt", {"prompt_id": prompt_id})
        await sock.until(lambda frame: frame[0] == "execution_interrupted")


async def test_what_is_told_to_an_owner_who_is_away_is_lost(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    prompt_id = await comfy.submit(picture_graph(), client)
    await comfy.idle()
    async with comfy.socket(client) as sock:
        await sock.end_of(await comfy.submit(picture_graph(), client))
        assert sock.about(prompt_id) == []


async def test_who_comes_back_in_the_middle_hears_which_node_runs_but_not_of_which_prompt(
    comfy: Comfy,
) -> None:
    client = uuid.uuid4().hex
    async with comfy.socket(client) as sock:
        prompt_id = await comfy.submit(loop_graph(60, 20, "JPEG"), client)
        await sock.until(lambda frame: frame[0] == "progress")
    async with comfy.socket(client) as sock:
        told = await sock.until(lambda frame: frame[0] == "executing")
        assert told[1] == {"node": "1"}
        frames = await sock.end_of(prompt_id)
        kinds = {kind for kind, _ in frames}
    assert "execution_start" not in kinds
    if comfy.features.progress_state:
        assert {"progress_state", "progress", "executed", "execution_success"} <= kinds


async def test_the_second_socket_of_a_client_goes_deaf_when_the_first_one_closes(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    first = await comfy.connect(client)
    async with comfy.socket(client) as second:
        await first.close()
        async with comfy.socket(uuid.uuid4().hex) as witness:
            count = len(second.frames)
            prompt_id = await comfy.submit(loop_graph(2), client)
            await witness.statuses(4)
        async with asyncio.timeout(PATIENCE_S):
            await (await second.connection.ping())
        assert second.frames[count:] == []
    assert (await comfy.history(prompt_id))["status"]["completed"] is True


async def test_a_socket_that_opens_after_the_old_one_closed_hears_everything(comfy: Comfy) -> None:
    client = uuid.uuid4().hex
    for _ in range(3):
        async with comfy.socket(client) as sock:
            frames = await sock.end_of(await comfy.submit(picture_graph(), client))
            assert frames[0][0] == "execution_start"


async def test_a_client_that_does_not_read_keeps_events_from_all_others_but_not_answers(comfy: Comfy) -> None:
    slow, fast = uuid.uuid4().hex, uuid.uuid4().hex
    async with comfy.socket(fast) as watching:
        sleeper = await comfy.connect(slow)
        sleeper.connection.transport.pause_reading()
        # Each preview is about 1 MB: the buffers on the way are full after a few.
        graph = loop_graph(24, 1, "PNG", noise=True)
        graph["1"]["inputs"]["size"] = 640
        first = await comfy.submit(graph, slow)
        second = await comfy.submit(picture_graph(), fast)
        await comfy.idle()
        for prompt_id in (first, second):
            assert (await comfy.history(prompt_id))["status"]["completed"] is True
        assert watching.about(second) == []
        sleeper.connection.transport.resume_reading()
        await watching.end_of(second)
        await sleeper.close()
