"""One session at work: an actor around the pure `Search`.

Every decision is appended to the log before it is acted on, under one lock, so that the log is what happened.  What
is done twice after a crash (a submit, a purge, a cancel) is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog
from msgspec.structs import replace

from reverie_dreams.scoring.panel import Judgement, Panel
from reverie_dreams.search.candidate import Candidate
from reverie_dreams.search.search import Search
from reverie_dreams.session.drafts import Drafts, draft_id, render_id
from reverie_dreams.session.log import SessionLog
from reverie_dreams.session.pruning import Pruning, worth_a_look
from reverie_dreams.session.width import Width
from reverie_dreams.strategies.library import require_strategy
from reverie_dreams.strategies.port import Strategy
from reverie_protocol.dream_log import (
    Adopted,
    DreamHappening,
    DreamLogEntry,
    Dropped,
    Guided,
    Pruned,
    Rendered,
    Rendering,
    Scored,
    Stopped,
)
from reverie_protocol.dreams import (
    DreamCandidate,
    DreamGuidance,
    DreamSession,
    DreamState,
    DreamStats,
)
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.jobs import GenerateParams, Job, JobState, Lane
from reverie_protocol.preview import decode_preview
from reverie_protocol.subjects import WATCH_REPEAT_S
from reverie_runtime.clock import Clock

#: Longest wait for something to happen, in seconds: ends and repeats are noticed this late.
TURN_S: Final = 0.5
#: Drafts in a row that may fail before the session is given up.
MOST_FAILURES: Final = 12
#: Pictures that are judged at once.
BATCH: Final = 16
#: Full pictures that are made at once while the session ends.
RENDERS: Final = 4

log = structlog.get_logger(__name__)


class Frame(msgspec.Struct, frozen=True):
    """The latest estimate of a draft, encoded, and how far it was, 0..1."""

    picture: bytes
    progress: float


class Dreaming:
    """Made from a session's record and log; `run` works until it is over.

    `on_found` is told of each candidate that is kept or rendered, `on_change` that the figures changed.
    """

    def __init__(
        self,
        session: DreamSession,
        *,
        entries: Sequence[DreamLogEntry],
        session_log: SessionLog,
        drafts: Drafts,
        panel: Panel,
        strategies: Mapping[str, Strategy],
        clock: Clock,
        max_in_flight: int,
        prune: bool,
        on_found: Callable[[DreamCandidate], None],
        on_change: Callable[[], None],
    ) -> None:
        self.search = fold(entries)
        self._session = session
        self._log = session_log
        self._drafts = drafts
        self._panel = panel
        self._strategies = strategies
        self._clock = clock
        self._prune = prune
        self._on_found = on_found
        self._on_change = on_change
        self._width = Width(max_in_flight)
        self._pruning = Pruning()
        self._deciding = asyncio.Lock()
        self._wake = asyncio.Event()
        self._ended: dict[str, Job] = {}
        self._frames: dict[int, Frame] = {}
        self._looked_at: set[int] = set()
        self._watched_at = float("-inf")
        self._failures = 0
        self.failure = ""

    @property
    def id(self) -> str:
        """Id of the session."""
        return self._session.id

    @property
    def session(self) -> DreamSession:
        """The record as it is now."""
        search = self.search
        now = self._clock.time()
        ended_at = (self._session.ended_at or now) if search.state.over else None
        stats = stats_of(search, self._session, now=ended_at or now)
        best = tuple(search.show(candidate) for candidate in search.kept[:8])
        self._session = replace(
            self._session,
            state=search.state,
            guidance=search.guidance,
            stats=stats,
            best=best,
            error=self.failure or None,
            ended_at=ended_at,
            updated_at=now,
        )
        return self._session

    def on_job(self, job: Job) -> None:
        """One of the session's jobs has changed."""
        if job.state.terminal:
            self._ended[job.id] = job
            self._wake.set()

    def on_preview(self, job_id: str, frame: bytes) -> None:
        """A half-denoised estimate of one of its drafts."""
        number = job_id.rpartition("-")[2]
        if not number.isdigit() or int(number) not in self.search.flying or int(number) in self._looked_at:
            return
        try:
            header, picture = decode_preview(frame)
        except (ValueError, msgspec.MsgspecError):
            return
        if worth_a_look(header.step, header.steps):
            self._frames[int(number)] = Frame(picture, header.step / header.steps)
            self._wake.set()

    def leftovers(self) -> list[Job]:
        """Its jobs that ended too late to be looked at."""
        left, self._ended = list(self._ended.values()), {}
        return left

    async def guide(self, guidance: DreamGuidance) -> DreamSession:
        """Steer: in force from the next candidate on; drafts that do not fit any more are dropped.

        ReverieError `session_over`, or `invalid_field` for a strategy or a candidate that there is not.
        """
        async with self._deciding:
            search = self.search
            if search.state is not DreamState.DREAMING:
                raise ReverieError(ErrorCode.SESSION_OVER, f"the session is {search.state}")
            if guidance.strategy is not None:
                require_strategy(guidance.strategy, self._strategies)
            self._require_candidates(guidance)
            before = (search.strategy, search.temperature, search.epoch)
            await self._decide([Guided(guidance=guidance)])
            misfits = search.unfit()
            if before != (search.strategy, search.temperature, search.epoch):
                waiting = {job.id for job in self._drafts.waiting(self.id)}
                misfits = [c for c in search.flying.values() if c.epoch != search.epoch or c.job in waiting]
            if before[2] != search.epoch:
                self._pruning.reset()
            await self._decide([Dropped(id=candidate.id, why="guided") for candidate in misfits])
        log.info("a guide is in force", session=self.id, dropped=len(misfits))
        self._wake.set()
        self._on_change()
        # Not in the actor's turn, which may be looking at pictures just now.
        await asyncio.gather(self._fill(), *(self._drafts.cancel(candidate.job) for candidate in misfits))
        return self.session

    async def stop(self, why: str = "stopped") -> DreamSession:
        """Make no more candidates; asked a second time, render no more either."""
        async with self._deciding:
            if self.search.state is DreamState.DREAMING:
                await self._end(why)
            elif self.search.state is DreamState.STOPPING:
                await self._finish(DreamState.STOPPED, "stopped twice")
        self._wake.set()
        self._on_change()
        return self.session

    async def run(self) -> None:
        """Work until the session is over; SessionLost if another process has it."""
        async with self._deciding:
            await self._decide([Adopted(host=self._session.host)])
        await self._resume()
        while not self.search.state.over:
            self._wake.clear()
            await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
        self._on_change()

    async def _turn(self) -> None:
        if self.search.state is DreamState.DREAMING and self._clock.time() >= self._session.ends_at:
            async with self._deciding:
                await self._end("duration")
        await self._collect()
        await self._look()
        await self._fill()
        await self._render()
        await self._watch()
        if self.search.state is DreamState.STOPPING and not (
            self.search.unrendered() or self.search.rendering()
        ):
            async with self._deciding:
                stopped = self.search.end_reason != "duration"
                await self._finish(DreamState.STOPPED if stopped else DreamState.FINISHED, "done")

    async def _decide(self, events: Sequence[DreamHappening]) -> None:
        """Log, then fold; only under the lock."""
        if not events:
            return
        entry = await self._log.append(events)
        for event in events:
            self.search.apply(event, at=entry.at)

    async def _resume(self) -> None:
        """After a restart: jobs that were decided are there, and what has ended meanwhile is known."""
        for candidate in tuple(self.search.flying.values()):
            await self._reattach(candidate.job, candidate, Lane.BACKGROUND)
        for candidate in self.search.rendering():
            await self._reattach(candidate.rendering, candidate, Lane.BATCH)

    async def _reattach(self, job_id: str, candidate: Candidate, lane: Lane) -> None:
        job = await self._drafts.fetched(job_id)
        if job is None:
            params = candidate.params if job_id == candidate.job else self._full(candidate)
            await self._drafts.submit(self.id, job_id, params, lane=lane)
        elif job.state.terminal:
            self._ended[job_id] = job

    async def _fill(self) -> None:
        """Propose and submit until enough drafts are in flight."""
        search = self.search
        proposals = []
        async with self._deciding:
            while search.state is DreamState.DREAMING and len(search.flying) < self._width.target:
                strategy = self._strategies.get(search.strategy)
                if strategy is None:  # the plug-in that began this session is not here
                    raise ReverieError(ErrorCode.NOT_IMPLEMENTED, f"there is no strategy {search.strategy!r}")
                job = draft_id(self.id, search.next_id)
                proposal = search.propose(strategy.propose, job=job, strategy=search.strategy)
                proposals.append(proposal)
                search.apply(proposal, at=self._clock.time())
            if proposals:
                await self._log.append(proposals)
        for proposal in proposals:
            if self._prune:
                await self._drafts.watch(proposal.job)
            if proposal.id in search.flying:  # a guide may have come in between
                await self._drafts.submit(self.id, proposal.job, proposal.params, lane=Lane.BACKGROUND)

    async def _collect(self) -> None:
        """Judge the drafts that have ended, note full pictures that are there."""
        while self._ended:
            batch = [self._ended.pop(job_id) for job_id in tuple(self._ended)[:BATCH]]
            waiting = len(self._drafts.waiting(self.id))
            flying = {candidate.job: candidate for candidate in self.search.flying.values()}
            ours = [job for job in batch if job.id in flying]
            for _ in ours:
                self._width.on_ended(waiting=waiting)
            await self._judge([(flying[job.id], job) for job in ours])
            await self._fill()  # first: the engine is not to wait for our tidying up
            await self._note_renders(batch)
            for job in batch:
                if job.id not in flying and job.outputs and f"{self.id}-r" not in job.id:
                    self.search.released.extend(output.key for output in job.outputs)
                await self._drafts.forget(job.id)
            await self._release()

    async def _judge(self, drafts: Sequence[tuple[Candidate, Job]]) -> None:
        pictures, failed = [], []
        for candidate, job in drafts:
            picture = None
            if job.state is JobState.COMPLETED and job.outputs:
                picture = await self._drafts.picture(job.outputs[0].key)
            if picture is None:
                failed.append((candidate, job))
            else:
                pictures.append((candidate, job.outputs[0].key, picture))
        epoch = self.search.epoch
        judgements = await self._judgements([picture for _, _, picture in pictures])
        async with self._deciding:
            events: list[DreamHappening] = []
            for (candidate, key, _), judgement in zip(pictures, judgements, strict=True):
                if candidate.id not in self.search.flying or self.search.epoch != epoch:
                    # Dropped by a guide or at the end while it was looked at.
                    self.search.released.append(key)
                    continue
                events += self._apply_now(candidate, key, judgement)
            for candidate, job in failed:
                if candidate.id in self.search.flying:
                    why = "cancelled" if job.state is JobState.CANCELLED else "failed"
                    events.append(Dropped(id=candidate.id, why=why))
                    self.search.apply(events[-1], at=self._clock.time())
            if events:
                await self._log.append(events)
        self._announce([candidate.id for candidate, _, _ in pictures])
        self._count_failures(len(pictures), [job for _, job in failed if job.state is JobState.FAILED])

    def _apply_now(self, candidate: Candidate, key: str, judgement: Judgement | None) -> list[DreamHappening]:
        """Decide and fold at once: what the next of the same batch meets has to count already."""
        events: list[DreamHappening]
        if judgement is None:
            events = [Dropped(id=candidate.id, why="unreadable")]
        else:
            events = self.search.judge(
                Scored(
                    id=candidate.id,
                    scores=judgement.scores,
                    hash=judgement.hash,
                    signature=judgement.signature,
                    key=key,
                    width=judgement.width,
                    height=judgement.height,
                )
            )
        for event in events:
            self.search.apply(event, at=self._clock.time())
        if not any(kept.id == candidate.id for kept in self.search.kept):
            self.search.released.append(key)
        return events

    async def _judgements(self, pictures: Sequence[bytes]) -> list[Judgement | None]:
        return await self._panel.judge(pictures, self.search.base.prompt) if pictures else []

    def _announce(self, ids: Sequence[int]) -> None:
        for candidate in self.search.kept:
            if candidate.id in ids:
                self._on_found(self.search.show(candidate))
        if ids:
            self._on_change()

    def _count_failures(self, good: int, failed: Sequence[Job]) -> None:
        self._failures = 0 if good else self._failures + len(failed)
        if failed and self._failures >= MOST_FAILURES:
            error = failed[-1].error
            raise ReverieError(
                ErrorCode.INFERENCE_FAILED,
                f"{self._failures} drafts in a row failed: {error and error.message}",
            )

    async def _look(self) -> None:
        """Score half-denoised estimates; the losers are given up at once."""
        # Those of drafts that a guide has dropped would only keep the scorers from the first that shows it.
        frames = {number: frame for number, frame in self._frames.items() if number in self.search.flying}
        self._frames = {}
        if not frames or self.search.state is not DreamState.DREAMING:
            return
        epoch = self.search.epoch
        judgements = await self._judgements([frame.picture for frame in frames.values()])
        losers: list[Candidate] = []
        async with self._deciding:
            events: list[DreamHappening] = []
            for (number, frame), judgement in zip(frames.items(), judgements, strict=True):
                candidate = self.search.flying.get(number)
                if candidate is None or judgement is None or epoch != self.search.epoch:
                    continue
                self._looked_at.add(number)
                estimate = self.search.fitness(replace(candidate, scores=judgement.scores))
                if self._pruning.hopeless(estimate):
                    losers.append(candidate)
                    events.append(Pruned(id=number, estimate=estimate, progress=frame.progress))
            await self._decide(events)
        for candidate in losers:
            await self._drafts.cancel(candidate.job)
        self._looked_at &= set(self.search.flying)

    async def _watch(self) -> None:
        """Keep the estimates of drafts coming."""
        now = self._clock.monotonic()
        if not self._prune or now < self._watched_at + WATCH_REPEAT_S:
            return
        self._watched_at = now
        for candidate in tuple(self.search.flying.values()):
            if candidate.id not in self._looked_at:
                await self._drafts.watch(candidate.job)

    async def _render(self) -> None:
        """Now and then the best in full; when the session ends all of them."""
        search = self.search
        ending = search.state is DreamState.STOPPING
        due = search.state is DreamState.DREAMING and search.since_render >= search.render_interval
        if not (ending or due) or search.state.over:
            return
        room = RENDERS - len(search.rendering()) if ending else 1 - len(search.rendering())
        chosen = search.unrendered()[: max(0, room)]
        if not chosen:
            return
        async with self._deciding:
            await self._decide(
                [Rendering(id=candidate.id, job=render_id(self.id, candidate.id)) for candidate in chosen]
            )
        lane = Lane.BATCH if ending else Lane.BACKGROUND
        for candidate in chosen:
            job_id = render_id(self.id, candidate.id)
            await self._drafts.submit(self.id, job_id, self._full(candidate), lane=lane)

    def _full(self, candidate: Candidate) -> GenerateParams:
        """The parameters of the full picture: the session's size and steps, or the mode's own."""
        plan, steps = self.search.plan, self.search.guidance.num_inference_steps
        return replace(
            candidate.params, size=plan.size, num_inference_steps=steps or plan.num_inference_steps
        )

    async def _note_renders(self, jobs: Sequence[Job]) -> None:
        rendering = {candidate.rendering: candidate for candidate in self.search.rendering()}
        events: list[DreamHappening] = []
        for job in jobs:
            candidate = rendering.get(job.id)
            if candidate is not None:
                made = job.state is JobState.COMPLETED and job.outputs
                events.append(Rendered(id=candidate.id, key=job.outputs[0].key if made else ""))
            elif job.id.startswith(f"{self.id}-r"):
                # Its candidate was displaced meanwhile.
                self.search.released.extend(output.key for output in job.outputs)
        async with self._deciding:
            await self._decide(events)
        self._announce([event.id for event in events if isinstance(event, Rendered)])

    async def _release(self) -> None:
        """Remove pictures that nobody needs any more."""
        released, self.search.released = self.search.released, []
        needed = self.search.keys()
        for key in set(released) - needed:
            await self._drafts.discard(self.id, key)

    async def _end(self, why: str) -> None:
        flying = tuple(self.search.flying.values())
        dropped = [Dropped(id=candidate.id, why="stopped") for candidate in flying]
        await self._decide([*dropped, Stopped(state=DreamState.STOPPING, why=why)])
        for candidate in flying:
            await self._drafts.cancel(candidate.job)

    async def _finish(self, state: DreamState, why: str) -> None:
        rendering = self.search.rendering()
        await self._decide([Stopped(state=state, why=why)])
        for candidate in rendering:
            await self._drafts.cancel(candidate.rendering)

    async def fail(self, error: ReverieError) -> None:
        """Give the session up, for a reason that a person can read."""
        self.failure = error.message
        async with self._deciding:
            flying = tuple(self.search.flying.values())
            await self._decide([Stopped(state=DreamState.FAILED, why=error.message)])
        for candidate in flying:
            await self._drafts.cancel(candidate.job)

    def _require_candidates(self, guidance: DreamGuidance) -> None:
        for name in ("more_like", "less_like"):
            for number in getattr(guidance, name) or ():
                if self.search.find(number) is None:
                    message = f"there is no candidate {number} any more, or it was not judged yet"
                    fields = [FieldError(("params", name), message, "choice")]
                    raise ReverieError(ErrorCode.INVALID_FIELD, f"{name}: {message}", fields=fields)


def fold(entries: Sequence[DreamLogEntry]) -> Search:
    """The search after these entries."""
    search = Search()
    for entry in entries:
        for event in entry.events:
            search.apply(event, at=entry.at)
    search.released.clear()
    return search


def stats_of(search: Search, session: DreamSession, *, now: float) -> DreamStats:
    """Figures of a session at a moment (seconds since the epoch)."""
    elapsed = max(0.0, now - session.started_at)
    made = search.stats.dream_count
    kept = search.kept
    return replace(
        search.stats,
        is_dreaming=search.state is DreamState.DREAMING,
        dreams_per_second=round(made / elapsed, 4) if elapsed else 0.0,
        dreams_per_hour=round(3600 * made / elapsed, 2) if elapsed else 0.0,
        candidates=len(kept),
        top_k=search.plan.top_k,
        elapsed_seconds=round(elapsed, 3),
        in_flight=len(search.flying),
        best_score=round(max((search.score(candidate) for candidate in kept), default=0.0), 4),
    )
