"""`reverie.json` beside a model: what its makers say about it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from reverie_protocol.errors import ErrorCode, ReverieError

Size = tuple[int, int]  # width, height in pixels

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelCard(msgspec.Struct, frozen=True):
    """Name of a model's mode, its native size and defaults.

    `native_size` is what the network draws; a larger `default_size` is reached by super-resolution with the
    weights in `super_resolution`, a folder relative to the card.
    """

    mode: str | None = None
    native_size: Size | None = None
    default_size: Size | None = None
    default_steps: int | None = None
    default_guidance: float | None = None
    super_resolution: str | None = None


def read_card(place: Path) -> ModelCard:
    """The card of a folder, an empty one where there is none; ReverieError `model_load_failed`."""
    path = place / "reverie.json"
    if not path.is_file():
        return ModelCard()
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelCard)
    except msgspec.DecodeError as error:
        raise ReverieError(
            ErrorCode.MODEL_LOAD_FAILED,
            f"The model {place.name} cannot be loaded: its reverie.json is wrong: {error}.",
        ) from error


def is_hub_id(reference: str) -> bool:
    """Whether this is written as a Hugging Face id is: `owner/name`, and no file of weights."""
    return _HUB_ID.fullmatch(reference) is not None and not reference.endswith(".safetensors")


def mode_name(reference: str) -> str:
    """What the mode of a model is called that stands in no `modes.yml`: as its card says, else as its file."""
    place = Path(reference).expanduser()
    try:
        card = read_card(place)
    except ReverieError:
        card = ModelCard()  # said by whoever loads it
    return card.mode or place.name.removesuffix(".safetensors")
