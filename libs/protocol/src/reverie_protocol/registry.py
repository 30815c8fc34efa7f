"""Every message on `/v1/ws` by its `type`, and which service answers what a client sends."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from reverie_protocol import client_messages as client
from reverie_protocol import server_messages as server
from reverie_protocol.client_messages import ClientMessage
from reverie_protocol.server_messages import ServerMessage


class Service(StrEnum):
    """Who does the work behind a client message."""

    GATEWAY = "gateway"
    DREAMS = "dreams"


_ANSWERED_BY: Final[dict[Service, tuple[type[ClientMessage], ...]]] = {
    Service.GATEWAY: (
        client.Ping,
        client.Authenticate,
        client.Hello,
        client.Resume,
        client.JobSubmit,
        client.JobCancel,
        client.JobPreview,
        client.JobPriority,
        client.StoragePut,
    ),
    Service.DREAMS: (
        client.DreamStart,
        client.DreamStop,
        client.DreamTop,
        client.DreamRecent,
        client.DreamGuide,
    ),
}


def message_type(message: type[ClientMessage] | type[ServerMessage]) -> str:
    """The `type` that a message class travels under."""
    return str(message.__struct_config__.tag)


#: Message class by `type`, for everything a client may send.
CLIENT_MESSAGES: Final[dict[str, type[ClientMessage]]] = {
    message_type(message): message for group in _ANSWERED_BY.values() for message in group
}

#: The service that answers a client message.  Where it does not run, the answer is `service_unavailable`.
MESSAGE_SERVICE: Final[dict[type[ClientMessage], Service]] = {
    message: service for service, group in _ANSWERED_BY.items() for message in group
}

_SERVER_MESSAGES: Final[tuple[type[ServerMessage], ...]] = (
    server.Pong,
    server.Error,
    server.Authenticated,
    server.HelloOk,
    server.Resumed,
    server.JobAck,
    server.JobStateChanged,
    server.JobProgress,
    server.JobComplete,
    server.JobFailed,
    server.JobCancelOk,
    server.JobPriorityOk,
    server.JobPreviewOk,
    server.DreamStarted,
    server.DreamStopped,
    server.DreamStatus,
    server.DreamTopResult,
    server.DreamRecentResult,
    server.DreamGuideOk,
    server.DreamCandidateFound,
    server.StoragePutOk,
    server.SystemStatus,
    server.SystemBackends,
    server.QueueStateChanged,
)

#: Message class by `type`, for everything a server may send.
SERVER_MESSAGES: Final[dict[str, type[ServerMessage]]] = {
    message_type(message): message for message in _SERVER_MESSAGES
}
