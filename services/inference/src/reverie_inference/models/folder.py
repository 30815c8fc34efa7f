"""A diffusers folder before it is loaded: is it safe, is it whole, which variant of the weights does it hold."""

from __future__ import annotations

from pathlib import Path

import diffusers
import msgspec

from reverie_inference.families.registry import own_libraries, own_pipelines
from reverie_inference.models.weight_file import PICKLE_SUFFIXES, read_weight_file, unsafe_checkpoint
from reverie_protocol.errors import ErrorCode, ReverieError

Component = tuple[str | None, str | None]
#: Never loaded: it judges pictures and takes no part in making them.
_SKIPPED = "safety_checker"
_LIBRARIES = frozenset({"diffusers", "transformers"})


class FolderContents(msgspec.Struct, frozen=True):
    """What is in a diffusers folder.

    `class_name` is the pipeline's, `absent_components` are those that it goes without; `variant` is that of the
    weights (`fp16`, say; None for the plain one); `part_bytes` the size of each component's weights of it.
    """

    class_name: str
    absent_components: tuple[str, ...]
    variant: str | None
    part_bytes: dict[str, int]


def inspect_folder(folder: Path) -> FolderContents:
    """Check a folder without loading it.

    ReverieError `model_load_failed` for a folder that is no diffusers folder, `unsafe_checkpoint` for one with
    pickled weights only or with code of its own, and the errors of `read_weight_file` for each of its weights.
    """
    index = _read_index(folder)
    components = {key: value for key, value in index.items() if isinstance(value, list) and len(value) == 2}
    _refuse_code(folder, index, components)
    absent = [key for key, (library, _) in components.items() if library is None]
    if _SKIPPED in components and _SKIPPED not in absent:
        absent.append(_SKIPPED)
    weights = {name: _check_weights(folder, name) for name in components if name not in absent}
    variants = {_variant(file) for files in weights.values() for file in files}
    # The plain weights are what every loader takes by itself.
    variant = None if None in variants or not variants else min(filter(None, variants))
    return FolderContents(
        str(index["_class_name"]),
        tuple(absent),
        variant,
        {name: _bytes_of(files, variant) for name, files in weights.items()},
    )


def _read_index(folder: Path) -> dict[str, object]:
    path = folder / "model_index.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except FileNotFoundError as error:
        if any(file.suffix in PICKLE_SUFFIXES for file in folder.iterdir()):
            raise unsafe_checkpoint(folder.name) from error
        raise _wrong(folder, "it has no model_index.json, so it is no diffusers folder") from error
    except (OSError, msgspec.DecodeError) as error:
        raise _wrong(folder, "its model_index.json cannot be read") from error


def _refuse_code(folder: Path, index: dict[str, object], components: dict[str, list[object]]) -> None:
    """Only classes of diffusers, transformers and installed families are made."""
    name = index.get("_class_name")
    if not isinstance(name, str) or not (hasattr(diffusers, name) or name in own_pipelines()):
        raise ReverieError(
            ErrorCode.UNSUPPORTED_MODEL, f"{folder.name} needs a pipeline that diffusers does not have."
        )
    for component, (library, _) in components.items():
        known = (
            library is None
            or library in _LIBRARIES | own_libraries()
            or hasattr(diffusers.pipelines, str(library))
        )
        if not known and component != _SKIPPED:
            raise ReverieError(
                ErrorCode.UNSAFE_CHECKPOINT,
                f"{folder.name} brings its own code for {component}, which is not run.",
            )


def _check_weights(folder: Path, component: str) -> list[Path]:
    """The files of one component's weights; each is sound."""
    place = folder / component
    if not place.is_dir():
        raise _wrong(folder, f"its part {component} is missing")
    files = [file for file in place.iterdir() if file.is_file()]
    safe = [file for file in files if file.suffix == ".safetensors"]
    if not safe and any(file.suffix in PICKLE_SUFFIXES for file in files):
        raise unsafe_checkpoint(f"{folder.name} ({component})")
    for file in safe:
        read_weight_file(file)
    return safe


def _bytes_of(files: list[Path], variant: str | None) -> int:
    """Size of a component's weights of this variant, or of those that it has."""
    chosen = [file for file in files if _variant(file) == variant] or files
    return sum(file.stat().st_size for file in chosen)


def _variant(file: Path) -> str | None:
    """`fp16` of `model.fp16.safetensors` and of `model.fp16-00001-of-00002.safetensors`."""
    parts = file.name.split(".")
    return parts[1].split("-")[0] if len(parts) > 2 else None


def _wrong(folder: Path, reason: str) -> ReverieError:
    return ReverieError(ErrorCode.MODEL_LOAD_FAILED, f"The model {folder.name} cannot be loaded: {reason}.")
