"""Loading a model: a diffusers folder, a single safetensors file, or a Hugging Face id.

Nothing is unpickled and no code that comes with a model is run.  Every failure is a `ReverieError` of one sentence
that names the model by its own name, never by a path of this machine.
"""

from __future__ import annotations

import inspect
import json
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import structlog
import torch

from reverie_inference.families.port import Family
from reverie_inference.families.registry import CALLBACK, family_of, own_pipelines
from reverie_inference.models import single_file
from reverie_inference.models.card import ModelCard, is_hub_id, read_card
from reverie_inference.models.clip_tokenizer import clip_tokenizer
from reverie_inference.models.device import pick_device, pick_dtype
from reverie_inference.models.folder import inspect_folder
from reverie_inference.models.load_progress import counted_parts, untold
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.text_to_image import in_engine_shape, pipeline_geometry, require_own_loop
from reverie_inference.models.weight_file import (
    PICKLE_SUFFIXES,
    WeightFile,
    read_weight_file,
    unsafe_checkpoint,
)
from reverie_protocol.errors import ErrorCode, ReverieError

log = structlog.get_logger(__name__)

_DEFAULT_STEPS = 25


class Hub(msgspec.Struct, frozen=True):
    """How the Hugging Face hub may be used: not at all, or at one revision."""

    offline: bool
    revision: str | None


def load_pipeline(
    reference: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    config: Path | None = None,
    revision: str | None = None,
    on_progress: Callable[[float], None] = untold,
) -> LoadedModel:
    """Load a model for text to image.

    `config` is a diffusers folder that supplies what a single file lacks (configuration, tokenizer); `revision`
    names a commit or tag of a Hugging Face id.  `on_progress` is told the part (0 to 1) that is in place: bytes of
    weights, or parts where their sizes are not known; on an accelerator they count again when they have been moved
    there.  ReverieError `unsafe_checkpoint`, `unsupported_model`,
    `model_load_failed` or `out_of_memory`.
    """
    silence_prompts()
    place = Path(str(reference)).expanduser()
    on_device = pick_device(device)
    as_dtype = pick_dtype(dtype, on_device)
    try:
        tell = on_progress if on_device.type == "cpu" else partial(_tell_built, on_progress)
        pipeline = _load(str(reference), place, as_dtype, config, Hub(offline, revision), tell=tell)
        return _finish(pipeline, place, str(reference), on_device, as_dtype)
    except ReverieError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ReverieError(
            ErrorCode.OUT_OF_MEMORY, f"{place.name} does not fit into the memory of {on_device}."
        ) from error
    except Exception as error:
        log.exception("model_load_failed", model=place.name)
        raise load_failed(place.name, one_reason(error)) from error


def _tell_built(tell: Callable[[float], None], fraction: float) -> None:
    """What is built in the machine's memory has half of its way behind it: it still has to be moved."""
    tell(fraction / 2)


def _load(
    name: str,
    place: Path,
    dtype: torch.dtype,
    config: Path | None,
    hub: Hub,
    *,
    tell: Callable[[float], None],
) -> Any:
    """The pipeline behind a reference, by what the reference turns out to be."""
    if place.is_dir():
        return _load_folder(place, dtype, tell)
    if place.suffix in PICKLE_SUFFIXES and not place.is_file():
        raise unsafe_checkpoint(place.name)
    with counted_parts(tell, {}):
        if place.is_file():
            return _load_file(place, dtype, config=config)
        if is_hub_id(name):
            return _load_hub(name, dtype, hub)
    raise load_failed(place.name, "there is no such file or folder")


def load_failed(name: str, reason: str) -> ReverieError:
    """The error for a model that does not load, with its reason."""
    return ReverieError(ErrorCode.MODEL_LOAD_FAILED, f"The model {name} cannot be loaded: {reason}.")


def one_reason(error: BaseException) -> str:
    """An exception as half a sentence: its first line without the paths of this machine."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = re.sub(r"(?<![\w.:/])(?:file://)?(?:~|/)[^\s'\",;:)]*/([^\s'\",;:)/]+)", r"\1", lines[0])
    return line.rstrip(" .:")[:300]


def silence_prompts() -> None:
    """Keep diffusers and transformers from printing what they cut off a prompt, and from drawing bars."""
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _load_folder(folder: Path, dtype: torch.dtype, tell: Callable[[float], None]) -> Any:
    contents = inspect_folder(folder)
    absent = dict.fromkeys(contents.absent_components)
    made_by = own_pipelines().get(contents.class_name, diffusers.DiffusionPipeline)
    with counted_parts(tell, contents.part_bytes):
        return made_by.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=contents.variant,
            **absent,
        )


def _load_hub(name: str, dtype: torch.dtype, hub: Hub) -> Any:
    """A pipeline from the hub, or from this machine's cache of it where offline."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return diffusers.DiffusionPipeline.from_pretrained(
            name,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=hub.offline,
            revision=hub.revision,
            safety_checker=None,
        )
    except (LocalEntryNotFoundError, OSError) as error:
        if "safetensors" in str(error):
            raise unsafe_checkpoint(name) from error
        if hub.offline:
            raise load_failed(name, "it is not on this machine, and inference.offline is set") from error
        raise load_failed(
            name, "it is not on this machine and the Hugging Face hub does not provide it"
        ) from error


def _load_file(path: Path, dtype: torch.dtype, *, config: Path | None) -> Any:
    weights = read_weight_file(path)
    family = single_file.single_file_family(weights)
    if config is not None:
        return _from_single_file(path, _class_of(config), dtype, config=config)
    if family == "other":
        raise single_file.unsupported(
            weights, "is of a family that needs inference.config, a diffusers folder with its configuration"
        )
    return _load_known_family(weights, family, dtype)


def _load_known_family(weights: WeightFile, family: str, dtype: torch.dtype) -> Any:
    """A checkpoint that describes itself: configuration from its shapes, tokenizer from the package."""
    configs = single_file.single_file_configs(weights, family)
    vocabularies = single_file.vocabulary_sizes(weights, family)
    tokenizers = {"tokenizer": clip_tokenizer(vocabularies[0])}
    if family == "sdxl":
        # OpenCLIP pads with token 0, which is "!".
        tokenizers["tokenizer_2"] = clip_tokenizer(vocabularies[1], pad_token="!")
    pipeline_class = getattr(diffusers, configs["model_index"]["_class_name"])
    with tempfile.TemporaryDirectory(prefix="reverie-config-") as scratch:
        folder = Path(scratch)
        for component, values in configs.items():
            _write_config(folder, component, values)
        return _from_single_file(weights.path, pipeline_class, dtype, config=folder, **tokenizers)


def _write_config(folder: Path, component: str, values: dict[str, Any]) -> None:
    if component == "model_index":
        target = folder / "model_index.json"
    else:
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        target = folder / component / name
        target.parent.mkdir()
    target.write_text(json.dumps(values))


def _from_single_file(
    path: Path, pipeline_class: Any, dtype: torch.dtype, *, config: Path, **components: Any
) -> Any:
    return pipeline_class.from_single_file(
        str(path), config=str(config), dtype=dtype, local_files_only=True, **components
    )


def _class_of(config: Path) -> Any:
    """The pipeline class that a configuration folder names."""
    try:
        name = json.loads((config / "model_index.json").read_text())["_class_name"]
        return getattr(diffusers, name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise load_failed(config.name, "inference.config names no diffusers folder") from error


def _finish(
    pipeline: Any, place: Path, reference: str, device: torch.device, dtype: torch.dtype
) -> LoadedModel:
    """Put the pipeline on its device and gather its defaults."""
    pipeline = in_engine_shape(pipeline)
    family = family_of(pipeline)
    if family is None:
        require_own_loop(pipeline, place.name)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    geometry = pipeline_geometry(pipeline)
    card = read_card(place)
    native = card.native_size or geometry.native_size
    return LoadedModel(
        pipeline=pipeline,
        family=CALLBACK if family is None else family.name,
        mode=card.mode or place.name.removesuffix(".safetensors"),
        reference=reference,
        device=device,
        dtype=dtype,
        native_size=native,
        default_size=card.default_size or native,
        default_steps=card.default_steps or _DEFAULT_STEPS,
        default_guidance=_default_guidance(card, family, pipeline),
        size_multiple=geometry.size_multiple,
        native_only=card.super_resolution is not None,
        upscaler_weights=_upscaler_weights(place, card),
    )


def _default_guidance(card: ModelCard, family: Family | None, pipeline: Any) -> float:
    """The card's, else the family's, else what the pipeline's own call defaults to."""
    if card.default_guidance is not None:
        return card.default_guidance
    if family is not None and family.default_guidance is not None:
        return family.default_guidance
    parameter = inspect.signature(pipeline.__call__).parameters.get("guidance_scale")
    return float(parameter.default) if parameter and parameter.default else 1.0


def _upscaler_weights(place: Path, card: ModelCard) -> dict[int, Path]:
    """Super-resolution weights by scale, as far as they are there."""
    if card.super_resolution is None:
        return {}
    folder = (place / card.super_resolution).resolve()
    found = {scale: folder / f"x{scale}.safetensors" for scale in (2, 4)}
    return {scale: path for scale, path in found.items() if path.is_file()}
