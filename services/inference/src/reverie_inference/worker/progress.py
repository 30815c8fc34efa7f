"""How far a job is, as one fraction that never falls."""

from __future__ import annotations

from reverie_protocol.jobs import Phase, Progress

#: Where each phase begins in the whole job; denoising is nearly all of it.
_BEGINS: dict[Phase, float] = {
    Phase.LOADING: 0.0,
    Phase.ENCODING: 0.0,
    Phase.DENOISING: 0.02,
    Phase.DECODING: 0.92,
    Phase.UPSCALING: 0.95,
    Phase.STORING: 0.98,
}


class JobProgress:
    """Folds what happens to one attempt into its latest Progress."""

    def __init__(self, job_id: str, attempt: int) -> None:
        self.latest = Progress(job_id=job_id, attempt=attempt, phase=Phase.LOADING)

    def enter(self, phase: Phase, *, steps: int | None = None) -> None:
        """A phase began, which takes this many steps if it takes any."""
        self._update(phase, _BEGINS[phase], steps=steps)

    def step(self, step: int, steps: int, step_seconds: float) -> None:
        """A denoising step is done."""
        begin, end = _BEGINS[Phase.DENOISING], _BEGINS[Phase.DECODING]
        self._update(Phase.DENOISING, begin + (end - begin) * step / max(steps, 1), step, steps, step_seconds)

    def tile(self, tile: int, tiles: int, tile_seconds: float) -> None:
        """A tile of a job that is all super-resolution is done."""
        fraction = _BEGINS[Phase.STORING] * tile / max(tiles, 1)
        self._update(Phase.UPSCALING, fraction, tile, tiles, tile_seconds)

    def _update(
        self,
        phase: Phase,
        fraction: float,
        step: int | None = None,
        steps: int | None = None,
        step_seconds: float | None = None,
    ) -> None:
        before = self.latest
        self.latest = Progress(
            job_id=before.job_id,
            attempt=before.attempt,
            phase=phase,
            step=before.step if step is None else step,
            steps=before.steps if steps is None else steps,
            progress=round(max(before.progress, fraction), 4),
            step_seconds=before.step_seconds if step_seconds is None else round(step_seconds, 4),
        )
