"""Whatever arrives, the outcome is a message or one error for the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_protocol.client_messages import ClientMessage, JobSubmit
from reverie_protocol.errors import ReverieError
from reverie_protocol.jobs import GenerateParams
from reverie_protocol.parsing import (
    FrameError,
    decode_json,
    parse_client_frame,
    parse_generate,
    parse_job_submit,
)
from reverie_protocol.registry import CLIENT_MESSAGES
from reverie_protocol.validation import names_of, struct_fields

KEYS = sorted(
    {name for cls in CLIENT_MESSAGES.values() for f in struct_fields(cls).values() for name in names_of(f)}
)
PARAMETERS = sorted({name for field in struct_fields(GenerateParams).values() for name in names_of(field)})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["512x512", "urgent", "fileRef:a", "generate", "job:submit", "png", "\ud800", "a\0"])
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS + PARAMETERS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
frames = st.builds(
    lambda body, type_, job_type: {**body, "type": type_, "jobType": job_type},
    st.dictionaries(st.sampled_from(["id", *KEYS, *PARAMETERS]), json_values, max_size=8),
    st.sampled_from(list(CLIENT_MESSAGES)) | json_values,
    st.sampled_from(["generate", "sr", "comfy"]) | json_values,
)
MANY = settings(max_examples=150, deadline=None)


def outcome(parse: Callable[[Any], object], given_: object) -> object:
    """What a parser returns, or the error that it raises for the client."""
    try:
        return parse(given_)
    except ReverieError as error:
        return error


@MANY
@given(st.binary(max_size=200) | st.text(max_size=200) | (json_values | frames).map(json.dumps))
def test_any_frame_is_a_message_or_a_frame_error(frame: str | bytes) -> None:
    result = outcome(parse_client_frame, frame)
    assert isinstance(result, ClientMessage | FrameError)
    assert not isinstance(result, FrameError) or result.status in (400, 422)


@MANY
@given(json_values | frames)
def test_any_decoded_body_is_a_request_or_names_its_wrong_fields(body: object) -> None:
    for parse, kind in ((parse_job_submit, JobSubmit), (parse_generate, GenerateParams)):
        result = outcome(parse, body)
        assert isinstance(result, kind | ReverieError)
        assert not isinstance(result, ReverieError) or result.fields


@MANY
@given(st.binary(max_size=100))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    result = outcome(decode_json, body)
    assert not isinstance(result, ReverieError) or result.status in (400, 422)
