"""What becomes of a prompt, as the rest of the bridge hears it."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from reverie_comfy_bridge.wire.outputs import NodeOutputs, OutputFile
from reverie_protocol.jobs import ComfyNodeError, ComfyRun


class Outcome(StrEnum):
    """How a prompt ended.

    `interrupted` whoever asked for it; `lost` if the instance no longer has it, or never took it; `refused` if
    ComfyUI's validation says what is wrong with it.
    """

    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    REFUSED = "refused"


class LookReason(StrEnum):
    """Why a look at `/queue` and then `/history` is due."""

    ENDED = "ended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    QUEUE_SHRANK = "queue_shrank"
    UNCERTAIN = "uncertain"
    MISSING = "missing"
    CANCELLED = "cancelled"


class EndReason(StrEnum):
    """What said that the prompt ended."""

    HISTORY = "history"
    VALIDATION = "validation"
    VANISHED = "vanished"
    NEVER_QUEUED = "never_queued"
    DENIED = "denied"
    REMOVED = "removed"


class Started(msgspec.Struct, frozen=True):
    """The prompt left ComfyUI's queue and runs."""


class Taken(msgspec.Struct, frozen=True):
    """ComfyUI has the prompt, under this id; `node_errors` are of outputs that it will not make."""

    prompt_id: str
    node_errors: tuple[ComfyNodeError, ...] = ()


class Progressed(msgspec.Struct, frozen=True):
    """How far it is; `fraction` of the whole never falls and is 1.0 only when the prompt has succeeded.

    `node` is the id of the node that began last among those that run (empty: none), `title` what a person calls it,
    `step` of `steps` its own progress (0 of 0: it tells none).
    """

    fraction: float
    run: ComfyRun
    node: str = ""
    title: str = ""
    step: int = 0
    steps: int = 0


class PreviewShown(msgspec.Struct, frozen=True):
    """A picture of work in progress; `node` is empty where it is not certain."""

    image: bytes
    media_type: str
    node: str = ""


class ImageSent(msgspec.Struct, frozen=True):
    """A final picture of a node that sends its outputs over the socket; `index` counts those of the node from 0.

    It exists nowhere else: what is not kept now is lost.
    """

    node: str
    index: int
    image: bytes
    media_type: str


class TextSent(msgspec.Struct, frozen=True):
    """A line of text of a node that runs."""

    node: str
    text: str


class LookNow(msgspec.Struct, frozen=True):
    """Ask `/queue`, then `/history`, and tell the run: something may have ended."""

    reason: LookReason


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The end, said once.

    `outputs` are those of the history entry, whatever the outcome (a failed prompt keeps what was done before).
    `node_errors` say what failed, or (of a success) which outputs were never made.  `cached` are
    nodes that did not run: their files are those of an earlier run.  `missing` are nodes whose pictures went over
    the socket and were not all heard.
    """

    outcome: Outcome
    reason: EndReason
    message: str = ""
    outputs: NodeOutputs = NodeOutputs()
    node_errors: tuple[ComfyNodeError, ...] = ()
    run: ComfyRun
    fraction: float
    seconds: float | None = None
    cached: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class RunAgain(msgspec.Struct, frozen=True):
    """Outputs of the prompt are gone: run it again, with a changed input on `nodes` so that they work."""

    nodes: tuple[str, ...]
    files: tuple[OutputFile, ...] = ()


Event = Taken | Started | Progressed | PreviewShown | ImageSent | TextSent | LookNow | Ended | RunAgain
