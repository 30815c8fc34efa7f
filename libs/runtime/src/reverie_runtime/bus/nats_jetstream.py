"""The JetStream API as JSON over request/reply: the few calls that buckets need."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from reverie_runtime.bus.nats_link import Link
from reverie_runtime.bus.port import BusError, BusUnavailable, NoResponders, RequestTimeout

API_TIMEOUT_S: Final = 5.0

# Error codes of nats-server (server/errors.json).
MESSAGE_NOT_FOUND: Final = 10037
STREAM_NAME_IN_USE: Final = 10058
STREAM_NOT_FOUND: Final = 10059
WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})

T = TypeVar("T")


class JetStreamError(BusError):
    """JetStream understood the request and refused it."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"JetStream: {description} ({err_code})")
        self.code = code
        self.err_code = err_code


class _Refusal(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Outcome(msgspec.Struct):
    error: _Refusal | None = None


class StreamState(msgspec.Struct):
    """`subjects` is filled only when a subject filter was sent."""

    last_seq: int
    consumer_count: int = 0
    subjects: dict[str, int] | None = None


class StreamInfo(msgspec.Struct):
    """Answer to STREAM.INFO, STREAM.CREATE."""

    config: dict[str, Any]
    created: str
    state: StreamState
    total: int = 0


class StoredMessage(msgspec.Struct):
    """One message of a stream; JSON has `data` and `hdrs` as base64."""

    subject: str
    seq: int
    data: bytes = b""
    hdrs: bytes = b""


class _Got(msgspec.Struct):
    message: StoredMessage


class ConsumerInfo(msgspec.Struct):
    """Answer to CONSUMER.CREATE."""

    name: str
    num_pending: int = 0


class PublishAck(msgspec.Struct):
    """A stream's answer to a write."""

    seq: int


class _Empty(msgspec.Struct):
    pass


def decode(data: bytes, kind: type[T]) -> T:
    """The answer, or the JetStreamError that it carries."""
    try:
        refusal = msgspec.json.decode(data, type=_Outcome).error
        if refusal is None:
            return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise BusError(f"JetStream answered something unexpected: {error}") from error
    raise JetStreamError(refusal.code, refusal.err_code, refusal.description)


async def _call(
    link: Link, subject: str, body: object, kind: type[T], *, timeout: float = API_TIMEOUT_S
) -> T:
    data = msgspec.json.encode(body) if body is not None else b""
    try:
        answer = await link.request(f"$JS.API.{subject}", data, timeout=timeout)
    except NoResponders:
        raise BusUnavailable("JetStream does not answer: start nats-server with -js") from None
    except RequestTimeout as error:
        raise BusUnavailable(f"JetStream does not answer: {error}") from None
    return decode(answer.data, kind)


async def account(link: Link, *, timeout: float = API_TIMEOUT_S) -> None:
    """Prove that JetStream is on for this account."""
    await _call(link, "INFO", None, _Empty, timeout=timeout)


async def stream_info(link: Link, stream: str, *, timeout: float = API_TIMEOUT_S) -> StreamInfo:
    """State and configuration; JetStreamError STREAM_NOT_FOUND if there is none."""
    return await _call(link, f"STREAM.INFO.{stream}", None, StreamInfo, timeout=timeout)


async def stream_subjects(link: Link, stream: str) -> tuple[dict[str, int], int]:
    """How many messages every subject has now, and the stream's last sequence."""
    subjects: dict[str, int] = {}
    while True:
        body = {"subjects_filter": ">", "offset": len(subjects)}
        info = await _call(link, f"STREAM.INFO.{stream}", body, StreamInfo)
        page = info.state.subjects or {}
        subjects.update(page)
        if not page or len(subjects) >= info.total:
            return subjects, info.state.last_seq


async def stream_create(link: Link, config: dict[str, Any]) -> StreamInfo:
    """Create a stream; the same configuration again is not an error."""
    return await _call(link, f"STREAM.CREATE.{config['name']}", config, StreamInfo)


async def stream_ensure(link: Link, config: dict[str, Any]) -> dict[str, Any]:
    """Make the stream if it is absent; the configuration that it has."""
    name = config["name"]
    try:
        return (await stream_info(link, name)).config
    except JetStreamError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
    try:
        return (await stream_create(link, config)).config
    except JetStreamError as refused:
        if refused.err_code != STREAM_NAME_IN_USE:
            raise
        return (await stream_info(link, name)).config  # somebody else made it meanwhile


async def message_get(link: Link, stream: str, query: dict[str, Any]) -> StoredMessage | None:
    """One message, read from the leader; None if there is none."""
    try:
        return (await _call(link, f"STREAM.MSG.GET.{stream}", query, _Got)).message
    except JetStreamError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return None
        raise


async def consumer_create(link: Link, stream: str, config: dict[str, Any]) -> ConsumerInfo:
    """Create the ephemeral consumer `config["name"]`."""
    body = {"stream_name": stream, "config": config, "action": "create"}
    return await _call(link, f"CONSUMER.CREATE.{stream}.{config['name']}", body, ConsumerInfo)


async def consumer_delete(link: Link, stream: str, name: str) -> None:
    """Delete a consumer."""
    await _call(link, f"CONSUMER.DELETE.{stream}.{name}", None, _Empty)
