"""A seed is a run: the same seed and sizes plan the same, and every kind of fault comes up."""

from __future__ import annotations

from reverie_launcher.chaos.plan import (
    GATEWAY_POINTS,
    WORKER_POINTS,
    Fault,
    FaultKind,
    Link,
    plan_faults,
)
from reverie_launcher.chaos.workload import plan_jobs


def faults(seed: int, count: int = 50, **more: object) -> list[Fault]:
    return plan_faults(seed=seed, count=count, span_s=60.0, workers=3, gateways=2, **more)  # type: ignore[arg-type]  # by name


def test_the_same_seed_plans_the_same_faults_and_jobs() -> None:
    assert faults(7) == faults(7)
    assert plan_jobs(seed=7, count=50, span_s=60.0, clients=4) == plan_jobs(
        seed=7, count=50, span_s=60.0, clients=4
    )


def test_another_seed_plans_others() -> None:
    assert faults(7) != faults(8)


def test_faults_come_in_order_of_time_within_the_span() -> None:
    times = [fault.at_s for fault in faults(1, count=500)]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= 60.0


def test_a_long_plan_has_every_kind_and_every_crash_point() -> None:
    planned = faults(1, count=5000)
    assert {fault.kind for fault in planned} == set(FaultKind)
    assert {fault.point for fault in planned} == {"", *WORKER_POINTS, *GATEWAY_POINTS}
    assert {fault.link for fault in planned} == {None, *Link}
    assert max(fault.target for fault in planned if fault.kind is FaultKind.KILL_WORKER) == 2


def test_garbage_goes_to_gateways_only() -> None:
    garbled = [fault for fault in faults(1, count=2000) if fault.kind is FaultKind.GARBLE_LINK]
    assert {fault.link for fault in garbled} == {Link.CLIENTS}


def test_one_kind_alone_can_be_planned() -> None:
    planned = faults(1, only=(FaultKind.KILL_WORKER,))
    assert len(planned) == 50
    assert {fault.kind for fault in planned} == {FaultKind.KILL_WORKER}


def test_each_job_has_a_key_and_a_prompt_of_its_own() -> None:
    jobs = plan_jobs(seed=1, count=300, span_s=60.0, clients=4)
    assert len({job.key for job in jobs}) == len({job.prompt for job in jobs}) == 300
    assert any(job.cuts_after_submit for job in jobs)
    assert any(job.repeats for job in jobs)
    assert any(job.conflicts for job in jobs)
    assert any(job.cancel_after_s is not None for job in jobs)
