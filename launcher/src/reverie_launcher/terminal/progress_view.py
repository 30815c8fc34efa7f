"""A job's progress: a live bar with preview on a terminal, a few plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from reverie_launcher.client.tracking import Link, Preview, Tracked
from reverie_launcher.terminal.halfblocks import half_blocks
from reverie_protocol.jobs import JobState, Phase

PREVIEW_COLUMNS, PREVIEW_ROWS = 40, 16
REFRESH_PER_S = 12
#: Without a terminal: a line when the stage changes, and at most so many seconds apart within one.
PLAIN_INTERVAL_S = 5.0

_PHASES = {
    Phase.LOADING: "loading the model",
    Phase.ENCODING: "reading the prompt",
    Phase.DENOISING: "denoising",
    Phase.DECODING: "decoding",
    Phase.UPSCALING: "upscaling",
    Phase.WAITING: "waiting in ComfyUI",
    Phase.EXECUTING: "running in ComfyUI",
    Phase.STORING: "storing",
}


class ProgressView(Protocol):
    """Shows a job while it is followed; a context manager around the following."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, job: Tracked) -> None:
        """The job has changed."""


def stage(job: Tracked) -> str:
    """What happens to the job now, in a few words."""
    if job.link is Link.LOST:
        return "connection lost, trying again"
    if job.state is None:
        return "connecting" if job.link is Link.CONNECTING else "submitting"
    if job.state is JobState.QUEUED:
        return "waiting in the queue" if job.attempt == 0 else "waiting for another worker"
    if job.state is JobState.RUNNING:
        return job.node or _PHASES[job.phase] if job.phase else "starting"
    return {"completed": "done", "failed": "failed", "cancelled": "cancelled"}[job.state]


class LiveProgress:
    """A bar that moves, and above it the latest preview where half blocks can be shown."""

    def __init__(self, console: Console, *, preview: bool) -> None:
        self._preview_wanted = preview and console.color_system == "truecolor"
        self._seen: Preview | None = None
        self._art: Text | None = None
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<20}", style="cyan"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[count]:>11}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("connecting", total=1.0, count="")
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=REFRESH_PER_S, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, job: Tracked) -> None:
        """Move the bar; a new preview is drawn at the next refresh."""
        count = f"step {job.step}/{job.steps}" if job.steps else ""
        self._progress.update(self._task, description=stage(job), completed=job.progress, count=count)
        if self._preview_wanted and job.preview is not self._seen:
            self._seen, self._art = job.preview, None

    def _render(self) -> RenderableType:
        if self._seen is None:
            return self._progress
        if self._art is None:
            rows = min(PREVIEW_ROWS, self._console.height - 3)
            self._art = half_blocks(self._seen.picture, columns=PREVIEW_COLUMNS, rows=rows) or Text()
        return Group(self._art, self._progress)


class PlainProgress:
    """Lines for a log: one at each new stage, and now and then one between."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._stage = ""
        self._written_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def show(self, job: Tracked) -> None:
        """Write a line if there is something new to say."""
        now, text = self._clock(), stage(job)
        stepping = job.phase is Phase.DENOISING and job.step > 0 and not job.finished
        if text == self._stage and (not stepping or now - self._written_at < PLAIN_INTERVAL_S):
            return
        self._stage, self._written_at = text, now
        self._write(f"{text}, step {job.step} of {job.steps}" if stepping else text)
