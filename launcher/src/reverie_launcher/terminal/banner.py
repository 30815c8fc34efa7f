"""The one panel that `reverie up` shows when everything is ready."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def show_banner(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Labels and values; a panel on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for label, value in rows:
            console.print(Text(f"{label}: {value}"), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, Text(value, style="bold cyan" if value.startswith("http") else ""))
    console.print(
        Panel(table, title="Reverie is ready", title_align="left", border_style="green", expand=False)
    )
