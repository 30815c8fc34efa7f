"""What `job:submit`, `POST /v1/jobs` and `POST /generate` accept."""

from __future__ import annotations

import json

import pytest

from reverie_protocol.client_messages import DreamStart, JobPriority, JobSubmit, Ping
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.free_form import MAX_DEPTH
from reverie_protocol.init_image import strength_of
from reverie_protocol.jobs import (
    ComfyParams,
    GenerateParams,
    Lane,
    StyleLora,
    SuperResolutionParams,
    Variation,
)
from reverie_protocol.parsing import (
    decode_json,
    parse_client_frame,
    parse_generate,
    parse_job_submit,
)
from reverie_protocol.validation import validate

FULL = {
    "prompt": "a boat",
    "negative_prompt": "fog",
    "mode": "tiny",
    "size": "512x768",
    "num_inference_steps": 8,
    "guidance_scale": 2,
    "seed": 7,
    "style_lora": {"style": "ink", "level": 3},
    "scheduler": "ddim",
    "superres": True,
    "superres_format": "jpeg",
    "superres_quality": 80,
    "superres_magnitude": 1,
    "initImage": "abc123",
    "maskImage": "fileRef:def456",
    "strength": 0.5,
}
FULL_PARAMS = GenerateParams(
    prompt="a boat",
    negative_prompt="fog",
    mode="tiny",
    size="512x768",
    num_inference_steps=8,
    guidance_scale=2.0,
    seed=7,
    style_lora=StyleLora(style="ink", level=3),
    scheduler="ddim",
    superres=True,
    superres_format="jpeg",
    superres_quality=80,
    superres_magnitude=1,
    initImage="abc123",
    maskImage="def456",
    strength=0.5,
)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def submit(**fields: object) -> JobSubmit:
    message = parse_client_frame(json.dumps({"type": "job:submit", **fields}))
    assert isinstance(message, JobSubmit)
    return message


def test_parameters_may_stand_flat_or_grouped_and_in_camel_case() -> None:
    expected = JobSubmit(params=FULL_PARAMS)
    in_camel_case = {camel(name): value for name, value in FULL.items()}
    assert submit(jobType="generate", **FULL) == expected
    assert submit(jobType="generate", params=FULL) == expected
    assert submit(jobType="generate", **in_camel_case) == expected
    assert submit(jobType="generate", params=in_camel_case) == expected


def test_parameters_in_both_places_are_merged_where_they_agree() -> None:
    message = submit(jobType="generate", prompt="a", params={"prompt": "a", "seed": 3}, seed=3.0)
    assert message.params == GenerateParams(prompt="a", seed=3)


@pytest.mark.parametrize(
    ("flat", "grouped"),
    [
        ({"seed": 1}, {"seed": True}),
        ({"superres": True}, {"superres": 1}),
        ({"style_lora": {"level": 0}}, {"styleLora": {"level": False}}),
    ],
)
def test_a_number_does_not_agree_with_a_boolean(flat: dict[str, object], grouped: object) -> None:
    with pytest.raises(ReverieError) as refused:
        submit(jobType="generate", prompt="a", params=grouped, **flat)
    assert "conflict" in {field.type for field in refused.value.fields}


def test_the_envelope_is_read_beside_the_parameters() -> None:
    message = submit(
        id="mine", jobType="generate", prompt="x", priority="background", idempotencyKey="k", previews=True
    )
    assert (message.id, message.priority, message.idempotency_key, message.previews) == (
        "mine",
        Lane.BACKGROUND,
        "k",
        True,
    )


@pytest.mark.parametrize(
    ("given", "lane"),
    [
        (0, Lane.URGENT),
        (3.0, Lane.BACKGROUND),
        ("urgent", Lane.URGENT),
        ("normal", Lane.NORMAL),
        ("batch", Lane.BATCH),
    ],
)
def test_a_priority_is_a_number_or_the_name_of_a_lane(given: object, lane: Lane) -> None:
    assert submit(jobType="generate", prompt="x", priority=given).priority is lane
    moved = parse_client_frame(json.dumps({"type": "job:priority", "jobId": "a", "priority": given}))
    assert moved == JobPriority(job_id="a", priority=lane)


@pytest.mark.parametrize("reference", ["abc123", "fileRef:abc123"])
def test_a_file_reference_is_accepted_with_and_without_its_prefix(reference: str) -> None:
    assert submit(jobType="sr", fileRef=reference).params == SuperResolutionParams(fileRef="abc123")
    comfy = submit(jobType="comfy", workflowId="w", inputImage=reference)
    assert comfy.params == ComfyParams(workflowId="w", inputImage="abc123")


@pytest.mark.parametrize("name", ["initImage", "init_image"])
def test_a_stored_picture_may_be_named_by_its_key(name: str) -> None:
    key = "0" * 64 + ".png"
    assert submit(jobType="generate", prompt="x", **{name: key}).params.initImage == key
    assert parse_generate({"prompt": "x", name: f"fileRef:{key}"}).initImage == key


PICTURE_CONFLICTS = [
    ({"maskImage": "abc"}, "maskImage", "needs an initImage"),
    ({"strength": 0.5}, "strength", "needs an initImage"),
    ({"initImage": "abc", "strength": 0.1, "num_inference_steps": 8}, "strength", "none of the 8 steps"),
]


@pytest.mark.parametrize(("fields", "wrong", "message"), PICTURE_CONFLICTS)
def test_picture_fields_that_do_not_go_together_are_refused_by_name(
    fields: dict[str, object], wrong: str, message: str
) -> None:
    flat = {"jobType": "generate", "prompt": "x", **fields}
    nested = {"jobType": "generate", "params": {"prompt": "x", **fields}}
    for loc, parse, body in (
        (("body", wrong), parse_job_submit, flat),
        (("body", "params", wrong), parse_job_submit, nested),
        (("body", wrong), parse_generate, flat),
    ):
        with pytest.raises(ReverieError) as caught:
            parse(body)
        (field,) = caught.value.fields
        assert (field.loc, field.type) == (loc, "conflict")
        assert message in field.msg


def test_one_step_with_a_picture_is_taken_whatever_the_default_strength() -> None:
    one = parse_generate({"prompt": "x", "initImage": "abc", "num_inference_steps": 1})
    assert strength_of(one, 1) == 1.0
    assert strength_of(one, 10) == 0.8
    masked = parse_generate({"prompt": "x", "initImage": "abc", "maskImage": "def"})
    assert strength_of(masked, 10) == 1.0


def test_params_of_a_comfy_job_are_the_workflows_own() -> None:
    own = {"prompt": "x", "nested": {"any": [1, None, True, "é"]}, "workflowId": "inner"}
    assert submit(jobType="comfy", workflowId="w", params=own).params == ComfyParams(
        workflowId="w", params=own
    )


def test_params_of_a_comfy_job_may_also_group_all_of_it() -> None:
    message = submit(jobType="comfy", params={"workflowId": "w", "params": {"a": 1}})
    assert message.params == ComfyParams(workflowId="w", params={"a": 1})


def test_free_form_parameters_are_nested_to_a_limit() -> None:
    def nested(levels: int) -> dict[str, object]:
        value: object = "leaf"
        for _ in range(levels):
            value = {"a": value}
        return {"jobType": "comfy", "workflowId": "w", "params": {"deep": value}}

    assert parse_job_submit(nested(MAX_DEPTH - 2)).params
    with pytest.raises(ReverieError) as caught:
        parse_job_submit(nested(10_000))
    assert [(f.loc, f.type) for f in caught.value.fields] == [(("body", "params"), "too_deep")]


def test_a_whole_number_written_as_a_float_is_an_integer() -> None:
    params = submit(jobType="generate", prompt="x", num_inference_steps=4.0).params
    assert isinstance(params, GenerateParams)
    assert type(params.num_inference_steps) is int


def test_an_id_may_be_text_or_a_number() -> None:
    assert parse_client_frame(b'{"type":"ping","id":"a"}') == Ping(id="a")
    assert parse_client_frame('{"type":"ping","id":5}') == Ping(id=5)
    assert parse_client_frame('{"type":"ping","id":null}') == Ping()


def test_the_duration_of_a_dream_is_in_seconds_or_in_the_hours_of_the_http_api() -> None:
    by_map = parse_client_frame('{"type":"dream:start","prompt":"x","duration":7200}')
    by_http = parse_client_frame('{"type":"dream:start","prompt":"x","duration_hours":2}')
    assert by_map == DreamStart(prompt="x", duration=7200.0)
    assert by_http == DreamStart(prompt="x", duration_hours=2.0)


def test_the_starting_noise_of_a_picture_can_be_moved_towards_that_of_other_seeds() -> None:
    params = submit(jobType="generate", prompt="x", seed=1, variations=[{"seed": 2, "weight": 0.25}]).params
    assert isinstance(params, GenerateParams)
    assert params.variations == (Variation(2, 0.25),)


@pytest.mark.parametrize(
    "variations", [[{"seed": 2, "weight": 1.5}], [{"seed": 2}], [{"seed": 1, "weight": 0}] * 17]
)
def test_variations_have_a_seed_and_a_weight_and_are_at_most_sixteen(variations: object) -> None:
    with pytest.raises(ReverieError) as caught:
        submit(jobType="generate", prompt="x", variations=variations)
    assert caught.value.fields[0].loc[0] == "variations"


def test_post_jobs_takes_the_same_body_with_or_without_its_type() -> None:
    body = {"jobType": "generate", "prompt": "x", "priority": "urgent"}
    expected = JobSubmit(params=GenerateParams(prompt="x"), priority=Lane.URGENT)
    assert parse_job_submit(body) == parse_job_submit({**body, "type": "job:submit"}) == expected


@pytest.mark.parametrize("body", [None, [], "x", 3, True])
def test_a_body_that_is_no_object_is_one_wrong_field(body: object) -> None:
    for parse in (parse_job_submit, parse_generate):
        with pytest.raises(ReverieError) as caught:
            parse(body)
        assert caught.value.code is ErrorCode.INVALID_FIELD
        assert [(f.loc, f.type) for f in caught.value.fields] == [(("body",), "type_error")]


def test_places_in_a_body_start_with_body() -> None:
    with pytest.raises(ReverieError) as caught:
        parse_job_submit({"jobType": "generate", "type": "ping", "size": "1"})
    assert {f.loc for f in caught.value.fields} == {("body", "type"), ("body", "prompt"), ("body", "size")}


def test_legacy_generate_ignores_unknown_fields_at_every_level() -> None:
    body = {**FULL, "enable_hr": True, "style_lora": {"style": "ink", "level": 3, "weight": 1}}
    assert parse_generate(body) == FULL_PARAMS


def test_null_within_an_object_is_a_value() -> None:
    with pytest.raises(ReverieError) as refused:
        parse_generate({"prompt": "x", "style_lora": {"style": None, "level": None}})
    (wrong,) = refused.value.fields
    assert (wrong.loc[-2:], wrong.msg) == (("style_lora", "level"), "must be an integer, not null")


def test_legacy_generate_takes_null_for_an_absent_field() -> None:
    body: dict[str, object] = {**dict.fromkeys(FULL), "prompt": "x"}
    assert parse_generate(body) == GenerateParams(prompt="x")
    assert parse_generate({"prompt": "x", "style_lora": {}}) == GenerateParams(prompt="x")
    with pytest.raises(ReverieError, match=r"body\.prompt"):
        parse_generate({**body, "prompt": None})


def test_legacy_generate_names_every_wrong_field() -> None:
    with pytest.raises(ReverieError) as caught:
        parse_generate({"size": "512x511", "seed": 1.5, "superres": "yes", "steps": 4})
    assert {f.loc for f in caught.value.fields} == {
        ("body", "prompt"),
        ("body", "size"),
        ("body", "seed"),
        ("body", "superres"),
    }


def test_unknown_fields_follow_the_type_unless_the_caller_decides() -> None:
    assert validate(GenerateParams, {"prompt": "x", "y": 1}) == GenerateParams(prompt="x")
    with pytest.raises(ReverieError):
        validate(GenerateParams, {"prompt": "x", "y": 1}, forbid_unknown=True)
    with pytest.raises(ReverieError):
        validate(StyleLora, {"y": 1})
    assert validate(StyleLora, {"y": 1}, forbid_unknown=False) == StyleLora()


def test_a_body_is_decoded_or_refused_with_a_code() -> None:
    assert decode_json(b'{"a":[1,2.5,null]}') == {"a": [1, 2.5, None]}
    for body, code in ((b"{", ErrorCode.INVALID_JSON), (b'{"a":1,"a":1}', ErrorCode.INVALID_MESSAGE)):
        with pytest.raises(ReverieError) as caught:
            decode_json(body)
        assert caught.value.code is code
