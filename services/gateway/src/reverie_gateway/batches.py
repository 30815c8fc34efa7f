"""Several pictures from one request: each an ordinary job, all of them taken or none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from reverie_gateway.identity import Identity
from reverie_gateway.jobs import Jobs
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import MAX_SEED, GenerateParams, Job


def submits_of(params: GenerateParams, count: int, *, keys: Sequence[str | None]) -> list[JobSubmit]:
    """The submits of `count` pictures: seeds seed, seed + 1, …, or each drawn by itself where there is none."""
    return [
        JobSubmit(params=replace(params, seed=seed_of(params.seed, number)), idempotency_key=key)
        for number, key in zip(range(count), keys, strict=True)
    ]


def seed_of(first: int | None, number: int) -> int | None:
    """The seed of a picture of a batch; after the highest comes 0."""
    return None if first is None else (first + number) % (MAX_SEED + 1)


async def submit_all(drafts: Sequence[Job], *, jobs: Jobs, by: Identity) -> list[Job]:
    """Make drafted jobs durable, in their order.  Where one cannot be, those before it are cancelled."""
    made: list[Job] = []
    mine: list[str] = []
    try:
        for draft in drafts:
            submitted = await jobs.submit(draft)
            made.append(submitted.stored.job)
            if not submitted.existing:
                mine.append(draft.id)
    except ReverieError:
        for job_id in mine:
            with suppress(ReverieError):
                await jobs.cancel(job_id, by=by)
        raise
    return made
