"""The protocol is complete and documented: the channel map, the registries and the tables agree."""

from __future__ import annotations

import re
from enum import Enum

import msgspec
import pytest
from msgspec import inspect

from reverie_protocol.client_messages import ClientMessage
from reverie_protocol.errors import ERROR_TRAITS, ErrorCode, ReverieError
from reverie_protocol.export.catalogue import ROOTS, reachable
from reverie_protocol.export.schema import schema_document
from reverie_protocol.registry import CLIENT_MESSAGES, MESSAGE_SERVICE, SERVER_MESSAGES, Service
from reverie_protocol.server_messages import ServerMessage
from reverie_protocol.subjects import BUCKETS, SUBJECTS

# The message types of each row of the channel map, V1 and V2, and of its connection lifecycle.
CHANNEL_MAP = {
    1: ["job:submit", "job:ack", "job:progress", "job:complete"],
    2: ["job:submit"],
    4: ["job:submit", "job:ack"],
    5: ["job:progress", "job:complete", "job:error"],
    6: ["job:cancel"],
    7: ["dream:start", "dream:started"],
    8: ["dream:stop", "dream:stopped"],
    9: ["dream:status"],
    10: ["dream:top", "dream:top:result"],
    11: ["dream:recent", "dream:recent:result"],
    12: ["dream:status"],
    13: ["dream:guide"],
    14: ["dream:candidate"],
    19: ["system:status"],
    22: ["storage:put", "storage:put:ok"],
    24: ["system:status"],
    25: ["ping", "pong"],
    31: ["job:priority"],
    32: ["system:status"],
    33: ["system:backends"],
    34: ["queue:state"],
}
MESSAGES = {**CLIENT_MESSAGES, **SERVER_MESSAGES}


@pytest.mark.parametrize("row", CHANNEL_MAP)
def test_each_row_of_the_channel_map_has_its_messages_and_they_name_it(row: int) -> None:
    for type_ in CHANNEL_MAP[row]:
        doc = MESSAGES[type_].__doc__ or ""
        rows = {int(number) for number in re.findall(r"\d+", doc.split(":", 1)[0])}
        assert row in rows, type_


@pytest.mark.parametrize("type_", MESSAGES)
def test_each_message_says_why_it_exists(type_: str) -> None:
    doc = MESSAGES[type_].__doc__ or ""
    assert re.match(r"(Rows? \d+|Connection|Beyond the map)", doc), doc


def subclasses(cls: type) -> set[type]:
    return set(cls.__subclasses__())


def test_no_message_is_missing_from_the_registries() -> None:
    assert set(CLIENT_MESSAGES.values()) == subclasses(ClientMessage)
    assert set(SERVER_MESSAGES.values()) == subclasses(ServerMessage)
    assert not CLIENT_MESSAGES.keys() & SERVER_MESSAGES.keys()


def test_each_client_message_belongs_to_a_service() -> None:
    assert set(MESSAGE_SERVICE) == set(CLIENT_MESSAGES.values())
    dreams = {type_ for type_, cls in CLIENT_MESSAGES.items() if MESSAGE_SERVICE[cls] is Service.DREAMS}
    assert dreams == {type_ for type_ in CLIENT_MESSAGES if type_.startswith("dream:")}


def test_each_answer_can_echo_the_clients_id() -> None:
    pushed = {"job:state", "job:progress", "job:complete", "job:error", "dream:status", "dream:candidate"}
    pushed |= {"system:status", "system:backends", "queue:state"}
    for type_, message in SERVER_MESSAGES.items():
        fields = {field.encode_name for field in msgspec.structs.fields(message)}
        assert ("id" in fields) == (type_ not in pushed), type_


def test_each_error_code_has_its_traits_and_a_meaning() -> None:
    assert set(ERROR_TRAITS) == set(ErrorCode)
    for code, traits in ERROR_TRAITS.items():
        assert 400 <= traits.status <= 599
        assert traits.meaning.endswith(".")
        error = ReverieError(code, "x")
        assert (error.status, error.retryable) == (traits.status, traits.retryable)


@pytest.mark.parametrize("name", reachable(ROOTS))
def test_each_type_has_a_docstring_of_its_own(name: str) -> None:
    cls = reachable(ROOTS)[name].cls
    inherited = {base.__doc__ for base in cls.__mro__[1:]} | {Enum.__doc__}
    assert cls.__doc__
    assert cls.__doc__ not in inherited


def test_each_number_says_its_unit_or_meaning() -> None:
    silent = []
    for name, info in reachable(ROOTS).items():
        if not isinstance(info, inspect.StructType):
            continue
        for field in info.fields:
            members = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
            if field.encode_name != "id" and any(
                isinstance(member, inspect.IntType | inspect.FloatType) for member in members
            ):
                silent.append(f"{name}.{field.name}")
    assert silent == []


def test_each_definition_of_the_schema_is_described() -> None:
    for name, schema in schema_document()["$defs"].items():
        assert schema["description"], name


def test_subjects_and_buckets_are_named_once() -> None:
    assert len({subject.pattern for subject in SUBJECTS}) == len(SUBJECTS)
    assert len({bucket.name for bucket in BUCKETS}) == len(BUCKETS)
    for subject in SUBJECTS:
        assert bool(subject.parameter) == bool(re.search(r"[*>]", subject.pattern))
