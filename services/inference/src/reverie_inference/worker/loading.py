"""From settings to an engine; runs in the engine's thread, where importing torch may take its time."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.picture_plan import SUPERRES_SCALE
from reverie_inference.engine.schedulers import scheduler_names
from reverie_inference.models.checkpoint import load_failed, load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.settings import InferenceSettings
from reverie_inference.super_resolution import UnusableWeights, Upscaler, load_upscaler
from reverie_inference.worker.capabilities import Capabilities
from reverie_protocol.jobs import ModeInfo, Vram

_GB = 1024**3


def load_engine(settings: InferenceSettings) -> tuple[StepEngine, Capabilities]:
    """Load the model and its super-resolution; the errors of `load_pipeline`."""
    quiet_libraries()
    torch.set_num_threads(settings.threads or spare_cores())
    model = load_pipeline(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        offline=settings.offline,
        config=Path(settings.config) if settings.config else None,
        revision=settings.revision or None,
    )
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # where this thread records what it waits for
    upscalers = _load_upscalers(settings, model)
    engine = StepEngine(model, upscalers=upscalers, capacity=settings.slots)
    return engine, capabilities_of(engine)


def spare_cores() -> int:
    """All cores but one, which stays free for the event loop, NATS and the gateway beside the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def quiet_libraries() -> None:
    """Keep what the libraries tell their developers out of an operator's log."""
    logging.getLogger("torch").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"diffusers|transformers")


def capabilities_of(engine: StepEngine) -> Capabilities:
    """What the engine offers, for the worker's record."""
    model = engine.model
    names = scheduler_names(model.pipeline.scheduler)
    info = ModeInfo(
        model=model.mode,
        family=model.family if model.family != "callback" else type(model.pipeline).__name__,
        default_size=f"{model.default_size[0]}x{model.default_size[1]}",
        default_steps=model.default_steps,
        default_guidance=model.default_guidance,
        scheduler=model.scheduler,
    )
    return Capabilities(
        mode=model.mode,
        mode_info=info,
        device=device_name(model.device),
        schedulers=tuple(dict.fromkeys((*names, model.scheduler))),
        superres=SUPERRES_SCALE in engine.upscalers,
        slots=engine.capacity,
        vram=lambda: measure_vram(model.device),
    )


def device_name(device: torch.device) -> str:
    """`cpu`, `mps`, or the accelerator's index and name."""
    if device.type != "cuda":
        return device.type
    return f"cuda:{device.index or 0} ({torch.cuda.get_device_name(device)})"


def measure_vram(device: torch.device) -> Vram:
    """Memory of the accelerator in GB; zeros on a CPU."""
    if device.type != "cuda":
        return Vram()
    free, total = torch.cuda.mem_get_info(device)
    return Vram(
        device=torch.cuda.get_device_name(device),
        total_gb=round(total / _GB, 2),
        allocated_gb=round(torch.cuda.memory_allocated(device) / _GB, 2),
        used_gb=round((total - free) / _GB, 2),
        available_gb=round(free / _GB, 2),
        usage_percent=round(100 * (total - free) / total, 1),
    )


def _load_upscalers(settings: InferenceSettings, model: LoadedModel) -> dict[int, Upscaler]:
    """Super-resolution networks by scale: those that are set, else those that the model brings."""
    weights = model.upscaler_weights
    if settings.super_resolution:
        folder = Path(settings.super_resolution)
        weights = {scale: folder / f"x{scale}.safetensors" for scale in (2, 4)}
    found = {}
    for scale, path in weights.items():
        try:
            found[scale] = load_upscaler(path, model.device, torch.float32)
        except FileNotFoundError:
            continue
        except UnusableWeights as error:
            raise load_failed(path.name, str(error)) from error
    return found
