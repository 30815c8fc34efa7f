"""Dreams as a gateway sees them: it asks the dreams service, and passes on what that tells of sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypedDict

import msgspec
import structlog

from reverie_gateway.events import encode
from reverie_gateway.identity import Identity
from reverie_gateway.session import Session
from reverie_protocol.dream_bodies import DreamsStart
from reverie_protocol.dream_control import (
    DreamAnswer,
    DreamRequest,
    GuideDream,
    ListDreams,
    RecentDreams,
    ReplayDream,
    ShowDream,
    StartDream,
    StopDream,
    TopDreams,
)
from reverie_protocol.dreams import (
    DreamCandidateEvent,
    DreamGuidance,
    DreamPlan,
    DreamSession,
    DreamStatusEvent,
)
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.server_messages import DreamCandidateFound, DreamStatus
from reverie_protocol.subjects import DREAM_CTL
from reverie_runtime.bus.port import Bus, BusError, Message

#: How long the dreams service gets to answer, in seconds.
ANSWER_S: Final = 5.0
#: The same where it chooses all candidates of a session again.
REPLAY_S: Final = 120.0

log = structlog.get_logger(__name__)


class DreamDesk:
    """`audience` tells the sockets of an owner."""

    def __init__(self, bus: Bus, audience: Callable[[str], Iterable[Session]]) -> None:
        self._bus = bus
        self._audience = audience
        self._answers = msgspec.json.Decoder(DreamAnswer)
        self._states = msgspec.json.Decoder(DreamStatusEvent)
        self._finds = msgspec.json.Decoder(DreamCandidateEvent)

    async def start(self, plan: DreamPlan, *, seeded: bool, by: Identity) -> DreamSession:
        """Begin a session; `already_dreaming`, `invalid_field`, `mode_not_found`."""
        return await self._session(StartDream(owner=by.owner, plan=plan, draw_seed=not seeded))

    async def stop(self, session_id: str | None, *, by: Identity) -> DreamSession:
        """Make no more candidates; `session_not_found`."""
        return await self._session(StopDream(**_whose(by, session_id)))

    async def guide(self, session_id: str | None, guidance: DreamGuidance, *, by: Identity) -> DreamSession:
        """Steer; `session_not_found`, `session_over`, `invalid_field`."""
        return await self._session(GuideDream(**_whose(by, session_id), guidance=guidance))

    async def show(self, session_id: str | None, *, by: Identity) -> DreamSession:
        """The session now; `session_not_found`."""
        return await self._session(ShowDream(**_whose(by, session_id)))

    async def sessions(self, *, limit: int, everybody: bool, by: Identity) -> DreamAnswer:
        """Sessions, the latest first; everybody's only for an administrator."""
        return await self.ask(ListDreams(owner=by.owner, admin=by.admin and everybody, limit=limit))

    async def replay(self, session_id: str, *, by: Identity) -> DreamAnswer:
        """All candidates chosen again from the log; `session_not_found`."""
        return await self.ask(ReplayDream(**_whose(by, session_id)), timeout=REPLAY_S)

    async def candidates(
        self,
        kind: type[TopDreams] | type[RecentDreams],
        session_id: str | None,
        *,
        by: Identity,
        limit: int,
        offset: int = 0,
        min_score: float = 0.0,
        rendered_only: bool = False,
    ) -> DreamAnswer:
        """The best, or the latest; `session_not_found`."""
        return await self.ask(
            kind(
                **_whose(by, session_id),
                limit=limit,
                offset=offset,
                min_score=min_score,
                rendered_only=rendered_only,
            )
        )

    async def ask(self, request: DreamRequest, *, timeout: float = ANSWER_S) -> DreamAnswer:
        """The service's answer, its error raised; `service_unavailable` where nobody answers."""
        try:
            if not self._bus.connected:
                raise _away()
            reply = await self._bus.request(DREAM_CTL, msgspec.json.encode(request), timeout=timeout)
        except BusError:
            raise _away() from None
        answer = self._answers.decode(reply.data)
        if answer.code:
            raise ReverieError(ErrorCode(answer.code), answer.message, fields=answer.fields)
        return answer

    def on_status(self, message: Message) -> None:
        """`dream.status`: the latest of each session goes to its owner's sockets."""
        try:
            event = self._states.decode(message.data)
        except msgspec.MsgspecError as error:
            log.warning("unreadable dream status ignored", reason=str(error))
            return
        told = DreamStatus(session_id=event.session_id, state=event.state, stats=event.stats)
        self._tell(event.owner, f"dream:status {event.session_id}", encode(told))

    def on_candidate(self, message: Message) -> None:
        """`dream.candidate.<session>`: each to its owner's sockets."""
        try:
            event = self._finds.decode(message.data)
        except msgspec.MsgspecError as error:
            log.warning("unreadable dream candidate ignored", reason=str(error))
            return
        found = event.candidate
        told = DreamCandidateFound(
            session_id=event.session_id,
            candidate_id=found.id,
            seed=found.seed,
            score=found.score,
            thumbnail_url=found.thumbnail_url,
            url=found.url,
            prompt=found.prompt,
            timestamp=found.timestamp,
            rendered=found.rendered,
            scores=found.scores,
            parents=found.parents,
            mutation=found.mutation,
            strategy=found.strategy,
            params=found.params,
        )
        # Its slot is its own: a slow socket gets each candidate once, as it is then.
        self._tell(event.owner, f"dream:candidate {event.session_id} {found.id}", encode(told))

    def _tell(self, owner: str, slot: str, frame: bytes) -> None:
        for session in self._audience(owner):
            session.outbox.put_latest(slot, frame)

    async def _session(self, request: DreamRequest) -> DreamSession:
        answer = await self.ask(request)
        if answer.session is None:
            raise ReverieError(ErrorCode.INTERNAL, "the dreams service answered without a session")
        return answer.session


def plan_of(body: DreamsStart, *, duration_s: float | None = None) -> DreamPlan:
    """What the service is asked for; without a duration in seconds the body's hours count."""
    return DreamPlan(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        strategy=body.strategy,
        duration_s=body.duration_hours * 3600 if duration_s is None else duration_s,
        temperature=body.temperature,
        similarity_threshold=body.similarity_threshold,
        render_interval=body.render_interval,
        top_k=body.top_k,
        mode=body.mode,
        size=body.size,
        guidance_scale=body.guidance_scale,
        num_inference_steps=body.num_inference_steps,
        weights=body.weights,
        seed=body.seed or 0,
    )


class _Whose(TypedDict):
    owner: str
    admin: bool
    session_id: str | None


def _whose(by: Identity, session_id: str | None) -> _Whose:
    return {"owner": by.owner, "admin": by.admin, "session_id": session_id}


def _away() -> ReverieError:
    return ReverieError(
        ErrorCode.SERVICE_UNAVAILABLE, "the dreams service is not running, or does not answer", retry_after=2
    )
