"""`reverie jobs`, `reverie cancel` and `reverie status`."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.node_rows import node_rows
from reverie_launcher.readiness import why_not_ready
from reverie_protocol.http_bodies import JobView
from reverie_protocol.instances import ComfyHealth
from reverie_protocol.jobs import JobState
from reverie_protocol.server_messages import SystemStatus

#: As many of a job's id as a table on a terminal shows; `reverie cancel` takes any unique beginning.
SHORT_ID_CHARS = 8
ID_CHARS = 32
MAX_LISTED = 200
MAX_WIDTH = 20_000
STATE_STYLES = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.COMPLETED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "dim",
}


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    print(msgspec.json.encode(value).decode())


async def jobs(address: Address, *, state: str | None, limit: int, as_json: bool) -> None:
    """The newest jobs."""
    async with HttpClient(address) as http:
        page = await http.jobs(state=state, limit=limit)
    if as_json:
        print_json(page.jobs)
        return
    if not page.jobs:
        print(f"There are no {state or ''} jobs.".replace("  ", " "))
        return
    console = Console()
    if console.is_terminal:
        console.print(job_table(page.jobs, id_chars=SHORT_ID_CHARS))
        if page.total > len(page.jobs):
            console.print(f"{len(page.jobs)} of {page.total}; more with --limit", style="dim")
    else:  # for programs: whole ids and prompts, however wide that is
        Console(width=MAX_WIDTH).print(job_table(page.jobs, id_chars=None))


def job_table(shown: Sequence[JobView], *, id_chars: int | None) -> Table:
    """A row per job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("JOB", "STATE", "LANE", "PROGRESS", "AGE"):
        table.add_column(heading, no_wrap=True)
    table.add_column("PROMPT", no_wrap=True, overflow="ellipsis")
    now = time.time()
    for job in shown:
        table.add_row(
            job.job_id[:id_chars],
            Text("cancelling" if job.cancelling else job.state, style=STATE_STYLES[job.state]),
            job.priority.name.lower(),
            _progress(job),
            age(now - job.timestamps.created_at),
            Text(" ".join(getattr(job.params, "prompt", job.type).split())),
        )
    return table


def _progress(job: JobView) -> str:
    if job.state is JobState.QUEUED and job.position is not None:
        return "next" if job.position == 0 else f"{job.position} before it"
    if job.state is JobState.RUNNING:
        return f"{job.progress:.0%}"
    if job.state is JobState.FAILED and job.error is not None:
        return job.error.code
    return ""


def age(seconds: float) -> str:
    """A duration in its largest unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


async def cancel(address: Address, job_ids: Sequence[str], *, as_json: bool) -> None:
    """Stop jobs; Failure at the end if one of them is not there."""
    states: dict[str, JobState] = {}
    first: Failure | None = None
    async with HttpClient(address) as http:
        for job_id in job_ids:
            try:
                whole = await complete_id(http, job_id)
                states[whole] = await http.cancel(whole)
            except Failure as error:
                if error.exit_code is ExitCode.UNREACHABLE:
                    raise
                first = first or error
    if as_json and (states or first is None):
        print_json({"jobs": states})
    elif not as_json:
        for job_id, state in states.items():
            print(f"{job_id}: {_cancelled(state)}")
    if first is not None:
        raise first


async def complete_id(http: HttpClient, beginning: str) -> str:
    """The id of the one recent job that begins so; what was given if none does, Failure if several do."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", beginning):
        raise Failure(
            ExitCode.USAGE, f"{beginning!r} is no job id.", advice="`reverie jobs` lists the ids there are."
        )
    if len(beginning) >= ID_CHARS:
        return beginning
    page = await http.jobs(state=None, limit=MAX_LISTED)
    found = [job.job_id for job in page.jobs if job.job_id.startswith(beginning)]
    if len(found) > 1 and beginning not in found:
        raise Failure(
            ExitCode.USAGE, f"{len(found)} jobs begin with {beginning}.", advice="Give more of the id."
        )
    return found[0] if len(found) == 1 else beginning


def _cancelled(state: JobState) -> str:
    if state is JobState.CANCELLED:
        return "cancelled"
    return "stops at its next step" if not state.terminal else f"had already {state}"


async def status(address: Address, *, as_json: bool) -> bool:
    """How the platform is; whether it is ready, which takes a worker too."""
    async with HttpClient(address) as http:
        ready, answer = await http.ready()
        system = await http.status()
    if ready and not system.workers:
        ready, answer = False, {"reasons": {"workers": "none is running"}}
    if as_json:
        print_json({"url": address.url, "ready": ready, "readiness": answer, "system": system})
        return ready
    Console().print(status_table(address, ready, answer, system))
    return ready


def status_table(address: Address, ready: bool, answer: dict[str, Any], system: SystemStatus) -> Table:
    """A row per part of the platform."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    state = Text("ready", style="green")
    if not ready:
        state = Text(f"not ready: {why_not_ready(answer)}", style="red")
    vram, queue, storage = system.vram, system.queue_state, system.storage
    table.add_row("gateway", Text.assemble(address.url, "  ", state))
    table.add_row("workers", str(system.workers) if system.workers else Text("none", style="red"))
    if vram.total_gb:
        table.add_row("memory", f"{vram.used_gb:.1f} of {vram.total_gb:.1f} GB on {vram.device}")
    table.add_row("mode", system.mode or "none is loaded")
    table.add_row("queue", f"{queue.running} running, {queue.pending} waiting")
    stores = Text("works", style="green") if storage.ok else Text("fails", style="red")
    table.add_row("storage", Text.assemble(storage.provider, "  ", stores))
    for instance in system.comfy:
        table.add_row(f"ComfyUI {instance.name}", comfy_row(instance))
    for name, text in node_rows(system.nodes):
        table.add_row(name, text)
    return table


def comfy_row(instance: ComfyHealth) -> str:
    """How a ComfyUI server does, in a line."""
    state = f"{instance.status}{f' ({instance.reason})' if instance.reason else ''}"
    draining = ", draining" if instance.draining else ""
    version = f", version {instance.version}" if instance.version else ""
    return f"{state}{draining}{version}, {instance.queue_running} running, {instance.queue_pending} waiting"
