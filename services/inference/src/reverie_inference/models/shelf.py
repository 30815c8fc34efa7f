"""The models in memory: loaded when a job needs them, the longest unused given up first.

Owned by the engine's thread.  Modes of one model share its weights; what differs between them (LoRAs, defaults)
costs next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog
import torch

from reverie_inference.models.device import release_cached_memory
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.modes.catalogue import Catalogue, Mode
from reverie_protocol.errors import ErrorCode, ReverieError, mode_not_found

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class MemoryRule:
    """At most `most` models (0 is no limit), and `reserve_bytes` that must stay free beside them."""

    most: int = 0
    reserve_bytes: int = 1 << 30


class Shelf:
    """Models by reference, least recently used first; all of them on one device."""

    def __init__(
        self,
        catalogue: Catalogue,
        load: Callable[[str], LoadedModel],
        rule: MemoryRule = MemoryRule(),  # frozen
        device: str | torch.device = "cpu",
    ) -> None:
        self.catalogue = catalogue
        #: Another one after each change of what is in memory, or can be.
        self.version = 0
        self._load = load
        self._rule = rule
        self._device = torch.device(device)
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        #: Models that cannot be loaded as they are; not tried again before the catalogue is read anew.
        self._failures: dict[str, ReverieError] = {}

    @classmethod
    def holding(cls, model: LoadedModel) -> Shelf:
        """A shelf with this one model, whose mode has the model's own name and defaults."""
        mode = Mode(model.mode, model.reference, Path(model.reference).name, pinned=True)
        shelf = cls(Catalogue(model.mode, {model.mode: mode}), lambda _: model)
        shelf._models[model.reference] = model
        return shelf

    @property
    def resident(self) -> tuple[LoadedModel, ...]:
        """What is in memory, the longest unused first."""
        return tuple(self._models.values())

    def holds(self, mode: Mode) -> bool:
        """Whether a mode can be run without loading its model."""
        return mode.model in self._models

    def failure_of(self, mode: Mode) -> str:
        """Why a mode cannot be run, as far as is known; empty if nothing speaks against it."""
        if mode.missing:
            return mode.missing
        error = self._failures.get(mode.model)
        return error.message if error is not None else ""

    def find(self, name: str) -> Mode:
        """The mode of this name; ReverieError `mode_not_found` naming those there are."""
        mode = self.catalogue.modes.get(name)
        if mode is None:
            raise mode_not_found(name, self.catalogue.modes)
        return mode

    def fetch(self, mode: Mode, *, busy: Collection[LoadedModel] = ()) -> LoadedModel:
        """The mode's model, loaded if need be; models in `busy` stay.

        ReverieError as `load_pipeline` raises it, or `model_load_failed` for a mode whose files are missing.
        """
        model = self._models.get(mode.model)
        if model is not None:
            self._models.move_to_end(mode.model)
            return model
        if mode.missing:
            raise ReverieError(
                ErrorCode.MODEL_LOAD_FAILED, f"The mode {mode.name} cannot be used: {mode.missing}."
            )
        if mode.model in self._failures:
            raise self._failures[mode.model]
        try:
            model = self._bring(mode, busy)
        except ReverieError as error:
            # Memory may be there another time, and so may the hub.
            if error.code is not ErrorCode.OUT_OF_MEMORY and Path(mode.model).exists():
                self._failures[mode.model] = error
                self.version += 1
            raise
        self._models[mode.model] = model
        self.version += 1
        log.info("model in memory", model=mode.shown, resident=len(self._models))
        return model

    def use(self, catalogue: Catalogue, *, busy: Collection[LoadedModel] = ()) -> None:
        """Go by another catalogue; models that no mode names any more leave, unless a job runs on them."""
        self.catalogue = catalogue
        self.version += 1
        self._failures.clear()
        named = {mode.model for mode in catalogue.modes.values()}
        for reference in tuple(self._models):
            if reference not in named and not _is_among(self._models[reference], busy):
                self._drop(reference)

    def clear(self, *, busy: Collection[LoadedModel] = ()) -> bool:
        """Give up all that is neither pinned nor in use; whether anything was."""
        dropped = False
        while self._evict(busy):
            dropped = True
        return dropped

    def _bring(self, mode: Mode, busy: Collection[LoadedModel]) -> LoadedModel:
        while self._rule.most and len(self._models) >= self._rule.most and self._evict(busy):
            continue
        needed = _bytes_on_disk(mode.model)
        while needed + self._rule.reserve_bytes > free_bytes(self._device) and self._evict(busy):
            continue
        try:
            return self._load(mode.model)
        except ReverieError as error:
            if error.code is not ErrorCode.OUT_OF_MEMORY or not self.clear(busy=busy):
                raise
        return self._load(mode.model)

    def _evict(self, busy: Collection[LoadedModel]) -> bool:
        """Give up the longest unused model that may go; False if there is none."""
        pinned = {mode.model for mode in self.catalogue.modes.values() if mode.pinned}
        may_go = (
            reference
            for reference, model in self._models.items()
            if reference not in pinned and not _is_among(model, busy)
        )
        reference = next(may_go, None)
        del may_go  # it holds the model
        if reference is None:
            return False
        self._drop(reference)
        return True

    def _drop(self, reference: str) -> None:
        device = self._models.pop(reference).device
        self.version += 1
        log.info("model given up", model=Path(reference).name, resident=len(self._models))
        release_cached_memory(device)


def free_bytes(device: torch.device) -> int:
    """What a new model may take there: of a GPU by its driver, with what PyTorch keeps in reserve; else RAM."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def weight_bytes(model: LoadedModel) -> int:
    """Memory of a model's weights, its LoRAs included."""
    modules = (part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module))
    return sum(weight.nbytes for module in modules for weight in module.parameters())


def _bytes_on_disk(reference: str) -> int:
    """Size of a folder's or file's weights, a fair guess at what they take in memory; 0 for a hub id."""
    place = Path(reference)
    files = place.rglob("*.safetensors") if place.is_dir() else (place,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _is_among(model: LoadedModel, models: Collection[LoadedModel]) -> bool:
    return any(model is other for other in models)
