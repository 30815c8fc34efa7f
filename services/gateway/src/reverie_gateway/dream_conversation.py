"""The dream messages of one session: what its client asks of the dreams service, and the answers."""

from __future__ import annotations

from msgspec.structs import asdict

from reverie_gateway.dream_desk import DreamDesk
from reverie_gateway.session import DreamMessage, Session
from reverie_protocol.client_messages import DreamGuide, DreamRecent, DreamStart, DreamStop, DreamTop
from reverie_protocol.dream_control import RecentDreams, TopDreams
from reverie_protocol.dreams import DEFAULT_DURATION_S, DreamPlan
from reverie_protocol.server_messages import (
    DreamGuideOk,
    DreamRecentResult,
    DreamStarted,
    DreamStopped,
    DreamTopResult,
)


class DreamConversation:
    """Carries dream messages out, one after the other; ReverieError for what the client did wrong."""

    def __init__(self, session: Session, desk: DreamDesk) -> None:
        self._session = session
        self._desk = desk

    async def carry_out(self, request: DreamMessage) -> None:
        """Do it and answer."""
        match request:
            case DreamStart():
                await self._start(request)
            case DreamStop():
                await self._stop(request)
            case DreamGuide():
                await self._guide(request)
            case DreamTop() | DreamRecent():
                await self._list(request)

    async def _start(self, request: DreamStart) -> None:
        fields = asdict(request)
        hours = fields.pop("duration_hours")
        given_s = hours * 3600 if hours is not None else request.duration
        fields = {name: value for name, value in fields.items() if name not in ("id", "duration")}
        duration_s = DEFAULT_DURATION_S if given_s is None else given_s
        plan = DreamPlan(**{**fields, "duration_s": duration_s, "seed": request.seed or 0})
        session = await self._desk.start(plan, seeded=request.seed is not None, by=self._session.identity)
        self._session.answer(DreamStarted(id=request.id, session_id=session.id))

    async def _stop(self, request: DreamStop) -> None:
        session = await self._desk.stop(request.session_id, by=self._session.identity)
        self._session.answer(DreamStopped(id=request.id, session_id=session.id, stats=session.stats))

    async def _guide(self, request: DreamGuide) -> None:
        session = await self._desk.guide(request.session_id, request.params, by=self._session.identity)
        self._session.answer(DreamGuideOk(id=request.id, session_id=session.id, params=session.guidance))

    async def _list(self, request: DreamTop | DreamRecent) -> None:
        top = isinstance(request, DreamTop)
        answer = await self._desk.candidates(
            TopDreams if top else RecentDreams,
            request.session_id,
            by=self._session.identity,
            limit=request.limit,
            offset=request.offset,
            min_score=request.min_score,
            rendered_only=request.rendered_only,
        )
        self._session.answer(
            (DreamTopResult if top else DreamRecentResult)(
                id=request.id,
                session_id=answer.session.id if answer.session else None,
                candidates=answer.candidates,
                total=answer.total,
            )
        )
