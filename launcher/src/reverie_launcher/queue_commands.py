"""`reverie priority`, `reverie retry` and `reverie queue`: what the command line takes."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from reverie_launcher.client.address import DEFAULT_URL, Address
from reverie_launcher.options import AsJson, TokenFile, Url, server

queue_app = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


class LaneName(StrEnum):
    """Priority lanes; the first goes first."""

    URGENT = "urgent"
    NORMAL = "normal"
    BATCH = "batch"
    BACKGROUND = "background"


JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or its beginning.")]
Lanes = Annotated[list[LaneName] | None, typer.Option("--lane", help="Only this lane; may be repeated.")]
Workers = Annotated[
    list[str] | None, typer.Option("--worker", help="Only the worker of this name; may be repeated.")
]


def priority(
    job_id: JobArgument,
    lane: Annotated[LaneName, typer.Argument(metavar="LANE", help="urgent, normal, batch or background.")],
    *,
    front: Annotated[bool, typer.Option("--front", help="Before your others in the lane.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Behind your others in the lane.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Move a job to another lane, or within it."""
    from reverie_launcher import queue_view

    if front and back:
        raise typer.BadParameter("give --front or --back, not both")
    place = "front" if front else "back" if back else None
    asyncio.run(queue_view.move(server(url, token_file), job_id, lane=lane, place=place, as_json=as_json))


def retry(
    job_id: JobArgument, url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Do a failed or cancelled job again, as a new job with the same seed."""
    from reverie_launcher import queue_view

    asyncio.run(queue_view.retry(server(url, token_file), job_id, as_json=as_json))


@queue_app.callback()
def queue(
    context: typer.Context,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the queue; pause, resume or drain it, its lanes or its workers."""
    from reverie_launcher import queue_view

    if context.invoked_subcommand is not None:
        _refuse_options(context)
    else:
        asyncio.run(queue_view.show(server(url, token_file), as_json=as_json))


def _refuse_options(context: typer.Context) -> None:
    """Options before `pause` would be lost, and it would go to another server than was named."""
    given = [
        name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if given:
        raise typer.BadParameter(f"give options behind {context.invoked_subcommand}")


@queue_app.command()
def pause(
    lane: Lanes = None,
    worker: Workers = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Start no more jobs; new ones are taken and wait."""
    _set({"paused": True}, lane, worker, server(url, token_file), as_json)


@queue_app.command()
def resume(
    lane: Lanes = None,
    worker: Workers = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Open what was paused or drained."""
    _set({}, lane, worker, server(url, token_file), as_json)


@queue_app.command()
def drain(
    lane: Lanes = None,
    worker: Workers = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take no new jobs and do those that there are; a drained worker starts none."""
    _set({"draining": True}, lane, worker, server(url, token_file), as_json)


def _set(gate: dict[str, bool], lanes: Lanes, workers: Workers, address: Address, as_json: bool) -> None:
    from reverie_launcher import queue_view

    asyncio.run(queue_view.set_gate(address, gate, lanes=lanes or (), workers=workers or (), as_json=as_json))
