"""The one place that writes job records: a compare-and-set per transition.

A write whose reply was lost may still be applied later, so each write carries a fresh `op`; after an uncertain
write the record is read again, and one of our own ops in it means that the write took place.  All ops that one
call has tried count: a late ghost and its repetition compete for the same revision, so only one is applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job
from reverie_protocol.subjects import JOBS_BUCKET
from reverie_runtime.bus.port import (
    Bucket,
    BucketConfig,
    BusUnavailable,
    Entry,
    RevisionConflict,
    WriteUncertain,
)
from reverie_runtime.crash_points import crash_point

JOBS = BucketConfig(name=JOBS_BUCKET, history=64, republish="job.state")
#: Rounds of read, compare and write before a call gives up; each lost round means that somebody else won one.
MAX_ROUNDS = 64

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Job)

Change = Callable[[Job], Job | None]


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A job as one revision of the bucket."""

    job: Job
    revision: int


class Submitted(msgspec.Struct, frozen=True):
    """Answer to a submit; `existing` marks the repetition of an earlier one."""

    stored: Stored
    existing: bool


def job_id_of(owner: str, idempotency_key: str) -> str:
    """The id that a repeated submit finds again: derived from the owner and the key."""
    return hashlib.sha256(f"{owner}\0{idempotency_key}".encode()).hexdigest()[:32]


def decode_entry(entry: Entry) -> Stored | None:
    """The record of one bucket revision, None for a deletion."""
    return None if entry.value is None else Stored(_decoder.decode(entry.value), entry.revision)


class JobStore:
    """Reads and moves job records.  `new_op` makes unique operation names."""

    def __init__(self, bucket: Bucket, *, new_op: Callable[[], str]) -> None:
        self._bucket = bucket
        self._new_op = new_op

    async def get(self, job_id: str) -> Stored | None:
        """The latest committed record, None if there is none."""
        entry = await self._bucket.get(job_id)
        return None if entry is None else decode_entry(entry)

    async def history(self, job_id: str) -> list[Stored]:
        """Every kept revision of a job, oldest first."""
        entries = await self._bucket.history(job_id)
        return [stored for entry in entries if (stored := decode_entry(entry)) is not None]

    async def submit(self, job: Job) -> Submitted:
        """Make the record durable, or find the one that an earlier call with the same key made.

        Raises ReverieError(idempotency_conflict) if the key was used for another request, BusUnavailable if
        nothing could be written.
        """
        ops: set[str] = set()
        for _ in range(MAX_ROUNDS):
            op = self._new_op()
            ops.add(op)
            written = replace(job, op=op, job_seq=1)
            crash_point("before.submit")
            try:
                revision = await self._bucket.create(job.id, _encoder.encode(written))
            except (RevisionConflict, WriteUncertain):
                stored = await self.get(job.id)
            else:
                crash_point("after.submit")
                return Submitted(Stored(written, revision), existing=False)
            if stored is not None:
                return self._same_request(stored, job, mine=await self._written_by(stored, ops))
        raise BusUnavailable("the job could not be written")

    async def apply(self, job_id: str, change: Change, *, known: Stored | None = None) -> Stored:
        """Move a job by `change` (a pure function of `transitions`); the record that is now committed.

        `change` may be called several times, each time with the latest record; it returns None to leave the
        record as it is, and whatever it raises (Refused, Superseded) comes out unchanged.  `known` saves the
        first read.  Raises ReverieError(job_not_found), or BusUnavailable if nothing was written.
        """
        ops: set[str] = set()
        stored = known
        for _ in range(MAX_ROUNDS):
            if stored is None:
                stored = await self.get(job_id)
            if stored is None:
                raise ReverieError(ErrorCode.JOB_NOT_FOUND, f"there is no job {job_id!r}")
            if ops and await self._written_by(stored, ops):
                return stored
            changed = change(stored.job)
            if changed is None:
                return stored
            op = self._new_op()
            ops.add(op)
            changed = replace(changed, op=op, job_seq=stored.job.job_seq + 1)
            transition = f"{stored.job.state}-{changed.state}"
            crash_point(f"before.{transition}")
            try:
                revision = await self._bucket.update(job_id, _encoder.encode(changed), stored.revision)
            except (RevisionConflict, WriteUncertain):
                stored = None
            else:
                crash_point(f"after.{transition}")
                return Stored(changed, revision)
        raise BusUnavailable("the job could not be written")

    async def purge(self, stored: Stored) -> None:
        """Forget a job with its history; RevisionConflict if it has moved on (its id may have come again)."""
        await self._bucket.purge(stored.job.id, revision=stored.revision)

    async def _written_by(self, stored: Stored, ops: set[str]) -> bool:
        """Whether one of our writes is in the record, also under a later revision by somebody else."""
        if stored.job.op in ops:
            return True
        if len(ops) == 1 and stored.job.job_seq == 1:
            return False
        return any(past.job.op in ops for past in await self.history(stored.job.id))

    @staticmethod
    def _same_request(stored: Stored, job: Job, *, mine: bool) -> Submitted:
        if mine:
            return Submitted(stored, existing=False)
        if stored.job.owner != job.owner or stored.job.request_hash != job.request_hash:
            raise ReverieError(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "this idempotency key was used for another request; use a new key",
                job_id=stored.job.id if stored.job.owner == job.owner else None,
            )
        return Submitted(stored, existing=True)
