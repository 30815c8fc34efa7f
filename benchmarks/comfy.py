"""ComfyUI through Reverie, beside what a direct client of the same ComfyUI has at that moment.

    .venv/bin/python benchmarks/comfy.py [--url http://host:8188] [--steps 300] [--cancels 50] [--reconnects 20]

Without `--url` it starts the fake ComfyUI; a real one needs the nodes of `libs/testing/comfy_nodes`.  Between the
bridge and ComfyUI stands a tap that passes every byte on and notes when it came: a frame at the tap is what a
direct client has.  Gateway and bridge are processes of their own; the client is a WebSocket of the gateway.

progress    a step's first frame at the tap → `job:progress` with it at the client, without and with 290 KB previews
cancel      `job:cancel` → `job:cancel:ok` (durable) → the interrupt at the tap
reconnect   the port opens again → `comfy.instance.<name>` says connected, while a prompt runs
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from product import figure_ms
from websockets.asyncio.client import ClientConnection, connect

from reverie_protocol.instances import ComfyInstance, ComfyStatus
from reverie_protocol.subjects import comfy_instance
from reverie_runtime.bus.nats import connect_nats
from reverie_testing.nats_server import NatsServer, free_port
from reverie_testing.service_process import ServiceProcess

NAME = "bench"
WAIT_S = 60.0
#: Longer than ComfyUI's own throttle of progress, so that it tells each step.
STEP_MS = 110


class Tap:
    """Passes TCP on, and notes progress frames and interrupts."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.port = free_port()
        self.steps: dict[tuple[str, int], float] = {}
        self.interrupts: list[float] = []
        self.interrupted = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, on the same port each time."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Be gone, as a killed server is."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: one of asyncio's would be reported as failed when everything ends.
        task = asyncio.create_task(self._serve(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, out = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, out}
        try:
            await asyncio.gather(self._up(reader, out), self._down(theirs, writer))
        finally:
            for each in (writer, out):
                self._writers.discard(each)
                each.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if data.startswith(b"POST /interrupt"):
                    self.interrupts.append(time.perf_counter())
                    self.interrupted.set()
                out.write(data)
                await out.drain()
        out.transport.abort()

    async def _down(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        upgraded, kept = None, bytearray()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                came_at = time.perf_counter()
                out.write(data)
                await out.drain()
                if upgraded is None:
                    upgraded = data.startswith(b"HTTP/1.1 101")
                    data = data.partition(b"\r\n\r\n")[2]
                if upgraded:
                    kept += data
                    for payload in _frames(kept):
                        self._note(payload, came_at)
        out.transport.abort()

    def _note(self, payload: bytes, came_at: float) -> None:
        """A step as it was told first: newer versions tell it by `progress_state` before `progress`."""
        if not payload.startswith(b'{"type": "progress'):
            return
        data = json.loads(payload)["data"]
        nodes = data["nodes"].values() if "nodes" in data else [data]
        for node in nodes:
            if node.get("state", "running") == "running":
                self.steps.setdefault((data["prompt_id"], int(node["value"])), came_at)


def _frames(kept: bytearray) -> list[bytes]:
    """The complete text frames of a server, taken off what was kept."""
    found = []
    while len(kept) >= 2:
        length, head = kept[1] & 0x7F, 2
        if length == 126 and len(kept) >= 4:
            length, head = int.from_bytes(kept[2:4]), 4
        elif length == 127 and len(kept) >= 10:
            length, head = int.from_bytes(kept[2:10]), 10
        elif length >= 126:
            break
        if len(kept) < head + length:
            break
        if kept[0] & 0x0F == 1:
            found.append(bytes(kept[head : head + length]))
        del kept[: head + length]
    return found


class Client:
    """One WebSocket of the gateway."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def submit(self, graph: dict[str, Any]) -> str:
        """The acknowledged job's id."""
        await self._socket.send(json.dumps({"type": "job:submit", "jobType": "comfy", "workflow": graph}))
        return str((await self.until("job:ack"))[1]["jobId"])

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self._socket.send(json.dumps(message))

    async def next(self) -> tuple[float, dict[str, Any]]:
        """The next text message, and when it came."""
        async with asyncio.timeout(WAIT_S):
            while isinstance(data := await self._socket.recv(), bytes):
                pass
        came_at = time.perf_counter()
        message: dict[str, Any] = json.loads(data)
        if message["type"] == "error":
            raise SystemExit(f"refused: {message}")
        return came_at, message

    async def until(self, *kinds: str) -> tuple[float, dict[str, Any]]:
        """The next message of these types."""
        while True:
            came_at, message = await self.next()
            if message["type"] in kinds:
                return came_at, message


def loop(steps: int, seed: int, *, preview: bool = False) -> dict[str, Any]:
    """A graph of one node that tells its steps."""
    inputs = {
        "steps": steps,
        "delay_ms": STEP_MS,
        "size": 512 if preview else 64,
        "preview": "JPEG" if preview else "none",
        "noise": preview,
        "seed": seed,
    }
    return {
        "1": {"class_type": "RecLoop", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }


async def measure_progress(client: Client, tap: Tap, steps: int, seed: int, *, preview: bool) -> list[float]:
    """Seconds from the tap to the client, one for each step that was told to both."""
    job_id = await client.submit(loop(steps, seed, preview=preview))
    if preview:
        await client.send(type="job:preview", jobId=job_id, enabled=True)
    heard: dict[tuple[str, int], float] = {}
    while True:
        came_at, message = await client.until("job:progress", "job:complete", "job:error")
        if message["type"] == "job:error":
            raise SystemExit(f"the job failed: {message}")
        if message["type"] == "job:complete":
            break
        if message.get("comfy") and message["step"]:
            heard.setdefault((message["comfy"]["promptId"], message["step"]), came_at)
    return [at - tap.steps[key] for key, at in heard.items() if key in tap.steps]


async def measure_cancels(client: Client, tap: Tap, count: int) -> tuple[list[float], list[float]]:
    """Seconds to the ack, and from the ack to the interrupt (0 where that came first)."""
    acks, interrupts = [], []
    for number in range(count):
        job_id = await client.submit(loop(1000, 1000 + number))
        while not (await client.until("job:progress"))[1]["step"]:
            pass
        tap.interrupted.clear()
        before = len(tap.interrupts)
        sent_at = time.perf_counter()
        await client.send(type="job:cancel", jobId=job_id)
        acked_at, _ = await client.until("job:cancel:ok")
        async with asyncio.timeout(WAIT_S):
            await tap.interrupted.wait()
        acks.append(acked_at - sent_at)
        interrupts.append(max(0.0, tap.interrupts[before] - acked_at))
        await client.until("job:error")
    return acks, interrupts


async def measure_reconnects(client: Client, tap: Tap, nats_url: str, count: int, seed: int) -> list[float]:
    """Seconds from the open port to `connected`, each time under a running prompt that then goes on."""
    draw, taken = random.Random(seed), []
    connected = asyncio.Event()
    bus = await connect_nats(nats_url, name="benchmark")

    def hear(message: Any) -> None:
        record = msgspec.json.decode(message.data, type=ComfyInstance)
        (connected.set if record.status is ComfyStatus.CONNECTED else connected.clear)()

    await bus.subscribe(comfy_instance(NAME), hear)
    job_id = await client.submit(loop(count * 200, 5))
    step = 0
    for _ in range(count):
        # Not before ComfyUI has told a step since the last time: then it is this prompt that goes on.
        while (progress := (await client.until("job:progress"))[1])["step"] <= step:
            pass
        if progress["attempt"] != 1:
            raise SystemExit("the prompt was not continued")
        step = progress["step"]
        connected.clear()
        await tap.close()
        await asyncio.sleep(draw.uniform(0.5, 8.0))
        connected.clear()
        opened_at = time.perf_counter()
        await tap.open()
        async with asyncio.timeout(WAIT_S):
            await connected.wait()
        taken.append(time.perf_counter() - opened_at)
    await client.send(type="job:cancel", jobId=job_id)
    await client.until("job:error")
    await bus.close()
    return taken


@contextlib.asynccontextmanager
async def running(folder: Path, url: str) -> AsyncIterator[tuple[Client, Tap, str]]:
    """nats-server, gateway, tap, bridge, and a client."""
    server, tap = NatsServer(folder), Tap(url)
    server.start()
    shared = {"REVERIE_NATS__URL": server.url, "REVERIE_STORAGE__PATH": str(folder / "storage")}
    ports = {"gateway": free_port(), "bridge": free_port()}
    gateway = ServiceProcess(
        "reverie_gateway",
        {**shared, "REVERIE_GATEWAY__PORT": str(ports["gateway"])},
        url=f"http://127.0.0.1:{ports['gateway']}",
        log=folder / "gateway.log",
    )
    bridge = ServiceProcess(
        "reverie_comfy_bridge",
        {
            **shared,
            "REVERIE_COMFY__INSTANCES": f"{NAME}=http://127.0.0.1:{tap.port}",
            "REVERIE_COMFY__ALLOWED_NODES": "*",
            "REVERIE_COMFY__PREVIEW_HZ": "30",
            "REVERIE_HEALTH__PORT": str(ports["bridge"]),
        },
        url=f"http://127.0.0.1:{ports['bridge']}",
        log=folder / "bridge.log",
    )
    try:
        await tap.open()
        with gateway, bridge:
            for process in (gateway, bridge):
                await asyncio.to_thread(process.wait_ready)
            await asyncio.to_thread(bridge.wait_log, "instance connected")
            address = f"ws://127.0.0.1:{ports['gateway']}/v1/ws"
            async with connect(address, max_size=None, max_queue=None, proxy=None) as socket:
                yield Client(socket), tap, server.url
    finally:
        await tap.close()
        server.stop()


async def main() -> None:
    """One JSON line for each figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default="", help="an idle ComfyUI; without it the fake is started")
    parser.add_argument("--version", default="0.33.0", help="of the fake")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--cancels", type=int, default=50)
    parser.add_argument("--reconnects", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    against = options.url or f"the fake, {options.version}"
    with tempfile.TemporaryDirectory(prefix="reverie-benchmark-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            url = options.url
            if not url:
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                command = [
                    "-m",
                    "reverie_testing.fake_comfy",
                    "--port",
                    str(port),
                    "--version",
                    options.version,
                ]
                fake = await asyncio.create_subprocess_exec(
                    sys.executable, *command, stdout=asyncio.subprocess.PIPE
                )
                stack.callback(fake.kill)
                assert fake.stdout is not None
                await fake.stdout.readline()
            client, tap, nats_url = await stack.enter_async_context(running(Path(folder), url))
            plain: list[float] = []
            for preview in (False, True):
                taken = await measure_progress(client, tap, options.steps, options.seed, preview=preview)
                what = " with 290 KB previews" if preview else ""
                plain = plain or taken
                figure_ms(
                    f"progress at a direct client → at a client of Reverie{what}",
                    taken,
                    targets={"p50": 3.0, "p99": 25.0},
                    against=against,
                )
            acks, interrupts = await measure_cancels(client, tap, options.cancels)
            figure_ms(
                "cancel of a running workflow → durable ack", acks, targets={"p99": 25.0}, against=against
            )
            figure_ms(
                "durable ack → interrupt at ComfyUI", interrupts, targets={"p99": 20.0}, against=against
            )
            taken = await measure_reconnects(client, tap, nats_url, options.reconnects, options.seed)
            figure_ms("port open again → connected", taken, targets={"p99": 1000.0}, against=against)


if __name__ == "__main__":
    asyncio.run(main())
