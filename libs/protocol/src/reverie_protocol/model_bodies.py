"""Bodies of `/api/*`, the model management that existing frontends know: snake_case, as they have it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import JobId, ModeName, Vram
from reverie_protocol.quantities import Count, Gigabytes, Percent, StepCount

Why = Annotated[str, Meta(description="why it cannot be used; empty if it can")]


class ModelsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/models/status`."""

    current_mode: Annotated[str | None, Meta(description="the mode of jobs that name none")]
    queue_size: Annotated[Count, Meta(description="jobs that wait")]
    vram: Vram


class LoraView(msgspec.Struct, frozen=True):
    """A LoRA that a mode always wears."""

    path: str
    strength: Annotated[float, Meta(description="weight; 1 is as it was trained")]
    adapter_name: str


class ModeView(msgspec.Struct, frozen=True, kw_only=True):
    """A mode with its defaults; `loaded` is whether a worker has it in memory now."""

    model: str
    loras: tuple[LoraView, ...] = ()
    default_size: Annotated[str | None, Meta(description="WIDTHxHEIGHT in pixels; null if not known yet")] = (
        None
    )
    default_steps: StepCount | None = None
    default_guidance: Annotated[float | None, Meta(description="guidance scale")] = None
    scheduler: str = ""
    styles: tuple[str, ...] = ()
    loaded: bool = False
    available: bool = True
    detail: Why = ""


class ModesView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/modes`."""

    default_mode: str | None
    modes: dict[str, ModeView]


class ModeSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /api/modes/switch`."""

    mode: ModeName


class ModeSwitched(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`POST /api/modes/switch`: `queued` with the jobs that switch, one for each worker that has the mode."""

    status: Literal["already_loaded", "queued"]
    mode: str
    job_id: JobId | None = None
    job_ids: tuple[JobId, ...] = ()


class ModesReread(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/modes/reload`."""

    status: Literal["reloaded"] = msgspec.field(default_factory=lambda: "reloaded")
    modes_count: Count
    modes: tuple[str, ...]
    default_mode: str | None


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a worker's memory."""

    name: str
    model_path: Annotated[str, Meta(description="as the operator wrote it")]
    vram_gb: Gigabytes
    loras: tuple[str, ...] = ()
    worker: str = ""


class VramView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/vram`."""

    device: str
    total_gb: Gigabytes
    allocated_gb: Gigabytes
    used_gb: Gigabytes
    available_gb: Gigabytes
    usage_percent: Percent
    models_loaded: Count
    models: tuple[ModelView, ...] = ()


MODEL_BODIES: tuple[type[Any], ...] = (
    ModelsStatus,
    ModesView,
    ModeSwitch,
    ModeSwitched,
    ModesReread,
    VramView,
)
