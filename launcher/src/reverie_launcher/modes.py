"""`reverie modes`: which there are, a switch, the file read again."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from reverie_launcher.client.address import Address
from reverie_launcher.client.http import HttpClient
from reverie_launcher.lists import MAX_WIDTH, print_json
from reverie_protocol.model_bodies import ModesView


async def show(address: Address, *, as_json: bool) -> None:
    """Every mode with its model and defaults; the current one is marked."""
    async with HttpClient(address) as http:
        view, status = await http.modes(), await http.models_status()
    if as_json:
        print_json(view)
        return
    console = Console(highlight=False)
    if not console.is_terminal:  # for programs, however wide that is
        console = Console(highlight=False, width=MAX_WIDTH)
    console.print(modes_table(view, current=status.current_mode))


async def switch(address: Address, mode: str, *, as_json: bool) -> None:
    """Make a mode that of jobs that name none."""
    async with HttpClient(address) as http:
        answer = await http.switch_mode(mode)
    if as_json:
        print_json(answer)
    else:
        print(f"{mode}: {'it is so already' if answer.status == 'already_loaded' else 'on its way'}")


async def reload(address: Address, *, as_json: bool) -> None:
    """Have the workers read their files again."""
    async with HttpClient(address) as http:
        answer = await http.reload_modes()
    if as_json:
        print_json(answer)
    else:
        print(f"{answer.modes_count} modes: {', '.join(answer.modes)}")


def modes_table(view: ModesView, *, current: str | None) -> Table:
    """One row for each mode."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "mode", "model", "size", "steps", "guidance", "state"):
        table.add_column(name, overflow="fold")
    for name, mode in view.modes.items():
        state = mode.detail or ("in memory" if mode.loaded else "is loaded when needed")
        table.add_row(
            "*" if name == current else "",
            name,
            mode.model,
            mode.default_size or "",
            "" if mode.default_steps is None else str(mode.default_steps),
            "" if mode.default_guidance is None else f"{mode.default_guidance:g}",
            state,
        )
    return table
