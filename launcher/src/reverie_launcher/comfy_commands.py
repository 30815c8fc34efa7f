"""`reverie comfy`: what the command line takes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from reverie_launcher.client.address import DEFAULT_URL
from reverie_launcher.options import AsJson, TokenFile, Url, server

comfy_app = typer.Typer(
    help="ComfyUI: its servers, its workflows, and a run of one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
InstanceArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a ComfyUI server.")]


@comfy_app.command()
def workflows(url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List the workflows with their parameters, and where they can run."""
    from reverie_launcher import comfy

    asyncio.run(comfy.show_workflows(server(url, token_file), as_json=as_json))


@comfy_app.command()
def instances(url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List the ComfyUI servers and how they do."""
    from reverie_launcher import comfy

    asyncio.run(comfy.show_instances(server(url, token_file), as_json=as_json))


@comfy_app.command()
def add(
    name: InstanceArgument,
    where: Annotated[str, typer.Argument(metavar="WHERE", help="Its URL, such as http://gpu1:8188.")],
    *,
    tag: Annotated[
        list[str] | None, typer.Option(help="What workflows may ask for; may be repeated.")
    ] = None,
    max_prompts: Annotated[
        int | None, typer.Option(min=1, max=2, help="Prompts of ours inside it at once.")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Enter a ComfyUI server, or move one to another URL."""
    from reverie_launcher import comfy

    body = {"url": where, "tags": tag or None, "maxPrompts": max_prompts}
    asyncio.run(comfy.put_instance(server(url, token_file), name, body, as_json=as_json))


@comfy_app.command()
def drain(
    name: InstanceArgument,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take work again.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a ComfyUI server finish what it has, and take nothing new."""
    from reverie_launcher import comfy

    asyncio.run(comfy.put_instance(server(url, token_file), name, {"draining": not undo}, as_json=as_json))


@comfy_app.command()
def remove(
    name: InstanceArgument, url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Take a ComfyUI server out; its jobs go to others."""
    from reverie_launcher import comfy

    asyncio.run(comfy.remove_instance(server(url, token_file), name, as_json=as_json))


@comfy_app.command()
def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="One of reverie comfy workflows.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE...", help="Its parameters; NAME=@FILE sends a picture."),
    ] = None,
    *,
    image: Annotated[Path | None, typer.Option(help="The picture that it starts from.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder; never written over another file.")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait; the job goes on after it.")] = None,
) -> None:
    """Run a workflow and save what it makes.  Ctrl-C cancels the job."""
    from reverie_launcher import comfy

    asyncio.run(
        comfy.run(
            server(url, token_file),
            workflow,
            comfy.read_params(params or ()),
            image=image,
            target=output,
            as_json=as_json,
            timeout_s=timeout,
        )
    )
