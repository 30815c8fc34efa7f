"""A job between two steps as bytes, and back: who continues from them makes the same picture, bit for bit.

Safetensors with a JSON header.  What can be computed again (conditioning, timesteps, the latents of a picture to
start from) is not in it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import diffusers
import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from reverie_inference.engine.request import Request

#: Version of the layout.
LAYOUT: Final = 1
_HEADER = "reverie"
#: A scheduler's own configuration, which the request brings along.
_CONFIGURATION = "_internal_dict"
_ABSENT: Final = object()

Plain = bool | int | float | str | None


class UnusableCheckpoint(Exception):
    """The bytes are no checkpoint of this job on this model; it begins at its first step."""


class _Header(msgspec.Struct, frozen=True):
    """`plain` are attributes of the scheduler, `lists` those that are lists of tensors and plain values."""

    layout: int
    fits: str
    index: int
    plain: dict[str, Plain]
    lists: dict[str, list[Plain]]


class State(msgspec.Struct, frozen=True):
    """Everything of a job that its steps have changed; `scheduler` by attribute."""

    index: int
    latents: torch.Tensor
    generator: torch.Tensor
    scheduler: dict[str, Any]


def fitting(request: Request) -> str:
    """Names the job and the model that a checkpoint fits; other prompts, sizes, weights or versions differ."""
    asked = (
        request.model.digest,
        str(request.model.dtype),
        diffusers.__version__,
        str(torch.__version__),  # which is a class of its own
        [(lora.name, lora.path, lora.strength) for lora in request.loras],
        request.prompt,
        request.negative_prompt,
        request.plan.drawn,
        request.steps,
        request.guidance,
        request.seed,
        request.variations,
        request.scheduler_name,
        None if request.start is None else (request.start.strength, request.start.digest),
    )
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def scheduler_state(scheduler: Any, begun: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler has come to remember since it was `begun`: tensors, numbers, and lists of them."""
    return {
        name: value
        for name, value in vars(scheduler).items()
        if name != _CONFIGURATION
        and _is_kept(value)
        and (isinstance(value, list) or value is not begun.get(name, _ABSENT))
    }


def restore_scheduler(scheduler: Any, state: dict[str, Any], device: torch.device) -> None:
    """Let a scheduler that has begun remember what another one did."""

    def placed(value: Any, beside: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(beside.device if isinstance(beside, torch.Tensor) else device)

    for name, value in state.items():
        if isinstance(value, list):
            setattr(scheduler, name, [placed(item, None) for item in value])
        else:
            setattr(scheduler, name, placed(value, getattr(scheduler, name, None)))


def encode_state(state: State, *, fits: str) -> bytes:
    """The state as bytes."""
    tensors = {"latents": state.latents, "generator": state.generator}
    plain: dict[str, Plain] = {}
    lists: dict[str, list[Plain]] = {}
    for name, value in state.scheduler.items():
        if isinstance(value, torch.Tensor):
            tensors[f"scheduler.{name}"] = value
        elif isinstance(value, list):
            lists[name] = []
            for place, item in enumerate(value):
                if isinstance(item, torch.Tensor):
                    tensors[f"list.{name}.{place}"] = item
                lists[name].append(None if isinstance(item, torch.Tensor) else item)
        else:
            plain[name] = value
    header = _Header(LAYOUT, fits, state.index, plain, lists)
    # Two names of one tensor (a scheduler keeps its last output twice, say) are two tensors here.
    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    content: bytes = save(apart, {_HEADER: msgspec.json.encode(header).decode()})
    return content


def decode_state(content: bytes, *, fits: str, device: torch.device) -> State:
    """The state of bytes; UnusableCheckpoint for any other."""
    header, tensors = _read(content)
    if header.layout != LAYOUT or header.fits != fits:
        raise UnusableCheckpoint("it is of another job or model")
    if not {"latents", "generator"} <= tensors.keys():
        raise UnusableCheckpoint("it is not whole")
    scheduler: dict[str, Any] = dict(header.plain)
    for name, items in header.lists.items():
        scheduler[name] = [tensors.get(f"list.{name}.{place}", item) for place, item in enumerate(items)]
    for name, tensor in tensors.items():
        if name.startswith("scheduler."):
            scheduler[name.removeprefix("scheduler.")] = tensor
    return State(header.index, tensors["latents"].to(device), tensors["generator"], scheduler)


def _read(content: bytes) -> tuple[_Header, dict[str, torch.Tensor]]:
    try:
        length = int.from_bytes(content[:8], "little")
        raw = msgspec.json.decode(content[8 : 8 + length], type=dict[str, Any])
        header = msgspec.json.decode(raw["__metadata__"][_HEADER], type=_Header)
        return header, load(content)
    except (msgspec.MsgspecError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UnusableCheckpoint(f"it cannot be read ({type(error).__name__})") from error


def _is_kept(value: object) -> bool:
    if isinstance(value, list):
        return all(
            item is None or isinstance(item, bool | int | float | str | torch.Tensor) for item in value
        )
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)
