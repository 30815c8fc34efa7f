"""What a client sends on `/v1/ws`.  `id` is the client's own and comes back with the answer."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.jobs import JobId, JobParams, Lane

ClientId = Annotated[str, Meta(max_length=200)] | int


class ClientMessage(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    tag_field="type",
    forbid_unknown_fields=True,
):
    """Base of everything a client sends; the tag is the message's `type`."""

    id: ClientId | None = None


class Ping(ClientMessage, tag="ping"):
    """Keep-alive; answered by `pong` with the same `id`."""


class Hello(ClientMessage, tag="hello"):
    """Sets what this socket wants: `previews` sends binary preview frames of all its owner's jobs."""

    previews: bool = False


class JobSubmit(ClientMessage, tag="job:submit"):
    """A job.  Its parameters stand flat beside `jobType` or under `params`; parsing merges the two."""

    params: JobParams
    priority: Lane = Lane.NORMAL
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    previews: bool = False


class JobCancel(ClientMessage, tag="job:cancel"):
    """Stop a job: at once if it waits, at its next denoising step if it runs.  Idempotent."""

    job_id: JobId


class JobPreview(ClientMessage, tag="job:preview"):
    """Start or stop binary preview frames of one job on this socket."""

    job_id: JobId
    enabled: bool = True
