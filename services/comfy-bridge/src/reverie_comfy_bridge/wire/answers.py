"""What ComfyUI answers to `POST /prompt`, `/prompt`, `/system_stats` and `/features`, as typed values.

Nothing here raises.  A body that cannot be read gives None (or `Uncertain`), which is never taken as evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from reverie_comfy_bridge.wire.values import (
    as_count,
    as_id,
    as_mapping,
    as_number,
    as_sequence,
    as_text,
    read_json,
)
from reverie_protocol.jobs import ComfyNodeError

#: What is kept of a server's words about itself: they go into one message with all else that is known of it.
MAX_DEVICES: Final = 32
MAX_NAME_CHARS: Final = 200
_GIB: Final = 1024**3


class Accepted(msgspec.Struct, frozen=True):
    """ComfyUI took the prompt, under this id; `node_errors` are of outputs that it drops, the rest runs."""

    prompt_id: str
    number: float | None = None
    node_errors: tuple[ComfyNodeError, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """ComfyUI says what is wrong with the prompt; it is not queued and never will be."""

    type: str
    message: str
    details: str = ""
    node_errors: tuple[ComfyNodeError, ...] = ()


class Denied(msgspec.Struct, frozen=True):
    """Not queued, for a reason that is not the prompt's: a wrong address, a proxy, the Origin check."""

    status: int
    detail: str = ""


class Uncertain(msgspec.Struct, frozen=True):
    """The prompt may be queued or not: no answer, or one that does not say.  Look it up before repeating it."""

    status: int | None = None
    detail: str = ""


PostAnswer = Accepted | Refused | Denied | Uncertain


class Device(msgspec.Struct, frozen=True):
    """A device of an instance; memory in GB (2^30 bytes)."""

    name: str
    type: str = ""
    vram_total_gb: float = 0.0
    vram_free_gb: float = 0.0


class SystemStats(msgspec.Struct, frozen=True):
    """`/system_stats` without what leaks paths; `version` is empty before 2024-08-30."""

    version: str = ""
    devices: tuple[Device, ...] = ()


def read_post_answer(status: int, body: bytes) -> PostAnswer:
    """The answer to `POST /prompt`.  A 500 may come although the prompt was queued, so it is `Uncertain`."""
    data = as_mapping(read_json(body))
    if status == 200:
        prompt_id = as_id(data.get("prompt_id"))
        if not prompt_id:
            return Uncertain(status, "no prompt_id in the answer")
        return Accepted(prompt_id, as_number(data.get("number")), read_node_errors(data.get("node_errors")))
    error = as_mapping(data.get("error"))
    if status == 400 and error:
        return _refused(error, read_node_errors(data.get("node_errors")))
    if status == 413:
        return Refused("request_too_large", "The workflow is larger than this ComfyUI accepts.")
    if 300 <= status < 500:
        return Denied(status, as_text(body[:200].decode(errors="replace")).strip())
    return Uncertain(status, as_text(body[:200].decode(errors="replace")).strip())


def _refused(error: Mapping[str, object], node_errors: tuple[ComfyNodeError, ...]) -> Refused:
    kind, message = as_text(error.get("type")), as_text(error.get("message"))
    details = as_text(error.get("details"))
    if not node_errors:
        node_errors = _error_of_one_node(kind, message, details, as_mapping(error.get("extra_info")))
    return Refused(kind or "invalid_prompt", message or "ComfyUI refused the workflow.", details, node_errors)


def _error_of_one_node(
    kind: str, message: str, details: str, extra: Mapping[str, object]
) -> tuple[ComfyNodeError, ...]:
    """A missing class is reported for the whole prompt, with the node in `extra_info`."""
    node = as_id(extra.get("node_id"))
    if not node:
        return ()
    class_type, title = as_text(extra.get("class_type")), as_text(extra.get("node_title"))
    return (ComfyNodeError(node, kind, message, class_type=class_type, title=title, details=details),)


def read_node_errors(value: object) -> tuple[ComfyNodeError, ...]:
    """`node_errors` of an answer, one entry for each error of each node, in ComfyUI's words and without traces."""
    found: list[ComfyNodeError] = []
    for node, given in as_mapping(value).items():
        data = as_mapping(given)
        class_type = as_text(data.get("class_type"))
        found.extend(
            _node_error(node, class_type, as_mapping(error)) for error in as_sequence(data.get("errors"))
        )
    return tuple(found)


def _node_error(node: str, class_type: str, error: Mapping[str, object]) -> ComfyNodeError:
    return ComfyNodeError(
        node=node,
        type=as_text(error.get("type")) or "invalid",
        message=as_text(error.get("message")) or "ComfyUI objects to this node.",
        class_type=class_type,
        field=as_text(as_mapping(error.get("extra_info")).get("input_name")),
        details=as_text(error.get("details")),
    )


def read_queue_remaining(body: bytes) -> int | None:
    """How many prompts run and wait, of `GET /prompt`: the cheap poll."""
    return as_count(as_mapping(as_mapping(read_json(body)).get("exec_info")).get("queue_remaining"))


def read_features(status: int, body: bytes) -> Mapping[str, object] | None:
    """The flags of `/features`; None if there is no such path."""
    data = read_json(body) if status == 200 else None
    return data if isinstance(data, dict) else None


def read_system_stats(body: bytes) -> SystemStats | None:
    """Version and devices; None if it is no such answer."""
    data = as_mapping(read_json(body))
    system = data.get("system")
    if not isinstance(system, dict):
        return None
    devices = as_sequence(data.get("devices"))[:MAX_DEVICES]
    return SystemStats(
        as_text(system.get("comfyui_version"))[:MAX_NAME_CHARS],
        tuple(_device(as_mapping(device)) for device in devices),
    )


def _device(data: Mapping[str, object]) -> Device:
    return Device(
        name=as_text(data.get("name"))[:MAX_NAME_CHARS],
        type=as_text(data.get("type"))[:MAX_NAME_CHARS],
        vram_total_gb=(as_number(data.get("vram_total")) or 0.0) / _GIB,
        vram_free_gb=(as_number(data.get("vram_free")) or 0.0) / _GIB,
    )
