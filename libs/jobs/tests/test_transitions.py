"""The job table: what may follow what, and what never may."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from reverie_jobs.transitions import (
    MAX_CRASHES,
    TRANSITIONS,
    Claim,
    Refused,
    Superseded,
    Transition,
    cancel_finished,
    claim,
    complete,
    expire,
    fail,
    reprioritise,
    request_cancel,
    requeue,
)
from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobError,
    JobMeta,
    JobState,
    JobType,
    Lane,
    Output,
)

OUTPUT = Output(url="/storage/k", key="k")
META = JobMeta(seed=1, backend="test")
REASON = JobError("inference_failed", "it broke")


def queued() -> Job:
    return Job(
        id="j",
        owner="u",
        type=JobType.GENERATE,
        state=JobState.QUEUED,
        params=GenerateParams(prompt="p"),
        created_at=1,
        enqueued_at=1,
        updated_at=1,
    )


def running(**changes: object) -> tuple[Job, Claim]:
    job = claim(queued(), worker="w.1", now=2)
    return replace(job, **changes), Claim("j", "w.1", 1)


def test_terminal_states_allow_no_transition_at_all() -> None:
    assert not [state for state, _ in TRANSITIONS if state.terminal]


def test_a_claim_starts_the_next_attempt_under_the_worker() -> None:
    job = claim(queued(), worker="w.1", now=2)
    assert (job.state, job.worker, job.attempt, job.started_at) == (JobState.RUNNING, "w.1", 1, 2)


def test_a_running_job_cannot_be_claimed_again() -> None:
    job, _ = running()
    with pytest.raises(Refused) as refused:
        claim(job, worker="w.2", now=3)
    assert refused.value.transition is Transition.CLAIM


def test_completion_keeps_outputs_and_meta() -> None:
    job, held = running()
    done = complete(job, held, outputs=[OUTPUT], meta=META, now=3)
    assert (done.state, done.outputs, done.meta, done.finished_at) == (
        JobState.COMPLETED,
        (OUTPUT,),
        META,
        3,
    )


@pytest.mark.parametrize("stale", [Claim("j", "w.2", 1), Claim("j", "w.1", 2), Claim("j", "w.1", 0)])
def test_a_worker_cannot_move_a_job_that_is_not_its_own_attempt(stale: Claim) -> None:
    job, _ = running()
    with pytest.raises(Superseded):
        complete(job, stale, outputs=[OUTPUT], meta=META, now=3)
    with pytest.raises(Superseded):
        fail(job, stale, error=REASON, now=3)
    with pytest.raises(Superseded):
        requeue(job, stale, crashed=True, now=3)


def test_a_cancel_of_a_waiting_job_is_final_at_once() -> None:
    job = request_cancel(queued(), now=2)
    assert job is not None
    assert job.state is JobState.CANCELLED
    assert job.error is not None
    assert job.error.code == ErrorCode.CANCELLED


def test_a_cancel_of_a_running_job_asks_once_and_then_changes_nothing() -> None:
    job, _ = running()
    asked = request_cancel(job, now=3)
    assert asked is not None
    assert asked.cancel
    assert asked.state is JobState.RUNNING
    assert request_cancel(asked, now=4) is None


def test_an_acknowledged_cancel_wins_over_a_completion_that_comes_later() -> None:
    job, held = running(cancel=True)
    done = complete(job, held, outputs=[OUTPUT], meta=META, now=3)
    assert done.state is JobState.CANCELLED
    assert done.partial
    assert done.outputs[0].partial


def test_a_cancelled_job_keeps_what_its_worker_had_made_marked_as_partial() -> None:
    job, held = running(cancel=True)
    done = cancel_finished(job, held, outputs=[OUTPUT], meta=META, now=3)
    assert done.partial
    assert done.outputs == (Output(url="/storage/k", key="k", partial=True),)


def test_a_lost_job_goes_back_to_its_old_place() -> None:
    job, held = running()
    again = requeue(job, held, crashed=True, now=9)
    assert (again.state, again.worker, again.crashes) == (JobState.QUEUED, None, 1)
    assert again.position == job.position


def test_a_job_that_kills_its_workers_fails_as_a_crash_loop() -> None:
    job = queued()
    for round_ in range(1, MAX_CRASHES + 1):
        job = claim(job, worker=f"w.{round_}", now=round_)
        job = requeue(job, Claim("j", f"w.{round_}", round_), crashed=True, now=round_)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == ErrorCode.CRASH_LOOP


def test_workers_that_came_back_were_not_killed_by_the_job() -> None:
    job = queued()
    for round_ in range(1, 10):
        job = claim(job, worker=f"w.{round_}", now=round_)
        held = Claim("j", f"w.{round_}", round_)
        job = requeue(job, held, crashed=True, gone=False, alive=job.lost_workers, now=round_)
    assert (job.state, job.crashes, job.lost_workers) == (JobState.QUEUED, 1, ("w.9",))


def test_a_worker_that_is_only_silent_does_not_complete_the_number() -> None:
    job = queued()
    for round_ in range(1, MAX_CRASHES + 1):
        job = claim(job, worker=f"w.{round_}", now=round_)
        job = requeue(job, Claim("j", f"w.{round_}", round_), crashed=True, gone=False, now=round_)
    assert (job.state, job.crashes) == (JobState.QUEUED, MAX_CRASHES)
    job = claim(job, worker="w.4", now=9)
    job = requeue(job, Claim("j", "w.4", 4), crashed=True, gone=False, now=9)
    assert job.error is not None
    assert job.error.code == ErrorCode.CRASH_LOOP


class Verdict(RuleBasedStateMachine):
    """Workers that die, freeze, are cut off and come back under one job: only deaths may fail it."""

    def __init__(self) -> None:
        super().__init__()
        self.job = queued()
        self.hidden: set[str] = set()  # frozen: may come back
        self.dead: set[str] = set()
        self.workers = 0
        self.unheard_at_verdict = 0

    def lose(self, *, gone: bool) -> None:
        worker = self.job.worker or ""
        unheard = self.hidden | self.dead
        alive = {each for each in self.job.lost_workers if each not in unheard}
        lost = set(self.job.lost_workers) - alive - {worker}
        self.job = requeue(
            self.job, Claim("j", worker, self.job.attempt), crashed=True, gone=gone, alive=alive, now=9
        )
        assert (self.job.state is JobState.FAILED) == (len(lost) + gone >= MAX_CRASHES)
        self.unheard_at_verdict = len(unheard)

    @precondition(lambda self: self.job.state is JobState.QUEUED)
    @rule()
    def is_claimed(self) -> None:
        self.workers += 1
        self.job = claim(self.job, worker=f"w.{self.workers}", now=9)

    @precondition(lambda self: self.job.state is JobState.RUNNING)
    @rule()
    def its_worker_dies(self) -> None:
        self.dead.add(self.job.worker or "")
        self.lose(gone=True)

    @precondition(lambda self: self.job.state is JobState.RUNNING)
    @rule()
    def its_worker_freezes(self) -> None:
        self.hidden.add(self.job.worker or "")
        self.lose(gone=False)

    @precondition(lambda self: self.job.state is JobState.RUNNING and not self.dead)
    @rule()
    def its_worker_is_cut_off(self) -> None:
        self.lose(gone=True)

    @rule()
    def the_frozen_wake(self) -> None:
        self.hidden.clear()

    @invariant()
    def who_wakes_is_never_counted_as_dead(self) -> None:
        if self.job.state is JobState.FAILED:
            assert self.unheard_at_verdict >= MAX_CRASHES - 1


TestVerdict = Verdict.TestCase
TestVerdict.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_worker_that_drains_gives_a_job_back_without_blame() -> None:
    job = queued()
    for round_ in range(1, 10):
        job = claim(job, worker=f"w.{round_}", now=round_)
        job = requeue(job, Claim("j", f"w.{round_}", round_), crashed=False, now=round_)
    assert job.state is JobState.QUEUED


def test_a_job_to_be_cancelled_is_not_run_again_when_its_worker_dies() -> None:
    job, held = running(cancel=True)
    assert requeue(job, held, crashed=True, now=3).state is JobState.CANCELLED


class JobLife(RuleBasedStateMachine):
    """Random verbs by several workers: attempts only grow, terminal is final, outputs only at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.job = queued()
        self.claims: list[Claim] = [Claim("j", "w.0", 0)]
        self.final: Job | None = None
        self.now = 2.0

    def move(self, verb: object, *args: object, **kwargs: object) -> None:
        self.now += 1
        try:
            after = verb(self.job, *args, now=self.now, **kwargs)  # type: ignore[operator]
        except (Refused, Superseded):
            return
        if after is None:
            return
        assert self.final is None, "a terminal job moved"
        assert after.attempt >= self.job.attempt
        if self.job.cancel:
            assert after.state is JobState.CANCELLED
        self.job = after
        if after.state.terminal:
            self.final = after

    @rule(worker=st.sampled_from(["w.1", "w.2", "w.3"]))
    def claims_it(self, worker: str) -> None:
        self.move(claim, worker=worker)
        if self.job.state is JobState.RUNNING:
            self.claims.append(Claim("j", self.job.worker or "", self.job.attempt))

    @rule(data=st.data())
    def completes_it(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.claims))
        self.move(complete, held, outputs=[OUTPUT], meta=META)

    @rule(data=st.data())
    def fails_it(self, data: st.DataObject) -> None:
        self.move(fail, data.draw(st.sampled_from(self.claims)), error=REASON)

    @rule(data=st.data(), crashed=st.booleans())
    def loses_it(self, data: st.DataObject, crashed: bool) -> None:
        self.move(requeue, data.draw(st.sampled_from(self.claims)), crashed=crashed)

    @rule(lane=st.sampled_from(list(Lane)))
    def moves_it(self, lane: Lane) -> None:
        if not self.job.cancel:
            self.move(reprioritise, lane=lane, position=None)

    @rule()
    def its_time_runs_out(self) -> None:
        self.move(lambda job, now: expire(replace(job, finish_by=now - 1), now=now))

    @rule()
    def cancels_it(self) -> None:
        self.move(request_cancel)

    @precondition(lambda self: self.job.cancel)
    @rule(data=st.data())
    def stops_it(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.claims))
        self.move(cancel_finished, held, outputs=[], meta=None)

    @invariant()
    def only_finished_jobs_have_outputs(self) -> None:
        assert not self.job.outputs or self.job.state.terminal

    @invariant()
    def a_completed_job_has_its_output_and_a_failed_one_its_reason(self) -> None:
        if self.job.state is JobState.COMPLETED:
            assert self.job.outputs
        if self.job.state is JobState.FAILED:
            assert self.job.error is not None


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_waiting_job_moves_to_another_lane_and_place_and_a_second_time_changes_nothing() -> None:
    moved = reprioritise(queued(), lane=Lane.URGENT, position=7.0, now=3)
    assert moved is not None
    assert (moved.state, moved.priority, moved.position) == (JobState.QUEUED, Lane.URGENT, 7.0)
    assert reprioritise(moved, lane=Lane.URGENT, position=7.0, now=4) is None


def test_a_running_job_changes_its_lane_and_goes_on_running() -> None:
    job, _ = running()
    moved = reprioritise(job, lane=Lane.BACKGROUND, position=None, now=3)
    assert moved is not None
    assert (moved.state, moved.priority, moved.worker) == (JobState.RUNNING, Lane.BACKGROUND, "w.1")


def test_a_finished_job_cannot_be_moved() -> None:
    job, held = running()
    done = complete(job, held, outputs=[OUTPUT], meta=META, now=3)
    with pytest.raises(Refused):
        reprioritise(done, lane=Lane.URGENT, position=None, now=4)


def test_a_job_that_did_not_start_in_time_fails_and_says_which_limit_it_missed() -> None:
    late = replace(queued(), start_by=5.0)
    assert expire(late, now=5) is None
    expired = expire(late, now=5.1)
    assert expired is not None
    assert expired.error is not None
    assert expired.state is JobState.FAILED
    assert expired.error.code == ErrorCode.DEADLINE_EXCEEDED
    assert "startBy" in expired.error.message


def test_a_job_that_started_in_time_only_has_to_be_done_in_time() -> None:
    job, held = running(start_by=5.0, finish_by=8.0)
    assert expire(job, now=7) is None
    expired = expire(job, now=8.1)
    assert expired is not None
    assert expired.error is not None
    assert "finishBy" in expired.error.message
    with pytest.raises(Superseded):
        complete(expired, held, outputs=[OUTPUT], meta=META, now=9)


def test_a_failed_job_keeps_what_it_had_made_and_says_that_it_is_partial() -> None:
    running = claim(queued(), worker="w", now=1)
    held = Claim(running.id, "w", running.attempt)
    error = JobError(ErrorCode.WORKFLOW_FAILED, "a node failed")
    failed = fail(running, held, error=error, outputs=[OUTPUT], now=2)
    assert (failed.state, failed.partial, failed.error) == (JobState.FAILED, True, error)
    assert [each.partial for each in failed.outputs] == [True]


def test_a_loss_of_the_workers_server_is_counted_apart_from_crashes() -> None:
    running = claim(queued(), worker="w", now=1)
    again = requeue(running, Claim(running.id, "w", running.attempt), crashed=False, lost=True, now=2)
    assert (again.state, again.losses, again.crashes, again.lost_workers) == (JobState.QUEUED, 1, 0, ())
