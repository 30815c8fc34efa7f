"""What happens to jobs in the engine, in the order it happens."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from reverie_protocol.errors import ErrorCode
from reverie_protocol.jobs import JobMeta, Phase


@dataclass(frozen=True)
class Started:
    """A job entered a phase; for denoising with how many steps it is going to take."""

    job_id: str
    phase: Phase
    steps: int = 0


@dataclass(frozen=True)
class Stepped:
    """A denoising step is done: `step` of `steps`, which took `step_seconds`."""

    job_id: str
    step: int
    steps: int
    step_seconds: float


@dataclass(frozen=True)
class Checkpointed:
    """A job as it is after `step`: another attempt may go on from `content`."""

    job_id: str
    step: int
    content: bytes


@dataclass(frozen=True)
class Tiled:
    """Super-resolution of a job's own picture: `tile` of `tiles` of all passes is done, in `tile_seconds`."""

    job_id: str
    tile: int
    tiles: int
    tile_seconds: float


@dataclass(frozen=True)
class Finished:
    """A job's picture is made and the job has left; `run_seconds` of its meta is the engine's own time."""

    job_id: str
    picture: Image.Image
    meta: JobMeta


@dataclass(frozen=True)
class Left:
    """A job left before its end, on request; `picture` is what it had drawn, if it had and that was wanted."""

    job_id: str
    picture: Image.Image | None
    meta: JobMeta


@dataclass(frozen=True)
class Failed:
    """A job could not be made and has left; `message` is one sentence for a person."""

    job_id: str
    code: ErrorCode
    message: str


@dataclass(frozen=True)
class Switched:
    """A job that asked for a mode has it: it is in memory, and that of jobs that name none."""

    job_id: str
    mode: str


Event = Started | Stepped | Checkpointed | Tiled | Finished | Left | Failed | Switched
