"""Carries out what a session's client asked for, and answers it."""

from __future__ import annotations

import structlog

from reverie_gateway.dream_conversation import DreamConversation
from reverie_gateway.dream_desk import DreamDesk
from reverie_gateway.hub import Hub
from reverie_gateway.jobs import Jobs
from reverie_gateway.moves import read_move
from reverie_gateway.session import DREAM_MESSAGES, Request, Session
from reverie_gateway.texts import Texts
from reverie_protocol.client_messages import (
    Hello,
    JobCancel,
    JobPreview,
    JobPriority,
    JobSubmit,
    Resume,
    StoragePut,
)
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.server_messages import (
    HelloOk,
    JobAck,
    JobCancelOk,
    JobPreviewOk,
    JobPriorityOk,
    Resumed,
    StoragePutOk,
)
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import url_of

log = structlog.get_logger(__name__)


class Conversation:
    """One session with access to the jobs.  Requests are carried out one after the other, in their order."""

    def __init__(
        self, session: Session, *, jobs: Jobs, hub: Hub, texts: Texts, dream_desk: DreamDesk
    ) -> None:
        self._dreams = DreamConversation(session, dream_desk)
        self._session = session
        self._jobs = jobs
        self._hub = hub
        self._texts = texts

    async def carry_out(self, request: Request) -> None:
        """Do it and answer; whatever goes wrong becomes an `error` message and the socket stays open."""
        try:
            if not isinstance(request, Hello | Resume):
                self._hub.open(self._session)
            await self._dispatch(request)
        except ReverieError as error:
            self._session.refuse(error, request.id)
        except Exception:
            log.exception("message failed", kind=type(request).__name__)
            unexpected = ReverieError(ErrorCode.INTERNAL, "an internal error; the log names it")
            self._session.refuse(unexpected, request.id)

    async def _dispatch(self, request: Request) -> None:
        if isinstance(request, DREAM_MESSAGES):
            await self._dreams.carry_out(request)
            return
        match request:
            case JobSubmit():
                await self._submit(request)
            case JobCancel():
                await self._cancel(request)
            case JobPriority():
                await self._move(request)
            case JobPreview():
                await self._preview(request)
            case StoragePut():
                await self._put(request)
            case Hello():
                await self._hello(request)
            case Resume():
                await self._resume(request.id, request.cursor, request.epoch)

    async def _submit(self, request: JobSubmit) -> None:
        session = self._session
        draft = self._jobs.draft(request, owner=session.owner)
        if request.previews:
            session.require_watchable(
                draft.id
            )  # before there is a job: an ack and an error for one id are none
        await self._jobs.preflight(draft, by=session.identity)
        session.hold(draft.id)
        try:
            submitted = await self._jobs.submit(draft)
            job = submitted.stored.job
            session.answer(
                JobAck(
                    id=request.id,
                    job_id=job.id,
                    state=job.state,
                    priority=job.priority,
                    seq=submitted.stored.revision,
                    existing=submitted.existing,
                )
            )
            crash_point("acknowledged.submit")
            if request.previews and not job.state.terminal:
                session.watch(job.id, enabled=True)
            if submitted.existing:
                self._tell_again(job.id)
        finally:
            session.release(draft.id)
        if request.previews:
            self._hub.interest_changed()

    def _tell_again(self, job_id: str) -> None:
        """A repeated submit may come from a client that has missed everything since the first."""
        mirrored = self._jobs.mirrored(job_id)
        if mirrored is None:
            return  # made by another gateway just now; its events are on their way
        self._session.retell(self._hub.story(mirrored))

    async def _cancel(self, request: JobCancel) -> None:
        stored = await self._jobs.cancel(request.job_id, by=self._session.identity)
        self._session.answer(JobCancelOk(id=request.id, job_id=request.job_id, state=stored.job.state))
        crash_point("acknowledged.cancel")

    async def _move(self, request: JobPriority) -> None:
        stored = await self._jobs.move(request.job_id, read_move(request), by=self._session.identity)
        job = stored.job
        place = self._jobs.place_of(job)
        self._session.answer(
            JobPriorityOk(id=request.id, job_id=job.id, priority=job.priority, position=place)
        )

    async def _preview(self, request: JobPreview) -> None:
        job = (await self._jobs.find(request.job_id, by=self._session.identity)).job
        # The mirror may have heard of its end while the store was asked: nobody would end the watch then.
        latest = self._jobs.mirrored(job.id) or job
        enabled = request.enabled and not (job.state.terminal or latest.state.terminal)
        self._session.watch(job.id, enabled=enabled)
        self._session.answer(JobPreviewOk(id=request.id, job_id=job.id, enabled=enabled))
        self._hub.interest_changed()

    async def _put(self, request: StoragePut) -> None:
        await self._texts.put(request.key, request.payload, owner=self._session.owner)
        self._session.answer(StoragePutOk(id=request.id, key=request.key, url=url_of(request.key)))

    async def _hello(self, request: Hello) -> None:
        session, jobs = self._session, self._jobs
        session.all_previews = request.previews
        if request.cursor is not None:
            await self._resume(request.id, request.cursor, request.epoch)
        self._hub.open(session)
        # Last: its `seq` is a cursor only once everything before it has been sent.
        session.answer(HelloOk(id=request.id, previews=request.previews, seq=jobs.revision, epoch=jobs.epoch))
        self._hub.interest_changed()

    async def _resume(self, client_id: str | int | None, cursor: int, epoch: str | None) -> None:
        """Every missed transition and the latest progress; or the current state, where the log is too short."""
        session, jobs = self._session, self._jobs
        missed = await self._hub.resume(session, cursor, epoch)
        recovered = missed is not None
        session.answer(
            Resumed(id=client_id, recovered=recovered, from_=cursor, seq=jobs.revision, epoch=jobs.epoch)
        )
        self._hub.catch_up(session, missed)
