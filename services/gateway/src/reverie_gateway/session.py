"""One socket's conversation without the socket: frames and events in, frames out through its outbox.

Pure of I/O.  What needs the bus (submit, cancel) is handed back to the caller as a typed message.
"""

from __future__ import annotations

from collections.abc import Sequence

from reverie_gateway.events import Delivery, Event, encode
from reverie_gateway.identity import Identity
from reverie_gateway.outbox import Outbox
from reverie_protocol.client_messages import (
    Authenticate,
    ClientMessage,
    DreamGuide,
    DreamRecent,
    DreamStart,
    DreamStop,
    DreamTop,
    Hello,
    JobCancel,
    JobPreview,
    JobPriority,
    JobSubmit,
    Ping,
    Resume,
    StoragePut,
)
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.parsing import FrameError, parse_client_frame
from reverie_protocol.registry import MESSAGE_SERVICE, Service, message_type
from reverie_protocol.server_messages import Error, Pong, ServerMessage

#: Largest text frame that is looked at, in bytes of UTF-8 or fewer.
MAX_FRAME_CHARS = 1 << 20
#: Jobs that one socket may watch by name; `hello {previews}` watches all without a limit.
MAX_WATCHED_JOBS = 1000
#: Under which the platform's state waits to be sent.
STATUS_KEY = "system:status"

DreamMessage = DreamStart | DreamStop | DreamTop | DreamRecent | DreamGuide
DREAM_MESSAGES = (DreamStart, DreamStop, DreamTop, DreamRecent, DreamGuide)
Request = (
    Authenticate
    | Hello
    | Resume
    | JobSubmit
    | JobCancel
    | JobPriority
    | JobPreview
    | StoragePut
    | DreamMessage
)
REQUESTS = (
    Authenticate,
    Hello,
    Resume,
    JobSubmit,
    JobCancel,
    JobPriority,
    JobPreview,
    StoragePut,
    *DREAM_MESSAGES,
)


class Session:
    """What one socket's client has said it wants, and what it is owed."""

    def __init__(self, identity: Identity, outbox: Outbox) -> None:
        self.identity = identity
        self.owner = identity.owner
        self.outbox = outbox
        self.all_previews = False
        self.resuming = False
        # Dictionaries, since an empty one is small, and most of them stay empty.
        self._watched: dict[str, None] = {}
        self._unacknowledged: dict[str, None] = {}
        self._held: list[Event] = []
        self._early: list[Event] | None = None

    def receive(self, frame: str | bytes) -> Request | None:
        """What a client's frame asks for; None if it has been answered already (ping, every refusal)."""
        try:
            message = parse_frame(frame)
        except FrameError as error:
            self.refuse(error, error.client_id)
            return None
        if isinstance(message, Ping):
            self.answer(Pong(id=message.id))
            return None
        if isinstance(message, REQUESTS):
            return message
        self.refuse(_unserved(message), message.id)
        return None

    def answer(self, message: ServerMessage) -> None:
        """Send one message that must arrive."""
        self.outbox.put(encode(message))

    def refuse(self, error: ReverieError, client_id: str | int | None) -> None:
        """Tell the client why its message was not carried out."""
        self.answer(refusal_of(error, client_id))

    @property
    def waiting(self) -> bool:
        """Whether events are kept back because the client may still want to catch up first."""
        return self._early is not None

    def expect_resume(self) -> None:
        """Keep events back until the client's first request, or `open`: it may want to catch up first."""
        self._early = []

    def open(self, snapshot: Sequence[Event]) -> None:
        """The client does not resume: send how its unfinished jobs stand, and what else was kept back.

        In the order of revisions: who is cut off in the midst of it comes back with the highest that he saw.
        """
        early, self._early = self._early or [], None
        told = {event.job_id for event in snapshot}
        other = (event for event in early if event.job_id not in told)
        for event in sorted((*snapshot, *other), key=lambda event: event.seq):
            self.deliver(event)

    def catch_up(self, missed: Sequence[Event]) -> None:
        """Send all that happened after the client's cursor, each transition once and in order.

        Asked late, that repeats what went out on this socket already: to leave it out would tell the rest of a job
        after its end, and a client that comes back with the last `seq` it saw would never hear what lies between.
        """
        self._early = None  # `missed` has all of it
        for event in missed:
            if event.delivery is Delivery.FINAL:
                self._end(event.job_id)
        self.outbox.replay(event.frame for event in missed)

    @property
    def plain(self) -> bool:
        """Whether all that this session does with an event is to pass it on."""
        return self._early is None and not self._unacknowledged and not self._watched

    def hold(self, job_id: str) -> None:
        """Keep events back until `release`: this job's `job:ack` has to go first.

        All events, not only this job's: they go out in the order of their revisions, or a cursor would skip some.
        """
        self.outbox.wake()
        self._unacknowledged[job_id] = None

    def release(self, job_id: str) -> None:
        """Send what was kept back, unless another submit is still on its way; idempotent."""
        self._unacknowledged.pop(job_id, None)
        if self._unacknowledged:
            return
        held, self._held = self._held, []
        for event in held:
            self.deliver(event)

    def retell(self, story: Sequence[Event]) -> None:
        """Send what happened to a job at once, up to where what is kept back goes on; that stays in its order.

        Else the job's latest event would go out behind later ones of other jobs, and a cursor would skip it.
        """
        kept = {(event.job_id, event.seq) for event in self._held}
        for event in story:
            if (event.job_id, event.seq) not in kept:
                self._pass_on(event)

    def deliver(self, event: Event) -> None:
        """One event of one of the owner's jobs."""
        if self._early is not None:
            self._early.append(event)
            return
        if self._unacknowledged:
            self._held.append(event)
            return
        self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        if event.delivery is Delivery.FINAL:
            self._end(event.job_id)
        put_event(event, self.outbox)

    def deliver_preview(self, job_id: str, frame: bytes) -> None:
        """One preview frame, if this socket asked for it."""
        if self.wants_previews(job_id) and job_id not in self._unacknowledged:
            self.outbox.put_preview(job_id, frame)

    def deliver_status(self, frame: bytes) -> None:
        """The platform's state; a later one replaces it."""
        self.outbox.put_latest(STATUS_KEY, frame)

    def watches(self, job_id: str) -> bool:
        """Whether this socket asked for previews of this very job."""
        return job_id in self._watched

    def wants_previews(self, job_id: str) -> bool:
        """Whether binary preview frames of this job go to this socket."""
        return self.all_previews or job_id in self._watched

    def watch(self, job_id: str, *, enabled: bool) -> None:
        """Start or stop preview frames of one job."""
        if not enabled:
            self._watched.pop(job_id, None)
            self.outbox.drop_preview(job_id)
        else:
            self.require_watchable(job_id)
            self._watched[job_id] = None

    def require_watchable(self, job_id: str) -> None:
        """`rate_limited` where `watch` would refuse one more job."""
        if job_id not in self._watched and len(self._watched) >= MAX_WATCHED_JOBS:
            raise ReverieError(
                ErrorCode.RATE_LIMITED,
                f"one socket watches at most {MAX_WATCHED_JOBS} jobs; use hello with previews for all",
            )

    def forget(self, job_id: str) -> None:
        """A job has ended, also one whose events this session is not sent: it is watched no more."""
        self._watched.pop(job_id, None)
        self.outbox.drop_preview(job_id)

    def _end(self, job_id: str) -> None:
        """What has not been sent of a job's way to its end is no longer true."""
        self.outbox.drop_latest(job_id)
        self.forget(job_id)


def put_event(event: Event, outbox: Outbox) -> None:
    """Put an event where it belongs among what waits."""
    if event.delivery is Delivery.PROGRESS:
        outbox.put_latest(event.job_id, event.frame)
        return
    if event.delivery is Delivery.FINAL:
        outbox.drop_latest(event.job_id)
    outbox.put(event.frame)


def parse_frame(frame: str | bytes) -> ClientMessage:
    """A client's frame as a message; FrameError if it is none."""
    if isinstance(frame, bytes):
        raise FrameError(ErrorCode.UNSUPPORTED_FRAME, "send JSON in text frames; binary frames are not used")
    if len(frame) > MAX_FRAME_CHARS:
        raise FrameError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"a message may hold at most {MAX_FRAME_CHARS} characters"
        )
    return parse_client_frame(frame)


def refusal_of(error: ReverieError, client_id: str | int | None) -> Error:
    """An error as the answer to a client's message."""
    return Error(
        id=client_id,
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        fields=error.fields,
        node_errors=error.node_errors,
    )


def _unserved(message: ClientMessage) -> ReverieError:
    """Why a well-formed message has nobody to carry it out."""
    name = message_type(type(message))
    service = MESSAGE_SERVICE[type(message)]
    if service is Service.GATEWAY:
        return ReverieError(ErrorCode.NOT_IMPLEMENTED, f"this gateway does not carry out {name} yet")
    return ReverieError(
        ErrorCode.SERVICE_UNAVAILABLE, f"{name} needs the {service} service, which is not running"
    )
