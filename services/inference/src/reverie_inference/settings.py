"""What can be set for the inference service, with its bounds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from reverie_runtime.settings import DrainSettings, HealthSettings, LogSettings, NatsSettings
from reverie_storage.settings import StorageSettings


class InferenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `inference`."""

    model: Annotated[
        str,
        Meta(description="diffusers folder, .safetensors file or Hugging Face id; not needed beside modes"),
    ] = ""
    modes: Annotated[
        str, Meta(description="path of a modes.yml with several models and their defaults; watched")
    ] = ""
    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,64}$",
            description="name of this worker, kept over restarts and no other worker's; empty is the host's name",
        ),
    ] = ""
    node: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,64}$",
            description="name of this machine, the same as monitor.node there; empty is the host's name",
        ),
    ] = ""
    device: Annotated[
        str, Meta(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:N")
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "fp32", "fp16", "bf16"],
        Meta(description="precision; auto is fp16 on an accelerator, fp32 on a CPU"),
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, le=1024, description="CPU threads for the model; 0 is one per core, less one")
    ] = 0
    slots: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="jobs in work at once, beside those that a higher lane displaced; 0 is as many as share "
            "their steps with gain, by what is measured",
        ),
    ] = 0
    displaced: Annotated[
        int,
        Meta(ge=0, le=64, description="jobs of lower lanes that keep their place while higher ones go first"),
    ] = 16
    resident_models: Annotated[
        int, Meta(ge=0, le=1000, description="most models in memory; 0 is as many as memory allows")
    ] = 0
    memory_reserve_gb: Annotated[
        float, Meta(ge=0, le=1000, description="memory that loading a model leaves free for the work itself")
    ] = 2.0
    idle_unload_s: Annotated[
        float,
        Meta(ge=0, description="give up models that are not pinned after this long without work; 0 is never"),
    ] = 0.0
    metadata: Annotated[bool, Meta(description="write prompt and parameters into the pictures")] = True
    checkpoint_steps: Annotated[
        int,
        Meta(ge=0, le=1000, description="steps between two checkpoints of a running job; 0 makes none"),
    ] = 10
    preview_hz: Annotated[float, Meta(gt=0, le=30, description="most previews a second of one job")] = 4.0
    offline: Annotated[bool, Meta(description="never ask the Hugging Face hub")] = False
    revision: Annotated[str, Meta(description="commit or tag of a Hugging Face id; empty is the newest")] = ""
    config: Annotated[
        str, Meta(description="diffusers folder that supplies what a single file lacks; empty is none")
    ] = ""
    super_resolution: Annotated[
        str,
        Meta(
            description="super-resolution: a .safetensors file or a folder of them; empty is what the model brings"
        ),
    ] = ""

    def __post_init__(self) -> None:
        if not self.model and not self.modes:
            raise ValueError("inference.model (or inference.modes) must be set")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the inference service."""

    inference: InferenceSettings
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()
