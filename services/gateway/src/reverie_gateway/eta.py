"""When a running job will be done, from the time that its steps have really taken."""

from __future__ import annotations

from reverie_protocol.jobs import GenerateParams, Job, Phase, Progress, SuperResolutionParams


def eta_seconds(job: Job, progress: Progress | None) -> float | None:
    """Seconds until the last denoising step (or tile) is done, which is nearly all of a job; None, not a guess.

    Nothing is known before the first step, after the last, or of super-resolution behind denoising, which has no
    measured steps; and of a waiting job nobody knows which worker will take it, or what will be put before it.
    """
    measured = Phase.UPSCALING if isinstance(job.params, SuperResolutionParams) else Phase.DENOISING
    if progress is None or progress.phase is not measured:
        return None
    if isinstance(job.params, GenerateParams) and job.params.superres:
        return None
    if progress.step < 1 or progress.step_seconds <= 0:
        return None
    return round(max(0, progress.steps - progress.step) * progress.step_seconds, 1)
