"""A prompt becomes a picture, whichever way it comes in."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from reverie_protocol.preview import decode_preview
from reverie_testing.product import Product

PROMPT = "a red circle on a blue background"


async def receive_until(socket: ClientConnection, *types: str) -> list[dict[str, Any]]:
    """Text messages up to and with the first of one of these types."""
    seen = []
    async with asyncio.timeout(60):
        while True:
            frame = await socket.recv()
            if isinstance(frame, str):
                seen.append(json.loads(frame))
                if seen[-1]["type"] in types:
                    return seen


def test_post_generate_answers_with_a_png_of_the_default_size_and_says_how_it_was_made(
    product: Product,
) -> None:
    answer = httpx.post(f"{product.url}/generate", json={"prompt": PROMPT, "seed": 7}, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "7"
    assert answer.headers["x-superres"] == "0"
    assert answer.headers["cache-control"] == "no-store"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (256, 256)
    assert PROMPT in picture.info["parameters"]
    assert "Seed: 7" in picture.info["parameters"]
    stored = httpx.get(f"{product.url}/storage/{answer.headers['x-lcm-image-key']}")
    assert stored.content == answer.content


def test_the_same_seed_makes_the_same_picture_and_another_seed_another(product: Product) -> None:
    def make(seed: int) -> str:
        body = {"prompt": PROMPT, "seed": seed, "size": "64x64"}
        answer = httpx.post(f"{product.url}/generate", json=body, timeout=60)
        return answer.headers["x-lcm-image-key"]

    assert make(1) == make(1) != make(2)


def test_super_resolution_on_request_enlarges_and_is_named_in_the_headers(product: Product) -> None:
    body = {"prompt": PROMPT, "size": "64x64", "superres": True, "superres_magnitude": 1}
    body |= {"superres_format": "jpeg"}
    answer = httpx.post(f"{product.url}/generate", json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-superres"] == "1"
    assert answer.headers["x-sr-passes"] == "1"
    scale = int(answer.headers["x-sr-scale-per-pass"])
    assert Image.open(io.BytesIO(answer.content)).size == (64 * scale, 64 * scale)


async def test_a_websocket_client_hears_ack_then_progress_then_complete(product: Product) -> None:
    async with connect(product.ws_url) as socket:
        first = await receive_until(socket, "system:status")
        assert first[0]["type"] == "system:status"
        assert {"mode", "vram", "storage", "queueState"} <= first[0].keys()
        submit = {"type": "job:submit", "id": "mine", "jobType": "generate", "prompt": PROMPT}
        await socket.send(json.dumps({**submit, "seed": 11}))
        seen = await receive_until(socket, "job:complete", "job:error")
    own = [message for message in seen if not message["type"].startswith(("system:", "queue:"))]
    assert (own[0]["type"], own[0]["id"]) == ("job:ack", "mine")
    job_id = own[0]["jobId"]
    done = own[-1]
    assert (done["type"], done["jobId"]) == ("job:complete", job_id)
    assert done["meta"]["seed"] == 11
    assert "backend" in done["meta"]
    assert "sr" in done["meta"]
    progress = [message["progress"] for message in own if message["type"] == "job:progress"]
    assert progress == sorted(progress)
    picture = httpx.get(product.url + done["outputs"][0]["url"])
    assert Image.open(io.BytesIO(picture.content)).size == (256, 256)
    assert product.job(job_id)["outputs"][0]["key"] == done["outputs"][0]["key"]


async def test_previews_come_as_binary_frames_only_to_the_socket_that_asked(product: Product) -> None:
    async with connect(product.ws_url) as asking, connect(product.ws_url) as silent:
        submit = {"type": "job:submit", "jobType": "generate", "prompt": PROMPT, "previews": True}
        await asking.send(json.dumps({**submit, "num_inference_steps": 100, "size": "64x64"}))
        job_id, frames, done = "", [], False
        async with asyncio.timeout(60):
            while not done:
                frame = await asking.recv()
                if isinstance(frame, bytes):
                    frames.append(decode_preview(frame))
                    continue
                message = json.loads(frame)
                job_id = message["jobId"] if message["type"] == "job:ack" else job_id
                done = message["type"] in ("job:complete", "job:error")
        others = await receive_until_raw(silent, job_id)
    assert frames
    header, picture = frames[0]
    assert header.job_id == job_id
    assert Image.open(io.BytesIO(picture)).size == (header.width, header.height)
    assert not [frame for frame in others if isinstance(frame, bytes)]


async def receive_until_raw(socket: ClientConnection, job_id: str) -> list[str | bytes]:
    """All frames up to the end of this job."""
    seen: list[str | bytes] = []
    async with asyncio.timeout(60):
        while True:
            frame = await socket.recv()
            seen.append(frame)
            if isinstance(frame, str):
                message = json.loads(frame)
                if message["type"] == "job:complete" and message["jobId"] == job_id:
                    return seen


async def test_a_cancel_stops_a_running_job_at_its_next_step(product: Product) -> None:
    async with connect(product.ws_url) as socket:
        submit = {"type": "job:submit", "jobType": "generate", "prompt": PROMPT}
        await socket.send(json.dumps({**submit, "num_inference_steps": 100, "size": "64x64"}))
        seen = await receive_until(socket, "job:progress")
        job_id = seen[-1]["jobId"]
        await socket.send(json.dumps({"type": "job:cancel", "id": 5, "jobId": job_id}))
        seen += await receive_until(socket, "job:error", "job:complete")
    ended = seen[-1]
    assert (ended["type"], ended["code"], ended["state"]) == ("job:error", "cancelled", "cancelled")
    confirmed = [message for message in seen if message["type"] == "job:cancel:ok"]
    assert [message["id"] for message in confirmed] == [5]
    assert product.job(job_id)["state"] == "cancelled"
    steps = [message["step"] for message in seen if message["type"] == "job:progress"]
    assert max(steps) < 100
