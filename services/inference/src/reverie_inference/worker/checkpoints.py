"""Where jobs are, on the bus, so that another attempt on any worker goes on from there.

Written beside the work, never in its way: the latest of each job, one at a time.  A checkpoint is two generations
of parts and a head that names one of them, so that one which was being written when its worker died takes nothing
away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Final

import msgspec
import structlog

from reverie_protocol.subjects import CHECKPOINT_TTL_S, CHECKPOINTS_BUCKET, CheckpointHead
from reverie_runtime.bus.port import Bucket, BucketConfig, BusError

CHECKPOINTS: Final = BucketConfig(name=CHECKPOINTS_BUCKET, ttl_s=CHECKPOINT_TTL_S)
#: Bytes of one value: below the server's largest message.
PART_BYTES: Final = 900_000
#: Parts of a checkpoint at most; a job that needs more begins anew.
MOST_PARTS: Final = 16

log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints of all jobs; those that this worker writes are the latest of its own."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._latest: dict[str, tuple[int, bytes]] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        self._generations: dict[str, int] = {}

    def keep(self, job_id: str, step: int, content: bytes) -> None:
        """Write a job's checkpoint as soon as the one before is written; only the latest counts."""
        if len(content) > PART_BYTES * MOST_PARTS:
            log.info("a checkpoint is too large to be kept", job_id=job_id, bytes=len(content))
            return
        self._latest[job_id] = (step, content)
        if job_id not in self._writers:
            self._writers[job_id] = asyncio.create_task(self._write(job_id), name=f"checkpoint {job_id}")

    async def find(self, job_id: str) -> bytes:
        """A job's checkpoint; empty if there is none that is whole, or it cannot be had now."""
        try:
            entry = await self._bucket.get(job_id)
            if entry is None or entry.value is None:
                return b""
            head = msgspec.json.decode(entry.value, type=CheckpointHead)
            self._generations[job_id] = head.generation
            parts = [await self._bucket.get(_part(job_id, head.generation, at)) for at in range(head.parts)]
        except (BusError, msgspec.MsgspecError) as error:
            log.warning("a checkpoint cannot be read", job_id=job_id, reason=str(error))
            return b""
        content = b"".join(part.value for part in parts if part is not None and part.value is not None)
        return content if hashlib.sha256(content).hexdigest() == head.sha256 else b""

    async def forget(self, job_id: str) -> None:
        """Remove a job's checkpoint: it has ended.  What cannot be removed expires."""
        self._latest.pop(job_id, None)
        writer = self._writers.pop(job_id, None)
        if writer is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        if self._generations.pop(job_id, None) is None:
            return
        with contextlib.suppress(BusError, msgspec.MsgspecError):
            entry = await self._bucket.get(job_id)
            if entry is None or entry.value is None:
                return
            head = msgspec.json.decode(entry.value, type=CheckpointHead)
            await self._bucket.purge(job_id)
            for generation in (0, 1):
                for at in range(head.parts):
                    await self._bucket.purge(_part(job_id, generation, at))

    def let_go(self, job_id: str) -> None:
        """A job is no longer ours: write nothing more for it."""
        self._latest.pop(job_id, None)
        self._generations.pop(job_id, None)

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writers.values(), return_exceptions=True)

    async def _write(self, job_id: str) -> None:
        try:
            while (latest := self._latest.pop(job_id, None)) is not None:
                step, content = latest
                # Without the bus there is no checkpoint this time; the next one will do.
                with contextlib.suppress(BusError):
                    await self._write_one(job_id, step, content)
        finally:
            self._writers.pop(job_id, None)

    async def _write_one(self, job_id: str, step: int, content: bytes) -> None:
        generation = 1 - self._generations.get(job_id, 1)
        parts = [content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES)]
        for at, part in enumerate(parts):
            await self._bucket.put(_part(job_id, generation, at), part)
        head = CheckpointHead(
            step=step, generation=generation, parts=len(parts), sha256=hashlib.sha256(content).hexdigest()
        )
        await self._bucket.put(job_id, msgspec.json.encode(head))
        self._generations[job_id] = generation


def _part(job_id: str, generation: int, at: int) -> str:
    return f"{job_id}.{generation}.{at}"
