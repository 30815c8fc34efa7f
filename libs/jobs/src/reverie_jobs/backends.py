"""Workers as clients see them: `system:backends`, and what they load in `system:status`."""

from __future__ import annotations

from collections.abc import Iterable

from reverie_protocol.jobs import Worker
from reverie_protocol.server_messages import Backend


def backend_of(worker: Worker) -> Backend:
    """A worker as `system:backends` shows it."""
    return Backend(
        name=worker.name,
        backend=worker.backend,
        device=worker.device,
        state=worker.state,
        job_types=worker.job_types,
        modes=tuple(sorted(worker.modes)),
        mode=worker.mode,
        slots=worker.slots,
        running=len(worker.running),
        vram=worker.vram,
        node=worker.node,
    )


def load_progress(workers: Iterable[Worker]) -> dict[str, float]:
    """The modes that are being loaded, each with the least that any of its workers has in place (0 to 1)."""
    progress: dict[str, float] = {}
    for worker in workers:
        if worker.loading:
            progress[worker.loading] = min(worker.load_progress, progress.get(worker.loading, 1.0))
    return dict(sorted(progress.items()))
