"""Options that commands share, and the server that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from reverie_launcher.client.address import Address, parse_address

Url = Annotated[str, typer.Option("--url", envvar="REVERIE_URL", help="The server's address.", metavar="URL")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the token to show to the server; else REVERIE_TOKEN."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else, on stdout.")]


def server(url: str, token_file: Path | None) -> Address:
    """Where the server is, and what it is shown."""
    from reverie_launcher.client.credentials import find_token

    return parse_address(url, token=find_token(token_file, os.environ))
