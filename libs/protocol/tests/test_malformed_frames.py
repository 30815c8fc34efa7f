"""Every way in which a client's frame can be wrong, and what the client is told."""

from __future__ import annotations

import json

import msgspec
import pytest

from reverie_protocol.errors import ErrorCode
from reverie_protocol.field_errors import MAX_FIELD_ERRORS
from reverie_protocol.parsing import FrameError, parse_client_frame

BAD_JSON = {
    "nothing": "",
    "blank": "   ",
    "a bare word": "ping",
    "an open brace": '{"type":"ping"',
    "a trailing comma": '{"type":"ping",}',
    "single quotes": "{'type':'ping'}",
    "two documents": '{"type":"ping"}{"type":"ping"}',
    "a comment": '{"type":"ping"} // hi',
    "NaN": '{"type":"ping","id":NaN}',
    "Infinity": '{"type":"ping","id":Infinity}',
    "minus Infinity": '{"type":"ping","id":-Infinity}',
    "a byte order mark": '\ufeff{"type":"ping"}',
    "a raw control character": '{"type":"ping","id":"\n"}',
    "bytes that are no UTF-8": b'{"type":"ping","id":"\xff"}',
    "bytes of an encoded surrogate": b'{"type":"ping","id":"\xed\xa0\x80"}',
    "UTF-16": '{"type":"ping"}'.encode("utf-16"),
    "an endless number": '{"type":"ping","id":' + "9" * 5000 + "}",
    "a leading zero": '{"type":"ping","id":01}',
    "only NULs": b"\0\0\0\0",
}

BAD_MESSAGES = {
    "a list": "[]",
    "a string": '"ping"',
    "a number": "1",
    "null": "null",
    "true": "true",
    "a list of messages": '[{"type":"ping"}]',
    "a repeated key": '{"type":"ping","type":"hello"}',
    "a repeated inner key": '{"type":"ping","x":{"a":1,"a":2}}',
    "many repeated keys": "{" + ",".join(f'"k{n // 2}":1' for n in range(60_000)) + "}",
    "deep lists": '{"type":"ping","x":' + "[" * 65 + "]" * 65 + "}",
    "deep objects": '{"x":' * 70 + "1" + "}" * 70,
    "bottomless lists": "[" * 200_000,
    "bottomless objects": '{"a":' * 100_000,
}

BAD_TYPES = {
    "no type": "{}",
    "no type but an id": '{"id":1}',
    "a type that nobody knows": '{"type":"job:explode"}',
    "an empty type": '{"type":""}',
    "a null type": '{"type":null}',
    "a numeric type": '{"type":3}',
    "a list as type": '{"type":["ping"]}',
    "an object as type": '{"type":{"a":1}}',
    "a boolean type": '{"type":true}',
    "the wrong case": '{"type":"PING"}',
    "a type of ours": '{"type":"job:ack"}',
    "spaces around it": '{"type":" ping "}',
    "a lone surrogate": '{"type":"\\ud800"}',
    "a very long type": json.dumps({"type": "x" * 100_000}),
}

SUBMIT = {"type": "job:submit", "jobType": "generate", "prompt": "a red square"}
SR = {"type": "job:submit", "jobType": "sr", "fileRef": "0123abcd"}
COMFY = {"type": "job:submit", "jobType": "comfy", "workflowId": "w"}
DREAM = {"type": "dream:start", "prompt": "fog"}

# (what the client sent, where it is wrong, the stable kind)
BAD_FIELDS = [
    ({"type": "ping", "id": True}, ("id",), "type_error"),
    ({"type": "ping", "id": 1.5}, ("id",), "type_error"),
    ({"type": "ping", "id": []}, ("id",), "type_error"),
    ({"type": "ping", "id": "x" * 201}, ("id",), "too_long"),
    ({"type": "ping", "id": 2**63}, ("id",), "out_of_range"),
    ({"type": "ping", "id": "a\0b"}, ("id",), "invalid_text"),
    ({"type": "ping", "id": "\ud800"}, ("id",), "invalid_text"),
    ({"type": "ping", "extra": 1}, ("extra",), "unknown_field"),
    ({"type": "ping", "\ud800": 1}, ("?",), "unknown_field"),
    ({"type": "hello", "previews": "yes"}, ("previews",), "type_error"),
    ({"type": "hello", "previews": 1}, ("previews",), "type_error"),
    ({"type": "hello", "previews": None}, ("previews",), "type_error"),
    ({"type": "hello", "cursor": -1}, ("cursor",), "out_of_range"),
    ({"type": "resume"}, ("cursor",), "missing"),
    ({"type": "resume", "cursor": "12"}, ("cursor",), "type_error"),
    ({"type": "AUTHENTICATE"}, ("sessionToken",), "missing"),
    ({"type": "AUTHENTICATE", "sessionToken": ""}, ("sessionToken",), "too_short"),
    ({"type": "AUTHENTICATE", "sessionToken": "t", "agentId": 7}, ("agentId",), "type_error"),
    ({"type": "job:submit", "prompt": "x"}, ("jobType",), "missing"),
    ({**SUBMIT, "jobType": "paint"}, ("jobType",), "choice"),
    ({**SUBMIT, "jobType": 1}, ("jobType",), "choice"),
    ({**SUBMIT, "jobType": None}, ("jobType",), "choice"),
    ({"type": "job:submit", "jobType": "generate"}, ("prompt",), "missing"),
    ({"type": "job:submit", "jobType": "generate", "params": {}}, ("params", "prompt"), "missing"),
    ({**SUBMIT, "params": []}, ("params",), "type_error"),
    ({**SUBMIT, "params": None}, ("params",), "type_error"),
    ({**SUBMIT, "params": {"prompt": "another"}}, ("params", "prompt"), "conflict"),
    ({**SUBMIT, "params": {"jobType": "sr"}}, ("params", "jobType"), "unknown_field"),
    ({**SUBMIT, "params": {"priority": 0}}, ("params", "priority"), "unknown_field"),
    ({**SUBMIT, "negativePrompt": "a", "negative_prompt": "b"}, ("negativePrompt",), "conflict"),
    ({**SUBMIT, "prompt": 5}, ("prompt",), "type_error"),
    ({**SUBMIT, "prompt": None}, ("prompt",), "type_error"),
    ({**SUBMIT, "prompt": ["x"]}, ("prompt",), "type_error"),
    ({**SUBMIT, "prompt": "x" * 10_001}, ("prompt",), "too_long"),
    ({**SUBMIT, "prompt": "a\0"}, ("prompt",), "invalid_text"),
    ({**SUBMIT, "prompt": "\udfff"}, ("prompt",), "invalid_text"),
    ({**SUBMIT, "kind": "generate"}, ("kind",), "unknown_field"),
    ({**SUBMIT, "stepz": 3}, ("stepz",), "unknown_field"),
    ({**SUBMIT, "workflowId": "w"}, ("workflowId",), "unknown_field"),
    ({**SUBMIT, "mode": ""}, ("mode",), "too_short"),
    ({**SUBMIT, "size": "512"}, ("size",), "pattern"),
    ({**SUBMIT, "size": "512X512"}, ("size",), "pattern"),
    ({**SUBMIT, "size": "512x512\n"}, ("size",), "pattern"),
    ({**SUBMIT, "size": " 512x512"}, ("size",), "pattern"),
    ({**SUBMIT, "size": "-512x512"}, ("size",), "pattern"),
    ({**SUBMIT, "size": "٥١٢x٥١٢"}, ("size",), "pattern"),
    ({**SUBMIT, "size": ""}, ("size",), "pattern"),
    ({**SUBMIT, "size": [512, 512]}, ("size",), "type_error"),
    ({**SUBMIT, "size": "500x512"}, ("size",), "out_of_range"),
    ({**SUBMIT, "size": "56x512"}, ("size",), "out_of_range"),
    ({**SUBMIT, "size": "512x4104"}, ("size",), "out_of_range"),
    ({**SUBMIT, "size": "0x0"}, ("size",), "out_of_range"),
    ({**SUBMIT, "size": "9" * 5000 + "x512"}, ("size",), "out_of_range"),
    ({**SUBMIT, "num_inference_steps": 0}, ("num_inference_steps",), "out_of_range"),
    ({**SUBMIT, "num_inference_steps": 151}, ("num_inference_steps",), "out_of_range"),
    ({**SUBMIT, "num_inference_steps": 4.5}, ("num_inference_steps",), "type_error"),
    ({**SUBMIT, "num_inference_steps": "4"}, ("num_inference_steps",), "type_error"),
    ({**SUBMIT, "numInferenceSteps": True}, ("numInferenceSteps",), "type_error"),
    ({**SUBMIT, "guidance_scale": 20.1}, ("guidance_scale",), "out_of_range"),
    ({**SUBMIT, "guidance_scale": -0.1}, ("guidance_scale",), "out_of_range"),
    ({**SUBMIT, "guidance_scale": False}, ("guidance_scale",), "type_error"),
    ({**SUBMIT, "guidanceScale": "7"}, ("guidanceScale",), "type_error"),
    ({**SUBMIT, "guidance_scale": 10**400}, ("guidance_scale",), "out_of_range"),
    ({**SUBMIT, "seed": -1}, ("seed",), "out_of_range"),
    ({**SUBMIT, "seed": 2**32}, ("seed",), "out_of_range"),
    ({**SUBMIT, "seed": 10**30}, ("seed",), "out_of_range"),
    ({**SUBMIT, "seed": "7"}, ("seed",), "type_error"),
    ({**SUBMIT, "style_lora": "anime"}, ("style_lora",), "type_error"),
    ({**SUBMIT, "style_lora": {"level": 9}}, ("style_lora", "level"), "out_of_range"),
    ({**SUBMIT, "styleLora": {"style": 3}}, ("styleLora", "style"), "type_error"),
    ({**SUBMIT, "style_lora": {"weight": 1}}, ("style_lora", "weight"), "unknown_field"),
    ({**SUBMIT, "superres": "false"}, ("superres",), "type_error"),
    ({**SUBMIT, "superres_format": "webp"}, ("superres_format",), "choice"),
    ({**SUBMIT, "superres_quality": 0}, ("superres_quality",), "out_of_range"),
    ({**SUBMIT, "superresMagnitude": 4}, ("superresMagnitude",), "out_of_range"),
    ({**SUBMIT, "scheduler": "x" * 101}, ("scheduler",), "too_long"),
    ({**SUBMIT, "priority": "high"}, ("priority",), "choice"),
    ({**SUBMIT, "priority": 4}, ("priority",), "choice"),
    ({**SUBMIT, "priority": -1}, ("priority",), "choice"),
    ({**SUBMIT, "priority": True}, ("priority",), "choice"),
    ({**SUBMIT, "priority": 1.5}, ("priority",), "type_error"),
    ({**SUBMIT, "idempotencyKey": ""}, ("idempotencyKey",), "too_short"),
    ({**SUBMIT, "idempotencyKey": 5}, ("idempotencyKey",), "type_error"),
    ({**SUBMIT, "previews": 0}, ("previews",), "type_error"),
    ({**SR, "fileRef": "fileRef:"}, ("fileRef",), "pattern"),
    ({**SR, "fileRef": "../../etc/passwd"}, ("fileRef",), "pattern"),
    ({**SR, "magnitude": 0}, ("magnitude",), "out_of_range"),
    ({**SR, "outFormat": "gif"}, ("outFormat",), "choice"),
    ({"type": "job:submit", "jobType": "sr"}, ("fileRef",), "missing"),
    ({"type": "job:submit", "jobType": "comfy", "params": {}}, ("workflowId",), "missing"),
    ({**COMFY, "params": "{}"}, ("params",), "type_error"),
    ({**COMFY, "params": {"text": ["a", "\0"]}}, ("params", "text", 1), "invalid_text"),
    ({**COMFY, "params": {"in": {"a\0": 1}}}, ("params", "in"), "invalid_text"),
    ({**COMFY, "params": {"n": 2**64}}, ("params", "n"), "out_of_range"),
    ({**COMFY, "inputImage": 3}, ("inputImage",), "type_error"),
    ({"type": "job:cancel"}, ("jobId",), "missing"),
    ({"type": "job:cancel", "jobId": ""}, ("jobId",), "pattern"),
    ({"type": "job:cancel", "jobId": "a.b"}, ("jobId",), "pattern"),
    ({"type": "job:cancel", "jobId": "*"}, ("jobId",), "pattern"),
    ({"type": "job:cancel", "jobId": "x" * 65}, ("jobId",), "pattern"),
    ({"type": "job:cancel", "jobId": 7}, ("jobId",), "type_error"),
    ({"type": "job:cancel", "job_id": "a"}, ("jobId",), "missing"),
    ({"type": "job:preview", "jobId": "a", "enabled": "on"}, ("enabled",), "type_error"),
    ({"type": "job:priority", "jobId": "a"}, ("priority",), "missing"),
    ({"type": "job:priority", "jobId": "a", "priority": 0, "position": -1}, ("position",), "out_of_range"),
    ({"type": "dream:start"}, ("prompt",), "missing"),
    ({**DREAM, "duration": 0}, ("duration",), "out_of_range"),
    ({**DREAM, "duration_hours": 25}, ("duration_hours",), "out_of_range"),
    ({**DREAM, "duration": 60, "duration_hours": 2}, ("duration_hours",), "conflict"),
    ({**DREAM, "temperature": 1.1}, ("temperature",), "out_of_range"),
    ({**DREAM, "top_k": 9}, ("top_k",), "out_of_range"),
    ({**DREAM, "strategy": "sleep walk"}, ("strategy",), "pattern"),
    ({"type": "dream:top", "limit": 0}, ("limit",), "out_of_range"),
    ({"type": "dream:guide"}, ("params",), "missing"),
    ({"type": "dream:guide", "params": {"temperature": 2}}, ("params", "temperature"), "out_of_range"),
    ({"type": "dream:guide", "params": {"seed": 2}}, ("params", "seed"), "unknown_field"),
    ({"type": "storage:put", "key": "../x", "payload": ""}, ("key",), "pattern"),
    ({"type": "storage:put", "key": "a", "payload": "x" * 65_537}, ("payload",), "too_long"),
    ({"type": "storage:put", "key": "a", "payload": {}}, ("payload",), "type_error"),
]


def refusal(frame: str | bytes) -> FrameError:
    with pytest.raises(FrameError) as caught:
        parse_client_frame(frame)
    error = caught.value
    assert error.message
    assert len(error.message) < 500
    msgspec.json.encode([error.message, error.fields])  # whatever was quoted can be sent back
    return error


@pytest.mark.parametrize("frame", BAD_JSON.values(), ids=BAD_JSON)
def test_a_frame_that_is_no_json_is_invalid_json(frame: str | bytes) -> None:
    assert refusal(frame).code is ErrorCode.INVALID_JSON


@pytest.mark.parametrize("frame", BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_json_that_no_message_looks_like_is_an_invalid_message(frame: str) -> None:
    assert refusal(frame).code is ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("frame", BAD_TYPES.values(), ids=BAD_TYPES)
def test_a_type_that_we_do_not_know_is_named_with_those_we_know(frame: str) -> None:
    error = refusal(frame)
    assert error.code is ErrorCode.UNKNOWN_TYPE
    assert "job:submit" in error.message


@pytest.mark.parametrize(
    ("frame", "loc", "kind"),
    BAD_FIELDS,
    ids=[f"{f['type']}-{'.'.join(map(str, loc))}-{k}" for f, loc, k in BAD_FIELDS],
)
def test_a_wrong_field_is_named_with_its_place_and_kind(
    frame: dict[str, object], loc: tuple[str | int, ...], kind: str
) -> None:
    error = refusal(json.dumps(frame))
    assert error.code is ErrorCode.INVALID_FIELD
    found = {(field.loc, field.type) for field in error.fields}
    assert (loc, kind) in found
    assert len(error.fields) == 1 or kind in ("missing", "choice")


def test_the_tables_hold_well_over_sixty_malformed_frames() -> None:
    assert len(BAD_JSON) + len(BAD_MESSAGES) + len(BAD_TYPES) + len(BAD_FIELDS) >= 60


def test_every_wrong_field_is_named_at_once() -> None:
    error = refusal(
        json.dumps(
            {**SUBMIT, "size": "1x1", "seed": -1, "guidance_scale": 99, "style_lora": {"level": 10}, "x": 0}
        )
    )
    assert {field.loc[0] for field in error.fields} == {"size", "seed", "guidance_scale", "style_lora", "x"}
    assert "4 more" in error.message


def test_a_number_with_an_overflowing_exponent_is_out_of_range() -> None:
    error = refusal('{"type":"job:submit","jobType":"generate","prompt":"x","guidance_scale":1e999}')
    assert [(field.loc, field.type) for field in error.fields] == [(("guidance_scale",), "out_of_range")]


def test_an_answer_stays_small_however_many_fields_are_wrong() -> None:
    frame = {"type": "ping", **{f"field{n}" * 50: n for n in range(1000)}}
    error = refusal(json.dumps(frame))
    assert len(error.fields) == MAX_FIELD_ERRORS
    assert all(len(str(field.loc[0])) <= 61 for field in error.fields)


def test_a_misspelt_field_is_answered_with_the_nearest_name() -> None:
    error = refusal(json.dumps({**SUBMIT, "negative_promt": "x"}))
    assert "'negative_prompt'" in error.fields[0].msg


@pytest.mark.parametrize("client_id", ["abc", "", "é" * 200, 0, -5, 2**63 - 1, 4.0])
@pytest.mark.parametrize(
    "rest",
    [
        '"type":"job:explode"',
        '"type":7',
        '"x":1',
        '"type":"job:cancel"',
        '"type":"ping","type":"ping"',
        '"type":"ping","deep":' + "[" * 100 + "]" * 100,
    ],
)
def test_an_error_carries_the_clients_id(client_id: str | float, rest: str) -> None:
    assert refusal(f'{{"id":{json.dumps(client_id)},{rest}}}').client_id == client_id


@pytest.mark.parametrize("client_id", [True, None, 1.5, [], {}, "x" * 201, "a\0", "\ud800", 2**63])
def test_an_id_of_another_kind_is_not_echoed(client_id: object) -> None:
    assert refusal(json.dumps({"id": client_id, "type": "job:explode"})).client_id is None
