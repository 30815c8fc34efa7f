"""`reverie chaos`: the command around a run."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reverie_launcher.chaos.plan import FaultKind
from reverie_launcher.exits import ExitCode

#: Faults per job if nothing else is said.
FAULT_SHARE = 0.1
FEWEST_FAULTS = 5


def chaos(
    *,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs the clients submit.")] = 100,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long faults go on.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same plan.")] = 1,
    faults: Annotated[
        int | None, typer.Option(min=0, help="How many faults; a tenth of the jobs, at least 5.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Inference workers with the built-in model.")] = 1,
    light: Annotated[int, typer.Option(min=0, help="Workers with an engine that only pretends.")] = 3,
    gateways: Annotated[int, typer.Option(min=1, help="Gateways.")] = 2,
    clients: Annotated[int, typer.Option(min=1, help="Clients, each with a socket.")] = 4,
    only: Annotated[
        list[FaultKind] | None, typer.Option(help="Only faults of this kind; repeatable.")
    ] = None,
    prompt_chars: Annotated[
        int, typer.Option(min=0, max=5000, help="Length of prompts: long ones make long histories to read.")
    ] = 0,
    retention: Annotated[
        float, typer.Option(min=10, help="Seconds after which jobs that are over may be forgotten.")
    ] = 360,
    crash_points: Annotated[
        bool,
        typer.Option("--crash-points", help="Instead: let somebody die at each named crash point, once."),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write the report there, as JSON.")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep logs, bucket and outputs in this new folder.")
    ] = None,
) -> None:
    """Break everything on purpose, in processes of its own, and prove that no job and no event is lost.

    Exit code 1 if a promise was broken.
    """
    from reverie_launcher.chaos.report import Setup, show
    from reverie_launcher.chaos.run import run_chaos, write_report
    from reverie_launcher.plan import find_model

    setup = Setup(
        seed=seed,
        jobs=jobs,
        span_s=minutes * 60,
        faults=max(FEWEST_FAULTS, round(jobs * FAULT_SHARE)) if faults is None else faults,
        workers=workers,
        light=light,
        gateways=gateways,
        clients=clients,
        only=tuple(only or ()),
        prompt_chars=prompt_chars,
        retention_s=retention,
    )
    console = Console()
    # It mentions each write into a connection that a fault has just cut.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="reverie-chaos-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        model = find_model(None, os.environ)
        if crash_points:
            from reverie_launcher.chaos.crash_cases import pass_all

            survived = asyncio.run(pass_all(folder.absolute(), model=model, tell=console.print))
            raise typer.Exit(ExitCode.OK if survived else ExitCode.FAILED)
        found = asyncio.run(run_chaos(setup, folder.absolute(), model=model, tell=console.print))
    if report is not None:
        write_report(found, report)
    show(found, console)
    if found.violations or not found.settled:
        raise typer.Exit(ExitCode.FAILED)
