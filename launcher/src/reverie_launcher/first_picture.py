"""The first picture: proof that everything works, made over the public API like any other."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from reverie_launcher.banner import short_path
from reverie_launcher.client.address import Address
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.generate import Request, make_picture, show_picture, summary
from reverie_launcher.terminal.progress_view import LiveProgress, PlainProgress

PROMPT = "a house on green hills"


async def make_first_picture(address: Address, path: Path, console: Console) -> None:
    """Make it, save it, say so.  That it cannot be made is said too, and stops nothing."""
    live = console.is_terminal
    view = LiveProgress(console, preview=True) if live else PlainProgress(lambda line: _say(console, line))
    console.print(f"making a first picture: “{PROMPT}”")
    try:
        result = await make_picture(
            address, Request(PROMPT), view, previews=live and console.color_system == "truecolor"
        )
        _replace(path, result.picture)
    except Failure as failure:
        if failure.exit_code is ExitCode.INTERRUPTED:
            return
        console.print(
            f"The first picture could not be made: {failure.sentence}", style="yellow", soft_wrap=True
        )
        return
    except OSError as error:
        console.print(f"{path} cannot be written: {error.strerror}.", style="yellow", soft_wrap=True)
        return
    show_picture(console, result.picture)
    console.print(f"first picture: {short_path(str(path))}", style="bold", soft_wrap=True, highlight=False)
    console.print(summary(result), soft_wrap=True, highlight=False)


def _say(console: Console, line: str) -> None:
    console.print(f"first picture: {line}", soft_wrap=True, highlight=False)


def _replace(path: Path, picture: bytes) -> None:
    """Write it whole or not at all."""
    draft = path.with_suffix(".part")
    draft.write_bytes(picture)
    os.replace(draft, path)
