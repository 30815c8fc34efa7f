"""The indexed waiting room answers exactly as the plain rule does, at any depth."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from reverie_jobs.claiming import AFFINITY_S, Share, choose
from reverie_jobs.submission import job_type_of
from reverie_jobs.waiting import WaitingRoom
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobState,
    JobType,
    Lane,
    ModeInfo,
    SuperResolutionParams,
    Worker,
    WorkerState,
)

SMALL = Worker(
    name="small",
    incarnation="1",
    service="inference",
    state=WorkerState.READY,
    job_types=(JobType.GENERATE,),
    modes={"a": ModeInfo(model="a", loaded=True)},
)
#: Has both modes, and only one of them in memory.
LARGE = replace(
    SMALL,
    name="large",
    job_types=(JobType.GENERATE, JobType.SR),
    modes={
        "a": ModeInfo(model="a", loaded=True, family="x", init_image=True),
        "b": ModeInfo(model="b", family="y"),
    },
    mode="a",
    superres=True,
)
#: All kinds of needs: a mode, pictures to start from, super-resolution behind a picture or of one.
WISHES: list[GenerateParams | SuperResolutionParams] = [
    *(GenerateParams(prompt="p", mode=mode) for mode in (None, "a", "b", "missing")),
    *(GenerateParams(prompt="p", mode=mode, initImage="i") for mode in (None, "a", "b")),
    GenerateParams(prompt="p", initImage="i", maskImage="m"),
    GenerateParams(prompt="p", superres=True),
    SuperResolutionParams("i"),
]


def waiting(
    id_: str,
    *,
    owner: str = "u",
    lane: Lane = Lane.NORMAL,
    position: float = 0,
    mode: str | None = None,
    params: GenerateParams | SuperResolutionParams | None = None,
    not_before: float | None = None,
    start_by: float | None = None,
) -> Job:
    params = params or GenerateParams(prompt="p", mode=mode)
    return Job(
        id=id_,
        owner=owner,
        type=job_type_of(params),
        state=JobState.QUEUED,
        priority=lane,
        position=position,
        not_before=not_before,
        start_by=start_by,
        params=params,
        created_at=0,
        enqueued_at=0,
        updated_at=0,
    )


def started(job: Job, now: float) -> Job:
    return replace(job, state=JobState.RUNNING, started_at=now)


def test_a_user_with_one_job_does_not_wait_behind_anothers_hundred() -> None:
    room = WaitingRoom()
    for number in range(100):
        room.update(f"a{number}", waiting(f"a{number}", owner="alice", position=number))
    room.update("b", waiting("b", owner="bob", position=1000))
    first = room.choose(LARGE, now=1)
    assert first is not None
    room.update(first.id, started(first, 1))
    second = room.choose(LARGE, now=2)
    assert second is not None
    assert {first.owner, second.owner} == {"alice", "bob"}


def test_two_users_take_turns_on_one_worker() -> None:
    room = WaitingRoom()
    for number in range(4):
        for owner in ("alice", "bob"):
            id_ = f"{owner}{number}"
            room.update(id_, waiting(id_, owner=owner, position=number if owner == "bob" else number - 100))
    owners = []
    for now in range(1, 9):
        job = room.choose(LARGE, now=now)
        assert job is not None
        owners.append(job.owner)
        room.update(job.id, started(job, now))
        room.update(job.id, replace(job, state=JobState.COMPLETED))
    assert owners == ["alice", "bob"] * 4


def test_a_job_that_sleeps_is_chosen_when_its_time_has_come_and_not_before() -> None:
    room = WaitingRoom()
    room.update("late", waiting("late", not_before=10))
    assert room.choose(LARGE, now=9.9) is None
    chosen = room.choose(LARGE, now=10)
    assert chosen is not None


def test_a_paused_lane_lets_the_others_pass() -> None:
    room = WaitingRoom()
    room.update("urgent", waiting("urgent", lane=Lane.URGENT))
    room.update("batch", waiting("batch", lane=Lane.BATCH))
    chosen = room.choose(LARGE, now=1, paused=frozenset({Lane.URGENT}))
    assert chosen is not None
    assert chosen.id == "batch"


def test_jobs_that_nobody_can_serve_do_not_hide_those_behind_them() -> None:
    room = WaitingRoom()
    for number in range(50):
        room.update(f"x{number}", waiting(f"x{number}", mode="missing", position=number))
    room.update("mine", waiting("mine", mode="a", position=999))
    chosen = room.choose(SMALL, now=1)
    assert chosen is not None
    assert chosen.id == "mine"


def test_jobs_of_a_model_in_memory_go_first_until_another_has_waited_long_enough() -> None:
    room = WaitingRoom()
    room.update("load", waiting("load", mode="b", position=1))
    for number in range(50):
        room.update(f"a{number}", waiting(f"a{number}", mode="a", position=2 + number))
    for now, expected in ((AFFINITY_S - 0.1, "a0"), (AFFINITY_S, "load")):
        chosen = room.choose(LARGE, now=now)
        assert chosen is not None
        assert chosen.id == expected


def test_a_more_urgent_job_goes_first_although_its_model_has_to_be_loaded() -> None:
    room = WaitingRoom()
    room.update("load", waiting("load", mode="b", lane=Lane.URGENT))
    room.update("near", waiting("near", mode="a"))
    chosen = room.choose(LARGE, now=0)
    assert chosen is not None
    assert chosen.id == "load"


def test_a_job_is_shown_in_its_place_from_the_moment_its_time_has_come() -> None:
    room = WaitingRoom()
    for job in (waiting("early", position=1, not_before=10), waiting("other", position=2)):
        room.update(job.id, job)
    assert [job.id for job in room.order(9, now=9.9)] == ["other", "early"]
    assert [job.id for job in room.order(9, now=10)] == ["early", "other"]


class Room(RuleBasedStateMachine):
    """Random arrivals, moves, starts and ends; at each point the index and the rule agree."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom()
        self.jobs: dict[str, Job] = {}
        self.last_started: dict[str, float] = {}
        self.now = 0.0

    def set(self, id_: str, job: Job | None) -> None:
        if job is None:
            self.jobs.pop(id_, None)
        else:
            self.jobs[id_] = job
        self.room.update(id_, job)

    def shares(self) -> dict[str, Share]:
        running = [job.owner for job in self.jobs.values() if job.state is JobState.RUNNING]
        owners = {job.owner for job in self.jobs.values()}
        return {owner: Share(running.count(owner), self.last_started.get(owner, 0.0)) for owner in owners}

    @rule(
        id_=st.sampled_from([f"j{number}" for number in range(8)]),
        owner=st.sampled_from(["alice", "bob", "carol"]),
        lane=st.sampled_from(list(Lane)),
        position=st.integers(-3, 3),
        wish=st.sampled_from(WISHES),
        delay=st.sampled_from([None, 0.0, 3.0]),
        patience=st.sampled_from([None, 2.0]),
    )
    def arrives_or_moves(
        self,
        id_: str,
        owner: str,
        lane: Lane,
        position: int,
        wish: GenerateParams | SuperResolutionParams,
        delay: float | None,
        patience: float | None,
    ) -> None:
        not_before = None if delay is None else self.now + delay
        start_by = None if patience is None else self.now + patience
        if id_ in self.jobs:
            owner = self.jobs[id_].owner
        job = waiting(id_, owner=owner, lane=lane, position=position, params=wish, not_before=not_before)
        self.set(id_, replace(job, start_by=start_by, enqueued_at=self.now))

    @rule(worker=st.sampled_from([SMALL, LARGE]))
    def a_worker_starts_the_next(self, worker: Worker) -> None:
        job = self.room.choose(worker, now=self.now)
        if job is not None:
            self.last_started[job.owner] = self.now
            self.set(job.id, started(job, self.now))

    @rule(data=st.data(), gone=st.booleans())
    def one_ends(self, data: st.DataObject, gone: bool) -> None:
        running = [job for job in self.jobs.values() if job.state is JobState.RUNNING]
        if running:
            job = data.draw(st.sampled_from(running))
            self.set(job.id, None if gone else replace(job, state=JobState.COMPLETED))

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_index_answers_as_the_rule_does(self) -> None:
        for worker in (SMALL, LARGE):
            for paused in (frozenset[Lane](), frozenset({Lane.URGENT, Lane.NORMAL})):
                by_rule = choose(
                    self.jobs.values(), worker, now=self.now, shares=self.shares(), paused=paused
                )
                assert self.room.choose(worker, now=self.now, paused=paused) == by_rule

    @invariant()
    def depths_are_what_waits(self) -> None:
        queued = [job.priority for job in self.jobs.values() if job.state is JobState.QUEUED]
        assert {lane: self.room.depth(lane) for lane in Lane} == {lane: queued.count(lane) for lane in Lane}
        assert len(self.room.order(100, now=self.now)) == len(queued)


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_what_a_worker_does_not_take_is_passed_over_for_the_next_that_it_does() -> None:
    room = WaitingRoom()
    jobs = [waiting(f"j{number}", position=number) for number in range(4)]
    for each in jobs:
        room.update(each.id, each)
    for refused in ({"j0"}, {"j0", "j1"}, {each.id for each in jobs}):
        chosen = room.choose(LARGE, now=1, takes=lambda each, refused=refused: each.id not in refused)
        assert chosen == choose(
            jobs, LARGE, now=1, takes=lambda each, refused=refused: each.id not in refused
        )
        assert (chosen and chosen.id) == next((each.id for each in jobs if each.id not in refused), None)
