"""What gateways ask the ComfyUI bridge before they take a job, and what it answers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_protocol.errors import ErrorCodeText, FieldError
from reverie_protocol.jobs import ComfyNodeError, ComfyParams


class ComfyCheck(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Request on `comfy.check`: a job before it is taken, and whether its owner may send graphs of his own."""

    params: ComfyParams
    may_send_graphs: bool = False


class ComfyVerdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Answer to `ComfyCheck`: no `code` if it can run; else the error for the client.

    `fields` are wrong parameters of ours, `nodeErrors` what ComfyUI would object to.
    """

    code: ErrorCodeText = ""
    message: str = ""
    fields: tuple[FieldError, ...] = ()
    node_errors: tuple[ComfyNodeError, ...] = ()


class ComfyWorkflow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A named workflow: what it does, a JSON Schema of its `params`, and where it can run now.

    `unavailable` says for each instance that cannot run it, why.
    """

    id: str
    title: str
    description: str = ""
    params: Annotated[dict[str, object], Meta(description="JSON Schema of `params`")]
    input_image: Annotated[str, Meta(description="`required`, `optional` or `none`")] = "none"
    outputs: Annotated[tuple[str, ...], Meta(description="kinds of output, such as `images`")] = ()
    available: tuple[str, ...] = ()
    unavailable: dict[str, str] = {}


class ComfyWorkflows(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Answer on `comfy.workflows` and body of `GET /v1/comfy/workflows`."""

    workflows: tuple[ComfyWorkflow, ...]
