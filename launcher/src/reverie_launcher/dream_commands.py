"""`reverie dream` and `reverie dreams …`: what the command line takes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from reverie_launcher.client.address import DEFAULT_URL
from reverie_launcher.options import AsJson, TokenFile, Url, server

dreams_app = typer.Typer(
    help="Dream sessions: list, look, steer, stop, replay, export.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Session = Annotated[str, typer.Argument(metavar="[SESSION]", help="Id of a session; your latest without.")]
Temperature = Annotated[
    float | None, typer.Option(min=0, max=1, help="How far to wander: 0 stays close, 1 goes far.")
]
Strategy = Annotated[
    str | None,
    typer.Option(
        help="random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one."
    ),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Where it goes.")]
Numbers = Annotated[list[int] | None, typer.Option(help="Number of a candidate; may be repeated.")]


def dream(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to dream of.")],
    *,
    minutes: Annotated[float, typer.Option(min=0.06, max=1440, help="How long.")] = 2.0,
    temperature: Temperature = None,
    strategy: Strategy = None,
    negative: Annotated[str | None, typer.Option(help="What should not be in the picture.")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Least score that is kept.")] = None,
    keep: Annotated[int | None, typer.Option(min=10, max=1000, help="How many are kept.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Where all chance comes from.")] = None,
    mode: Annotated[str | None, typer.Option(help="Mode to draw with.")] = None,
    size: Annotated[str | None, typer.Option(help="Size of the full pictures, WxH.")] = None,
    output: Output = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Dream of a prompt: watch the best of it, and get a contact sheet.  Ctrl-C stops the dream."""
    from reverie_launcher import dream_view

    fields = {
        "prompt": prompt,
        "duration_hours": minutes / 60,
        "temperature": temperature,
        "strategy": strategy,
        "negative_prompt": negative,
        "similarity_threshold": threshold,
        "top_k": keep,
        "seed": seed,
        "mode": mode,
        "size": size,
    }
    body = {name: value for name, value in fields.items() if value is not None}
    asyncio.run(dream_view.dream(server(url, token_file), body, target=output, as_json=as_json))


@dreams_app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, latest first.")] = 20,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List your sessions, the latest first."""
    from reverie_launcher import dream_view

    asyncio.run(dream_view.list_sessions(server(url, token_file), limit=limit, as_json=as_json))


@dreams_app.command()
def top(
    session: Session = "",
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, best first.")] = 20,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score.")] = 0.0,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the best candidates of a session."""
    from reverie_launcher import dream_view

    address = server(url, token_file)
    asyncio.run(dream_view.top(address, session, limit=limit, min_score=min_score, as_json=as_json))


@dreams_app.command()
def guide(
    session: Session = "",
    *,
    prompt: Annotated[str | None, typer.Option(help="Another prompt.")] = None,
    negative: Annotated[str | None, typer.Option(help="What should not be in the picture.")] = None,
    temperature: Temperature = None,
    strategy: Strategy = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Least score that is kept.")] = None,
    more_like: Numbers = None,
    less_like: Numbers = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Steer a session that dreams; what is left out stays as it is."""
    from reverie_launcher import dream_view

    fields = {
        "prompt": prompt,
        "negative_prompt": negative,
        "temperature": temperature,
        "strategy": strategy,
        "similarity_threshold": threshold,
        "more_like": more_like or None,
        "less_like": less_like or None,
    }
    body = {name: value for name, value in fields.items() if value is not None}
    if not body:
        raise typer.BadParameter("say what to change")
    asyncio.run(dream_view.guide(server(url, token_file), session, body, as_json=as_json))


@dreams_app.command()
def stop(
    session: Session = "", url: Url = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False
) -> None:
    """Have a session make no more candidates; the rest of the best are still rendered, unless asked twice."""
    from reverie_launcher import dream_view

    asyncio.run(dream_view.stop(server(url, token_file), session, as_json=as_json))


@dreams_app.command()
def replay(
    session: Session = "",
    *,
    pictures: Annotated[int, typer.Option(min=0, max=100, help="How many of the best to draw again.")] = 3,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Choose all candidates of a session again, draw the best again, and compare.  Exit code 1 if any differs."""
    from reverie_launcher import dream_replay

    address = server(url, token_file)
    asyncio.run(dream_replay.replay(address, session, pictures=pictures, as_json=as_json))


@dreams_app.command()
def export(
    session: Session = "",
    *,
    output: Output = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, best first.")] = 100,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Save the best pictures of a session, what made them (candidates.json) and a contact sheet, in a folder."""
    from reverie_launcher import dream_view

    address = server(url, token_file)
    asyncio.run(dream_view.export(address, session, folder=output, limit=limit, as_json=as_json))
