"""What the children say, one prefixed line each: coloured on a terminal, plain text elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

STYLES = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta")
LEVEL_STYLES = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}
#: Keys of a log record that the prefix shows already, or that say nothing to a person.
UNSHOWN = ("service", "logger", "pid")

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f\x9b]")


class LogView:
    """Prints lines of children and notices of the supervisor to one console."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self.console = console
        self._width = max(map(len, names))
        self._styles = dict(zip(names, STYLES * len(names), strict=False))

    def line(self, child: str, text: str) -> None:
        """One line of a child's output: a JSON log record is made readable, anything else stays as it is."""
        self._print(child, render(text))

    def notice(self, child: str, text: str) -> None:
        """Something the supervisor saw."""
        self._print(child, Text(text, style="bold"))

    def warning(self, child: str, text: str) -> None:
        """Something went wrong, and what happens next."""
        self._print(child, Text(text, style="bold yellow"))

    def _print(self, child: str, text: Text) -> None:
        prefix = Text.assemble((f"{child:>{self._width}} │ ", self._styles.get(child, "")))
        # soft_wrap: the terminal may break a long line, we never do, so that it can be copied and searched.
        self.console.print(prefix + text, soft_wrap=True, highlight=False)


def render(line: str) -> Text:
    """A log line for people."""
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "event" not in record:
        return Text(_CONTROL.sub("", line))
    return _render_record(record)


def _render_record(record: dict[str, Any]) -> Text:
    level = str(record.pop("level", "info"))
    style = LEVEL_STYLES.get(level, "")
    text = Text()
    if time := _clock_time(record.pop("timestamp", None)):
        text.append(f"{time} ", style="dim")
    if level != "info":
        text.append(f"{level} ", style=style)
    text.append(_CONTROL.sub("", str(record.pop("event"))), style=style)
    for key, value in record.items():
        if key not in UNSHOWN:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text.append(f"  {key}=", style="dim")
            text.append(_CONTROL.sub("", shown))
    return text


def _clock_time(timestamp: object) -> str:
    """Local wall time of an ISO timestamp or of seconds since the epoch; empty if it is neither."""
    try:
        if isinstance(timestamp, (int, float)):
            return f"{datetime.fromtimestamp(timestamp):%H:%M:%S}"
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return ""
