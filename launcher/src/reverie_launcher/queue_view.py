"""What `reverie priority`, `reverie retry` and `reverie queue` do and show."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.lists import (
    ID_CHARS,
    MAX_WIDTH,
    SHORT_ID_CHARS,
    STATE_STYLES,
    age,
    complete_id,
    print_json,
)
from reverie_protocol.controls import Gate, QueueControl
from reverie_protocol.http_bodies import QueueView
from reverie_protocol.jobs import JobState


async def move(address: Address, job_id: str, *, lane: str, place: str | None, as_json: bool) -> None:
    """Move a job, and say where it is now."""
    async with HttpClient(address) as http:
        job = await http.move(await complete_id(http, job_id), lane=lane, place=place)
    if as_json:
        print_json(job)
        return
    where = {None: "", 0: ", next"}.get(job.position, f", {job.position} before it")
    state = " (it runs already)" if job.state is JobState.RUNNING else where
    print(f"{job.job_id}: {job.priority.name.lower()}{state}")


async def retry(address: Address, job_id: str, *, as_json: bool) -> None:
    """Do a job again, and print the new job's id."""
    async with HttpClient(address) as http:
        accepted = await http.retry(await complete_id(http, job_id))
    if as_json:
        print_json(accepted)
    else:
        print(accepted.job_id)


async def show(address: Address, *, as_json: bool) -> None:
    """The queue as it stands."""
    async with HttpClient(address) as http:
        view = await http.queue()
    _print(view, as_json=as_json)


async def set_gate(
    address: Address, gate: Mapping[str, bool], *, lanes: Sequence[str], workers: Sequence[str], as_json: bool
) -> None:
    """Set the gate of these lanes and workers, or of the whole queue where none is named."""
    body: dict[str, object] = {}
    if lanes:
        body["lanes"] = {str(lane): gate for lane in lanes}
    if workers:
        body["workers"] = dict.fromkeys(workers, gate)
    async with HttpClient(address) as http:
        view = await http.set_gates(body or {"queue": gate})
    if as_json:
        print_json(view)
    else:
        Console(highlight=False).print(gates_text(view.controls))


def _print(view: QueueView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    console = Console(highlight=False)
    if not console.is_terminal:  # for programs, however wide that is
        console = Console(highlight=False, width=MAX_WIDTH)
    console.print(
        Text.assemble(f"{view.running} running, {view.pending} waiting; ", gates_text(view.controls))
    )
    if view.jobs:
        console.print(queue_table(view, id_chars=SHORT_ID_CHARS if console.is_terminal else ID_CHARS))
        if view.depth > len(view.jobs):
            console.print(f"… and {view.depth - len(view.jobs)} more", style="dim")


def gates_text(controls: QueueControl) -> Text:
    """Which gates are closed, in one line."""
    closed = {"queue": controls.queue}
    closed |= {f"lane {name}": gate for name, gate in controls.lanes.items()}
    closed |= {f"worker {name}": gate for name, gate in controls.workers.items()}
    told = [f"{name} {_gate(gate)}" for name, gate in closed.items() if gate != Gate()]
    return Text(", ".join(told), style="yellow") if told else Text("everything is open", style="green")


def _gate(gate: Gate) -> str:
    return " and ".join(word for word, on in (("paused", gate.paused), ("draining", gate.draining)) if on)


def queue_table(view: QueueView, *, id_chars: int) -> Table:
    """A row per job, in the order in which they will be claimed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("JOB", "TYPE", "STATE", "LANE", "PLACE", "WAITS SINCE", "DONE IN"):
        table.add_column(heading, no_wrap=True)
    now = time.time()
    for row in view.jobs:
        table.add_row(
            row.job_id[:id_chars] if row.job_id else Text("another's", style="dim"),
            row.type,
            Text(row.state, style=STATE_STYLES[row.state]),
            row.priority.name.lower(),
            "" if row.state is JobState.RUNNING else str(row.position),
            age(now - row.enqueued_at),
            "" if row.eta_seconds is None else age(row.eta_seconds),
        )
    return table
