"""The system under test: nats-server, gateways and workers as processes, each behind a proxy of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final

from reverie_launcher.chaos.evidence import RETENTION_S, WorkerSaid
from reverie_launcher.chaos.member import Member
from reverie_launcher.chaos.port_block import PortBlock
from reverie_launcher.chaos.proxy import FaultProxy
from reverie_launcher.nats_server import NatsServer
from reverie_launcher.services import SERVICES, Service, foreign_environment, prepare
from reverie_launcher.supervisor import Launch
from reverie_runtime.crash_points import CRASH_POINTS

DRAIN_S: Final = 5.0
#: At the end everything was read back already: what takes longer to stop is killed.
STOP_S: Final = 1.0
LISTEN_TRIES: Final = 20
MONITOR: Final = "monitor"
#: What is only ever logged where a gateway noticed that it was not told everything.
HOLES: Final = (
    "revisions of a job were missed",
    "a revision does not follow the last one",
    "the server lists revisions that it does not deliver",
)
_GATEWAY, _INFERENCE, _MONITOR = (
    next(each for each in SERVICES if each.name == name) for name in ("gateway", "inference", "monitor")
)
_LIGHT = _INFERENCE._replace(module="reverie_launcher.chaos.light_worker")


class Cluster:
    """Members by role; `start` returns when all are ready, `stop` leaves no process behind.

    The last `light` of the workers only pretend to paint, see `light_worker`; the others run `model`.  Without
    `proxied` the members talk to nats-server themselves, and their links cannot be disturbed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gateways: int,
        workers: int,
        model: str,
        rng: random.Random,
        light: int = 0,
        proxied: bool = True,
        retention_s: float = RETENTION_S,
    ) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.said: list[WorkerSaid] = []
        self.holes: list[str] = []
        self._rng = rng
        self._model = model
        self._proxied = proxied
        self._retention_s = retention_s
        self._environment = foreign_environment(os.environ)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self.server = NatsServer(folder / "nats", self._environment, rng)
        self.nats = self._member("nats", self.server.prepare)
        self.gateways = [f"gateway-{number}" for number in range(gateways)]
        self.workers = [f"worker-{number}" for number in range(workers + light)]
        self.light = frozenset(self.workers[workers:])
        self.members: dict[str, Member] = {"nats": self.nats}
        #: A service's connections to nats-server, by the service's name.
        self.bus_links: dict[str, FaultProxy] = {}
        #: The clients' connections to a gateway, by the gateway's name.
        self.client_links: dict[str, FaultProxy] = {}
        self.gateway_ports: dict[str, int] = {}
        #: Members may be down; nobody else shall take their ports meanwhile.
        self._ports = PortBlock(rng)
        self.server.port = self._ports.take()

    async def start(self) -> None:
        """Start everything; return when all members are ready."""
        self.nats.start()
        await self.nats.wait_ready()
        for name in self.gateways:
            port = self.gateway_ports[name] = self._ports.take()
            self.client_links[name] = await self._listen(port)
            values = {"port": str(port), "retention_h": f"{self._retention_s / 3600:g}"}
            await self._add(name, _GATEWAY, {"gateway": values})
        for name in self.workers:
            values = {"model": self._model, "name": name, "device": "cpu", "threads": "1", "offline": "true"}
            health = {"port": str(self._ports.take())}
            service = _LIGHT if name in self.light else _INFERENCE
            await self._add(name, service, {"inference": values, "health": health})
        own = {"monitor": {"node": "chaos"}, "health": {"port": str(self._ports.take())}}
        await self._add(MONITOR, _MONITOR, own)
        for member in self.members.values():
            await member.wait_ready()

    async def not_back(self, *, within_s: float) -> list[str]:
        """Members that are not ready by then, although nothing is done to them any more."""
        waiting = {asyncio.create_task(member.wait_ready()): name for name, member in self.members.items()}
        _, late = await asyncio.wait(waiting, timeout=within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [waiting[task] for task in waiting if task in late or task.exception() is not None]

    async def stop(self) -> None:
        """Drain and end everything; idempotent."""
        for proxy in (*self.bus_links.values(), *self.client_links.values()):
            proxy.heal()
        services = [member for member in self.members.values() if member is not self.nats]
        await asyncio.gather(*(member.stop(within_s=STOP_S) for member in services))
        await self.nats.stop(within_s=STOP_S)
        for proxy in (*self.bus_links.values(), *self.client_links.values()):
            await proxy.stop()
        self._ports.give_back()

    def urls(self) -> list[str]:
        """Where clients find the gateways, through their proxies."""
        return [f"http://127.0.0.1:{self.client_links[name].port}" for name in self.gateways]

    def direct_url(self, gateway: str) -> str:
        """A gateway without the proxy."""
        return f"http://127.0.0.1:{self.gateway_ports[gateway]}"

    def arm(self, member: str, point: str, *, freezes: bool) -> None:
        """Let this member die (or freeze) the next time it passes that crash point."""
        (self._points(member) / point).write_text("STOP" if freezes else "KILL", encoding="ascii")

    def armed(self, member: str, point: str) -> bool:
        """Whether that point is armed and nobody has come by."""
        return (self._points(member) / point).exists()

    def disarm(self, member: str, point: str) -> bool:
        """Take an armed point back; False if it has been hit."""
        try:
            (self._points(member) / point).unlink()
        except FileNotFoundError:
            return False
        return True

    def lose_storage(self) -> None:
        """The folder of the outputs is gone, and a file in its place: nothing can be read or written."""
        if not self.storage.is_dir():
            return
        self.storage.rename(self.folder / "storage.away")
        while not self.storage.is_file():
            with contextlib.suppress(FileExistsError):
                self.storage.touch(exist_ok=False)
                return
            # Somebody who was about to write has made the folder anew.
            self._bring_back(self.storage)

    def find_storage(self) -> None:
        """The outputs are back; idempotent."""
        away = self.folder / "storage.away"
        if away.is_dir():
            self.storage.unlink(missing_ok=True)
            away.rename(self.storage)

    def _bring_back(self, made_anew: Path) -> None:
        """Put what lies in a folder that was made meanwhile to the rest of the outputs."""
        away = self.folder / "storage.away"
        for file in [place for place in made_anew.rglob("*") if place.is_file()]:
            target = away / file.relative_to(made_anew)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                file.replace(target)
        shutil.rmtree(made_anew, ignore_errors=True)

    async def _add(self, name: str, service: Service, values: dict[str, dict[str, str]]) -> None:
        port = self.server.port
        if self._proxied:
            self.bus_links[name] = await self._listen(port)
            port = self.bus_links[name].port
        self._points(name).mkdir(parents=True)
        ours = {
            "nats": {"url": f"nats://127.0.0.1:{port}"},
            "storage": {"path": str(self.storage)},
            "log": {"format": "json"},
            "drain": {"deadline_s": f"{DRAIN_S:g}"},
        }
        environment = self._environment | {CRASH_POINTS: str(self._points(name))}
        member = self._member(name, partial(prepare, service, environment, ours | values, self._rng))
        self.members[name] = member
        member.start()

    def _member(self, name: str, start: Callable[[], Launch]) -> Member:
        return Member(name, start, log=self.folder / "logs" / f"{name}.log", on_line=self._hear)

    def _points(self, member: str) -> Path:
        return self.folder / "points" / member

    async def _listen(self, target: int) -> FaultProxy:
        for _ in range(LISTEN_TRIES):
            proxy = FaultProxy(self._ports.take(), target)
            with contextlib.suppress(OSError):  # somebody was faster
                await proxy.start()
                return proxy
        raise RuntimeError("no port could be listened on")

    def _hear(self, member: str, line: str) -> None:
        """Workers say in their log how a job ended, gateways that they missed something."""
        if any(sign in line for sign in HOLES):
            self.holes.append(f"{member}: {line}")
        if '"job ended"' not in line:
            return
        with contextlib.suppress(ValueError, KeyError):
            said = json.loads(line)
            self.said.append(WorkerSaid(member, said["job_id"], said["attempt"], said["state"]))


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *,
    gateways: int,
    workers: int,
    model: str,
    rng: random.Random,
    light: int = 0,
    proxied: bool = True,
    retention_s: float = RETENTION_S,
) -> AsyncIterator[Cluster]:
    """A started cluster; stopped at the end, whatever happens."""
    cluster = Cluster(
        folder,
        gateways=gateways,
        workers=workers,
        model=model,
        rng=rng,
        light=light,
        proxied=proxied,
        retention_s=retention_s,
    )
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.find_storage()
        await cluster.stop()
