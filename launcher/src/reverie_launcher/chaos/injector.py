"""Carries the fault plan out on a cluster.  Every fault undoes itself; one whose target is gone is skipped."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from reverie_launcher.chaos.cluster import MONITOR, Cluster
from reverie_launcher.chaos.member import Member
from reverie_launcher.chaos.plan import Fault, FaultKind, Link
from reverie_launcher.chaos.proxy import FaultProxy

#: How long an armed crash point waits for somebody to come by.
ARMED_S: Final = 4.0
POLL_S: Final = 0.05


#: A worker whose disk is full can still write this much of a file.
LEFT_BYTES: Final = 100
AT_WORKER: Final = (
    FaultKind.KILL_WORKER,
    FaultKind.FREEZE_WORKER,
    FaultKind.CRASH_WORKER,
    FaultKind.FILL_DISK,
)


class Done(msgspec.Struct, frozen=True):
    """A fault that was carried out: when it began and ended (epoch seconds), and on whom.

    `hit` is false where the target was gone, or nobody came by the crash point.
    """

    fault: Fault
    on: str
    began: float
    ended: float
    hit: bool


class Injector:
    """One fault at a time per target; `done` is what was carried out."""

    def __init__(self, cluster: Cluster) -> None:
        self.done: list[Done] = []
        self._cluster = cluster
        self._busy: set[str] = set()

    async def run(self, plan: Sequence[Fault]) -> None:
        """Carry the plan out from now on; return when every fault has undone itself."""
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                await asyncio.sleep(max(0.0, start + fault.at_s - asyncio.get_running_loop().time()))
                tasks.create_task(self._carry_out(fault))

    async def _carry_out(self, fault: Fault) -> None:
        on = self._target(fault)
        if on in self._busy:
            now = time.time()
            self.done.append(Done(fault, on, now, now, hit=False))
            return
        began = time.time()
        async with self._hold(on):
            hit = await self._inject(fault, on)
            self.done.append(Done(fault, on, began, time.time(), hit))

    @contextlib.asynccontextmanager
    async def _hold(self, on: str) -> AsyncIterator[None]:
        self._busy.add(on)
        try:
            yield
        finally:
            self._busy.discard(on)

    def _target(self, fault: Fault) -> str:
        cluster, kind = self._cluster, fault.kind
        if kind in (FaultKind.KILL_NATS, FaultKind.FREEZE_NATS):
            return "nats"
        if kind in (FaultKind.KILL_MONITOR, FaultKind.FREEZE_MONITOR):
            return MONITOR
        if kind is FaultKind.LOSE_STORE:
            return "storage"
        if fault.link is not None:
            names = cluster.workers if fault.link is Link.WORKER else cluster.gateways
            leg = "clients of " if fault.link is Link.CLIENTS else "bus of "
            return leg + names[fault.target % len(names)]
        at_worker = kind in AT_WORKER
        names = cluster.workers if at_worker else cluster.gateways
        # One that serves, if there is one: a start can take longer than the pause between two faults.
        serving = [name for name in names if cluster.members[name].ready.is_set() and name not in self._busy]
        return (serving or names)[fault.target % len(serving or names)]

    async def _inject(self, fault: Fault, on: str) -> bool:
        if fault.kind is FaultKind.LOSE_STORE:
            return await self._lose_storage(fault)
        if fault.link is not None:
            return await self._disturb(fault, self._link(fault, on))
        member = self._cluster.members[on]
        match fault.kind:
            case (
                FaultKind.KILL_WORKER | FaultKind.KILL_GATEWAY | FaultKind.KILL_MONITOR | FaultKind.KILL_NATS
            ):
                carry_out = self._kill(member, fault.lasts_s)
            case FaultKind.SLOW_START:
                carry_out = self._start_slowly(member, self._cluster.bus_links[on], fault)
            case FaultKind.FILL_DISK:
                carry_out = self._fill_disk(member, fault.lasts_s)
            case FaultKind.CRASH_WORKER | FaultKind.CRASH_GATEWAY:
                carry_out = self._crash(fault, member)
            case _:
                carry_out = self._freeze(member, fault.lasts_s)
        return await carry_out

    async def _kill(self, member: Member, lasts_s: float) -> bool:
        if not member.kill(down_s=lasts_s):
            return False
        await asyncio.sleep(lasts_s)
        return True

    async def _start_slowly(self, member: Member, link: FaultProxy, fault: Fault) -> bool:
        """It is killed, and reads the whole history over a slow link: nats-server waits for it again and again."""
        if not member.kill():
            return False
        link.delay(fault.delay_s)
        await asyncio.sleep(fault.lasts_s)
        link.heal()
        return True

    async def _freeze(self, member: Member, lasts_s: float) -> bool:
        if not member.freeze():
            return False
        await asyncio.sleep(lasts_s)
        member.thaw()
        return True

    async def _crash(self, fault: Fault, member: Member) -> bool:
        """Arm the point, wait until somebody came by; a frozen one is thawed again."""
        self._cluster.arm(member.name, fault.point, freezes=fault.freezes)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARMED_S):
                while self._cluster.armed(member.name, fault.point):  # noqa: ASYNC110  # another process takes it
                    await asyncio.sleep(POLL_S)
        hit = not self._cluster.disarm(member.name, fault.point)
        if hit and fault.freezes:
            await asyncio.sleep(fault.lasts_s)
            member.thaw()
        return hit

    async def _fill_disk(self, member: Member, lasts_s: float) -> bool:
        """Files of this process grow no further: a write ends in the middle of the file and fails (Linux)."""
        pid = member.pid
        if pid is None or not sys.platform.startswith("linux"):
            return False
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LEFT_BYTES, hard))
            await asyncio.sleep(lasts_s)
            if member.pid == pid:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            return True
        return False

    async def _lose_storage(self, fault: Fault) -> bool:
        self._cluster.lose_storage()
        await asyncio.sleep(fault.lasts_s)
        self._cluster.find_storage()
        return True

    def _link(self, fault: Fault, on: str) -> FaultProxy:
        name = on.rpartition(" ")[2]
        links = self._cluster.client_links if fault.link is Link.CLIENTS else self._cluster.bus_links
        return links[name]

    async def _disturb(self, fault: Fault, link: FaultProxy) -> bool:
        hit = link.connections > 0
        match fault.kind:
            case FaultKind.CUT_LINK:
                link.refuse()
            case FaultKind.DELAY_LINK:
                link.delay(fault.delay_s)
            case FaultKind.STALL_LINK:
                link.stall()
            case _:
                link.garble()
        await asyncio.sleep(fault.lasts_s)
        link.heal()
        return hit
