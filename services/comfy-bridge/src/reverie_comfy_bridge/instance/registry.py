"""The table of instances as this bridge acts on it: which of them it serves, and what it says of them.

One bridge serves an instance; its key stands in the record.  Others stand by and take the instance over when that
bridge no longer answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog
from msgspec.structs import replace

from reverie_comfy_bridge.settings import GivenInstance
from reverie_jobs.comfy_instances import InstanceMirror, change_instance, remove_instance
from reverie_protocol.instances import ComfyInstance, ComfyStatus
from reverie_protocol.subjects import comfy_instance, worker_ping
from reverie_runtime.actors import acting
from reverie_runtime.bus.port import Bucket, Bus, BusError, BusUnavailable, NoResponders, RequestTimeout
from reverie_runtime.clock import Clock
from reverie_worker.patience import wait_up_to

ROUND_S: Final = 1.0
PING_TIMEOUT_S: Final = 1.0
#: Rounds in a row in which a bridge was absent, or silent, until it is taken for gone; after a restart of
#: nats-server everybody is absent for a moment.  An earlier process of our own name is gone when it is absent once.
ABSENT_ROUNDS, SILENT_ROUNDS = 3, 6
#: Changes of an instance within this time are written together, in seconds; a new status is written at once.
DEBOUNCE_S: Final = 2.0
FROM_SETTINGS: Final = "settings"

log = structlog.get_logger(__name__)


class Served(Protocol):
    """An instance that this bridge serves."""

    wish: ComfyInstance

    def fill(self, record: ComfyInstance) -> ComfyInstance:
        """The record with what is observed."""

    def changed(self) -> None:
        """`wish` is another than before."""

    async def drain(self, deadline_s: float) -> None:
        """This bridge ends."""

    async def retire(self) -> None:
        """The instance is not to be used any more."""

    async def abandon(self) -> None:
        """Another bridge serves it."""

    def working(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Its life."""


class Registry:
    """Keeps what is served in step with the table.  `serve` makes an instance's worker."""

    def __init__(
        self,
        bus: Bus,
        bucket: Bucket,
        mirror: InstanceMirror,
        *,
        key: str,
        serve: Callable[[ComfyInstance], Served],
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._mirror = mirror
        self._key = key
        self._serve = serve
        self._clock = clock
        self._served: dict[str, _Post] = {}
        self._news = asyncio.Event()
        self._news.set()
        self._dirty: set[str] = set()
        self._unwritten: set[str] = set()
        self._write_at = 0.0
        self._told: dict[str, ComfyInstance] = {}
        self._tell_now = asyncio.Event()
        self._absent: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()

    @property
    def served(self) -> tuple[Served, ...]:
        """What this bridge serves now."""
        return tuple(post.served for post in self._served.values())

    @property
    def others_serve(self) -> bool:
        """Whether an enabled instance of the table is not ours."""
        return any(record.enabled and record.bridge != self._key for record in self._mirror)

    async def enter(self, given: Sequence[GivenInstance]) -> None:
        """Put the settings' instances into the table; what an administrator said of one at run time stays."""
        names = {instance.name for instance in given}
        for instance in given:
            await change_instance(
                self._bucket, instance.name, partial(_entered, instance, self._clock.time())
            )
        own = self._key.rpartition(".")[0]
        for record in self._mirror.instances:
            ours = record.bridge.rpartition(".")[0] == own
            if record.origin == FROM_SETTINGS and ours and record.name not in names:
                await remove_instance(self._bucket, record.name)

    @contextlib.asynccontextmanager
    async def running(self, drain_s: float) -> AsyncIterator[None]:
        """Serve during the block; then let running jobs end within `drain_s`."""
        stop = self._mirror.listen(lambda change: self._news.set())
        try:
            async with (
                acting(self._tell, name="instances told", clock=self._clock),
                acting(self._round, name="instances", clock=self._clock),
            ):
                yield
        finally:
            stop()
            await asyncio.gather(*(post.end(lambda served: served.drain(drain_s)) for post in self._posts()))
            await self._give_up_all()

    def dirty(self, *names: str) -> None:
        """What is observed of instances has changed."""
        self._dirty.update(names)
        self._tell_now.set()

    def _posts(self) -> list[_Post]:
        return list(self._served.values())

    # --- who is served ---

    async def _round(self) -> None:
        await wait_up_to(self._news, ROUND_S, self._clock)
        self._news.clear()
        for name, post in tuple(self._served.items()):
            if post.over:
                log.error("an instance's worker broke; it begins anew", instance=name, reason=post.fault)
                del self._served[name]
            else:
                await self._check_served(name, post)
        for record in self._mirror.instances:
            if record.bridge != self._key:
                await self._consider(record)
            elif record.enabled and record.name not in self._served:
                self._begin(record)
            elif not record.enabled and record.status is not ComfyStatus.DISABLED:
                await self._write(record.name, _disabled)

    async def _check_served(self, name: str, post: _Post) -> None:
        record = self._mirror.get(name)
        served = post.served
        if record is not None and record.bridge != self._key:
            log.warning("another bridge has taken an instance", instance=name, bridge=record.bridge)
            await self._end(name, lambda served: served.abandon())
        elif record is None or not record.enabled or record.url != served.wish.url:
            log.info("instance retired", instance=name)
            await self._end(name, lambda served: served.retire())
        elif _wish(record) != _wish(served.wish):
            served.wish = record
            served.changed()

    def _begin(self, record: ComfyInstance) -> None:
        log.info("instance served", instance=record.name, url=record.url)
        self._served[record.name] = _Post(self._serve(record))
        self.dirty(record.name)

    async def _end(self, name: str, how: Callable[[Served], object]) -> None:
        post = self._served[name]
        await post.end(how)
        del self._served[name]
        self._told.pop(name, None)
        self._news.set()

    async def _consider(self, record: ComfyInstance) -> None:
        """Take an instance that nobody serves."""
        holder = record.bridge
        if holder and not await self._is_gone(holder):
            return
        taken = await change_instance(
            self._bucket,
            record.name,
            lambda held: replace(held, bridge=self._key) if held and held.bridge == holder else None,
        )
        if taken is not None and taken.bridge == self._key:
            if holder:
                log.warning("instance taken over", instance=record.name, bridge=holder)
            self._news.set()

    async def _is_gone(self, holder: str) -> bool:
        try:
            await self._bus.request(worker_ping(holder), b"", timeout=PING_TIMEOUT_S)
        except NoResponders:
            self._absent[holder] += 1
        except RequestTimeout:
            self._silent[holder] += 1
        except BusUnavailable:
            return False
        else:
            self._absent.pop(holder, None)
            self._silent.pop(holder, None)
        own = holder.rpartition(".")[0] == self._key.rpartition(".")[0]
        enough = 1 if own else ABSENT_ROUNDS
        return self._absent[holder] >= enough or self._silent[holder] >= SILENT_ROUNDS

    # --- what is said of them ---

    async def _tell(self) -> None:
        """Tell every change at once, write a new status at once, and what else changed now and then."""
        await wait_up_to(self._tell_now, DEBOUNCE_S, self._clock)
        self._tell_now.clear()
        dirty, self._dirty = self._dirty, set()
        try:
            await self._tell_of(dirty)
        except BusError:
            self.dirty(*dirty)
            raise

    async def _tell_of(self, dirty: set[str]) -> None:
        for name in dirty:
            urgent = self._has_new_status(name)
            self._unwritten.add(name)
            await self._publish(name)
            if urgent:
                await self._write(name, self._filled)
                self._unwritten.discard(name)
        if self._clock.monotonic() >= self._write_at:
            self._write_at = self._clock.monotonic() + DEBOUNCE_S
            for name in tuple(self._unwritten):
                await self._write(name, self._filled)
                self._unwritten.discard(name)

    def _has_new_status(self, name: str) -> bool:
        post, told = self._served.get(name), self._told.get(name)
        if post is None:
            return False
        now = post.served.fill(post.served.wish)
        return told is None or (now.status, now.reason, now.version) != (
            told.status,
            told.reason,
            told.version,
        )

    async def _publish(self, name: str) -> None:
        post = self._served.get(name)
        if post is not None:
            record = replace(post.served.fill(post.served.wish), updated_at=self._clock.time())
            self._told[name] = record
            with contextlib.suppress(BusError):
                await self._bus.publish(comfy_instance(name), msgspec.json.encode(record))

    def _filled(self, held: ComfyInstance) -> ComfyInstance | None:
        post = self._served.get(held.name)
        return post.served.fill(held) if post is not None else None

    async def _write(self, name: str, change: Callable[[ComfyInstance], ComfyInstance | None]) -> None:
        """Write what is observed, if it is still ours to say."""

        def changed(held: ComfyInstance | None) -> ComfyInstance | None:
            if held is None or held.bridge != self._key:
                return None
            filled = change(held)
            if filled is None or filled == held:
                return None
            return replace(filled, updated_at=self._clock.time())

        await change_instance(self._bucket, name, changed)

    async def _give_up_all(self) -> None:
        """Say that nobody serves them, so that another bridge need not find out."""
        for name in tuple(self._served):
            with contextlib.suppress(BusError):
                await self._write(
                    name, lambda held: replace(held, bridge="", status=ComfyStatus.DISCONNECTED)
                )
        self._served.clear()


class _Post:
    """A worker at its instance: its life in a task of its own, and how that is to end."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._how: asyncio.Future[Callable[[Served], object]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(), name="instance")

    async def _live(self) -> None:
        async with self.served.working():
            how = await self._how
            await how(self.served)  # type: ignore[misc]  # a coroutine, whatever it gives

    @property
    def over(self) -> bool:
        """Whether it ended although nobody asked it to."""
        return self._task.done() and not self._how.done()

    @property
    def fault(self) -> str:
        """What ended it."""
        return repr(None if self._task.cancelled() else self._task.exception())

    async def end(self, how: Callable[[Served], object]) -> None:
        """Let its life end in this way.  Who is cancelled while he waits for that does not cut it short."""
        if not self._how.done():
            self._how.set_result(how)
        await asyncio.wait((self._task,))
        error = None if self._task.cancelled() else self._task.exception()
        if isinstance(error, BusError):
            log.warning("an instance's worker ended badly", reason=str(error))
        elif error is not None:
            raise error


def _wish(record: ComfyInstance) -> tuple[object, ...]:
    return (record.url, record.enabled, record.draining, record.tags, record.max_prompts)


def _disabled(held: ComfyInstance) -> ComfyInstance:
    return replace(held, status=ComfyStatus.DISABLED, reason="disabled", detail="", reconnect_attempts=0)


def _entered(given: GivenInstance, now: float, held: ComfyInstance | None) -> ComfyInstance | None:
    if held is None:
        return ComfyInstance(
            name=given.name,
            url=given.url,
            tags=given.tags,
            max_prompts=given.max_prompts,
            origin=FROM_SETTINGS,
            status=ComfyStatus.DISCONNECTED,
            updated_at=now,
        )
    if held.origin != FROM_SETTINGS:
        log.warning("an instance of the settings was changed by an administrator", instance=given.name)
        return None
    return replace(held, url=given.url, tags=given.tags, max_prompts=given.max_prompts, updated_at=now)
