"""Bodies of `/v1/comfy/*`.  The jobs' keep the names that existing frontends know; the rest is ours and strict."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from reverie_protocol.client_messages import Priority
from reverie_protocol.comfy import ComfyWorkflow, ComfyWorkflows
from reverie_protocol.instances import ComfyInstance, InstanceTag, MaxPrompts
from reverie_protocol.jobs import (
    ComfyNodeError,
    ComfyNodeState,
    ComfyPreview,
    FileRef,
    Lane,
    Seconds,
    WorkflowName,
)
from reverie_protocol.quantities import Count, Duration, Fraction

LegacyState = Literal["queued", "running", "done", "error", "canceled"]


class ComfyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `POST /v1/comfy/jobs` as JSON: one of `workflowId` and `workflow`."""

    workflow_id: WorkflowName | None = msgspec.field(default=None, name="workflowId")
    workflow: dict[str, object] | None = None
    params: dict[str, object] = {}
    input_image: FileRef | None = msgspec.field(default=None, name="inputImage")
    preview: ComfyPreview | None = None
    priority: Priority = Lane.NORMAL


class ComfyAccepted(msgspec.Struct, frozen=True):
    """Answer of `POST /v1/comfy/jobs`: one id in three spellings."""

    job_id: str
    job_id_in_camel_case: str = msgspec.field(name="jobId")
    id: str


class ComfyOutput(msgspec.Struct, frozen=True):
    """One stored output; `url` is relative to the gateway, the rest as ComfyUI named it."""

    id: str
    url: str
    filename: str
    type: str
    subfolder: str
    node: str = ""
    kind: str = ""
    content_type: str = ""
    partial: bool = False


class ComfyWhere(msgspec.Struct, frozen=True):
    """Where a job is in ComfyUI; null before it got there."""

    client_id: str | None = None
    prompt_id: str | None = None
    instance: str | None = None


class ComfyNodeSeen(msgspec.Struct, frozen=True):
    """One node that was seen, in their order."""

    node: str
    title: str
    class_type: str
    state: ComfyNodeState
    progress: Fraction
    seconds: Duration


class ComfyJobProgress(msgspec.Struct, frozen=True):
    """How far a job is; `current_node` is the one that runs, `fraction` that of the whole job."""

    nodes_total: Count = 0
    nodes_seen: Count = 0
    current_node: str | None = None
    node_progression: tuple[ComfyNodeSeen, ...] = ()
    fraction: Fraction = 0.0


class ComfyJobView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/comfy/jobs/{id}`; times are epoch seconds, `error` is a sentence, `code` and `node_errors` say more.

    `heartbeat_at` is when the worker of a running job was last heard of.
    """

    id: str
    workflow_id: str | None = msgspec.field(name="workflowId")
    status: LegacyState
    created_at: Seconds
    started_at: Seconds | None
    finished_at: Seconds | None
    heartbeat_at: Seconds | None
    updated_at: Seconds
    error: str | None
    outputs: tuple[ComfyOutput, ...]
    comfy: ComfyWhere
    progress: ComfyJobProgress
    code: str | None = None
    node_errors: tuple[ComfyNodeError, ...] = ()
    partial: bool = False


class ComfyCancelled(msgspec.Struct, frozen=True):
    """Answer of `DELETE /v1/comfy/jobs/{id}`; `running` where ComfyUI has not confirmed the interrupt in time."""

    job_id: str
    status: LegacyState


class ComfyInstances(msgspec.Struct, frozen=True):
    """`GET /v1/comfy/instances`: all of them, by name."""

    instances: tuple[ComfyInstance, ...]


class ComfyInstancePut(
    msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Body of `PUT /v1/comfy/instances/{name}`: what is left out stays as it is; a new one needs a `url`."""

    url: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    enabled: bool | None = None
    draining: bool | None = None
    tags: Annotated[tuple[InstanceTag, ...], Meta(max_length=32)] | None = None
    max_prompts: MaxPrompts | None = None


COMFY_BODIES = (
    ComfyRequest,
    ComfyAccepted,
    ComfyJobView,
    ComfyCancelled,
    ComfyInstances,
    ComfyInstancePut,
    ComfyWorkflow,
    ComfyWorkflows,
)
