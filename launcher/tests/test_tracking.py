"""A job as its events tell it."""

from __future__ import annotations

import pytest

from reverie_launcher.client.tracking import JobEvent, Tracked, advance
from reverie_protocol.jobs import JobMeta, JobState, JobType, Lane, Output, Phase
from reverie_protocol.server_messages import (
    JobAck,
    JobComplete,
    JobFailed,
    JobProgress,
    JobStateChanged,
)

ACK = JobAck(job_id="a", state=JobState.QUEUED, priority=Lane.NORMAL, seq=1)
DONE = JobComplete(
    job_id="a", outputs=(Output(url="/storage/x", key="x"),), meta=JobMeta(7, "engine"), seq=9, job_seq=3
)


def running(attempt: int) -> JobStateChanged:
    return changed(JobState.RUNNING, attempt)


def changed(state: JobState, attempt: int) -> JobStateChanged:
    return JobStateChanged(
        job_id="a",
        job_type=JobType.GENERATE,
        state=state,
        priority=Lane.NORMAL,
        attempt=attempt,
        seq=2,
        job_seq=2,
    )


def progress(step: int, attempt: int = 1, job_id: str = "a") -> JobProgress:
    return JobProgress(
        job_id=job_id, attempt=attempt, phase=Phase.DENOISING, step=step, steps=10, progress=step / 10, seq=2
    )


def after(*events: JobEvent) -> Tracked:
    job = Tracked()
    for event in events:
        job = advance(job, event)
    return job


def test_a_job_goes_from_ack_over_progress_to_its_outputs() -> None:
    assert after(ACK).state is JobState.QUEUED
    halfway = after(ACK, running(1), progress(5))
    assert (halfway.state, halfway.step, halfway.steps, halfway.progress) == (JobState.RUNNING, 5, 10, 0.5)
    done = after(ACK, running(1), progress(5), DONE)
    assert done.finished
    assert (done.outputs, done.meta, done.progress) == (DONE.outputs, DONE.meta, 1.0)


def test_events_of_other_jobs_change_nothing() -> None:
    assert after(ACK, progress(5, job_id="b")) == after(ACK)


def test_nothing_changes_a_finished_job() -> None:
    assert after(ACK, DONE, progress(3), running(2)) == after(ACK, DONE)


def test_another_attempt_begins_from_nothing() -> None:
    requeued = after(ACK, running(1), progress(8), changed(JobState.QUEUED, 1))
    assert (requeued.state, requeued.step, requeued.progress) == (JobState.QUEUED, 0, 0.0)
    again = after(ACK, running(1), progress(8), changed(JobState.QUEUED, 1), running(2), progress(1, 2))
    assert (again.attempt, again.step) == (2, 1)


def test_late_progress_of_an_earlier_attempt_is_ignored() -> None:
    assert after(ACK, running(2), progress(8, attempt=1)) == after(ACK, running(2))


def test_an_ack_of_a_job_that_had_ended_does_not_make_up_a_result() -> None:
    late = JobAck(job_id="a", state=JobState.COMPLETED, priority=Lane.NORMAL, seq=1, existing=True)
    assert not after(late).finished


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_ends_otherwise_keeps_its_reason(state: JobState) -> None:
    failed = JobFailed(job_id="a", state=state, code="c", message="m", retryable=True, seq=3, job_seq=3)
    job = after(ACK, failed)
    assert (job.state, job.finished) == (state, True)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("c", "m")
