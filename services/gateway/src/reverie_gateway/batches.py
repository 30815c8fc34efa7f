"""Several pictures from one request: each an ordinary job, all of them taken or none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from reverie_gateway.identity import Identity
from reverie_gateway.jobs import Jobs
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
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


async def submit_all(drafts: Sequence[Job], *, jobs: Jobs, by: Identity, found_again: bool) -> list[Job]:
    """Make drafted jobs durable, in their order.  Where one cannot be, those before it are cancelled.

    `found_again` is whether a repetition of the request finds the same jobs; then they are left alone.
    """
    made: list[Job] = []
    mine: list[str] = []
    for draft in drafts:
        try:
            submitted = await jobs.submit(draft)
        except BaseException as error:  # a client that leaves now gets none of them either
            if not found_again:
                if not isinstance(error, ReverieError) or error.code is ErrorCode.SERVICE_UNAVAILABLE:
                    jobs.disown(draft)
                await _cancel(mine, jobs=jobs, by=by)
            raise
        made.append(submitted.stored.job)
        if not submitted.existing:
            mine.append(draft.id)
    return made


async def _cancel(job_ids: Sequence[str], *, jobs: Jobs, by: Identity) -> None:
    for job_id in job_ids:
        with suppress(Exception):  # of the others each is tried; why it failed is told by the first error
            await jobs.cancel(job_id, by=by)
