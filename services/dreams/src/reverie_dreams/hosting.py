"""Which sessions this process works on: those it began, its former self's, and those of processes that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

import msgspec
import structlog
from msgspec.structs import replace

from reverie_dreams.publisher import Publisher
from reverie_dreams.replay import differences
from reverie_dreams.scoring.panel import Panel
from reverie_dreams.search.search import Search
from reverie_dreams.session.drafts import Drafts
from reverie_dreams.session.dreaming import Dreaming, fold
from reverie_dreams.session.log import SessionLog, SessionLost, read_log
from reverie_dreams.session.records import HostMirror, SessionMirror, SessionStore
from reverie_dreams.settings import DreamsSettings
from reverie_dreams.strategies.port import Strategy
from reverie_jobs.mirror import Change
from reverie_protocol.dream_control import DreamHost
from reverie_protocol.dream_log import DreamHappening, DreamLogEntry, Proposed
from reverie_protocol.dreams import DreamCandidate, DreamSession, DreamState
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import Job
from reverie_protocol.subjects import DREAM_HOST_TTL_S, DREAM_STATUS_REPEAT_S, worker_key
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, Bus, BusError, BusUnavailable, Message, WriteUncertain
from reverie_runtime.clock import Clock
from reverie_storage.port import StorageUnavailable

BEAT_S: Final = 1.0
#: Least time between two tellings of a session's state, and between two writes of its figures, in seconds.
TELL_S, RECORD_S = 0.25, 5.0
#: Searches of sessions of others, or that are over, which are kept at hand.
AT_HAND: Final = 8
#: Times that a session may break by a fault, of ours or of a plug-in, before it is given up.
MOST_BREAKS: Final = 5

log = structlog.get_logger(__name__)


class Hosting:
    """The actors of this process's sessions, and everything that keeps them fed."""

    def __init__(
        self,
        settings: DreamsSettings,
        *,
        bus: Bus,
        clock: Clock,
        name: str,
        store: SessionStore,
        sessions: SessionMirror,
        hosts: HostMirror,
        log_bucket: Bucket,
        hosts_bucket: Bucket,
        drafts: Drafts,
        panel: Panel,
        strategies: Mapping[str, Strategy],
        publisher: Publisher,
    ) -> None:
        self.incarnation = secrets.token_hex(6)
        self.key = worker_key(name, self.incarnation)
        self.actors: dict[str, Dreaming] = {}
        self.strategies = strategies
        self.panel = panel
        self._name = name
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._store = store
        self._sessions = sessions
        self._hosts = hosts
        self._log_bucket = log_bucket
        self._hosts_bucket = hosts_bucket
        self._drafts = drafts
        self._publisher = publisher
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed: set[str] = set()
        self._told_at: dict[str, float] = {}
        self._written_at: dict[str, float] = {}
        self._at_hand: dict[str, Search] = {}
        #: Jobs that ended after their session, as drafts do that were given up at its end.
        self._stragglers: deque[Job] = deque(maxlen=1000)
        self._breaks: dict[str, int] = {}
        #: Whoever makes a session ours holds its lock: an adoption and a request may want the same one at once.
        self._doors: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._connected_at = clock.monotonic()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Beat, adopt and tell during the block; who comes after goes on with the sessions."""
        await self._beat()
        await self.adopt()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for name, turn in (("hosting", self._beat_and_adopt), ("telling", self._await_and_tell)):
                    await stack.enter_async_context(acting(turn, name=name, clock=self._clock))
                yield
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for actor in self.actors.values():
                await self._write(actor)
            with contextlib.suppress(BusError):
                await self._hosts_bucket.delete(self.key)

    def on_connection(self, connected: bool) -> None:
        """Who is silent after an outage may just not have been heard yet."""
        if connected:
            self._connected_at = self._clock.monotonic()

    def on_job(self, change: Change[Job]) -> None:
        """The mirror heard of a job."""
        job = change.record
        if job is None or job.session is None:
            return
        if actor := self.actors.get(job.session):
            actor.on_job(job)
        elif job.state.terminal and change.live:
            self._stragglers.append(job)

    def on_preview(self, message: Message) -> None:
        """A frame on `job.preview.<id>`."""
        job_id = message.subject.rpartition(".")[2]
        if actor := self.actors.get(job_id.rpartition("-")[0]):
            actor.on_preview(job_id, message.data)

    async def begin(self, session: DreamSession, started: DreamHappening) -> Dreaming:
        """A new session of ours: its log begins, then its record is there."""
        async with self._door(session.id):
            session_log = self._session_log(session.id)
            entry = await session_log.append([started])
            await self._store.create(session)
            return self._work(session, [entry], session_log)

    def alive(self, host: str) -> bool:
        """Whether a host is this process, or one that beats."""
        return host == self.key or self._hosts.get(host) is not None

    async def adopt(self) -> None:
        """Take over every session that nobody works on."""
        for session in tuple(self._sessions):
            if session.state.over or session.id in self.actors:
                continue
            if session.host != self.key and not self._orphaned(session.host):
                continue
            try:
                await self.take(session.id)
            except (ReverieError, BusError, SessionLost) as error:
                log.info("a session could not be taken over", session=session.id, reason=str(error))
            except Exception:  # the others are not to wait for one that cannot be read
                log.exception("a session cannot be taken over", session=session.id)

    async def take(self, session_id: str) -> Dreaming | None:
        """Make a session ours, unless it is over; SessionLost if another process was faster."""
        async with self._door(session_id):
            return self.actors.get(session_id) or await self._take(session_id)

    async def _take(self, session_id: str) -> Dreaming | None:
        held = self._sessions.get(session_id)
        former = held.host if held else ""

        def own(session: DreamSession) -> DreamSession:
            if session.host not in (former, self.key):
                raise SessionLost(session_id)
            return replace(session, host=self.key)

        session = await self._store.apply(session_id, own)
        session_log = self._session_log(session_id)
        entries = await session_log.load()
        if not entries or fold(entries).state.over:
            await self._settle(session, fold(entries) if entries else None)
            return None
        log.info("a session goes on here", session=session_id, entries=len(entries), former=former)
        return self._work(session, entries, session_log)

    async def search_of(self, session: DreamSession) -> Search:
        """The search of any session, read from its log where it is not at work here."""
        if actor := self.actors.get(session.id):
            return actor.search
        known = self._at_hand.get(session.id)
        if known is not None and session.state.over:
            return known
        entries, _ = await read_log(self._log_bucket, session.id)
        search = fold(entries)
        self._at_hand[session.id] = search
        while len(self._at_hand) > AT_HAND:
            del self._at_hand[next(iter(self._at_hand))]
        return search

    async def replay(self, session_id: str) -> tuple[int, tuple[int, ...]]:
        """How many candidates a replay of the log makes, and which come out otherwise."""
        entries, _ = await read_log(self._log_bucket, session_id)
        different = await asyncio.to_thread(differences, entries, self.strategies)
        made = sum(isinstance(event, Proposed) for entry in entries for event in entry.events)
        return made, tuple(difference.logged.id for difference in different)

    def _orphaned(self, host: str) -> bool:
        if self.alive(host) and not host.startswith(f"{self._name}."):
            return False
        if host.startswith(f"{self._name}."):  # a former self, by the name that nobody else has
            return True
        return self._clock.monotonic() - self._connected_at > DREAM_HOST_TTL_S

    def _door(self, session_id: str) -> asyncio.Lock:
        return self._doors.setdefault(session_id, asyncio.Lock())

    def _session_log(self, session_id: str) -> SessionLog:
        return SessionLog(
            self._log_bucket,
            session_id,
            host=self.key,
            clock=self._clock,
            new_op=lambda: secrets.token_hex(8),
        )

    def _work(self, session: DreamSession, entries: list[DreamLogEntry], session_log: SessionLog) -> Dreaming:
        def found(candidate: DreamCandidate) -> None:
            self._publisher.found(session, candidate)

        actor = Dreaming(
            session,
            entries=entries,
            session_log=session_log,
            drafts=self._drafts,
            panel=self.panel,
            strategies=self.strategies,
            clock=self._clock,
            max_in_flight=self._settings.max_in_flight,
            prune=self._settings.prune,
            on_found=found,
            on_change=lambda: self._note(session.id),
        )
        self.panel.warm()
        self.actors[session.id] = actor
        self._tasks[session.id] = asyncio.create_task(self._run(actor), name=f"dream {session.id}")
        self._note(session.id)
        return actor

    async def _run(self, actor: Dreaming) -> None:
        """A session until it is over.  What goes wrong is logged, and it is taken up again from its log."""
        try:
            try:
                await actor.run()
            except ReverieError as error:
                log.warning("a session failed", session=actor.id, reason=error.message)
                await actor.fail(error)
        except SessionLost:
            log.warning("another process has the session", session=actor.id)
            self._leave(actor)
            return
        except (BusUnavailable, WriteUncertain, StorageUnavailable) as error:
            log.info("a session waits for the bus or the store", session=actor.id, reason=str(error))
            self._leave(actor)  # it is taken up again from its log
            return
        except Exception:
            log.exception("a session broke", session=actor.id)
            self._breaks[actor.id] = self._breaks.get(actor.id, 0) + 1
            if self._breaks[actor.id] < MOST_BREAKS or not await self._failed(actor):
                self._leave(actor)
                return
        await self._write(actor)
        await self._publisher.send()
        await self._publisher.status(actor.session)
        self._leave(actor)
        self._breaks.pop(actor.id, None)
        self._stragglers.extend(actor.leftovers())
        self._at_hand[actor.id] = actor.search
        log.info("a session is over", session=actor.id, state=actor.search.state.value)

    async def _failed(self, actor: Dreaming) -> bool:
        """Give a session up that broke too often; whether it was ours to give up."""
        try:
            await actor.fail(ReverieError(ErrorCode.INTERNAL, "it broke again and again; the log names why"))
        except (SessionLost, BusError):
            return False
        return True

    def _leave(self, actor: Dreaming) -> None:
        """Nothing of a session that is not at work here is kept."""
        if self.actors.get(actor.id) is not actor:
            return
        del self.actors[actor.id]
        self._tasks.pop(actor.id, None)
        self._changed.discard(actor.id)
        for times in (self._told_at, self._written_at):
            times.pop(actor.id, None)

    def _note(self, session_id: str) -> None:
        self._changed.add(session_id)
        self._publisher.dirty.set()

    async def _write(self, actor: Dreaming) -> None:
        """Bring a record up to date."""
        now = actor.session

        def updated(held: DreamSession) -> DreamSession | None:
            return None if held.host != self.key else replace(now, stop_asked=held.stop_asked)

        with contextlib.suppress(BusError, ReverieError):
            await self._store.apply(actor.id, updated)
            self._written_at[actor.id] = self._clock.monotonic()

    async def _settle(self, session: DreamSession, search: Search | None) -> None:
        """A session whose log is at its end while its record is not: a crash came between."""
        state = search.state if search else DreamState.FAILED
        await self._store.apply(
            session.id,
            lambda held: replace(
                held, state=state, ended_at=self._clock.time(), updated_at=self._clock.time()
            ),
        )

    async def _beat(self) -> None:
        host = DreamHost(
            name=self._name,
            incarnation=self.incarnation,
            sessions=tuple(self.actors),
            strategies=tuple(self.strategies),
            scorers=self.panel.names,
            beat_at=self._clock.time(),
        )
        with contextlib.suppress(BusError):
            await self._hosts_bucket.put(self.key, msgspec.json.encode(host))

    async def _beat_and_adopt(self) -> None:
        await self._clock.sleep(BEAT_S)
        await self._beat()
        await self.adopt()
        while self._stragglers:
            await self._tidy(self._stragglers.popleft())

    async def _tidy(self, job: Job) -> None:
        session = self._sessions.get(job.session or "")
        if session is None or session.host != self.key or session.id in self.actors:
            return
        needed = (await self.search_of(session)).keys()
        await self._drafts.forget(job.id)
        for output in job.outputs:
            if output.key not in needed:
                await self._drafts.discard(session.id, output.key)

    async def _await_and_tell(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_S):
                await self._publisher.dirty.wait()
        self._publisher.dirty.clear()
        await self._publisher.send()
        now = self._clock.monotonic()
        for session_id, actor in tuple(self.actors.items()):
            changed = session_id in self._changed
            since = now - self._told_at.get(session_id, float("-inf"))
            if since >= DREAM_STATUS_REPEAT_S - TELL_S or (changed and since >= TELL_S):
                self._told_at[session_id] = now
                self._changed.discard(session_id)
                await self._publisher.status(actor.session)
            if now - self._written_at.get(session_id, float("-inf")) >= RECORD_S:
                await self._write(actor)
        await self._clock.sleep(0.05)
