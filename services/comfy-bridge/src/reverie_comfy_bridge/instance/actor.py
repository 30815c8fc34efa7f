"""One ComfyUI server for as long as it is ours to serve: reached, listened to, looked at, and judged.

The socket brings hints.  What is true comes from looks: `/queue` first, then the history of each prompt that is not
in it.  A look is due on connect, on doubt and on a timer, with or without a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, Protocol

import structlog

from reverie_comfy_bridge.instance.address import require_allowed
from reverie_comfy_bridge.instance.backoff import Backoff
from reverie_comfy_bridge.instance.client import InstanceClient, Unreachable
from reverie_comfy_bridge.instance.findings import Finding, Remedy
from reverie_comfy_bridge.instance.health import Health
from reverie_comfy_bridge.instance.observation import Observation
from reverie_comfy_bridge.instance.port import until_it_opens
from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.instance.socket import InstanceSocket
from reverie_comfy_bridge.run.attribution import Attribution
from reverie_comfy_bridge.run.events import Ended, EndReason, Event, LookNow
from reverie_comfy_bridge.run.prompt_run import Look, PromptRun
from reverie_comfy_bridge.settings import InstanceLimits
from reverie_comfy_bridge.wire.frames import Frame, Status
from reverie_comfy_bridge.wire.queue import History, Queue, QueuedPrompt
from reverie_comfy_bridge.wire.version import features_of
from reverie_comfy_bridge.workflows.node_classes import NodeClasses
from reverie_runtime.actors import acting
from reverie_runtime.clock import Clock
from reverie_worker.patience import wait_up_to

#: How often an instance without prompts of ours is looked at, and how often its health is judged, in seconds.
IDLE_LOOK_S: Final = 10.0
CHECK_S: Final = 0.5
#: Looks that failed in a row after which the socket is not believed either.
FAILED_LOOKS: Final = 3

log = structlog.get_logger(__name__)


class Follower(Protocol):
    """Whoever follows a prompt."""

    run: PromptRun

    def take(self, events: Sequence[Event]) -> None:
        """What happened to it; returns at once."""

    def doubt(self, finding: Finding) -> None:
        """The instance is not well, and this is about this prompt; returns at once."""


class Instance:
    """One server.  `live` is its life; the rest tells and asks.

    `on_change` is called when what `observation` says has changed, `on_found` with prompts in its queue that bear a
    mark and that nobody here follows, `on_connected` after each connect.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        bridge: str,
        limits: InstanceLimits,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.name = name
        self.url = url
        self.client = InstanceClient(url, timeouts=limits.timeouts)
        self.features = features_of("")
        self.classes: NodeClasses | None = None
        #: Counts the versions of `classes`.
        self.edition = 0
        self.observation = Observation(clock)
        self.on_change: Callable[[], None] = lambda: None
        self.on_found: Callable[[Sequence[QueuedPrompt]], None] = lambda prompts: None
        self.on_connected: Callable[[], None] = lambda: None
        self._bridge = bridge
        self.limits = limits
        self._clock = clock
        self._random = random
        self._sockets = 0
        self._client_id = self._new_client_id()
        self._socket: InstanceSocket | None = None
        self._backoff = Backoff(random)
        self._health = Health(limits.health)
        self._attribution = Attribution()
        self._followers: list[Follower] = []
        self._doubt = asyncio.Event()
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._failed_looks = 0
        self._poll = False
        self._classes_wanted = asyncio.Event()
        #: Set while something tried to reach it has come to an end, well or not.
        self.tried = asyncio.Event()

    @property
    def client_id(self) -> str:
        """Under which the socket is registered; prompts posted with another are only looked at."""
        return self._client_id

    @property
    def usable(self) -> bool:
        """Whether it can be given work now."""
        return self.observation.connected and self.classes is not None and self._health.unhealthy is None

    @property
    def starting(self) -> bool:
        """Whether it is connected and has yet to say what it can do."""
        return self.observation.connected and self.classes is None and self._health.unhealthy is None

    @property
    def foreign(self) -> int:
        """Prompts in it that nobody here follows."""
        return max(0, self.observation.remaining - len(self._followers))

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Serve it during the block; its prompts go on afterwards."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.client.close)
            for round_, name in (
                (self._reach, "socket"),
                (self._look_when_due, "looks"),
                (self._check, "health"),
                (self._read_classes, "classes"),
            ):
                await stack.enter_async_context(
                    acting(round_, name=f"{name} of {self.name}", clock=self._clock)
                )
            yield

    @contextlib.contextmanager
    def following(self, follower: Follower) -> Iterator[None]:
        """Tell `follower` what happens to its prompt during the block."""
        self._followers.append(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)

    def look_soon(self) -> None:
        """Something may have ended."""
        self._doubt.set()

    async def post(self, follower: Follower, body: dict[str, object]) -> None:
        """Send a prompt; the follower hears what came of it."""
        sent_at = self._clock.monotonic()
        self._tell(follower, follower.run.posting(sent_at))
        answer = await self.client.post_prompt(body)
        prompt_id, number = getattr(answer, "prompt_id", None), getattr(answer, "number", None)
        if prompt_id is not None and body.get("client_id") == self._client_id:
            self._health.posted(prompt_id, number, sent_at)
        self._tell(follower, follower.run.answered(answer, self._clock.monotonic()))

    async def remove(self, prompt_id: str) -> None:
        """Take a prompt of ours out of the queue and stop it if it runs; nobody says whether that hit.

        Where the version cannot stop one by its id, whatever runs is stopped only if `/queue` shows it to be ours.
        """
        await self.client.dequeue(prompt_id)
        if self.features.interrupt_by_id:
            await self.client.interrupt(prompt_id)
        else:
            queue = await self.client.queue()
            if queue is None or not queue.runs(prompt_id):
                return
            await self.client.interrupt(None)
        self._health.interrupted(prompt_id, self._clock.monotonic())

    # --- reaching it ---

    async def _reach(self) -> None:
        """One connection, from the first try to its end."""
        try:
            await self._connect()
        except Unreachable as error:
            self.observation.missed(error.reason, error.detail, attempts=self._backoff.attempts + 1)
            self.tried.set()
            self.on_change()
        wait_s = self._backoff.next()
        if self.observation.connected:
            return
        await until_it_opens(self.url, wait_s, clock=self._clock, random=self._random)

    async def _connect(self) -> None:
        await require_allowed(self.url)
        stats, flags = await asyncio.gather(self.client.system_stats(), self.client.flags())
        self.features = features_of(stats.version, flags)
        socket = await InstanceSocket.open(
            self.url, self._client_id, timeout_s=self.limits.timeouts.connect_s
        )
        self._socket = socket
        now = self._clock.monotonic()
        self._health.opened(now)
        self._attribution.opened()
        reading = asyncio.create_task(socket.read(self._hear), name=f"frames of {self.name}")
        try:
            await self._look()
            self._classes_wanted.set()
            self.observation.reached(stats)
            self._backoff.reset()
            self.tried.set()
            self.on_change()
            self.on_connected()
            log.info("instance connected", instance=self.name, version=stats.version)
            async with acting(self._ping, name=f"pings of {self.name}", clock=self._clock):
                reason = await reading
        except BaseException:
            reading.cancel()
            await socket.close(Reason.CLOSED_BY_US)
            raise
        finally:
            self._socket = None
            self._health.closed(self._clock.monotonic())
        await socket.close(reason)
        self._backoff.ended(self._clock.monotonic() - now)
        if reason in (Reason.HALF_OPEN, Reason.DEAF_SOCKET):
            self._client_id = self._new_client_id()
        self.observation.lost(reason)
        self.on_change()
        log.warning("instance lost", instance=self.name, reason=reason)

    async def _ping(self) -> None:
        socket = self._socket
        if socket is not None:
            self._health.pinged(self._clock.monotonic())
            await socket.ping(lambda: self._health.ponged(self._clock.monotonic()))
        await self._clock.sleep(self.limits.ping_s)

    async def _read_classes(self) -> None:
        """What nodes and models there are, after each connect: a restart may have changed them."""
        await self._classes_wanted.wait()
        self._classes_wanted.clear()
        try:
            classes = await self.client.node_classes()
        except Unreachable as error:
            log.warning("the nodes of an instance are not known", instance=self.name, reason=error.detail)
            await self._clock.sleep(1.0)
            if self.observation.connected:
                self._classes_wanted.set()
            return
        if classes != self.classes:
            self.classes = classes
            self.edition += 1
        self.on_change()

    def _new_client_id(self) -> str:
        self._sockets += 1
        return f"{self._bridge}-{self.name}-{self._sockets}"

    # --- listening ---

    def _hear(self, frame: Frame) -> None:
        now = self._clock.monotonic()
        self._health.heard(frame, now)
        if isinstance(frame, Status) and frame.queue_remaining is not None:
            self.observation.remaining = frame.queue_remaining
            self.on_change()
        attributed = self._attribution.attribute(frame)
        if attributed is not None:
            for follower in tuple(self._followers):
                self._tell(follower, follower.run.heard(attributed, now))

    def _tell(self, follower: Follower, events: Sequence[Event]) -> None:
        if not events:
            return
        for event in events:
            if isinstance(event, LookNow):
                self._doubt.set()
            if isinstance(event, Ended):
                self._note_end(follower, event)
        follower.take(events)

    def _note_end(self, follower: Follower, ended: Ended) -> None:
        run, now = follower.run, self._clock.monotonic()
        if ended.reason is EndReason.VANISHED:
            self._health.vanished(run.prompt_id, now)
        elif ended.reason is EndReason.HISTORY:
            self._health.ended(run.prompt_id, heard=run.heard_at is not None, now=now)

    # --- looking ---

    async def _look_when_due(self) -> None:
        wait_s = self.limits.look_s / 2 if self._poll else self.limits.look_s
        await wait_up_to(self._doubt, wait_s, self._clock)
        early = self._clock.monotonic() - self._looked_at < IDLE_LOOK_S
        idle = not self._doubt.is_set() and not self._followers
        if idle and (early or not self.observation.connected):
            return
        self._doubt.clear()
        try:
            await self._look()
        except Unreachable as error:
            self._failed_looks += 1
            if self._failed_looks == 1:
                log.info("an instance cannot be looked at", instance=self.name, reason=error.detail)
            if self._failed_looks >= FAILED_LOOKS and self._socket is not None:
                await self._socket.close(Reason.HTTP_FAILED)
            await self._clock.sleep(self.limits.look_s)
        else:
            # Two looks that find nothing prove a loss; do not let the second one follow at once.
            await self._clock.sleep(self.limits.least_look_s)

    async def _look(self) -> None:
        """`/queue`, then the history of what is not in it, in this order: a prompt may move on meanwhile."""
        async with self._looking:
            began = self._clock.monotonic()
            self._looked_at = began
            queue = await self.client.queue()
            self._failed_looks = 0
            if queue is not None:
                self.observation.saw(running=len(queue.running), pending=len(queue.pending))
                self._see(queue, began)
            for follower in tuple(self._followers):
                await self._look_at(follower, queue, began)

    def _see(self, queue: Queue, began: float) -> None:
        self._attribution.looked(queue)
        followed = {follower.run.prompt_id for follower in self._followers}
        prompts = (*queue.running, *queue.pending)
        own = [
            prompt.prompt_id
            for prompt in prompts
            if prompt.prompt_id in followed and prompt.client_id == self._client_id
        ]
        self._health.looked(queue, own, began)
        self.on_change()
        unknown = [
            prompt for prompt in prompts if prompt.mark is not None and prompt.prompt_id not in followed
        ]
        self.on_found(unknown)

    async def _look_at(self, follower: Follower, queue: Queue | None, began: float) -> None:
        run = follower.run
        history = None
        if not run.ended and (queue is None or queue.find(run.prompt_id) is None):
            history = await self._history_of(run)
        if follower in self._followers and not run.ended:
            self._tell(follower, run.looked(Look(began, queue, history), self._clock.monotonic()))

    async def _history_of(self, run: PromptRun) -> History | None:
        if self.features.own_prompt_id:
            return await self.client.history(run.prompt_id)
        found = await self.client.history(run.prompt_id)
        return found if found is not None and found.entries else await self.client.recent_history()

    # --- judging ---

    async def _check(self) -> None:
        await self._clock.sleep(CHECK_S)
        for finding in self._health.check(self._clock.monotonic()):
            log.warning(
                "instance not well",
                instance=self.name,
                reason=finding.reason,
                remedy=finding.remedy,
                detail=finding.detail,
            )
            await self._remedy(finding)
        unhealthy = self._health.unhealthy
        if self.observation.judged(unhealthy):
            self.on_change()
        if unhealthy is None:
            self._poll = False

    async def _remedy(self, finding: Finding) -> None:
        match finding.remedy:
            case Remedy.REOPEN:
                if self._socket is not None:
                    await self._socket.close(finding.reason)
            case Remedy.POLL:
                self._poll = True
                self._doubt.set()
            case Remedy.LOOK:
                self._classes_wanted.set()
                self._doubt.set()
            case Remedy.INTERRUPT | Remedy.UNHEALTHY:
                everybody = finding.remedy is Remedy.UNHEALTHY or not finding.prompt_id
                for follower in tuple(self._followers):
                    if everybody or finding.prompt_id == follower.run.prompt_id:
                        follower.doubt(finding)
