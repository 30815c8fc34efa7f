"""From a validated submit to a job record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_jobs.store import job_id_of
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.jobs import (
    MAX_SEED,
    ComfyParams,
    GenerateParams,
    Job,
    JobParams,
    JobState,
    JobType,
    Lane,
    SuperResolutionParams,
    SwitchParams,
)

#: How long a switch waits for its worker, in seconds.
SWITCH_PATIENCE_S: Final = 60.0

_TYPES: dict[type[JobParams], JobType] = {
    GenerateParams: JobType.GENERATE,
    SuperResolutionParams: JobType.SR,
    ComfyParams: JobType.COMFY,
    SwitchParams: JobType.SWITCH,
}


def job_type_of(params: JobParams) -> JobType:
    """The type of job that these parameters describe."""
    return _TYPES[type(params)]


def new_job(submit: JobSubmit, *, owner: str, now: float, random_bits: Callable[[int], int]) -> Job:
    """The record of a submitted job, ready for `JobStore.submit`.

    A missing seed is drawn here, so that every attempt makes the same picture.  `random_bits(n)` returns n random
    bits (`secrets.randbits` in production).
    """
    params = submit.params
    if isinstance(params, GenerateParams) and params.seed is None:
        params = replace(params, seed=random_bits(MAX_SEED.bit_length()))
    key = submit.idempotency_key
    return Job(
        id=job_id_of(owner, key) if key else f"{random_bits(128):032x}",
        owner=owner,
        type=job_type_of(params),
        state=JobState.QUEUED,
        priority=submit.priority,
        position=now,
        not_before=submit.not_before,
        start_by=submit.start_by,
        finish_by=submit.finish_by,
        idempotency_key=key,
        request_hash=_request_hash(submit),
        params=params,
        created_at=now,
        enqueued_at=now,
        updated_at=now,
    )


def switch_job(mode: str, *, worker: str, owner: str, now: float, random_bits: Callable[[int], int]) -> Job:
    """A job that makes `mode` the one of a worker, before whatever else waits."""
    return Job(
        id=f"{random_bits(128):032x}",
        owner=owner,
        type=JobType.SWITCH,
        state=JobState.QUEUED,
        priority=Lane.URGENT,
        position=now,
        params=SwitchParams(mode, worker),
        start_by=now + SWITCH_PATIENCE_S,  # the worker may never come back under this name
        created_at=now,
        enqueued_at=now,
        updated_at=now,
    )


def retry_of(job: Job, *, now: float) -> Job:
    """A new job that does an ended one again, in its lane, with the same parameters and seed.

    Its id follows from the old one's, so that asking twice makes one retry.  The old record stays as it is:
    terminal is final.
    """
    return Job(
        id=job_id_of(job.owner, f"retry of {job.id}"),
        owner=job.owner,
        type=job.type,
        state=JobState.QUEUED,
        priority=job.priority,
        position=now,
        retry_of=job.id,
        request_hash=job.request_hash,
        params=job.params,
        created_at=now,
        enqueued_at=now,
        updated_at=now,
    )


def _request_hash(submit: JobSubmit) -> str:
    """What a repetition must match: everything that was asked, not the seed drawn for it."""
    times = (submit.not_before, submit.start_by, submit.finish_by)
    asked = msgspec.json.encode((submit.params, submit.priority, times), order="sorted")
    return hashlib.sha256(asked).hexdigest()
