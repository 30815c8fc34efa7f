"""`/dreams/*` in the shapes that existing frontends speak, and `/v1/dreams`, where a session has an address."""

from __future__ import annotations

import base64
from typing import TypedDict, TypeVar

import msgspec
from litestar import Controller, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from reverie_gateway.body import read_json
from reverie_gateway.dream_desk import DreamDesk, plan_of
from reverie_gateway.identity import HttpRequest, identity_of
from reverie_gateway.objects import Objects
from reverie_protocol.dream_bodies import (
    DreamCandidatePage,
    DreamPage,
    DreamReplayed,
    DreamsCandidate,
    DreamsStart,
    DreamsStarted,
    DreamsStats,
    DreamsStatus,
    DreamsStopped,
    DreamView,
)
from reverie_protocol.dream_control import RecentDreams, TopDreams
from reverie_protocol.dreams import DreamCandidate, DreamGuidance, DreamSession
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.validation import validate
from reverie_storage.port import StorageUnavailable

#: Candidates of a list whose pictures are in it, and bytes of all of them together, at most.
INLINE, INLINE_BYTES = 50, 8 << 20


Standing = TypeVar("Standing", bound=DreamsStatus)


class DreamsController(Controller):
    """The latest session of whoever asks, the one under way before others."""

    path = "/dreams"

    @post("/start", status_code=200)
    async def start_dream(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamsStarted]:
        """Begin a session."""
        body = await _read_start(request, strict=False)
        session = await dream_desk.start(plan_of(body), seeded=body.seed is not None, by=identity_of(request))
        return Response(
            DreamsStarted(
                status="started",
                sessionId=session.id,
                base_prompt=session.plan.prompt,
                duration_hours=body.duration_hours,
                top_k=session.plan.top_k,
            )
        )

    @post("/stop", status_code=200)
    async def stop_dream(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamsStopped]:
        """Make no more candidates; zeros where nobody dreamt."""
        try:
            session = await dream_desk.stop(None, by=identity_of(request))
        except ReverieError as error:
            if error.code is not ErrorCode.SESSION_NOT_FOUND:
                raise
            return Response(DreamsStopped(status="stopped", total_dreams=0, candidates_kept=0))
        return Response(
            DreamsStopped(
                status="stopped",
                total_dreams=session.stats.dream_count,
                candidates_kept=session.stats.candidates,
            )
        )

    @get("/status")
    async def read_dream_status(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamsStatus]:
        """How it does."""
        return Response(await _standing(DreamsStatus, request, dream_desk))

    @get("/stats")
    async def read_dream_stats(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamsStats]:
        """How it does, with all figures."""
        return Response(await _standing(DreamsStats, request, dream_desk))

    @get("/top")
    async def list_top(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk], objects: NamedDependency[Objects]
    ) -> Response[list[DreamsCandidate]]:
        """The best candidates."""
        return Response(await _listed(TopDreams, request, dream_desk, objects, limit=50))

    @get("/recent")
    async def list_recent(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk], objects: NamedDependency[Objects]
    ) -> Response[list[DreamsCandidate]]:
        """The latest candidates."""
        return Response(await _listed(RecentDreams, request, dream_desk, objects, limit=20))


class DreamSessionsController(Controller):
    """Sessions by their ids."""

    path = "/v1/dreams"

    @get("/")
    async def list_dreams(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamPage]:
        """Sessions, the latest first; `owner=*` are everybody's, for an administrator."""
        query = request.query_params
        answer = await dream_desk.sessions(
            limit=_number(query.get("limit"), "limit", 50, most=1000),
            everybody=query.get("owner") == "*",
            by=identity_of(request),
        )
        return Response(DreamPage(sessions=tuple(map(view_of, answer.sessions)), total=answer.total))

    @post("/", status_code=201)
    async def begin_dream(
        self, request: HttpRequest, dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamView]:
        """Begin a session."""
        body = await _read_start(request, strict=True)
        session = await dream_desk.start(plan_of(body), seeded=body.seed is not None, by=identity_of(request))
        return Response(view_of(session), status_code=201, headers={"Location": f"/v1/dreams/{session.id}"})

    @get("/{session_id:str}")
    async def read_dream(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamView]:
        """One session as it is now."""
        return Response(view_of(await dream_desk.show(_id(session_id), by=identity_of(request))))

    @patch("/{session_id:str}")
    async def guide_dream(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamView]:
        """Steer a session: the fields that are given, from the next candidate on."""
        guidance = validate(DreamGuidance, await read_json(request), loc_prefix=("body",))
        return Response(view_of(await dream_desk.guide(_id(session_id), guidance, by=identity_of(request))))

    @post("/{session_id:str}/stop", status_code=200)
    async def end_dream(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamView]:
        """Make no more candidates, and render the rest of the best; asked again, not even that."""
        return Response(view_of(await dream_desk.stop(_id(session_id), by=identity_of(request))))

    @get("/{session_id:str}/top")
    async def list_session_top(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamCandidatePage]:
        """The best candidates of a session."""
        return Response(await _page(TopDreams, request, session_id, dream_desk))

    @get("/{session_id:str}/recent")
    async def list_session_recent(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamCandidatePage]:
        """The latest candidates of a session."""
        return Response(await _page(RecentDreams, request, session_id, dream_desk))

    @get("/{session_id:str}/replay")
    async def replay_dream(
        self, request: HttpRequest, session_id: FromPath[str], dream_desk: NamedDependency[DreamDesk]
    ) -> Response[DreamReplayed]:
        """Choose all candidates again, from the log."""
        answer = await dream_desk.replay(_id(session_id), by=identity_of(request))
        return Response(
            DreamReplayed(session_id=session_id, candidates=answer.total, different=answer.different)
        )


def view_of(session: DreamSession) -> DreamView:
    """A session as its owner sees it."""
    return DreamView(
        session_id=session.id,
        state=session.state,
        plan=session.plan,
        guidance=session.guidance,
        stats=session.stats,
        error=session.error,
        started_at=session.started_at,
        ends_at=session.ends_at,
        ended_at=session.ended_at,
    )


async def _read_start(request: HttpRequest, *, strict: bool) -> DreamsStart:
    return validate(
        DreamsStart,
        await read_json(request),
        loc_prefix=("body",),
        forbid_unknown=strict,
        null_is_absent=not strict,
    )


async def _standing(kind: type[Standing], request: HttpRequest, desk: DreamDesk) -> Standing:
    try:
        session = await desk.show(None, by=identity_of(request))
    except ReverieError as error:
        if error.code is not ErrorCode.SESSION_NOT_FOUND:
            raise
        return kind()
    figures = msgspec.structs.asdict(session.stats)
    own = {name: value for name, value in figures.items() if name in kind.__struct_fields__}
    return kind(**own, sessionId=session.id, state=session.state)


async def _listed(
    kind: type[TopDreams] | type[RecentDreams],
    request: HttpRequest,
    desk: DreamDesk,
    objects: Objects,
    *,
    limit: int,
) -> list[DreamsCandidate]:
    query = _query(request, limit)
    try:
        answer = await desk.candidates(kind, None, by=identity_of(request), **query)
    except ReverieError as error:
        if error.code is not ErrorCode.SESSION_NOT_FOUND:
            raise
        return []
    listed, room = [], INLINE_BYTES
    for number, candidate in enumerate(answer.candidates):
        data = await _picture(candidate, objects, room) if number < INLINE else None
        room -= len(data or "")
        listed.append(
            DreamsCandidate(
                seed=candidate.seed,
                prompt=candidate.prompt,
                score=candidate.score,
                timestamp=candidate.timestamp,
                rendered=candidate.rendered,
                image_data=data,
                url=candidate.url,
                thumbnailUrl=candidate.thumbnail_url,
                params=candidate.params,
                id=candidate.id,
                scores=candidate.scores,
                parents=candidate.parents,
                mutation=candidate.mutation,
                strategy=candidate.strategy,
            )
        )
    return listed


async def _picture(candidate: DreamCandidate, objects: Objects, room: int) -> str | None:
    """A PNG as base64; None if it is gone, is none, or would be too much."""
    key = (candidate.url or "").rpartition("/")[2]
    if not key.endswith(".png"):
        return None
    try:
        found = await objects.stat(key)
        if found.size_bytes * 4 / 3 > room:
            return None
        content = b"".join([chunk async for chunk in objects.chunks(found)])
    except (ReverieError, StorageUnavailable):
        return None
    return base64.b64encode(content).decode()


async def _page(
    kind: type[TopDreams] | type[RecentDreams], request: HttpRequest, session_id: str, desk: DreamDesk
) -> DreamCandidatePage:
    answer = await desk.candidates(kind, _id(session_id), by=identity_of(request), **_query(request, 50))
    return DreamCandidatePage(session_id=session_id, candidates=answer.candidates, total=answer.total)


class _Query(TypedDict):
    limit: int
    offset: int
    min_score: float
    rendered_only: bool


def _query(request: HttpRequest, limit: int) -> _Query:
    query = request.query_params
    return {
        "limit": _number(query.get("limit"), "limit", limit, least=1, most=1000),
        "offset": _number(query.get("offset"), "offset", 0, most=1_000_000),
        "min_score": _fraction(query.get("min_score"), "min_score"),
        "rendered_only": _truth(query.get("rendered_only"), "rendered_only"),
    }


def _number(text: str | None, name: str, default: int, *, least: int = 0, most: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise _wrong(name, f"must be a whole number from {least} to {most}", "out_of_range")
    return int(text)


def _fraction(text: str | None, name: str) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise _wrong(name, "must be a number from 0 to 1", "out_of_range")
    return value


def _truth(text: str | None, name: str) -> bool:
    if (text or "false").lower() not in ("true", "false", "1", "0"):
        raise _wrong(name, "must be true or false", "choice")
    return (text or "false").lower() in ("true", "1")


def _wrong(name: str, message: str, kind: str) -> ReverieError:
    fields = [FieldError(("query", name), message, kind)]
    return ReverieError(ErrorCode.INVALID_FIELD, f"{name}: {message}", fields=fields)


def _id(session_id: str) -> str:
    """What cannot be an id names no session."""
    if not session_id.replace("-", "").replace("_", "").isalnum() or len(session_id) > 64:
        raise ReverieError(ErrorCode.SESSION_NOT_FOUND, "there is no such dream session")
    return session_id
