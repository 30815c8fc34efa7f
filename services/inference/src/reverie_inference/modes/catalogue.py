"""`modes.yml`: read as a whole, so that a broken file changes nothing.

    model_root: /models            # relative paths below are relative to these; default: the file's own folder
    lora_root: /models/loras
    default_mode: photo            # default: the first
    modes:
      photo:
        model: sdxl-base           # diffusers folder, .safetensors file or Hugging Face id
        loras: [{path: detail.safetensors, strength: 0.8, adapter_name: detail}]
        default_size: 1024x1024
        default_steps: 30
        default_guidance: 5.0
        scheduler: DPM++ 2M Karras
        metadata: {licence: openrail}
        pinned: true               # stays in memory
    styles:                        # what `style_lora` may name; level 8 is `strength`
      watercolour: {path: watercolour.safetensors, strength: 1.0}

No torch here: gateways of the same host and the event loop read it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta

from reverie_inference.models.card import is_hub_id, mode_name
from reverie_protocol.jobs import Guidance, Steps
from reverie_protocol.sizes import parse_size

#: Largest file that is read as a catalogue, in bytes.
MAX_BYTES = 1 << 20

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Strength = Annotated[float, Meta(ge=-10, le=10, description="weight of a LoRA; 1 is as it was trained")]
Reference = Annotated[str, Meta(min_length=1, max_length=1000)]


class CatalogueError(Exception):
    """The file cannot be used; one sentence that names the entry and what is allowed there."""


class _LoraEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Reference
    strength: Strength = 1.0
    adapter_name: Name | None = None


class _ModeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: Reference
    loras: tuple[_LoraEntry, ...] = ()
    default_size: str | None = None
    default_steps: Steps | None = None
    default_guidance: Guidance | None = None
    scheduler: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    metadata: dict[str, Any] = {}
    pinned: bool = False


class _StyleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Reference
    strength: Strength = 1.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    modes: dict[Name, _ModeEntry]
    model_root: str = ""
    lora_root: str = ""
    default_mode: str | None = None
    styles: dict[Name, _StyleEntry] = {}


class Lora(msgspec.Struct, frozen=True):
    """A LoRA with the strength it is applied with.  `path` is where it lies, `shown` what users see of it."""

    name: str
    path: str
    strength: float
    shown: str


class Mode(msgspec.Struct, frozen=True):
    """One entry: `model` is what to load, `shown` what users see of it; None leaves a default to the model.

    `missing` says which file is not there; such a mode is listed and not served.
    """

    name: str
    model: str
    shown: str
    loras: tuple[Lora, ...] = ()
    default_size: tuple[int, int] | None = None
    default_steps: int | None = None
    default_guidance: float | None = None
    scheduler: str | None = None
    metadata: dict[str, Any] = {}
    pinned: bool = False
    missing: str = ""


class Catalogue(msgspec.Struct, frozen=True):
    """All modes, at least one, and the styles that any of them can wear."""

    default_mode: str
    modes: dict[str, Mode]
    styles: dict[str, Lora] = {}


def single_model(reference: str) -> Catalogue:
    """The catalogue of a worker that was given one model and no file."""
    name = mode_name(reference)
    return Catalogue(name, {name: Mode(name, reference, Path(reference).name, pinned=True)})


def read_catalogue(path: Path) -> Catalogue:
    """The catalogue in a file; CatalogueError with the entry and the reason."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CatalogueError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise CatalogueError(f"{path.name} is larger than {MAX_BYTES} bytes")
    try:
        read = msgspec.convert(yaml.load(content, Loader=_Loader), _File, strict=True)
    except msgspec.ValidationError as error:
        raise CatalogueError(f"{path.name}: {error}") from error
    except RecursionError as error:
        raise CatalogueError(f"{path.name} is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # the last two for odd dates and keys
        raise CatalogueError(f"{path.name} is not valid YAML: {_where(error)}") from error
    return _catalogue(read, path)


def _catalogue(read: _File, path: Path) -> Catalogue:
    if not read.modes:
        raise CatalogueError(f"{path.name}: modes is empty; at least one mode is needed")
    default = read.default_mode or next(iter(read.modes))
    if default not in read.modes:
        raise CatalogueError(
            f"{path.name}: default_mode {default!r} is none of the modes ({', '.join(read.modes)})"
        )
    model_root = path.parent / Path(read.model_root).expanduser()
    lora_root = path.parent / Path(read.lora_root or read.model_root).expanduser()
    modes = {name: _mode(name, entry, model_root, lora_root, path) for name, entry in read.modes.items()}
    styles = {
        name: _lora(f"style-{name}", entry.path, entry.strength, lora_root)
        for name, entry in read.styles.items()
    }
    return Catalogue(default, modes, styles)


def _mode(name: str, entry: _ModeEntry, model_root: Path, lora_root: Path, path: Path) -> Mode:
    try:
        size = parse_size(entry.default_size) if entry.default_size is not None else None
    except ValueError as error:
        raise CatalogueError(f"{path.name}: modes.{name}.default_size {error}") from error
    model, missing = _resolve(entry.model, model_root)
    loras = tuple(
        _lora(lora.adapter_name or Path(lora.path).stem, lora.path, lora.strength, lora_root)
        for lora in entry.loras
    )
    names = [lora.name for lora in loras]
    if len(set(names)) < len(names):
        raise CatalogueError(f"{path.name}: modes.{name}.loras: two of them have one adapter_name")
    absent = [lora.shown for lora in loras if not Path(lora.path).is_file()]
    if absent and not missing:
        missing = f"the LoRA {absent[0]} is not there"
    return Mode(
        name=name,
        model=model,
        shown=_shown(entry.model),
        loras=loras,
        default_size=size,
        default_steps=entry.default_steps,
        default_guidance=entry.default_guidance,
        scheduler=entry.scheduler,
        metadata=entry.metadata,
        pinned=entry.pinned,
        missing=missing,
    )


def _resolve(reference: str, root: Path) -> tuple[str, str]:
    """What to load, and what is missing: a path below the root, an absolute one, or a hub id."""
    place = root / Path(reference).expanduser()
    if place.exists():
        return str(place), ""
    if is_hub_id(reference):
        return reference, ""
    return str(place), f"the model {_shown(reference)} is not there"


def _lora(name: str, reference: str, strength: float, root: Path) -> Lora:
    # PEFT makes a module of each adapter, whose names may hold no dot.
    return Lora(name.replace(".", "_"), str(root / Path(reference).expanduser()), strength, _shown(reference))


def _shown(reference: str) -> str:
    """As the operator wrote it, but for a path of this machine its last part alone."""
    return Path(reference).name if reference.startswith(("/", "~")) else reference


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML without keys that are given twice, which would silently win."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = key_node.value
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    mapping: dict[Any, Any] = yaml.SafeLoader.construct_mapping(loader, node, deep=True)
    return mapping


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _where(error: Exception) -> str:
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    mark = getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)
