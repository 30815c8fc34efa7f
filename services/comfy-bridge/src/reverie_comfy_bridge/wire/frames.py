"""What ComfyUI's WebSocket says, text and binary, as typed frames.

`read_frame` never raises: what is unknown, cut short or garbage reads as None and is skipped.  A frame without a
prompt id (`executing` after a reconnect, previews of type 1, texts) has an empty one: `run.attribution` says whose
it is, where that is certain.

Binary layouts, big-endian, as recorded:

    type 1  u32 1 | u32 format (1 JPEG, 2 PNG) | picture                       neither node nor prompt
    type 3  u32 3 | u32 length of the node id | node id | UTF-8 text            no prompt
    type 4  u32 4 | u32 length of the JSON | JSON (ids, image_type) | picture

Custom nodes use other types and formats of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import unpack_from
from typing import Final

import msgspec

from reverie_comfy_bridge.wire.outputs import NodeOutputs, read_node_outputs
from reverie_comfy_bridge.wire.values import (
    as_count,
    as_id,
    as_ids,
    as_mapping,
    as_number,
    as_text,
    read_json,
)

PREVIEW: Final = 1
TEXT: Final = 3
PREVIEW_WITH_METADATA: Final = 4
_MEDIA_TYPES: Final = {1: "image/jpeg", 2: "image/png"}
_MAGIC: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
)


class Status(msgspec.Struct, frozen=True):
    """The queue changed, or (with `sid`) the socket has just been opened; None where the length is not said."""

    queue_remaining: int | None = None
    sid: str = ""


class FeatureFlags(msgspec.Struct, frozen=True):
    """What the server can do beyond the first protocol, answered to our own flags."""

    flags: Mapping[str, object]


class ExecutionStart(msgspec.Struct, frozen=True):
    """The prompt left the queue and runs."""

    prompt_id: str


class ExecutionCached(msgspec.Struct, frozen=True):
    """These nodes need not run: their results of an earlier run are used."""

    prompt_id: str
    nodes: tuple[str, ...] = ()


class NodeProgress(msgspec.Struct, frozen=True):
    """How far one node is, made by expansion or not; `display_node` is the node of the graph that a person sees.

    `state` is ComfyUI's word: `running` and `finished` are known, others may come.  `value` of `maximum` is None
    where it makes no sense.
    """

    node: str
    state: str
    value: float | None = None
    maximum: float | None = None
    display_node: str = ""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or None where the numbers say nothing."""
        return fraction_of(self.value, self.maximum)


class ProgressState(msgspec.Struct, frozen=True):
    """All nodes that are no longer pending, as they are now (since 0.3.45)."""

    prompt_id: str
    nodes: tuple[NodeProgress, ...] = ()


class Progress(msgspec.Struct, frozen=True):
    """How far one node is, in all versions; `node` may be one that expansion made, or (before 2024) unknown."""

    prompt_id: str
    node: str = ""
    value: float | None = None
    maximum: float | None = None

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or None where the numbers say nothing."""
        return fraction_of(self.value, self.maximum)


class Executing(msgspec.Struct, frozen=True):
    """A node begins; `node` None is the end of the prompt, however it ended."""

    prompt_id: str
    node: str | None
    display_node: str = ""


class Executed(msgspec.Struct, frozen=True):
    """What a node with outputs for a person gave; repeated from the cache by newer versions."""

    prompt_id: str
    node: str
    display_node: str = ""
    outputs: NodeOutputs = NodeOutputs()


class ExecutionSuccess(msgspec.Struct, frozen=True):
    """All is done (since 2024-07), though the history may not have it yet."""

    prompt_id: str


class ExecutionError(msgspec.Struct, frozen=True):
    """A node raised; the texts are ComfyUI's, traceback and inputs are left out."""

    prompt_id: str
    node: str = ""
    class_type: str = ""
    exception_type: str = ""
    message: str = ""


class ExecutionInterrupted(msgspec.Struct, frozen=True):
    """The prompt was interrupted, in this node."""

    prompt_id: str
    node: str = ""
    class_type: str = ""


class Picture(msgspec.Struct, frozen=True):
    """A picture on the socket: a preview, or a final picture of a node that sends its outputs this way."""

    image: bytes
    media_type: str
    prompt_id: str = ""
    node: str = ""
    display_node: str = ""


class NodeText(msgspec.Struct, frozen=True):
    """A line of text about a node that runs."""

    node: str
    text: str
    prompt_id: str = ""


#: What is about one prompt.
PromptFrame = (
    ExecutionStart
    | ExecutionCached
    | ProgressState
    | Progress
    | Executing
    | Executed
    | ExecutionSuccess
    | ExecutionError
    | ExecutionInterrupted
    | Picture
    | NodeText
)
Frame = PromptFrame | Status | FeatureFlags


def fraction_of(value: float | None, maximum: float | None) -> float | None:
    """`value` of `maximum` within 0..1, or None where that makes no sense."""
    if value is None or maximum is None or maximum <= 0 or value < 0:
        return None
    return min(value / maximum, 1.0)


def read_frame(data: str | bytes) -> Frame | None:
    """One WebSocket message, text or binary; None to be skipped."""
    return _read_text(data) if isinstance(data, str) else _read_binary(data)


def _read_text(data: str) -> Frame | None:
    message = as_mapping(read_json(data))
    kind = message.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    return None if reader is None else reader(as_mapping(message.get("data")))


def _status(data: Mapping[str, object]) -> Frame:
    execution = as_mapping(as_mapping(data.get("status")).get("exec_info"))
    return Status(as_count(execution.get("queue_remaining")), as_id(data.get("sid")))


def _prompt(data: Mapping[str, object]) -> str:
    return as_id(data.get("prompt_id"))


def _progress_state(data: Mapping[str, object]) -> Frame:
    nodes = as_mapping(data.get("nodes"))
    states = (_node_progress(key, as_mapping(value)) for key, value in nodes.items())
    return ProgressState(_prompt(data), tuple(state for state in states if state.state))


def _node_progress(key: str, data: Mapping[str, object]) -> NodeProgress:
    node = as_id(data.get("node_id")) or key
    return NodeProgress(
        node=node,
        state=as_text(data.get("state")),
        value=as_number(data.get("value")),
        maximum=as_number(data.get("max")),
        display_node=as_id(data.get("display_node_id")) or as_id(data.get("real_node_id")),
    )


def _progress(data: Mapping[str, object]) -> Frame:
    return Progress(
        _prompt(data), as_id(data.get("node")), as_number(data.get("value")), as_number(data.get("max"))
    )


def _executing(data: Mapping[str, object]) -> Frame | None:
    node = as_id(data.get("node"))
    if not node and data.get("node") is not None:
        return None
    return Executing(_prompt(data), node or None, as_id(data.get("display_node")))


def _executed(data: Mapping[str, object]) -> Frame | None:
    node = as_id(data.get("node"))
    if not node:
        return None
    outputs = read_node_outputs(node, data.get("output"))
    return Executed(_prompt(data), node, as_id(data.get("display_node")), outputs)


def _execution_error(data: Mapping[str, object]) -> Frame:
    return ExecutionError(
        prompt_id=_prompt(data),
        node=as_id(data.get("node_id")),
        class_type=as_text(data.get("node_type")),
        exception_type=as_text(data.get("exception_type")),
        message=as_text(data.get("exception_message")).strip(),
    )


_READERS: Final[Mapping[str, Callable[[Mapping[str, object]], Frame | None]]] = {
    "status": _status,
    "feature_flags": FeatureFlags,
    "execution_start": lambda data: ExecutionStart(_prompt(data)),
    "execution_cached": lambda data: ExecutionCached(_prompt(data), as_ids(data.get("nodes"))),
    "progress_state": _progress_state,
    "progress": _progress,
    "executing": _executing,
    "executed": _executed,
    "execution_success": lambda data: ExecutionSuccess(_prompt(data)),
    "execution_error": _execution_error,
    "execution_interrupted": lambda data: ExecutionInterrupted(
        _prompt(data), as_id(data.get("node_id")), as_text(data.get("node_type"))
    ),
}


def _read_binary(data: bytes) -> Frame | None:
    if len(data) < 8:
        return None
    kind, second = unpack_from(">II", data)
    body = data[8:]
    if kind == PREVIEW:
        return _picture(body, _MEDIA_TYPES.get(second, ""))
    if kind == TEXT:
        return _node_text(body, second)
    if kind == PREVIEW_WITH_METADATA:
        return _picture_with_metadata(body, second)
    return None


def _picture(image: bytes, media_type: str) -> Picture | None:
    if not image or not media_type:
        return None
    return Picture(image, media_type_of(image) or media_type)


def _node_text(body: bytes, id_bytes: int) -> NodeText | None:
    if not 0 < id_bytes <= len(body):
        return None
    node = body[:id_bytes].decode(errors="replace")
    return NodeText(node, as_text(body[id_bytes:].decode(errors="replace")))


def _picture_with_metadata(body: bytes, metadata_bytes: int) -> Picture | None:
    if metadata_bytes >= len(body):
        return None
    data = as_mapping(read_json(body[:metadata_bytes]))
    image = body[metadata_bytes:]
    return Picture(
        image=image,
        media_type=media_type_of(image) or as_text(data.get("image_type")),
        prompt_id=_prompt(data),
        node=as_id(data.get("node_id")),
        display_node=as_id(data.get("display_node_id")) or as_id(data.get("real_node_id")),
    )


def media_type_of(image: bytes) -> str:
    """What the first bytes of a picture say it is; empty if nothing known."""
    for magic, media_type in _MAGIC:
        if image.startswith(magic):
            return media_type
    return "image/webp" if image[:4] == b"RIFF" and image[8:12] == b"WEBP" else ""
