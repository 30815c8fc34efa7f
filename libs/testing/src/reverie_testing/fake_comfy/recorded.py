"""The recordings of real ComfyUI servers beside this file, line by line (see `recordings/README.md`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"

Line = dict[str, Any]


def versions() -> list[str]:
    """The versions there are recordings of."""
    return sorted(folder.name for folder in RECORDINGS.iterdir() if folder.is_dir())


def scenarios(version: str) -> list[str]:
    """The scenarios recorded with a version, such as `s03_success_basic`."""
    return sorted(path.stem for path in (RECORDINGS / version).glob("*.jsonl"))


@cache
def lines(version: str, scenario: str) -> tuple[Line, ...]:
    """A recording."""
    path = RECORDINGS / version / f"{scenario}.jsonl"
    return tuple(json.loads(line) for line in path.read_text().splitlines() if line)


def message(line: Line) -> str | bytes | None:
    """A WebSocket message as it came; of a binary one its first 320 bytes; None if the line is none."""
    if line["kind"] == "ws_text":
        return json.dumps(line["json"])
    return base64.b64decode(line["b64"]) if line["kind"] == "ws_bin" else None


def messages(version: str, scenario: str) -> Iterator[str | bytes]:
    """All WebSocket messages that the server sent in a recording."""
    for line in lines(version, scenario):
        sent = message(line)
        if sent is not None:
            yield sent


def body(line: Line) -> bytes | None:
    """The body of an HTTP answer; None if the line is none or the body was not kept whole."""
    if line["kind"] != "http_res":
        return None
    if "json" in line:
        return json.dumps(line["json"]).encode()
    return line["text"].encode() if "text" in line else None
