"""Where a picture is saved: a telling name, never over another file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from reverie_launcher.exits import ExitCode, Failure

MAX_SLUG_CHARS = 48
STDOUT = Path("-")


def slug(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, joined by hyphens, cut at a word."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word
        if len(longer) > MAX_SLUG_CHARS:
            break
        name = longer
    return name or (words[0][:MAX_SLUG_CHARS] if words else "picture")


def check_target(target: Path | None) -> None:
    """Failure, before any work, if nothing could be saved there."""
    if target == STDOUT:
        return
    folder = Path() if target is None else target if target.is_dir() else target.parent
    if not folder.is_dir():
        raise Failure(
            ExitCode.USAGE, f"There is no folder {folder}.", advice="Make it, or choose another with -o."
        )
    if not os.access(folder, os.W_OK):
        raise Failure(
            ExitCode.USAGE, f"{folder.absolute()} cannot be written to.", advice="Choose a file with -o."
        )


def save(picture: bytes, target: Path | None, default_name: str) -> Path:
    """Save under the target, or the default name in it (a folder) or here; the path that it got.

    Where that name is taken -1, -2 and so on is added.
    """
    path = Path(default_name) if target is None else target / default_name if target.is_dir() else target
    if path.exists() and not path.is_file():
        _write(path, "wb", picture)  # a device or a pipe is written to, not written beside
        return path
    for candidate in _candidates(path):
        try:
            _write(candidate, "xb", picture)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("candidates never end")


def _write(path: Path, mode: str, picture: bytes) -> None:
    """All of the picture, or no file: FileExistsError where mode `xb` finds one, Failure for anything else."""
    try:
        with path.open(mode) as file:
            file.write(picture)
    except FileExistsError:
        raise
    except OSError as error:
        if path.is_file():
            path.unlink()
        raise Failure(
            ExitCode.FAILED,
            f"{path} cannot be written: {error.strerror}.",
            advice="The picture is still on the server.",
        ) from None


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
