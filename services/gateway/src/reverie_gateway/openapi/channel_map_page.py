"""The page of the channel map: each row with what serves it, what shows it, and its state."""

from __future__ import annotations

from typing import Final

from reverie_gateway.openapi.channel_map import MESSAGES_BEYOND, ROUTES_BEYOND, ROWS, Row
from reverie_gateway.openapi.document import openapi_document
from reverie_protocol.registry import CLIENT_MESSAGES

_HEAD: Final = """\
<!-- Generated from reverie_gateway.openapi.channel_map by `make generate`; do not edit. -->
# Channel map

Each row of the map with its HTTP endpoint, its messages on `WS /v1/ws` (→ from the client, ← from the server),
its state, and the tests that show it. HTTP shapes are in [`openapi.json`](openapi.json), those of messages in
[`asyncapi.json`](asyncapi.json). An answer echoes its message's `id`; a refusal is an `error` with that `id`.

- **works**: all of it is served.
- **under way**: not all of it is served, or no test of this table shows it yet.

| # | phase | HTTP | WebSocket | state | shown by |
|---|---|---|---|---|---|
"""


def served_routes() -> dict[str, str]:
    """Every method and path that the gateway serves, with a few words on it."""
    paths = openapi_document()["paths"]
    return {
        f"{method.upper()} {path}": operation["summary"]
        for path, item in paths.items()
        for method, operation in item.items()
    }


def state_of(row: Row) -> str:
    """What a reader may expect of a row."""
    if not row.tests or (row.http and row.http not in served_routes()):
        return "under way"
    return f"works ({row.note})" if row.note else "works"


def channel_map_page() -> str:
    """Markdown: the 34 rows, then what there is beyond them."""
    rows = "".join(map(_line, ROWS))
    beyond = served_routes().items() - {(row.http, served_routes().get(row.http)) for row in ROWS}
    routes = "".join(f"| `{route}` | {why} |\n" for route, why in sorted(beyond, key=_by_path))
    messages = "".join(f"| {_directed(type_)} | {why} |\n" for type_, why in MESSAGES_BEYOND.items())
    return (
        f"{_HEAD}{rows}\n## Beyond the map\n\n| HTTP | what for |\n|---|---|\n{routes}"
        f"\n| WebSocket | what for |\n|---|---|\n{messages}"
    )


def is_beyond(route: str) -> bool:
    """Whether a route is listed as one that no row asks for."""
    return any(
        route.startswith(pattern[:-1]) if pattern.endswith("*") else route == pattern
        for pattern in ROUTES_BEYOND
    )


def _by_path(route: tuple[str, str]) -> list[str]:
    return route[0].split()[::-1]


def _line(row: Row) -> str:
    http = f"`{row.http}`" if row.http else "—"
    messages = " ".join(map(_directed, row.messages)) or "—"
    tests = "<br>".join(f"[`{name}`](../../{path})" for path, _, name in map(_parted, row.tests)) or "—"
    return f"| {row.number} | {row.phase} | {http} | {messages} | {state_of(row)} | {tests} |\n"


def _parted(test: str) -> tuple[str, str, str]:
    return test.partition("::")


def _directed(type_: str) -> str:
    return f"{'→' if type_ in CLIENT_MESSAGES else '←'}`{type_}`"
