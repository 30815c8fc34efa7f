"""`reverie generate`: one prompt to one file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.text import Text

from reverie_launcher.client.address import Address
from reverie_launcher.client.follow import Follower
from reverie_launcher.client.http import HttpClient
from reverie_launcher.client.refusals import failure
from reverie_launcher.client.tracking import Tracked
from reverie_launcher.exits import ExitCode, Failure, output_failure
from reverie_launcher.picture_files import STDOUT, check_target, save, slug
from reverie_launcher.terminal import graphics
from reverie_launcher.terminal.halfblocks import half_blocks
from reverie_launcher.terminal.progress_view import (
    PREVIEW_COLUMNS,
    PREVIEW_ROWS,
    LiveProgress,
    PlainProgress,
    ProgressView,
)
from reverie_protocol.jobs import JobState, Output

CANCEL_TIMEOUT_S = 5.0
JPEG_SUFFIXES = (".jpg", ".jpeg")
#: Names that promise a format which is not made.
OTHER_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl"),
    *(".pdf", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff", ".webp"),
)


class Request(NamedTuple):
    """What to generate; None where the mode's default is wanted."""

    prompt: str
    negative: str | None = None
    size: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    scheduler: str | None = None
    mode: str | None = None
    superres: bool = False
    jpeg: bool = False
    priority: str | None = None


class Result(NamedTuple):
    """A finished job and its picture."""

    job: Tracked
    output: Output
    url: str
    picture: bytes
    elapsed_s: float


def submission(request: Request, *, previews: bool) -> dict[str, object]:
    """The request as `job:submit` and `POST /v1/jobs` have it."""
    fields: dict[str, object | None] = {
        "jobType": "generate",
        "prompt": request.prompt,
        "negative_prompt": request.negative,
        "size": request.size,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "seed": request.seed,
        "scheduler": request.scheduler,
        "mode": request.mode,
        "superres": request.superres or None,
        "superres_format": "jpeg" if request.jpeg else None,
        "priority": _priority(request.priority),
        "previews": previews or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _priority(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


async def make_picture(
    address: Address,
    request: Request,
    view: ProgressView,
    *,
    previews: bool = False,
    timeout_s: float | None = None,
) -> Result:
    """Submit, follow, download; Failure if there is no picture in the end.

    A cancellation of this task (Ctrl-C) cancels the job too, and ends as a Failure that says whether it could.
    """
    started = time.monotonic()
    async with HttpClient(address) as http:
        job = await followed(http, submission(request, previews=previews), view, timeout_s=timeout_s)
        output = outputs_of(job)[0]
        picture = await http.download(output.url)
    return Result(job, output, address.absolute(output.url), picture, time.monotonic() - started)


async def followed(
    http: HttpClient, body: Mapping[str, object], view: ProgressView, *, timeout_s: float | None
) -> Tracked:
    """Submit a job and follow it to its end, however that is; Failure if it was refused, or time ran out."""
    follower = Follower(http, body, idempotency_key=uuid.uuid4().hex, observe=view.show, rng=random.Random())
    try:
        with view:
            async with asyncio.timeout(timeout_s):
                return await follower.run()
    except TimeoutError:
        raise _timed_out(http.address, follower.job, timeout_s) from None
    except asyncio.CancelledError:
        raise await _interrupted(follower) from None


async def _interrupted(follower: Follower) -> Failure:
    """Cancel the job; what cannot be cancelled in a moment runs to its end."""
    state = None
    with contextlib.suppress(Failure, TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT_S):
            state = await follower.cancel()
    if state is None and follower.job.job_id is not None:
        advice = f"The job goes on, because the server does not answer: reverie cancel {follower.job.job_id}"
    else:
        advice = "" if state is None else "The job is cancelled."
    return Failure(
        ExitCode.INTERRUPTED, "Interrupted.", advice=advice, code="interrupted", job_id=follower.job.job_id
    )


def _timed_out(address: Address, job: Tracked, timeout_s: float | None) -> Failure:
    if job.job_id is None:
        return Failure(
            ExitCode.TIMEOUT,
            f"The server did not take the job within {timeout_s:g} s.",
            advice="See how it is with reverie status.",
            code="wait_timeout",
        )
    return Failure(
        ExitCode.TIMEOUT,
        f"There is no picture after {timeout_s:g} s, and the job goes on.",
        advice=f"Follow it at {address.url}/v1/jobs/{job.job_id}, or stop it with reverie cancel {job.job_id}.",
        code="wait_timeout",
        job_id=job.job_id,
    )


def outputs_of(job: Tracked) -> tuple[Output, ...]:
    """What a completed job made, at least one; Failure for any other."""
    if job.state is JobState.COMPLETED and job.outputs:
        return job.outputs
    if job.error is None:
        raise Failure(
            ExitCode.FAILED,
            f"The job ended as {job.state} without a picture.",
            advice="The worker's log has the details.",
            job_id=job.job_id,
        )
    raise failure(job.error.code, job.error.message, job_id=job.job_id)


async def generate(
    address: Address,
    request: Request,
    *,
    target: Path | None,
    as_json: bool,
    preview: bool,
    timeout_s: float | None,
) -> None:
    """The whole command: progress on stderr, the result on stdout."""
    request = check_format(request, target)
    check_target(target)
    console = Console(stderr=True)
    live = console.is_terminal and not as_json
    view: ProgressView = (
        LiveProgress(console, preview=preview)
        if live
        else PlainProgress(lambda line: print(line, file=sys.stderr, flush=True))
    )
    wanted = live and preview and console.color_system == "truecolor"
    result = await make_picture(address, request, view, previews=wanted, timeout_s=timeout_s)
    file = deliver(result, request, target)
    if as_json:
        print(msgspec.json.encode(describe(result, file)).decode())
        return
    if file is not None:
        if preview:
            show_picture(console, result.picture)
        console.print(summary(result), highlight=False, soft_wrap=True)
        # The path alone is what a script wants to read.
        print(file)


def check_format(request: Request, target: Path | None) -> Request:
    """The request with the format that the target's name asks for; Failure if there is none such."""
    suffix = "" if target is None or target.is_dir() else target.suffix.lower()
    if suffix in OTHER_SUFFIXES:
        raise Failure(
            ExitCode.USAGE,
            f"No picture is written as {suffix}.",
            advice="Name a .png file with -o, or with --superres a .jpg file.",
        )
    if suffix not in JPEG_SUFFIXES:
        return request
    if not request.superres:
        raise Failure(
            ExitCode.USAGE,
            "Pictures come as PNG.",
            advice="Name a .png file with -o; JPEG is to be had with --superres only.",
        )
    return request._replace(jpeg=True)


def deliver(result: Result, request: Request, target: Path | None) -> Path | None:
    """Save the picture, or write it to stdout (then None)."""
    if target == STDOUT:
        write_stdout(result)
        return None
    suffix = ".jpg" if result.output.content_type == "image/jpeg" else ".png"
    seed = f"-{result.job.meta.seed}" if result.job.meta else ""
    return save(result.picture, target, f"{slug(request.prompt)}{seed}{suffix}")


def write_stdout(result: Result) -> None:
    """The bytes of the picture, past every buffer, so that an error is known here."""
    rest = memoryview(result.picture)
    try:
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_failure(error, advice=f"The picture is still at {result.url}.") from None


def describe(result: Result, file: Path | None) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "jobId": result.job.job_id,
        "state": result.job.state,
        "file": None if file is None else str(file),
        "url": result.url,
        "key": result.output.key,
        "contentType": result.output.content_type,
        "bytes": len(result.picture),
        "elapsedSeconds": round(result.elapsed_s, 3),
        "meta": result.job.meta,
    }


def summary(result: Result) -> Text:
    """One line about how the picture was made."""
    meta, output = result.job.meta, result.output
    parts = [f"{output.width}×{output.height}"] if output.width else []
    if meta is not None:
        parts.append(f"seed {meta.seed}")
        parts += [f"{meta.steps} steps"] if meta.steps else []
        parts += [meta.model] if meta.model else []
    parts.append(f"{result.elapsed_s:.1f} s")
    return Text.assemble(("✓ ", "green"), " · ".join(parts), (f"\n  {result.url}", "dim"))


def show_picture(console: Console, picture: bytes) -> None:
    """The finished picture in the terminal, as well as it can show one."""
    if not console.is_terminal:
        return
    protocol = graphics.detect(os.environ)
    if protocol is not None:
        console.file.write(graphics.encode(protocol, picture, columns=PREVIEW_COLUMNS) + "\n")
        console.file.flush()
    elif console.color_system == "truecolor":
        art = half_blocks(picture, columns=PREVIEW_COLUMNS, rows=PREVIEW_ROWS)
        console.print(art or "")
