"""AsyncAPI 3.0: the WebSocket channel and the NATS subjects, as the platform offers them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from reverie_protocol.export.schema import components
from reverie_protocol.registry import CLIENT_MESSAGES, MESSAGE_SERVICE, SERVER_MESSAGES
from reverie_protocol.subjects import AUDIT, AUDIT_RETENTION_S, AUDIT_STREAM, BUCKETS, SUBJECTS, Subject

Document = dict[str, Any]

_WS_CHANNEL = "clients"
_SCHEMAS = "#/components/schemas/"


def asyncapi_document() -> Document:
    """The whole document; actions are those of the platform: it receives what clients send."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Reverie",
            "version": "1.0.0",
            "description": "Self-hosted image generation: events to frontends over one WebSocket, "
            "and between services over NATS. Generated from libs/protocol.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": "localhost:4200",
                "protocol": "ws",
                "description": "any gateway; all of them tell the same story",
            },
            "nats": {
                "host": "localhost:4222",
                "protocol": "nats",
                "description": "the bus; core subjects, KV buckets and streams",
            },
        },
        "channels": {_WS_CHANNEL: _ws_channel()} | {_id(s): _nats_channel(s) for s in SUBJECTS},
        "operations": _ws_operations() | {k: v for s in SUBJECTS for k, v in _nats_operations(s).items()},
        "components": {
            "messages": _messages(),
            "schemas": dict(sorted(components(_SCHEMAS).items())),
        },
        "x-kv-buckets": [_bucket(bucket) for bucket in BUCKETS],
        "x-streams": [{"name": AUDIT_STREAM, "subjects": [AUDIT], "maxAgeSeconds": AUDIT_RETENTION_S}],
    }


def _ref(path: str) -> Document:
    return {"$ref": path}


def _id(subject: Subject) -> str:
    """`job.progress.*` as a key that is a plain word: `jobProgress`."""
    first, *rest = [word for word in re.split(r"[.*>]+", subject.pattern) if word]
    return first + "".join(word.capitalize() for word in rest)


def _sentence(message: type[msgspec.Struct]) -> str:
    return (message.__doc__ or "").split("\n", 1)[0]


def _messages() -> Document:
    messages: Document = {}
    for type_, message in {**CLIENT_MESSAGES, **SERVER_MESSAGES}.items():
        messages[message.__name__] = {
            "name": type_,
            "summary": _sentence(message),
            "payload": _ref(_SCHEMAS + message.__name__),
        }
    for message, service in MESSAGE_SERVICE.items():
        messages[message.__name__]["x-answered-by"] = service.value
    for subject in SUBJECTS:
        if subject.payload is not None and not subject.binary:
            messages.setdefault(
                subject.payload.__name__,
                {
                    "name": subject.payload.__name__,
                    "summary": _sentence(subject.payload),
                    "payload": _ref(_SCHEMAS + subject.payload.__name__),
                },
            )
    messages["PreviewFrame"] = {
        "name": "PreviewFrame",
        "contentType": "application/octet-stream",
        "summary": "4 bytes big-endian header length, a JSON PreviewHeader, then the encoded picture.",
        "payload": {"type": "string", "format": "binary"},
        "x-header": _ref(_SCHEMAS + "PreviewHeader"),
    }
    messages["Empty"] = {"name": "Empty", "summary": "No payload.", "payload": {"type": "null"}}
    return messages


def _channel_messages(names: list[str]) -> Document:
    return {name: _ref(f"#/components/messages/{name}") for name in names}


def _ws_channel() -> Document:
    names = [message.__name__ for message in (*CLIENT_MESSAGES.values(), *SERVER_MESSAGES.values())]
    return {
        "address": "/v1/ws",
        "description": "Text frames hold one JSON object each; binary frames are previews.",
        "servers": [_ref("#/servers/gateway")],
        "messages": _channel_messages([*names, "PreviewFrame"]),
    }


def _ws_operations() -> Document:
    def operation(action: str, summary: str, names: list[str]) -> Document:
        return {
            "action": action,
            "summary": summary,
            "channel": _ref(f"#/channels/{_WS_CHANNEL}"),
            "messages": [_ref(f"#/channels/{_WS_CHANNEL}/messages/{name}") for name in names],
        }

    sent = [message.__name__ for message in CLIENT_MESSAGES.values()]
    pushed = [message.__name__ for message in SERVER_MESSAGES.values()]
    return {
        "receiveFromClient": operation("receive", "What a client may send.", sent),
        "sendToClient": operation("send", "Answers, events and previews.", [*pushed, "PreviewFrame"]),
    }


def _message_name(subject: Subject) -> str:
    if subject.binary:
        return "PreviewFrame"
    return subject.payload.__name__ if subject.payload is not None else "Empty"


def _nats_channel(subject: Subject) -> Document:
    parameter = subject.parameter
    channel: Document = {
        "address": re.sub(r"[*>]", f"{{{parameter}}}", subject.pattern),
        "description": f"{subject.meaning}. Published by: {subject.publisher}.",
        "servers": [_ref("#/servers/nats")],
        "messages": _channel_messages([_message_name(subject)]),
        "x-subscribe": subject.pattern,
    }
    if parameter:
        channel["parameters"] = {parameter: {"description": f"{parameter} in the subject"}}
    return channel


def _nats_operations(subject: Subject) -> Document:
    name = _id(subject)
    actions = ["send", "receive"] if subject.inbound else ["send"]
    return {
        f"{action}{name[0].upper()}{name[1:]}": {
            "action": action,
            "summary": subject.meaning,
            "channel": _ref(f"#/channels/{name}"),
            "messages": [_ref(f"#/channels/{name}/messages/{_message_name(subject)}")],
        }
        for action in actions
    }


def _bucket(bucket: Any) -> Document:
    return {
        "name": bucket.name,
        "key": bucket.key,
        "record": _ref(_SCHEMAS + bucket.record.__name__),
        "writer": bucket.writer,
        "meaning": bucket.meaning,
        "history": bucket.history,
        "ttlSeconds": bucket.ttl_s,
        "republish": bucket.republish,
    }
