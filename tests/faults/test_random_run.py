"""A short run of `reverie chaos`: a few dozen jobs under a plan of faults, and no promise broken."""

from __future__ import annotations

from pathlib import Path

from reverie_launcher.chaos.report import Setup
from reverie_launcher.chaos.run import run_chaos
from reverie_launcher.chaos.violations import Promise

SETUP = Setup(seed=20, jobs=40, span_s=20.0, faults=14)
#: Open defects of the gateway's sessions, see "Found and open" in docs/chaos.md; nothing else may be broken.
OPEN = {Promise.LOG_ORDER, Promise.LOG_WHOLE}


async def test_forty_jobs_under_faults_keep_every_promise(tmp_path: Path, model: str) -> None:
    report = await run_chaos(SETUP, tmp_path, model=model, tell=print)
    assert [violation for violation in report.violations if violation.promise not in OPEN] == []
    assert report.settled
    assert report.acknowledged == SETUP.jobs
    assert report.faults, "no fault found its target"
