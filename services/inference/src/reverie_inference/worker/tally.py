"""Prometheus metrics of the worker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_STEP_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_JOB_BUCKETS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


class Tally:
    """Counts jobs by how they ended, and times jobs and steps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter(
            "reverie_inference_jobs", "Jobs that left this worker", ["state"], registry=registry
        )
        self._job_seconds = Histogram(
            "reverie_inference_job_seconds",
            "From claim to terminal write",
            buckets=_JOB_BUCKETS,
            registry=registry,
        )
        self._step_seconds = Histogram(
            "reverie_inference_step_seconds",
            "One denoising step",
            buckets=_STEP_BUCKETS,
            registry=registry,
        )

    def job_ended(self, state: str, seconds: float) -> None:
        """A job is over for this worker."""
        self._jobs.labels(state).inc()
        self._job_seconds.observe(seconds)

    def stepped(self, seconds: float) -> None:
        """A denoising step is done."""
        self._step_seconds.observe(seconds)
