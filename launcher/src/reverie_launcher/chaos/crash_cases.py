"""Every durable write has a crash point before it and one after it: each is passed once, by someone who dies there.

Or who freezes there for longer than a worker's lease, and comes back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path as FilePath
from typing import NamedTuple

from reverie_launcher.chaos.archive import Archive
from reverie_launcher.chaos.client import Client
from reverie_launcher.chaos.cluster import Cluster, running
from reverie_launcher.chaos.evidence import Evidence, Unexpected
from reverie_launcher.chaos.figures import BY_KILL
from reverie_launcher.chaos.member import Happened
from reverie_launcher.chaos.observer import Observer
from reverie_launcher.chaos.oracle import judge
from reverie_launcher.chaos.plan import GATEWAY_POINTS, WORKER_POINTS
from reverie_launcher.chaos.run import read_outputs
from reverie_launcher.chaos.violations import Violation
from reverie_launcher.chaos.workload import JobPlan, Path
from reverie_protocol.jobs import Job, JobState, Lane

PASS_S = 60.0
#: Longer than a worker's lease of 2 s: whoever wakes after it has been given up.
FROZEN_S = 3.0
AWAY_S = 4.0
LONG, SHORT = 150, 2


class Scene(NamedTuple):
    """One job in front of the system: what a client asks for, and what is done to it until the point is passed."""

    cluster: Cluster
    observer: Observer
    client: Client
    plan: JobPlan

    async def submitted(self) -> str:
        """The job's id, once it is acknowledged."""
        job_id = await self.client.submit(self.plan, self.plan.path)
        if job_id is None:
            raise RuntimeError("the submit was refused")
        return job_id

    async def becomes(self, job_id: str, *states: JobState, attempt: int = 0) -> Job:
        """The job once it is in one of these states, at this attempt or a later one."""
        async with asyncio.timeout(PASS_S):
            while True:
                self.observer.changed.clear()
                job = self.observer.jobs.get(job_id)
                if job is not None and job.state in states and job.attempt >= attempt:
                    return job
                await self.observer.changed.wait()

    async def worker_of(self, job_id: str, *, attempt: int = 0) -> str:
        """The name of the worker that runs it."""
        job = await self.becomes(job_id, JobState.RUNNING, attempt=attempt)
        return (job.worker or "").rpartition(".")[0]


async def plain(scene: Scene) -> str:
    """A job is submitted and done."""
    return await scene.submitted()


async def cancelled_while_it_runs(scene: Scene) -> str:
    """Its client no longer wants it when it runs."""
    job_id = await scene.submitted()
    await scene.worker_of(job_id)
    await scene.client.cancel(job_id, scene.plan.cancel_path)
    return job_id


async def cancelled_while_it_waits(scene: Scene) -> str:
    """Its client no longer wants it while it is queued."""
    job_id = await scene.submitted()
    await scene.client.cancel(job_id, scene.plan.cancel_path)
    return job_id


async def moved_while_it_waits(scene: Scene) -> str:
    """It is put into another lane, and in the end no longer wanted."""
    job_id = await scene.submitted()
    await scene.client.move(job_id, Lane.BATCH)
    await scene.client.cancel(job_id, scene.plan.cancel_path)
    return job_id


async def its_worker_is_killed(scene: Scene) -> str:
    """It has to be given to another worker."""
    job_id = await scene.submitted()
    # It stays away for long enough that a gateway, and not its own next life, gives its job to another.
    scene.cluster.members[await scene.worker_of(job_id)].kill(down_s=AWAY_S)
    return job_id


async def no_worker_takes_it_in_time(scene: Scene) -> str:
    """Its `startBy` passes."""
    workers = [scene.cluster.members[name] for name in scene.cluster.workers]
    for worker in workers:
        worker.freeze()
    try:
        job_id = await scene.submitted()
        await scene.becomes(job_id, JobState.FAILED)
    finally:
        for worker in workers:
            worker.thaw()
    return job_id


async def three_workers_die_under_it(scene: Scene) -> str:
    """It fails as `crash_loop`."""
    job_id = await scene.submitted()
    for attempt in (1, 2, 3):
        worker = scene.cluster.members[await scene.worker_of(job_id, attempt=attempt)]
        worker.kill(down_s=AWAY_S)
        async with asyncio.timeout(PASS_S):
            while scene.observer.jobs[job_id].state is JobState.RUNNING:
                scene.observer.changed.clear()
                await scene.observer.changed.wait()
    return job_id


Story = Callable[[Scene], Awaitable[str]]


class Case(NamedTuple):
    """What brings somebody to the point, and how the job may end."""

    story: Story
    ends: tuple[JobState, ...]
    steps: int = SHORT
    waits: bool = False
    expires: bool = False


DONE = (JobState.COMPLETED,)
STOPPED = (JobState.CANCELLED,)
WORKER_CASES = {
    "queued-running": Case(plain, DONE),
    "output": Case(plain, DONE),
    "running-completed": Case(plain, DONE),
    "running-cancelled": Case(cancelled_while_it_runs, STOPPED, steps=LONG),
}
GATEWAY_CASES = {
    "submit": Case(plain, DONE),
    "cancel": Case(cancelled_while_it_runs, STOPPED, steps=LONG),
    "queued-cancelled": Case(cancelled_while_it_waits, STOPPED, waits=True),
    "queued-queued": Case(moved_while_it_waits, STOPPED, waits=True),
    "running-running": Case(cancelled_while_it_runs, STOPPED, steps=LONG),
    "running-queued": Case(its_worker_is_killed, DONE, steps=LONG),
    "running-failed": Case(three_workers_die_under_it, (JobState.FAILED,), steps=LONG),
    "queued-failed": Case(no_worker_takes_it_in_time, (JobState.FAILED,), expires=True),
}


class Passed(NamedTuple):
    """One case: who came by the point, how the job ended, and which promises were broken."""

    point: str
    freezes: bool
    hit: tuple[str, ...]
    state: JobState
    expected: tuple[JobState, ...]
    violations: tuple[Violation, ...]

    @property
    def survived(self) -> bool:
        """Whether somebody came by, the job ended as it may, and nothing was broken."""
        return bool(self.hit) and self.state in self.expected and not self.violations


def all_cases() -> list[tuple[str, bool]]:
    """Every point, with whether whoever comes by freezes there instead of dying."""
    dying_or_freezing = [(point, freezes) for point in WORKER_POINTS for freezes in (False, True)]
    return dying_or_freezing + [(point, False) for point in GATEWAY_POINTS]


def kind(point: str) -> str:
    """What is written at this point."""
    return point.partition(".")[2]


async def pass_point(cluster: Cluster, point: str, *, freezes: bool) -> Passed:
    """Arm one point in all members of its role, let a job come by, and judge all that was seen of it."""
    at_worker = point in WORKER_POINTS
    case = (WORKER_CASES if at_worker else GATEWAY_CASES)[kind(point)]
    members = cluster.workers if at_worker else cluster.gateways
    number = all_cases().index((point, freezes))
    for each in cluster.members.values():
        await each.wait_ready()
    now = time.time()
    plan = JobPlan(
        number=number,
        client=0,
        at_s=0.0,
        path=Path.SOCKET,
        key=f"{point} {freezes}",
        prompt=f"a circle, {point} {freezes}",
        seed=number,
        steps=case.steps,
        lane=1,
        not_before=now + 3600 if case.waits else None,
        start_by=now + 1 if case.expires else None,
    )
    unexpected: list[Unexpected] = []
    client = Client(
        0,
        cluster.urls(),
        [plan],
        rng=random.Random(number),
        started=asyncio.get_running_loop().time(),
        unexpected=unexpected,
    )
    observer = Observer(lambda: cluster.server.port)
    said, lives = len(cluster.said), {name: len(member.life) for name, member in cluster.members.items()}
    async with observer.run(), client.connected(), asyncio.timeout(2 * PASS_S):
        for member in members:
            cluster.arm(member, point, freezes=freezes)
        hitting = asyncio.create_task(_hit(cluster, members, point))
        story = asyncio.ensure_future(case.story(Scene(cluster, observer, client, plan)))
        try:
            await asyncio.wait((hitting, story), return_when=asyncio.FIRST_EXCEPTION)
            if story.done():
                story.result()
            hit = await hitting
            if freezes:
                await asyncio.sleep(FROZEN_S)
                for member in hit:
                    cluster.members[member].thaw()
            else:
                await _dead(cluster, hit, lives)
            job_id = await story
        finally:
            hitting.cancel()
            story.cancel()
            for member in members:
                cluster.disarm(member, point)
        await client.follow(job_id, eagerly=False)
    history = await Archive(lambda: cluster.server.port).read_all()
    history = {job_id: history[job_id]}
    evidence = Evidence(
        history=history,
        acknowledged=client.acknowledged,
        cancelled=client.cancelled,
        polled=client.polled,
        unexpected=unexpected,
        outputs=await read_outputs(cluster, history),
        said=[each for each in cluster.said[said:] if each.job_id == job_id],
        client_logs=[client.log],
        bus_log=observer.log,
    )
    return Passed(
        point, freezes, tuple(hit), history[job_id][-1].job.state, case.ends, tuple(judge(evidence))
    )


async def _dead(cluster: Cluster, members: list[str], lives: dict[str, int]) -> None:
    """Return when these have been seen to die since `lives` was taken: only then are they waited for again."""
    async with asyncio.timeout(PASS_S):
        for member in members:
            while not _died(cluster.members[member].life[lives[member] :]):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.02)


def _died(life: Sequence[Happened]) -> bool:
    return any(BY_KILL in each.what for each in life)


async def _hit(cluster: Cluster, members: list[str], point: str) -> list[str]:
    """Whoever comes by first, two if they come at once; the others pass from then on."""
    async with asyncio.timeout(PASS_S):
        while True:
            hit = [member for member in members if not cluster.armed(member, point)]
            if hit:
                return [member for member in members if not cluster.disarm(member, point)]
            await asyncio.sleep(0.005)


async def pass_all(folder: FilePath, *, model: str, tell: Callable[[str], None]) -> bool:
    """Pass every point on one cluster, telling each; whether all were survived."""
    survived = True
    async with running(folder, gateways=2, workers=1, light=2, model=model, rng=random.Random()) as cluster:
        for point, freezes in all_cases():
            how = "freezes at" if freezes else "dies at"
            try:
                passed = await pass_point(cluster, point, freezes=freezes)
            except TimeoutError:
                tell(f"nobody came by: {point}")
                survived = False
                continue
            verdict = "survived" if passed.survived else "BROKEN"
            who = " and ".join(passed.hit)
            tell(f"{verdict}: {who} {how} {point}, the job is {passed.state} in the end")
            for violation in passed.violations:
                tell(f"  {violation.promise}: {violation.what}")
            survived = survived and passed.survived
    return survived
