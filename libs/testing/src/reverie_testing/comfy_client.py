"""A plain client of a ComfyUI, real or fake, and the graphs that its tests submit."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import struct
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from reverie_testing.fake_comfy.features import Features, features_of

#: Generous: a test that waits this long has failed.
PATIENCE_S = 60.0
Graph = dict[str, dict[str, Any]]
#: One frame: (kind, data) with the type's name, or "binary 1" and so on for binary frames.
Frame = tuple[str, Any]

_unique = itertools.count(int(uuid.uuid4().int % 2**31))


def unique() -> int:
    """A number that no other test uses as a seed or colour, so that nothing is found in a cache."""
    return next(_unique) % 2**24


@dataclass
class Sock:
    """One WebSocket and what came on it."""

    connection: ClientConnection
    frames: list[Frame] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        self._reader = asyncio.create_task(self._read())

    async def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The first frame like this, among those that came and that will come."""
        seen = 0
        async with asyncio.timeout(PATIENCE_S), self._changed:
            while True:
                for frame in self.frames[seen:]:
                    if wanted(frame):
                        return frame
                seen = len(self.frames)
                await self._changed.wait()

    async def end_of(self, prompt_id: str) -> list[Frame]:
        """All frames about a prompt, once its end was told."""
        await self.until(lambda frame: is_end(frame, prompt_id))
        return self.about(prompt_id)

    async def statuses(self, count: int) -> None:
        """Wait until so many were told: one at the start, and three in the life of a prompt."""
        await self.until(lambda _: self.kinds().count("status") >= count)

    def about(self, prompt_id: str) -> list[Frame]:
        """The text frames about a prompt that came so far."""
        return [
            frame
            for frame in self.frames
            if isinstance(frame[1], dict) and frame[1].get("prompt_id") == prompt_id
        ]

    def kinds(self) -> list[str]:
        """The types of what came so far."""
        return [kind for kind, _ in self.frames]

    async def close(self) -> None:
        """Close it and stop reading."""
        await self.connection.close()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                async with self._changed:
                    self.frames.append(read_frame(message))
                    self._changed.notify_all()
        except ConnectionClosed:
            pass


def read_frame(message: str | bytes) -> Frame:
    """A frame as (type, data); binary ones as (number, bytes after it)."""
    if isinstance(message, str):
        text = json.loads(message)
        return text["type"], text["data"]
    [number] = struct.unpack(">I", message[:4])
    return f"binary {number}", message[4:]


def is_end(frame: Frame, prompt_id: str) -> bool:
    """Whether this is the one end marker that all versions have."""
    kind, data = frame
    return kind == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id


@dataclass
class Comfy:
    """A ComfyUI under test."""

    url: str
    http: httpx.AsyncClient
    features: Features
    classes: set[str]

    @asynccontextmanager
    async def socket(self, client: str | None, *, flags: bool = True) -> AsyncIterator[Sock]:
        """A socket of this clientId, with or without feature flags."""
        sock = await self.connect(client, flags=flags)
        try:
            yield sock
        finally:
            await sock.close()

    async def connect(self, client: str | None, *, flags: bool = True) -> Sock:
        """The same, to be closed by the caller."""
        query = "" if client is None else f"?clientId={client}"
        url = f"{self.url.replace('http', 'ws', 1)}/ws{query}"
        connection = await connect(url, compression=None, max_size=None, max_queue=None, proxy=None)
        sock = Sock(connection)
        sock.start()
        if flags:
            greeting = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            await connection.send(json.dumps(greeting))
        wanted = "feature_flags" if flags and self.features.progress_state else "status"
        await sock.until(lambda frame: frame[0] == wanted)
        return sock

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET that succeeds."""
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        """A POST's answer."""
        return await self.http.post(path, json=body)

    async def submit(self, graph: Graph, client: str | None = None, **more: Any) -> str:
        """Queue a graph; its prompt id."""
        body = {"prompt": graph, **more}
        if client is not None:
            body["client_id"] = client
        response = await self.post("/prompt", body)
        assert response.status_code == 200, response.text
        return str(response.json()["prompt_id"])

    async def run(self, graph: Graph, **more: Any) -> tuple[list[Frame], dict[str, Any]]:
        """Queue a graph and wait for its end: the frames about it and its history."""
        client = uuid.uuid4().hex
        async with self.socket(client) as sock:
            prompt_id = await self.submit(graph, client, **more)
            frames = await sock.end_of(prompt_id)
        return frames, await self.history(prompt_id)

    async def history(self, prompt_id: str) -> dict[str, Any]:
        """A prompt's history, which is there."""
        found = await self.get(f"/history/{prompt_id}")
        assert prompt_id in found
        return dict(found[prompt_id])

    async def queue(self) -> tuple[list[str], list[str]]:
        """The ids that run and that wait."""
        queue = await self.get("/queue")
        return tuple([item[1] for item in queue[name]] for name in ("queue_running", "queue_pending"))  # type: ignore[return-value]  # two

    async def idle(self) -> None:
        """Wait until nothing runs or waits."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.get("/prompt"))["exec_info"]["queue_remaining"]:  # noqa: ASYNC110 -- asked, not told
                await asyncio.sleep(0.02)

    async def files(self, entry: dict[str, Any]) -> list[httpx.Response]:
        """What `/view` gives for every file of a history entry."""
        found = [file for output in entry["outputs"].values() for file in output.get("images", [])]
        return [await self.http.get("/view", params=file) for file in found]


@cache
def _trust() -> ssl.SSLContext:
    """Made once: it takes longer than a test."""
    return ssl.create_default_context()


@asynccontextmanager
async def comfy_at(url: str) -> AsyncIterator[Comfy]:
    """A client of the server at an address, which is idle; its version is as it says."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, verify=_trust()) as http:
        stats = (await http.get("/system_stats")).raise_for_status().json()
        info = (await http.get("/object_info")).raise_for_status().json()
        comfy = Comfy(url, http, features_of(stats["system"].get("comfyui_version")), set(info))
        await comfy.idle()
        yield comfy


# --- graphs -----------------------------------------------------------------------------------------------


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def picture_graph(colour: int | None = None, prefix: str = "conformance") -> Graph:
    """A graph of stock nodes that saves one picture."""
    colour = unique() if colour is None else colour
    return {
        "1": node("EmptyImage", width=32, height=32, batch_size=1, color=colour),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def loop_graph(steps: int = 5, delay_ms: int = 20, preview: str = "none", **more: Any) -> Graph:
    """A graph that takes its time, and saves one picture."""
    seed = unique()
    loop = node("RecLoop", steps=steps, delay_ms=delay_ms, size=32, preview=preview, seed=seed)
    loop["inputs"] |= more
    return {"1": loop, "2": node("SaveImage", images=["1", 0], filename_prefix="conformance")}


def sampling_graph(steps: int = 2) -> Graph:
    """Text to picture with the tiny checkpoint."""
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="tiny_sd15_random.safetensors"),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", text="a cat", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="bad", clip=["4", 1]),
        "3": node(
            "KSampler",
            seed=unique(),
            steps=steps,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="conformance"),
    }
