"""The LoRAs on one pipeline: read once each, switched between two steps as the jobs need them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import structlog

from reverie_inference.modes.catalogue import Lora
from reverie_protocol.errors import ErrorCode, ReverieError

_SUFFIX = ".safetensors"

log = structlog.get_logger(__name__)


class Adapters:
    """What a pipeline wears.  Jobs that share a pipeline call `wear` before each of their turns."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._read: set[str] = set()
        self._worn: tuple[tuple[str, float], ...] = ()

    def wear(self, loras: tuple[Lora, ...]) -> None:
        """Have exactly these on; ReverieError `model_load_failed` for one that cannot be had.

        Without any the pipeline computes what it computes untouched, bit for bit.
        """
        wanted = tuple((_adapter_name(lora), lora.strength) for lora in loras)
        if wanted == self._worn:
            return
        for lora in loras:
            self._fetch(lora)
        if wanted:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters([name for name, _ in wanted], [strength for _, strength in wanted])
        else:
            self._pipeline.disable_lora()
        self._worn = wanted

    def _fetch(self, lora: Lora) -> None:
        name = _adapter_name(lora)
        if name in self._read:
            return
        path = Path(lora.path)
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise _refused(lora, f"a {type(self._pipeline).__name__} takes none")
        if path.suffix != _SUFFIX:
            raise _refused(lora, "only .safetensors files are loaded")
        if not path.is_file():
            raise _refused(lora, "there is no such file")
        # What was read while others are on comes on with them; `wear` sets it right, and after a failure too.
        self._worn = (("", 0.0),)
        try:
            self._pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True
            )
        except Exception as error:
            log.exception("lora_load_failed", lora=lora.shown)
            self._forget(name)
            raise _refused(lora, f"it does not fit this model ({type(error).__name__})") from error
        if not any(name in names for names in self._pipeline.get_list_adapters().values()):
            raise _refused(lora, "nothing in it fits this model")
        self._read.add(name)

    def _forget(self, name: str) -> None:
        """Remove what a failed reading may have left."""
        try:
            self._pipeline.delete_adapters(name)
        except Exception as error:
            log.debug("nothing to remove", reason=type(error).__name__)


def _adapter_name(lora: Lora) -> str:
    """One name for each file, whatever several modes call it."""
    return f"{lora.name}_{hashlib.sha256(lora.path.encode()).hexdigest()[:8]}"


def _refused(lora: Lora, reason: str) -> ReverieError:
    return ReverieError(
        ErrorCode.MODEL_LOAD_FAILED, f"The LoRA {Path(lora.shown).name} cannot be loaded: {reason}."
    )
