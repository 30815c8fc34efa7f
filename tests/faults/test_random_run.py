"""A short run of `reverie chaos`: a few dozen jobs under a plan of faults, and no promise broken."""

from __future__ import annotations

from pathlib import Path

from reverie_launcher.chaos.report import Setup
from reverie_launcher.chaos.run import run_chaos

SETUP = Setup(seed=20, jobs=80, span_s=20.0, faults=20, workers=1, light=2)


async def test_eighty_jobs_under_faults_keep_every_promise(tmp_path: Path, model: str) -> None:
    report = await run_chaos(SETUP, tmp_path, model=model, tell=print)
    assert report.violations == []
    assert report.settled
    assert report.acknowledged == SETUP.jobs
    assert report.faults, "no fault found its target"
