"""Who claims what."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from reverie_jobs.admission import require_servable
from reverie_jobs.claiming import choose
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import (
    GenerateParams,
    Job,
    JobState,
    JobType,
    Lane,
    ModeInfo,
    StyleLora,
    SuperResolutionParams,
    Worker,
    WorkerState,
)

WORKER = Worker(
    name="w",
    incarnation="1",
    service="inference",
    state=WorkerState.READY,
    job_types=(JobType.GENERATE,),
    modes={"builtin": ModeInfo(model="m", styles=("ink",))},
    mode="builtin",
    schedulers=("Euler", "DDIM"),
    superres=True,
)


def job(
    id_: str = "a",
    *,
    params: GenerateParams | SuperResolutionParams | None = None,
    priority: Lane = Lane.NORMAL,
    position: float = 1,
    type_: JobType = JobType.GENERATE,
) -> Job:
    return Job(
        id=id_,
        owner="u",
        type=type_,
        state=JobState.QUEUED,
        priority=priority,
        position=position,
        params=params or GenerateParams(prompt="p"),
        created_at=1,
        enqueued_at=1,
        updated_at=1,
    )


def test_a_more_urgent_lane_goes_first_whatever_its_place() -> None:
    jobs = [job("late", priority=Lane.URGENT, position=9), job("early", position=1)]
    chosen = choose(jobs, WORKER, now=10)
    assert chosen is not None
    assert chosen.id == "late"


def test_inside_a_lane_the_first_come_is_the_first_served() -> None:
    chosen = choose([job("b", position=2), job("a", position=1)], WORKER, now=10)
    assert chosen is not None
    assert chosen.id == "a"


def test_a_job_is_left_alone_until_its_time_has_come() -> None:
    waiting = replace(job(), not_before=20.0)
    assert choose([waiting], WORKER, now=10) is None
    assert choose([waiting], WORKER, now=20) is not None


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.READY])
def test_a_worker_that_is_not_ready_claims_nothing(state: WorkerState) -> None:
    assert choose([job()], replace(WORKER, state=state), now=10) is None


def test_a_worker_leaves_modes_and_kinds_that_it_lacks_to_others() -> None:
    other_mode = job(params=GenerateParams(prompt="p", mode="sdxl"))
    assert choose([other_mode, job("c", type_=JobType.COMFY)], WORKER, now=10) is None


def refusal(params: GenerateParams, workers: list[Worker]) -> ReverieError:
    with pytest.raises(ReverieError) as refused:
        require_servable(job(params=params), workers)
    return refused.value


def test_without_any_worker_the_job_may_wait_and_the_answer_says_so() -> None:
    error = refusal(GenerateParams(prompt="p"), [])
    assert error.code is ErrorCode.NO_WORKER
    assert error.retry_after


def test_an_unknown_mode_is_named_together_with_the_modes_there_are() -> None:
    error = refusal(GenerateParams(prompt="p", mode="sdxl"), [WORKER])
    assert error.code is ErrorCode.MODE_NOT_FOUND
    assert "builtin" in error.message


def test_an_unknown_scheduler_is_refused_naming_those_there_are() -> None:
    error = refusal(GenerateParams(prompt="p", scheduler="nope"), [WORKER])
    assert error.code is ErrorCode.INVALID_FIELD
    assert error.fields[0].loc == ("scheduler",)
    assert "DDIM, Euler" in error.message


@pytest.mark.parametrize("level", [0, 1])
def test_an_unknown_style_is_refused_at_every_level(level: int) -> None:
    wanted = GenerateParams(prompt="p", style_lora=StyleLora(style="oil", level=level))
    assert refusal(wanted, [WORKER]).code is ErrorCode.STYLE_NOT_FOUND


def test_an_empty_style_at_level_0_is_none() -> None:
    require_servable(job(params=GenerateParams(prompt="p", style_lora=StyleLora(style=""))), [WORKER])


def test_super_resolution_beyond_what_is_made_is_refused_also_for_the_default_size() -> None:
    mode = replace(WORKER.modes["builtin"], default_size="2048x1024")
    worker = replace(WORKER, mode="builtin", modes={"builtin": mode})
    wanted = GenerateParams(prompt="p", superres=True, superres_magnitude=3)
    error = refusal(wanted, [worker])
    assert error.code is ErrorCode.INVALID_FIELD
    assert error.fields[0].loc == ("superres_magnitude",)
    assert "16384x8192" in error.message
    require_servable(job(params=replace(wanted, superres_magnitude=2)), [worker])


def test_super_resolution_is_refused_before_any_work_where_it_is_disabled() -> None:
    error = refusal(GenerateParams(prompt="p", superres=True), [replace(WORKER, superres=False)])
    assert error.code is ErrorCode.SUPERRES_DISABLED


def test_super_resolution_of_a_picture_needs_a_worker_that_has_it() -> None:
    wanted = job(params=SuperResolutionParams("abc"), type_=JobType.SR)
    worker = replace(WORKER, job_types=(JobType.GENERATE, JobType.SR))
    require_servable(wanted, [worker])
    assert choose([wanted], worker, now=10) == wanted
    without = replace(worker, superres=False)
    assert choose([wanted], without, now=10) is None
    with pytest.raises(ReverieError) as refused:
        require_servable(wanted, [without])
    assert refused.value.code is ErrorCode.SUPERRES_DISABLED


def test_a_picture_to_start_from_needs_a_mode_that_takes_it_unless_that_is_not_known_yet() -> None:
    known = ModeInfo(model="m", family="sd15", init_image=True)
    for info, mask, taken in (
        (known, None, True),
        (known, "def", False),
        (replace(known, mask_image=True), "def", True),
        (replace(known, init_image=False), None, False),
        (replace(known, init_image=False, family=""), None, True),
    ):
        worker = replace(WORKER, modes={"builtin": info})
        wanted = GenerateParams(prompt="p", initImage="abc", maskImage=mask)
        assert (choose([job(params=wanted)], worker, now=10) is not None) is taken
        if not taken:
            error = refusal(wanted, [worker])
            assert error.code is ErrorCode.INVALID_FIELD
            assert error.fields[0].loc == ("maskImage" if mask else "initImage",)


def test_while_a_worker_starts_nothing_is_said_to_be_unknown() -> None:
    starting = replace(WORKER, state=WorkerState.STARTING, modes={}, schedulers=(), superres=False)
    for params in (
        GenerateParams(prompt="p", mode="sdxl"),
        GenerateParams(prompt="p", superres=True),
    ):
        error = refusal(params, [starting])
        assert error.code is ErrorCode.NO_WORKER
        assert error.retry_after


def test_a_job_that_some_worker_can_serve_is_admitted() -> None:
    params = GenerateParams(prompt="p", mode="builtin", scheduler="euler", superres=True)
    require_servable(job(params=params), [WORKER])
