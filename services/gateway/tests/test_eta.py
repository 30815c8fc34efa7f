"""When a running job will be done: measured, or not said."""

from __future__ import annotations

import msgspec
import pytest

from reverie_gateway.eta import eta_seconds
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobState,
    JobType,
    Phase,
    Progress,
    SuperResolutionParams,
)


def running(*, superres: bool = False) -> Job:
    return Job(
        id="a",
        owner="me",
        type=JobType.GENERATE,
        state=JobState.RUNNING,
        params=GenerateParams(prompt="x", superres=superres),
        created_at=0,
        enqueued_at=0,
        updated_at=0,
    )


def told(phase: Phase = Phase.DENOISING, step: int = 3, step_seconds: float = 0.5) -> Progress:
    return Progress("a", 1, phase, step, 10, 0.3, step_seconds)


def test_it_is_what_the_remaining_steps_take_at_the_speed_of_the_last() -> None:
    assert eta_seconds(running(), told()) == 3.5
    assert eta_seconds(running(), told(step=10)) == 0.0


@pytest.mark.parametrize(
    "progress",
    [
        None,
        told(step=0),
        told(step_seconds=0),
        told(Phase.LOADING),
        told(Phase.DECODING),
        told(Phase.STORING),
    ],
)
def test_what_was_not_measured_is_not_guessed(progress: Progress | None) -> None:
    assert eta_seconds(running(), progress) is None


def test_super_resolution_behind_denoising_has_no_measured_steps() -> None:
    assert eta_seconds(running(superres=True), told()) is None


def test_a_job_that_is_all_super_resolution_is_measured_by_its_tiles() -> None:
    job = msgspec.structs.replace(running(), type=JobType.SR, params=SuperResolutionParams("abc"))
    assert eta_seconds(job, told(Phase.UPSCALING)) == 3.5
    assert eta_seconds(job, told(Phase.STORING)) is None
