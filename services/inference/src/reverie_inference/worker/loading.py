"""From settings to an engine; runs in the engine's thread, where importing torch may take its time."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog
import torch

from reverie_inference.engine.engine import StepEngine
from reverie_inference.engine.picture_plan import pass_scale
from reverie_inference.engine.schedulers import scheduler_names
from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.device import pick_device
from reverie_inference.models.image_to_image import takes_init_image, takes_mask_image
from reverie_inference.models.load_progress import untold
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.shelf import MemoryRule, Shelf, weight_bytes
from reverie_inference.modes.catalogue import Catalogue, Mode
from reverie_inference.settings import InferenceSettings
from reverie_inference.upscalers.library import load_upscaler, load_upscalers
from reverie_inference.upscalers.network import Upscaler
from reverie_inference.worker.capabilities import Capabilities
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import ModeInfo, ModeLora, ResidentModel, Vram
from reverie_protocol.sizes import SUPERRES_SCALE

_GB = 1024**3

log = structlog.get_logger(__name__)


def load_engine(
    settings: InferenceSettings,
    catalogue: Catalogue,
    *,
    mode: str | None = None,
    on_progress: Callable[[float], None] = untold,
) -> tuple[StepEngine, EngineOffer]:
    """An engine with its first mode (`mode`, else the default one) and all pinned ones loaded.

    `on_progress` is told the part that is in place: of all these together, later of each model that a job needs.
    The errors of `load_pipeline` for a single model; a mode of a file that cannot be loaded is said to be so.
    """
    quiet_libraries()
    torch.set_num_threads(settings.threads or spare_cores())
    device = pick_device(settings.device)
    upscalers: dict[int, Upscaler] = {}
    if settings.super_resolution:
        upscalers |= load_upscalers(Path(settings.super_resolution), device)

    progress = on_progress

    def load(reference: str) -> LoadedModel:
        model = load_pipeline(
            reference,
            device=settings.device,
            dtype=settings.dtype,
            offline=settings.offline,
            config=Path(settings.config) if settings.config else None,
            revision=settings.revision or None,
            on_progress=progress,  # as it is when this is called
        )
        if model.device.type == "cuda":
            torch.cuda.set_device(model.device)  # where this thread records what it waits for
        if not settings.super_resolution:
            for scale, path in model.upscaler_weights.items():
                upscalers.setdefault(scale, load_upscaler(path, model.device))
        return model

    rule = MemoryRule(settings.resident_models, int(settings.memory_reserve_gb * _GB))
    shelf = Shelf(catalogue, load, rule, device)
    first = mode if mode in catalogue.modes else catalogue.default_mode
    pinned = (entry.name for entry in catalogue.modes.values() if entry.pinned and entry.name != first)
    names = (first, *pinned)
    for index, name in enumerate(names):
        progress = partial(_tell_share, on_progress, index, len(names))
        try:
            shelf.fetch(catalogue.modes[name], busy=shelf.resident)
        except ReverieError as error:
            if not settings.modes:
                raise
            log.error("mode cannot be served", mode=name, reason=error.message)
    progress = on_progress
    engine = StepEngine(
        shelf,
        mode=first,
        upscalers=upscalers,
        capacity=settings.slots,
        checkpoint_steps=settings.checkpoint_steps,
    )
    return engine, EngineOffer(engine, device)


def _tell_share(tell: Callable[[float], None], index: int, count: int, fraction: float) -> None:
    """Tell of one of several models as a part of all."""
    tell((index + fraction) / count)


class EngineOffer:
    """What a step engine offers, in the words of other services; see `Offer`."""

    def __init__(self, engine: StepEngine, device: torch.device) -> None:
        self._engine = engine
        self._device = device_name(device)
        self._vram = partial(measure_vram, device)
        self._known: dict[str, ModelFacts] = {}
        self._asked_of: tuple[int, str, int] | None = None
        self._capabilities: Capabilities

    def capabilities(self) -> Capabilities:
        """See `Offer.capabilities`; asked before each job, so it costs nothing while nothing has changed."""
        now = (self._engine.shelf.version, self._engine.mode, self._engine.room)
        if now != self._asked_of:
            self._asked_of = now
            self._capabilities = self._look()
        return self._capabilities

    def _look(self) -> Capabilities:
        engine, shelf = self._engine, self._engine.shelf
        for model in shelf.resident:
            if model.reference not in self._known:
                self._known[model.reference] = facts_of(model)
        catalogue = shelf.catalogue
        unavailable = {name: why for name, mode in catalogue.modes.items() if (why := shelf.failure_of(mode))}
        styles = tuple(catalogue.styles)
        schedulers = (name for facts in self._known.values() for name in facts.schedulers)
        return Capabilities(
            mode=engine.mode,
            default_mode=catalogue.default_mode,
            modes={
                name: mode_info(mode, self._known.get(mode.model), loaded=shelf.holds(mode), styles=styles)
                for name, mode in catalogue.modes.items()
                if name not in unavailable
            },
            unavailable=unavailable,
            models=tuple(_resident(model, catalogue) for model in shelf.resident),
            device=self._device,
            schedulers=tuple(dict.fromkeys(schedulers)),
            superres=bool(engine.upscalers),
            superres_scale=pass_scale(engine.upscalers) or SUPERRES_SCALE,
            slots=1 if self._known and all(f.alone for f in self._known.values()) else engine.room,
            vram=self._vram,
        )

    def switch(self, mode: str) -> None:
        """See `Offer.switch`."""
        self._engine.switch(mode)

    def use(self, catalogue: Catalogue) -> None:
        """See `Offer.use`."""
        self._engine.use(catalogue)

    def unload(self) -> None:
        """See `Offer.unload`."""
        self._engine.unload()


class ModelFacts(msgspec.Struct, frozen=True):
    """What only a loaded model tells; kept when it leaves.  `alone` is one that makes one picture at a time."""

    family: str
    native_size: str
    default_size: str
    default_steps: int
    default_guidance: float
    scheduler: str
    schedulers: tuple[str, ...]
    alone: bool
    init_image: bool
    mask_image: bool


def facts_of(model: LoadedModel) -> ModelFacts:
    """The facts about a loaded model."""
    return ModelFacts(
        family=model.family if model.family != "callback" else type(model.pipeline).__name__,
        native_size=f"{model.native_size[0]}x{model.native_size[1]}",
        default_size=f"{model.default_size[0]}x{model.default_size[1]}",
        default_steps=model.default_steps,
        default_guidance=model.default_guidance,
        scheduler=model.scheduler,
        schedulers=(*scheduler_names(model.pipeline.scheduler), model.scheduler),
        alone=model.family == "callback",
        init_image=takes_init_image(model),
        mask_image=takes_mask_image(model),
    )


def mode_info(mode: Mode, facts: ModelFacts | None, *, loaded: bool, styles: tuple[str, ...]) -> ModeInfo:
    """A mode as other services see it; what neither the mode nor the model has said yet stays at the protocol's."""
    size = f"{mode.default_size[0]}x{mode.default_size[1]}" if mode.default_size else None
    told = {
        "default_size": size or (facts and facts.default_size),
        "default_steps": mode.default_steps or (facts and facts.default_steps),
        "default_guidance": mode.default_guidance
        if mode.default_guidance is not None
        else (facts and facts.default_guidance),
        "native_size": facts and facts.native_size,
        "scheduler": mode.scheduler or (facts and facts.scheduler),
        "family": facts and facts.family,
        "init_image": facts and facts.init_image,
        "mask_image": facts and facts.mask_image,
    }
    return ModeInfo(
        model=mode.shown,
        loaded=loaded,
        pinned=mode.pinned,
        loras=tuple(ModeLora(lora.shown, lora.strength, lora.name) for lora in mode.loras),
        styles=styles,
        **{name: value for name, value in told.items() if value is not None},  # type: ignore[arg-type]  # by field
    )


def _resident(model: LoadedModel, catalogue: Catalogue) -> ResidentModel:
    modes = [mode for mode in catalogue.modes.values() if mode.model == model.reference]
    shown = modes[0].shown if modes else Path(model.reference).name
    loras = tuple(dict.fromkeys(lora.shown for mode in modes for lora in mode.loras))
    return ResidentModel(
        shown, tuple(mode.name for mode in modes), round(weight_bytes(model) / _GB, 3), loras
    )


def spare_cores() -> int:
    """All cores but one, which stays free for the event loop, NATS and the gateway beside the model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def quiet_libraries() -> None:
    """Keep what the libraries tell their developers out of an operator's log."""
    logging.getLogger("torch").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"diffusers|transformers")


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
