"""Every message and record survives the wire, and its schema agrees with what is sent and accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reverie_protocol.client_messages import ClientMessage, JobSubmit
from reverie_protocol.errors import ReverieError
from reverie_protocol.export.catalogue import HTTP_BODIES, RECORDS
from reverie_protocol.export.schema import schema_document
from reverie_protocol.http_bodies import JobPatch
from reverie_protocol.job_submission import PARAMETERS
from reverie_protocol.parsing import parse_client_frame
from reverie_protocol.preview import PreviewHeader, decode_preview, encode_preview
from reverie_protocol.registry import CLIENT_MESSAGES, SERVER_MESSAGES
from reverie_protocol.validation import names_of, struct_fields, validate

OUTGOING = [*SERVER_MESSAGES.values(), *HTTP_BODIES, *RECORDS]
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Values = Callable[[type[msgspec.Struct]], st.SearchStrategy[Any]]


def name_of(cls: type) -> str:
    return cls.__name__


@cache
def validator(name: str) -> Draft202012Validator:
    document = schema_document()
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": document["$defs"]})


def on_the_wire(message: ClientMessage) -> dict[str, object]:
    """What a client would send for a message; a submission says its `jobType` instead of a tag."""
    body: dict[str, object] = json.loads(msgspec.json.encode(message))
    if isinstance(message, JobSubmit):
        params = body.pop("params")
        assert isinstance(params, dict)
        body |= {"jobType": params.pop("kind"), **params}
    return body


@pytest.mark.parametrize("message_type", CLIENT_MESSAGES.values(), ids=name_of)
def test_a_client_message_is_parsed_as_it_was_sent(
    message_type: type[ClientMessage], values_of: Values
) -> None:
    @FEW
    @given(values_of(message_type))
    def check(message: ClientMessage) -> None:
        body = on_the_wire(message)
        assert parse_client_frame(json.dumps(body)) == message
        validator("ClientMessage").validate(body)

    check()


@pytest.mark.parametrize("cls", OUTGOING, ids=name_of)
def test_what_we_send_and_store_reads_back_equal_and_fits_its_schema(
    cls: type[msgspec.Struct], values_of: Values
) -> None:
    @FEW
    @given(values_of(cls))
    def check(value: msgspec.Struct) -> None:
        encoded = msgspec.json.encode(value)
        assert msgspec.json.decode(encoded, type=cls) == value
        validator(cls.__name__).validate(json.loads(encoded))

    check()


def test_a_server_message_is_told_by_its_type_alone(values_of: Values) -> None:
    decoder = msgspec.json.Decoder(_union(tuple(SERVER_MESSAGES.values())))

    @FEW
    @given(st.one_of([values_of(cls) for cls in SERVER_MESSAGES.values()]))
    def check(message: msgspec.Struct) -> None:
        assert decoder.decode(msgspec.json.encode(message)) == message

    check()


def _union(members: tuple[type, ...]) -> Any:
    union: Any = members[0]
    for member in members[1:]:
        union |= member
    return union


def test_a_preview_frame_is_its_header_and_the_picture(values_of: Values) -> None:
    @FEW
    @given(values_of(PreviewHeader), st.binary(max_size=200))
    def check(header: PreviewHeader, picture: bytes) -> None:
        frame = encode_preview(header, picture)
        assert decode_preview(frame) == (header, picture)
        for cut in (0, 3, len(frame) - len(picture) - 1):
            with pytest.raises(ValueError):  # noqa: PT011  msgspec's decoding error is one too
                decode_preview(frame[:cut])

    check()


def _variants(name: str) -> Iterator[dict[str, Any]]:
    schema = schema_document()["$defs"][name]
    yield from schema.get("oneOf", [schema])


SAMPLES: dict[str, object] = {
    "jobId": "a",
    "cursor": 0,
    "sessionToken": "t",
    "prompt": "x",
    "fileRef": "abc",
    "workflowId": "w",
    "priority": 0,
    "key": "k",
    "payload": "p",
    "params": {},
}

#: Fields that go with another one only, which a schema does not say.
NEED_A_PICTURE = ("maskImage", "mask_image", "strength")


def _candidates(schema: dict[str, Any]) -> list[object]:
    """Values at, just inside and just outside each bound of a property, and of every JSON type."""
    found: list[object] = [None, True, 0, 1, 2.5, "", "x", [], {}, "urgent", "png", "512x512"]
    for part in (schema, *schema.get("anyOf", [])):
        step = 1 if part.get("type") == "integer" else 0.0001
        for bound in ("minimum", "maximum"):
            if bound in part:
                found += [part[bound] - step, part[bound], part[bound] + step]
        for bound in ("minLength", "maxLength"):
            if bound in part:
                found += ["9" * max(part[bound] + more, 0) for more in (-1, 0, 1)]
    return found


@pytest.mark.parametrize(("type_", "message_type"), CLIENT_MESSAGES.items(), ids=list(CLIENT_MESSAGES))
def test_schema_and_parser_agree_on_every_bound(type_: str, message_type: type[ClientMessage]) -> None:
    for shape in _variants(message_type.__name__):
        properties = shape["properties"]
        needed = {"type": type_}
        if "jobType" in properties:
            needed["jobType"] = properties["jobType"]["const"]
        required = {n for n in SAMPLES if n in properties and n in shape["required"]}
        required |= {n for n in ("prompt", "fileRef", "workflowId") if n in properties} & SAMPLES.keys()
        base = {**needed, **{n: SAMPLES[n] for n in required}}
        for name, schema in properties.items():
            beside = {"initImage": "abc"} if name in NEED_A_PICTURE else {}
            for value in _candidates(schema):
                frame = {**base, **beside, name: value}
                assert _parses(frame) == validator("ClientMessage").is_valid(frame), frame


def _parses(frame: dict[str, Any]) -> bool:
    try:
        parse_client_frame(json.dumps(frame))
    except ReverieError:
        return False
    return True


def test_the_schema_has_each_name_that_the_parser_takes() -> None:
    for message_type in CLIENT_MESSAGES.values():
        for shape in _variants(message_type.__name__):
            taken = {name for f in struct_fields(message_type).values() for name in names_of(f)}
            assert taken <= shape["properties"].keys() | {"params"}
    for params in PARAMETERS.values():
        taken = {name for field in struct_fields(params).values() for name in names_of(field)}
        assert any(taken <= shape["properties"].keys() for shape in _variants("JobSubmit"))


def test_a_patch_takes_a_lane_by_number_or_name() -> None:
    for priority in (2, "batch"):
        assert validate(JobPatch, {"priority": priority}).priority == 2
        assert validator("JobPatch").is_valid({"priority": priority})
    assert not validator("JobPatch").is_valid({"priority": "high"})
    with pytest.raises(ReverieError):
        validate(JobPatch, {"priority": "high"})
