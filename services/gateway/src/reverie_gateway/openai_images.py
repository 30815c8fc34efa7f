"""OpenAI's images API, done: n jobs, and their pictures in one answer or as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response
from litestar.response import Stream

from reverie_gateway.base64_pictures import filled
from reverie_gateway.batches import submits_of
from reverie_gateway.dialect import renamed
from reverie_gateway.hub import Hub
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects
from reverie_gateway.openai_request import NAMES
from reverie_gateway.openai_stream import EventStream
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.synchronous import ended_jobs, pictures_of, without_picture
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobMeta, JobState
from reverie_protocol.openai_bodies import ImageDatum, ImageEdit, ImageGeneration, ImagesAnswer, ImagesMeta


class ImageDesk:
    """Takes what was read of a request, and answers it."""

    def __init__(
        self, jobs: Jobs, waiters: Waiters, objects: Objects, hub: Hub, *, settings: GatewaySettings
    ) -> None:
        self._jobs = jobs
        self._waiters = waiters
        self._objects = objects
        self._hub = hub
        self._settings = settings

    def drafts(self, request: HttpRequest, params: GenerateParams, count: int) -> list[Job]:
        """The records of `count` jobs that can be done now; a refusal names fields as that API does."""
        key = idempotency_key_of(request)
        keys = [None if key is None else f"openai {number} {key}" for number in range(count)]
        submits: Sequence[JobSubmit] = submits_of(params, count, keys=keys)
        try:
            return self._jobs.draft_all(submits, owner=owner_of(request), must_run_now=True)
        except ReverieError as error:
            raise renamed(error, NAMES) from None

    async def answer(
        self, request: HttpRequest, body: ImageGeneration, params: GenerateParams
    ) -> Response[Any] | Stream:
        """The pictures; the jobs go on if the wait runs out or the client leaves."""
        drafts = self.drafts(request, params, body.n)
        timeout_s = self._settings.generate_wait_s
        if body.stream:
            events = EventStream(
                drafts,
                partial_images=body.partial_images,
                edit=isinstance(body, ImageEdit),
                objects=self._objects,
                timeout_s=timeout_s,
            )
            return await events.begin(request, jobs=self._jobs, waiters=self._waiters, hub=self._hub)
        jobs = await ended_jobs(request, drafts, jobs=self._jobs, waiters=self._waiters, timeout_s=timeout_s)
        failed = next((job for job in jobs if job.state is not JobState.COMPLETED), None)
        if failed is not None:
            return without_picture(failed, request, beside=jobs if len(jobs) > 1 else ())
        return await self._pictures(request, jobs, as_url=body.response_format == "url")

    async def _pictures(
        self, request: HttpRequest, jobs: Sequence[Job], *, as_url: bool
    ) -> Response[Any] | Stream:
        found = await pictures_of(jobs, self._objects)
        base = str(request.base_url).rstrip("/")
        urls = tuple(ImageDatum(url=base + job.outputs[0].url) for job in jobs)
        answer = _answer(jobs, urls if as_url else ())
        if as_url:
            return Response(answer)
        document = msgspec.json.encode(answer)
        pieces = filled(self._objects, document, b"[]", found, before=b'{"b64_json":"', after=b'"}')
        return Stream(pieces, media_type="application/json")


def _answer(jobs: Sequence[Job], data: tuple[ImageDatum, ...]) -> ImagesAnswer:
    first, metas = jobs[0].outputs[0], [job.meta or JobMeta(0, "") for job in jobs]
    return ImagesAnswer(
        created=int(jobs[0].created_at),
        data=data,
        output_format=first.content_type.partition("/")[2],
        size=f"{first.width}x{first.height}",
        background="opaque",
        meta=ImagesMeta(
            job_ids=tuple(job.id for job in jobs),
            seeds=tuple(meta.seed for meta in metas),
            mode=metas[0].mode,
            backend=metas[0].backend,
            superres=metas[0].sr,
        ),
    )
