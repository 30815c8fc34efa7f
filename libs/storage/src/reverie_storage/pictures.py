"""Pictures of strangers, opened safely: in a process of their own, with limits of memory and time.

A picture that is too large, broken, or no picture ends as `PictureRefused`, whatever it does to its decoder; this
process only ever holds the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_storage.port import Storage, StoredObject, is_picture

#: Sides that a thumbnail can be asked for, in pixels: few, so that few are made.
THUMBNAIL_SIDES: Final = (64, 128, 256, 512, 1024)
#: Bytes of memory for each pixel that is allowed: a decoded picture, its upright and its converted copy.
_BYTES_PER_PIXEL: Final = 14
_PROGRAM: Final = str(Path(__file__).with_name("picture_process.py"))
_BUSY_RETRY_S: Final = 2.0


class PictureRefused(ReverieError):
    """The picture is not taken: `payload_too_large`, `unsupported_media_type`, `invalid_upload` for a mask that is
    none; the message is for the client."""


class Limits(msgspec.Struct, frozen=True):
    """What one picture may cost; `base_bytes` is what its decoder needs besides the pixels."""

    max_pixels: int = 64_000_000
    cpu_s: int = 20
    wall_s: float = 40.0
    base_bytes: int = 320 << 20

    @property
    def memory_bytes(self) -> int:
        """Address space of the process that decodes."""
        return self.base_bytes + _BYTES_PER_PIXEL * self.max_pixels


class Inspection(msgspec.Struct, frozen=True):
    """A picture that can be decoded: its size as stored, in pixels, and how many bytes of its file it takes."""

    type: str
    width: int
    height: int
    length: int


class Picture(msgspec.Struct, frozen=True):
    """Pixels, upright: 8 bits a channel, rows from the top without gaps, `width * len(mode)` bytes each."""

    mode: Literal["RGB", "RGBA"]
    width: int
    height: int
    pixels: bytes


class Pictures:
    """Looks into pictures, few at once; `rate_limited` when too many wait."""

    def __init__(self, limits: Limits | None = None, *, at_once: int = 2, waiting: int = 64) -> None:
        self._limits = limits or Limits()
        self._room = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._max_waiting = waiting

    async def inspect(self, path: Path) -> Inspection:
        """Check a file to its last row; PictureRefused says why it is not taken."""
        return msgspec.convert(await self._run("inspect", path), Inspection)

    async def decode(self, path: Path) -> Picture:
        """The pixels of a file."""
        with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
            output = Path(folder) / "pixels"
            answer = await self._run("decode", path, output=str(output))
            pixels = await asyncio.to_thread(output.read_bytes)
        return Picture(answer["mode"], answer["width"], answer["height"], pixels)

    async def thumbnail(self, path: Path, *, side: int) -> bytes:
        """A WebP of a file, its longer side at most `side` pixels."""
        with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
            output = Path(folder) / "thumbnail"
            await self._run("thumbnail", path, output=str(output), side=side)
            return await asyncio.to_thread(output.read_bytes)

    async def mask(self, path: Path, output: Path, *, of: Literal["transparent", "black"]) -> None:
        """Write the mask that other programs mean by a picture: white where it is transparent, or black."""
        await self._run("mask", path, output=str(output), of=of)

    async def _run(self, errand: str, path: Path, **more: Any) -> dict[str, Any]:
        if self._waiting >= self._max_waiting:
            raise ReverieError(
                ErrorCode.RATE_LIMITED, "too many pictures are being looked at", retry_after=_BUSY_RETRY_S
            )
        limits = self._limits
        order = {
            "errand": errand,
            "path": str(path),
            "max_pixels": limits.max_pixels,
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": 4 * limits.max_pixels + (1 << 20),
            **more,
        }
        self._waiting += 1
        try:
            async with self._room:
                answer = await _answer(order, limits.wall_s)
        finally:
            self._waiting -= 1
        if "code" in answer:
            raise PictureRefused(ErrorCode(answer["code"]), answer["message"])
        return answer


async def read_picture(storage: Storage, key: str, *, limits: Limits | None = None) -> Picture:
    """A stored picture's pixels, upright, RGB or RGBA.

    PictureRefused for what cannot be decoded within the limits, ReverieError `file_not_found`, StorageUnavailable.
    """
    found = await storage.stat(key) if is_picture(key) else None
    if found is None:
        raise ReverieError(ErrorCode.FILE_NOT_FOUND, "the picture is not there any more")
    async with local_file(storage, found) as path:
        return await Pictures(limits).decode(path)


@asynccontextmanager
async def local_file(storage: Storage, found: StoredObject) -> AsyncIterator[Path]:
    """A stored object as a file, for as long as the context is open."""
    with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
        path = Path(folder) / "object"
        with path.open("wb") as file:
            async for chunk in storage.read(found.key, start=0, stop=found.size_bytes):
                file.write(chunk)
        yield path


async def _answer(order: dict[str, Any], wall_s: float) -> dict[str, Any]:
    """What a fresh process says; PictureRefused where it does not live to say anything."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        _PROGRAM,
        msgspec.json.encode(order).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(wall_s):
            said, _ = await process.communicate()
    except TimeoutError:
        raise _too_costly() from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGXFSZ):
        raise _too_costly()
    try:
        answer: dict[str, Any] = msgspec.json.decode(said)
    except msgspec.DecodeError:
        message = "the file brings its decoder down: it is no sound picture"
        raise PictureRefused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message) from None
    return answer


def _too_costly() -> PictureRefused:
    return PictureRefused(ErrorCode.PAYLOAD_TOO_LARGE, "the picture takes too much memory or time to decode")
