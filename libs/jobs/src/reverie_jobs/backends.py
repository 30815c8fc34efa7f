"""Workers as clients see them: `system:backends`."""

from __future__ import annotations

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
    )
