"""Answers what gateways ask on `dream.ctl`, here or through the process that has the session."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from reverie_dreams.hosting import Hosting
from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.moves import Modifiers
from reverie_dreams.search.search import Search
from reverie_dreams.session.dreaming import stats_of
from reverie_dreams.session.log import SessionLost
from reverie_dreams.session.records import SessionMirror, session_not_found
from reverie_dreams.settings import DreamsSettings, read_scorers
from reverie_dreams.strategies.library import require_strategy
from reverie_jobs.admission import having_mode
from reverie_jobs.mirror import WorkerMirror
from reverie_protocol.dream_control import (
    AnyDreamRequest,
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
from reverie_protocol.dream_log import Started
from reverie_protocol.dreams import DreamPlan, DreamSession, DreamState
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import MAX_SEED, GenerateParams, JobType, ModeInfo
from reverie_protocol.subjects import dream_host
from reverie_runtime.bus.port import Bus, BusError, Message, NoResponders
from reverie_runtime.clock import Clock

#: How long the process that has a session gets to answer, in seconds.
FORWARD_S: Final = 3.0
#: Part of a mode's own steps that a draft takes, and the fewest.
DRAFT_PART, LEAST_STEPS = 0.6, 4
MOST_AT_ONCE: Final = 64

_decoder = msgspec.json.Decoder(AnyDreamRequest)
_encoder = msgspec.json.Encoder()
log = structlog.get_logger(__name__)


class Desk:
    """One per process; `on_request` is the handler of both subjects."""

    def __init__(
        self,
        settings: DreamsSettings,
        modifiers: Modifiers,
        *,
        bus: Bus,
        clock: Clock,
        hosting: Hosting,
        sessions: SessionMirror,
        workers: WorkerMirror,
    ) -> None:
        self._settings = settings
        self._modifiers = modifiers
        self._bus = bus
        self._clock = clock
        self._hosting = hosting
        self._sessions = sessions
        self._workers = workers
        #: Sessions begun here that the mirror may not have heard of yet.
        self._begun: dict[str, DreamSession] = {}
        self._beginning = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()

    def on_request(self, message: Message) -> None:
        """Answer a request beside others: a replay takes long.  Beyond `MOST_AT_ONCE` they are turned away."""
        if not message.reply:
            return
        task = asyncio.create_task(self._respond(message), name="dream request")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        """Answer no more."""
        for task in tuple(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _respond(self, message: Message) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        try:
            self._require_room()
            request = _decoder.decode(message.data)
            answer = await self._answer(request, message.data)
        except msgspec.MsgspecError as error:
            answer = DreamAnswer(code=ErrorCode.INVALID_MESSAGE, message=f"not understood: {error}")
        except ReverieError as error:
            answer = DreamAnswer(code=error.code, message=error.message, fields=error.fields)
        except (BusError, SessionLost):
            answer = DreamAnswer(
                code=ErrorCode.SERVICE_UNAVAILABLE, message="the bus cannot be reached; try again"
            )
        except Exception:
            log.exception("a request failed", subject=message.subject)
            answer = DreamAnswer(code=ErrorCode.INTERNAL, message="an internal error; the log names it")
        with contextlib.suppress(BusError):
            await self._bus.publish(message.reply, _encoder.encode(answer))

    def _require_room(self) -> None:
        if len(self._answering) > MOST_AT_ONCE:
            raise ReverieError(ErrorCode.RATE_LIMITED, "too many requests about dreams at once; try again")

    async def _answer(self, request: AnyDreamRequest, raw: bytes) -> DreamAnswer:
        if isinstance(request, StartDream):
            async with self._beginning:  # one after the other: they are counted
                return DreamAnswer(session=await self._start(request))
        if isinstance(request, ListDreams):
            mine = [s for s in self._known() if request.admin or s.owner == request.owner]
            ordered = sorted(mine, key=lambda session: -session.started_at)
            return DreamAnswer(
                sessions=tuple(self._latest(s) for s in ordered[: request.limit]), total=len(ordered)
            )
        session = self._find(request)
        if isinstance(
            request, ReplayDream
        ):  # reads the log alone, and takes longer than a host is waited for
            return await self._read(session, request)
        if session.id not in self._hosting.actors and not session.state.over:
            forwarded = await self._forward(session, raw)
            if forwarded is not None:
                return forwarded
            session = self._find(request)
        if isinstance(request, StopDream | GuideDream):
            return DreamAnswer(session=await self._change(session, request))
        return await self._read(session, request)

    async def _read(
        self, session: DreamSession, request: ShowDream | TopDreams | RecentDreams | ReplayDream
    ) -> DreamAnswer:
        if isinstance(request, ReplayDream):
            made, different = await self._hosting.replay(session.id)
            return DreamAnswer(session=self._latest(session), total=made, different=different)
        search = await self._hosting.search_of(session)
        if isinstance(request, TopDreams | RecentDreams):
            return self._listed(session, search, request)
        return DreamAnswer(session=self._latest(session, search))

    async def _start(self, request: StartDream) -> DreamSession:
        plan = request.plan
        require_strategy(plan.strategy, self._hosting.strategies)
        self._require_scorers(plan)
        mode = self._mode(plan)
        active = [s for s in self._known() if s.owner == request.owner and s.state is DreamState.DREAMING]
        if len(active) >= self._settings.sessions_per_user:
            raise ReverieError(
                ErrorCode.ALREADY_DREAMING, f"already dreaming: session {active[0].id}; stop it first"
            )
        if request.draw_seed:
            plan = replace(plan, seed=secrets.randbelow(MAX_SEED + 1))
        now = self._clock.time()
        session = DreamSession(
            id=secrets.token_hex(8),
            owner=request.owner,
            state=DreamState.DREAMING,
            plan=plan,
            host=self._hosting.key,
            op=secrets.token_hex(8),
            started_at=now,
            ends_at=now + plan.duration_s,
            updated_at=now,
        )
        self._begun[session.id] = session
        try:
            actor = await self._hosting.begin(session, self._started(plan, mode))
        except BaseException:
            del self._begun[session.id]
            raise
        log.info("a session begins", session=session.id, strategy=plan.strategy, duration_s=plan.duration_s)
        return actor.session

    def _started(self, plan: DreamPlan, mode: ModeInfo | None) -> Started:
        settings = self._settings
        steps = settings.draft_steps
        if not steps and mode is not None:
            steps = max(LEAST_STEPS, round(DRAFT_PART * (plan.num_inference_steps or mode.default_steps)))
        scale = plan.guidance_scale
        if scale is None and mode is not None:
            scale = mode.default_guidance
        params = GenerateParams(
            prompt=plan.prompt,
            negative_prompt=plan.negative_prompt,
            mode=plan.mode,
            size=settings.draft_size or (mode.native_size if mode is not None else "") or None,
            num_inference_steps=steps or None,
            guidance_scale=scale,
        )
        weights = {choice.name: choice.weight for choice in read_scorers(settings.scorers)}
        return Started(plan=plan, params=params, modifiers=self._modifiers.groups, weights=weights)

    def _require_scorers(self, plan: DreamPlan) -> None:
        for name in plan.weights or {}:
            if name not in self._hosting.panel.names:
                allowed = f"there is no scorer {name[:40]!r}; there is {', '.join(self._hosting.panel.names)}"
                raise ReverieError(
                    ErrorCode.INVALID_FIELD,
                    f"weights: {allowed}",
                    fields=[FieldError(("weights",), allowed, "choice")],
                )

    def _mode(self, plan: DreamPlan) -> ModeInfo | None:
        """What is known of the mode that drafts will run in; `mode_not_found`."""
        able = [worker for worker in self._workers if JobType.GENERATE in worker.job_types]
        if plan.mode is not None and able:
            able = having_mode(plan.mode, able)
        modes = (worker.modes.get(plan.mode or worker.mode or "") for worker in able)
        return next((mode for mode in modes if mode is not None), None)

    async def _change(self, session: DreamSession, request: StopDream | GuideDream) -> DreamSession:
        actor = self._hosting.actors.get(session.id)
        if actor is None and not session.state.over:
            actor = await self._hosting.take(session.id)
        if actor is None:
            if isinstance(request, StopDream):
                return self._latest(session)
            raise ReverieError(ErrorCode.SESSION_OVER, f"the session is {session.state}")
        if isinstance(request, GuideDream):
            return await actor.guide(request.guidance)
        return await actor.stop()

    async def _forward(self, session: DreamSession, raw: bytes) -> DreamAnswer | None:
        """The answer of the process that has the session; None if it is gone, and we may do it."""
        if session.host == self._hosting.key:
            return None
        try:
            message = await self._bus.request(dream_host(session.host), raw, timeout=FORWARD_S)
        except NoResponders:
            return None
        return msgspec.json.decode(message.data, type=DreamAnswer)

    def _known(self) -> list[DreamSession]:
        for session_id in [s for s in self._begun if self._sessions.get(s) is not None]:
            del self._begun[session_id]
        known = {session.id: session for session in (*self._sessions, *self._begun.values())}
        live = {s: actor.session for s, actor in self._hosting.actors.items()}
        return list({**known, **live}.values())

    def _find(self, request: DreamRequest) -> DreamSession:
        """The session that is meant; ReverieError `session_not_found`."""
        known = self._known()
        if request.session_id is not None:
            found = [s for s in known if s.id == request.session_id]
        else:
            found = [s for s in known if s.owner == request.owner]
        mine = [s for s in found if s.owner == request.owner or (request.admin and request.session_id)]
        if not mine:
            raise session_not_found()
        return min(mine, key=lambda s: (s.state is not DreamState.DREAMING, s.state.over, -s.started_at))

    def _latest(self, session: DreamSession, search: Search | None = None) -> DreamSession:
        if actor := self._hosting.actors.get(session.id):
            return actor.session
        if search is None:
            return session
        now = session.ended_at or self._clock.time()
        return replace(session, state=search.state, stats=stats_of(search, session, now=now))

    def _listed(
        self, session: DreamSession, search: Search, request: TopDreams | RecentDreams
    ) -> DreamAnswer:
        if isinstance(request, TopDreams):
            candidates: Sequence[Candidate] = search.kept
        else:
            # What was kept may have been rendered since it was judged.
            kept = {candidate.id: candidate for candidate in search.kept}
            candidates = [kept.get(candidate.id, candidate) for candidate in reversed(search.judged)]
        passing = [
            candidate
            for candidate in candidates
            if search.score(candidate) >= request.min_score
            and (candidate.full_key or not request.rendered_only)
        ]
        page = passing[request.offset : request.offset + request.limit]
        shown = tuple(search.show(candidate) for candidate in page)
        if isinstance(request, RecentDreams):
            # The draft of one that was not kept is gone.
            shown = tuple(
                one if one.id in kept else replace(one, url=None, thumbnail_url=None) for one in shown
            )
        return DreamAnswer(session=self._latest(session, search), candidates=shown, total=len(passing))
