"""A1111's requests, done: batches of jobs, and their pictures as base64."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Response
from litestar.response import Stream
from msgspec.structs import replace

from reverie_gateway.base64_pictures import filled
from reverie_gateway.batches import submits_of
from reverie_gateway.dialect import conflict, renamed
from reverie_gateway.idempotency import idempotency_key_of
from reverie_gateway.identity import HttpRequest, owner_of
from reverie_gateway.jobs import Jobs
from reverie_gateway.objects import Objects, available
from reverie_gateway.sdapi_info import info_of, parameters_of
from reverie_gateway.sdapi_request import NAMES, params_of
from reverie_gateway.sdapi_tasks import keys_of
from reverie_gateway.settings import GatewaySettings
from reverie_gateway.status import StatusBoard
from reverie_gateway.synchronous import ended_job, ended_jobs, pictures_of, without_picture
from reverie_gateway.waiting import Waiters
from reverie_protocol.client_messages import JobSubmit
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import (
    MAX_SEED,
    GenerateParams,
    Job,
    JobState,
    SubmittedParams,
    SuperResolutionParams,
)
from reverie_protocol.sdapi_bodies import (
    EnlargementAnswer,
    ImageToImage,
    PicturesAnswer,
    SingleEnlargement,
    TextToImage,
)
from reverie_protocol.sizes import SUPERRES_SCALE
from reverie_storage.uploads import UploadRecord, Uploads

UPSCALER: Final = "Reverie"
_NOT_YET: Final = "not-yet"
_MOST_PASSES: Final = 3


class _Run(msgspec.Struct, frozen=True):
    """What makes one request's jobs its own: their keys, and the seed of the first."""

    keys: tuple[str, ...]
    seed: int


class Order(msgspec.Struct, frozen=True):
    """A request whose pictures are kept: it holds none any more, however long its jobs take."""

    body: TextToImage
    params: GenerateParams
    run: _Run


class SdapiDesk:
    """Takes what was read of a request, and answers it.  `random_bits(n)` returns n random bits."""

    def __init__(
        self,
        jobs: Jobs,
        waiters: Waiters,
        objects: Objects,
        uploads: Uploads,
        board: StatusBoard,
        *,
        settings: GatewaySettings,
        random_bits: Callable[[int], int],
    ) -> None:
        self._jobs = jobs
        self._waiters = waiters
        self._objects = objects
        self._uploads = uploads
        self._board = board
        self._timeout_s = settings.generate_wait_s
        self._random_bits = random_bits

    def order(self, request: HttpRequest, body: TextToImage) -> Order:
        """What a `txt2img` asks for."""
        return Order(body, params_of(body, self.schedulers()), self._run(request, body))

    async def order_from_picture(
        self, request: HttpRequest, body: ImageToImage, *, resize_mode: int
    ) -> Order:
        """What an `img2img` asks for, its pictures stored as uploads are."""
        order, owner = self.order(request, body), owner_of(request)
        mask = None if body.mask is None else _NOT_YET
        # Before the pictures are looked at: there may be nobody who could draw from them.
        self._drafts(request, _from(order, _NOT_YET, mask))
        image = await self._kept(body.init_images[0], "init_images", owner=owner)
        if resize_mode and order.params.size not in (None, f"{image.width}x{image.height}"):
            raise conflict(resize_mode="must be 0 where the picture has another size: it is resized")
        if body.mask is not None:
            black = bool(body.inpainting_mask_invert)
            mask = (await self._kept(body.mask, "mask", owner=owner, black=black)).key
        return replace(_from(order, image.key, mask), body=replace(body, init_images=(), mask=None))

    async def carry_out(self, request: HttpRequest, order: Order) -> Response[Any] | Stream:
        """Every picture that came about: what was interrupted may have left one, or none.

        The jobs go on if the wait runs out or the client leaves.
        """
        drafts, body = self._drafts(request, order), order.body
        jobs = await ended_jobs(
            request, drafts, jobs=self._jobs, waiters=self._waiters, timeout_s=self._timeout_s
        )
        failed = next((job for job in jobs if job.state is JobState.FAILED), None)
        if failed is not None:
            return without_picture(failed, request, beside=jobs if len(jobs) > 1 else ())
        made = [job for job in jobs if job.outputs or job.state is JobState.COMPLETED]
        answer = PicturesAnswer(
            images=(),
            parameters=parameters_of(body, made or jobs),
            info=info_of(body, made, first_seed=order.run.seed),
        )
        found = await pictures_of(made, self._objects) if body.send_images else []
        pieces = filled(self._objects, msgspec.json.encode(answer), b"[]", found, before=b'"', after=b'"')
        return Stream(pieces, media_type="application/json")

    async def enlargement(self, request: HttpRequest, body: SingleEnlargement) -> SuperResolutionParams:
        """What an `extra-single-image` asks for, its picture stored as uploads are."""
        passes = self._passes(body.upscaling_resize)
        if body.upscaler_1.lower() != UPSCALER.lower():
            raise conflict(upscaler_1=f"must be {UPSCALER}")
        wanted = SuperResolutionParams(_NOT_YET, magnitude=passes)
        self._draft_one(request, wanted)
        image = await self._kept(body.image, "image", owner=owner_of(request))
        return replace(wanted, fileRef=image.key)

    async def enlarge(self, request: HttpRequest, params: SuperResolutionParams) -> Response[Any] | Stream:
        """A job of super-resolution, and its picture."""
        job = await ended_job(
            request,
            self._draft_one(request, params),
            jobs=self._jobs,
            waiters=self._waiters,
            timeout_s=self._timeout_s,
        )
        if job.state is not JobState.COMPLETED:
            return without_picture(job, request)
        (found,) = await pictures_of([job], self._objects)
        told = (
            f"{job.meta.sr_model} x{job.meta.sr_scale_per_pass**params.magnitude}" if job.meta else UPSCALER
        )
        document = msgspec.json.encode(EnlargementAnswer(html_info=told, image=""))
        pieces = filled(self._objects, document, b'""', [found], before=b"", after=b"")
        return Stream(pieces, media_type="application/json")

    def schedulers(self) -> list[str]:
        """Every scheduler that some worker has, in the workers' order."""
        return list(dict.fromkeys(name for worker in self._board.serving() for name in worker.schedulers))

    def _passes(self, factor: float) -> int:
        """How often a picture is enlarged to be `factor` times as large, whichever worker does it."""
        scales = self._board.superres_scales or {SUPERRES_SCALE}
        made = {passes: {scale**passes for scale in scales} for passes in range(1, _MOST_PASSES + 1)}
        passes_by_factor = {each.pop(): passes for passes, each in made.items() if len(each) == 1}
        if factor not in passes_by_factor:
            choice = ", ".join(map(str, passes_by_factor))
            told = f"must be one of {choice}" if choice else "the workers here enlarge by different factors"
            raise conflict(upscaling_resize=told)
        return passes_by_factor[int(factor)]

    def _run(self, request: HttpRequest, body: TextToImage) -> _Run:
        """New each time, except under an Idempotency-Key, which brings the same jobs again."""
        given = idempotency_key_of(request)
        seed_bits = MAX_SEED.bit_length()
        if given is None:
            run, drawn = f"{self._random_bits(64):016x}", self._random_bits(seed_bits)
        else:
            run = hashlib.sha256(given.encode()).hexdigest()[:16]
            drawn = int(run, 16) % (MAX_SEED + 1)
        count = body.batch_size * body.n_iter
        keys = keys_of(body.force_task_id or f"task({run})", run, count)
        return _Run(tuple(keys), drawn if body.seed < 0 else body.seed)

    def _drafts(self, request: HttpRequest, order: Order) -> list[Job]:
        keys = order.run.keys
        submits = submits_of(replace(order.params, seed=order.run.seed), len(keys), keys=keys)
        try:
            return self._jobs.draft_all(submits, owner=owner_of(request), must_run_now=True)
        except ReverieError as error:
            raise renamed(error, NAMES) from None

    def _draft_one(self, request: HttpRequest, params: SubmittedParams) -> Job:
        submit = JobSubmit(params=params, idempotency_key=idempotency_key_of(request))
        return self._jobs.draft(submit, owner=owner_of(request), must_run_now=True)

    async def _kept(self, text: str, name: str, *, owner: str, black: bool = False) -> UploadRecord:
        """A picture of the body, kept as an upload is; of a mask whose black parts count, its negative."""
        async with _decoded(text, name) as path, available():
            try:
                if black:
                    return await self._uploads.keep_mask(path, owner=owner, of="black")
                return await self._uploads.keep(path, owner=owner)
            except ReverieError as error:
                raise ReverieError(
                    error.code, f"{name}: {error.message}", retry_after=error.retry_after
                ) from None


def _from(order: Order, image: str, mask: str | None) -> Order:
    return replace(order, params=replace(order.params, initImage=image, maskImage=mask))


@asynccontextmanager
async def _decoded(text: str, name: str) -> AsyncIterator[Path]:
    """The file that a text is the base64 of, with or without `data:…,` before it."""
    with tempfile.TemporaryDirectory(prefix="reverie-") as folder:
        path = Path(folder) / "picture"
        try:
            size = await asyncio.to_thread(_write, text, path)
        except (binascii.Error, ValueError):
            raise conflict(**{name: "must be a picture in base64"}) from None
        if not size:
            raise ReverieError(ErrorCode.INVALID_UPLOAD, f"{name}: the picture is empty")
        yield path


def _write(text: str, path: Path) -> int:
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    return path.write_bytes(b64decode(encoded.strip(), validate=True))
