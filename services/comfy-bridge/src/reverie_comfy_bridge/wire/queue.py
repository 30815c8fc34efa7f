"""`/queue` and `/history`: where a prompt is, and how it ended.

Nothing here raises.  A body that cannot be read gives None, which is never taken as evidence: that a prompt is not
in an unreadable queue means nothing.  The same holds for a single entry that makes no sense: in the queue it
counts, under an empty id, and the queue is not `complete`; in the history its id is among the `unreadable`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from reverie_comfy_bridge.wire.outputs import NodeOutputs, read_outputs
from reverie_comfy_bridge.wire.values import (
    as_id,
    as_ids,
    as_mapping,
    as_number,
    as_sequence,
    as_text,
    read_json,
)
from reverie_protocol.jobs import ComfyNodeError

#: Where our own mark stands in `extra_data`, which `/queue` and `/history` give back in every version.
MARK_KEY: Final = "reverie"

Mark = Mapping[str, object]


class QueuedPrompt(msgspec.Struct, frozen=True):
    """A prompt in the queue; `mark` is our own part of its `extra_data`, None if it is not ours.

    `outputs` are the output nodes that it is to run.
    """

    prompt_id: str
    number: float | None = None
    client_id: str = ""
    mark: Mark | None = None
    outputs: tuple[str, ...] = ()


class Queue(msgspec.Struct, frozen=True):
    """What runs and what waits, everybody's."""

    running: tuple[QueuedPrompt, ...] = ()
    pending: tuple[QueuedPrompt, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all its entries could be read, so that what is not among them is not in it."""
        return all(prompt.prompt_id for prompt in (*self.running, *self.pending))

    def find(self, prompt_id: str, mark: Mark | None = None) -> QueuedPrompt | None:
        """A prompt by its id, or else by our mark."""
        return _find((*self.running, *self.pending), prompt_id, mark)

    def runs(self, prompt_id: str) -> bool:
        """Whether this prompt is the (or a) running one."""
        return any(prompt.prompt_id == prompt_id for prompt in self.running)


class HistoryStatus(StrEnum):
    """How a prompt ended; versions before 2024-01 leave it unsaid."""

    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    UNSAID = "unsaid"


class HistoryEntry(msgspec.Struct, frozen=True):
    """A prompt that ended.

    `error` is the node that raised; `cached` the nodes that did not run; `seconds` from its start to its end, where
    the version tells times; `prompt` how it stood in the queue.
    """

    prompt_id: str
    status: HistoryStatus
    outputs: NodeOutputs = NodeOutputs()
    error: ComfyNodeError | None = None
    cached: tuple[str, ...] = ()
    seconds: float | None = None
    prompt: QueuedPrompt = QueuedPrompt("")

    @property
    def mark(self) -> Mark | None:
        """Our own part of its `extra_data`, None if it is not ours."""
        return self.prompt.mark


class History(msgspec.Struct, frozen=True):
    """`/history` or `/history/<id>`, which is empty for an id that is pending, running or unknown."""

    entries: tuple[HistoryEntry, ...] = ()
    unreadable: frozenset[str] = frozenset()

    def find(self, prompt_id: str, mark: Mark | None = None) -> HistoryEntry | None:
        """A prompt by its id, or else by our mark."""
        return _find(self.entries, prompt_id, mark)


Entry = TypeVar("Entry", QueuedPrompt, HistoryEntry)


def _find(prompts: Collection[Entry], prompt_id: str, mark: Mark | None) -> Entry | None:
    by_id = next((prompt for prompt in prompts if prompt.prompt_id == prompt_id), None)
    if by_id is not None or mark is None:
        return by_id
    return next((prompt for prompt in prompts if prompt.mark == mark), None)


def read_queue(body: bytes) -> Queue | None:
    """The body of `/queue`; None if it is none."""
    data = read_json(body)
    if not isinstance(data, dict):
        return None
    running, pending = data.get("queue_running"), data.get("queue_pending")
    if not isinstance(running, list) or not isinstance(pending, list):
        return None
    return Queue(tuple(map(_read_prompt, running)), tuple(map(_read_prompt, pending)))


def _read_prompt(value: object) -> QueuedPrompt:
    """`[number, id, graph, extra_data, outputs]`, and whatever later versions add; or an object with its id."""
    parts = as_sequence(value)
    if len(parts) < 2:
        return QueuedPrompt(as_id(as_mapping(value).get("prompt_id")))
    extra = as_mapping(parts[3]) if len(parts) > 3 else {}
    mark = extra.get(MARK_KEY)
    return QueuedPrompt(
        prompt_id=as_id(parts[1]),
        number=as_number(parts[0]),
        client_id=as_id(extra.get("client_id")),
        mark=mark if isinstance(mark, dict) else None,
        outputs=as_ids(parts[4]) if len(parts) > 4 else (),
    )


def read_history(body: bytes) -> History | None:
    """The body of `/history` or `/history/<id>`; None if it is none."""
    data = read_json(body)
    if not isinstance(data, dict):
        return None
    entries = {prompt_id: _read_entry(prompt_id, as_mapping(value)) for prompt_id, value in data.items()}
    return History(
        tuple(entry for entry in entries.values() if entry is not None),
        frozenset(prompt_id for prompt_id, entry in entries.items() if entry is None),
    )


def _read_entry(prompt_id: str, data: Mapping[str, object]) -> HistoryEntry | None:
    """None if it is no entry at all, such as the `error` that a proxy answers with."""
    if "outputs" not in data and "status" not in data:
        return None
    status = as_mapping(data.get("status"))
    messages = _messages(status)
    return HistoryEntry(
        prompt_id=prompt_id,
        status=_read_status(status, messages),
        outputs=read_outputs(data.get("outputs")),
        error=_read_error(messages),
        cached=as_ids(messages.get("execution_cached", {}).get("nodes")),
        seconds=_read_seconds(messages),
        prompt=_read_prompt(data.get("prompt")),
    )


def _messages(status: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The events of the run by their names, the last of each; pairs of name and data."""
    pairs = (as_sequence(message) for message in as_sequence(status.get("messages")))
    return {as_text(pair[0]): as_mapping(pair[1]) for pair in pairs if len(pair) == 2}


def _read_status(status: Mapping[str, object], messages: Mapping[str, Mapping[str, object]]) -> HistoryStatus:
    """ComfyUI calls an interrupted prompt an error too; only its messages tell."""
    said = status.get("status_str")
    if said == "success" or (said is None and status.get("completed") is True):
        return HistoryStatus.SUCCESS
    if "execution_interrupted" in messages:
        return HistoryStatus.INTERRUPTED
    if said is None and status.get("completed") is None:
        return HistoryStatus.ERROR if "execution_error" in messages else HistoryStatus.UNSAID
    return HistoryStatus.ERROR


def _read_error(messages: Mapping[str, Mapping[str, object]]) -> ComfyNodeError | None:
    data = messages.get("execution_error")
    if data is None:
        return None
    kind = as_text(data.get("exception_type"))
    return ComfyNodeError(
        node=as_id(data.get("node_id")),
        type=kind or "execution_error",
        message=as_text(data.get("exception_message")).strip() or kind or "The node failed.",
        class_type=as_text(data.get("node_type")),
    )


def _read_seconds(messages: Mapping[str, Mapping[str, object]]) -> float | None:
    times = [as_number(data.get("timestamp")) for data in messages.values()]
    known = [time for time in times if time is not None]
    start = as_number(messages.get("execution_start", {}).get("timestamp"))
    return None if start is None or not known else max(0.0, (max(known) - start) / 1000)
