"""Whatever a client sends, it gets one clear error; sockets stay open and nothing is a 5xx."""

from __future__ import annotations

import json
import tracemalloc

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEEP = 100_000
SUBMIT = {"type": "job:submit", "jobType": "generate", "prompt": "x"}

#: Raw text frames with the code that each is answered with.
FRAMES = [
    ("", "invalid_json"),
    (" ", "invalid_json"),
    ("\n\t", "invalid_json"),
    ("{", "invalid_json"),
    ("}", "invalid_json"),
    ("[", "invalid_json"),
    ("{]", "invalid_json"),
    ('{"type": "ping"', "invalid_json"),
    ('{"type": "ping",}', "invalid_json"),
    ("{'type': 'ping'}", "invalid_json"),
    ("{type: ping}", "invalid_json"),
    ('{"type": "ping"} trailing', "invalid_json"),
    ('{"type": "ping"}{"type": "ping"}', "invalid_json"),
    ("hello", "invalid_json"),
    ("<xml/>", "invalid_json"),
    ("GET / HTTP/1.1", "invalid_json"),
    ("undefined", "invalid_json"),
    ("NaN", "invalid_json"),
    ("-Infinity", "invalid_json"),
    ('{"type": "ping", "id": NaN}', "invalid_json"),
    ("\x00", "invalid_json"),
    ("\ufeff{}", "invalid_json"),
    ("1" * 5000, "invalid_json"),
    ('"\\ud800', "invalid_json"),
    ("[" * DEEP, "invalid_message"),
    ("[" * DEEP + "]" * DEEP, "invalid_message"),
    ('{"a":' * DEEP, "invalid_message"),
    ("a" * 1_000_000, "invalid_json"),
    ('"' + "a" * 1_000_000 + '"', "invalid_message"),
    (" " * 1_100_000, "payload_too_large"),
    ('{"type": "ping", "type": "hello"}', "invalid_message"),
    ("null", "invalid_message"),
    ("true", "invalid_message"),
    ("0", "invalid_message"),
    ("-1e5", "invalid_message"),
    ('"ping"', "invalid_message"),
    ("[]", "invalid_message"),
    ('["ping"]', "invalid_message"),
    ('[{"type": "ping"}]', "invalid_message"),
    ("{}", "unknown_type"),
    ('{"id": 1}', "unknown_type"),
]

#: Messages that are objects, with the code that each is answered with.
MESSAGES = [
    ({"type": None}, "unknown_type"),
    ({"type": 1}, "unknown_type"),
    ({"type": 1.5}, "unknown_type"),
    ({"type": True}, "unknown_type"),
    ({"type": ["ping"]}, "unknown_type"),
    ({"type": {"ping": 1}}, "unknown_type"),
    ({"type": ""}, "unknown_type"),
    ({"type": "PING"}, "unknown_type"),
    ({"type": " ping"}, "unknown_type"),
    ({"type": "ping\x00"}, "unknown_type"),
    ({"type": "job:complete"}, "unknown_type"),
    ({"type": "__class__"}, "unknown_type"),
    ({"type": "x" * 100_000}, "unknown_type"),
    ({"type": "ping", "extra": 1}, "invalid_field"),
    ({"type": "ping", "id": []}, "invalid_field"),
    ({"type": "ping", "id": {}}, "invalid_field"),
    ({"type": "ping", "id": True}, "invalid_field"),
    ({"type": "ping", "id": "x" * 201}, "invalid_field"),
    ({"type": "ping", "id": 10**30}, "invalid_field"),
    ({"type": "hello", "previews": "yes"}, "invalid_field"),
    ({"type": "hello", "previews": 1}, "invalid_field"),
    ({"type": "hello", "cursor": -1}, "invalid_field"),
    ({"type": "hello", "cursor": "1"}, "invalid_field"),
    ({"type": "resume"}, "invalid_field"),
    ({"type": "resume", "cursor": None}, "invalid_field"),
    ({"type": "job:cancel"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": None}, "invalid_field"),
    ({"type": "job:cancel", "jobId": 1}, "invalid_field"),
    ({"type": "job:cancel", "jobId": ""}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "*"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": ">"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "a.b"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "../x"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "x" * 65}, "invalid_field"),
    ({"type": "job:cancel", "jobId": ["a"]}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "a\n"}, "invalid_field"),
    ({"type": "job:cancel", "jobId": "none"}, "job_not_found"),
    ({"type": "job:preview"}, "invalid_field"),
    ({"type": "job:preview", "jobId": "none"}, "job_not_found"),
    ({"type": "job:preview", "jobId": "none", "enabled": "on"}, "invalid_field"),
    ({"type": "job:priority", "jobId": "none", "priority": 9}, "invalid_field"),
    ({"type": "job:submit"}, "invalid_field"),
    ({"type": "job:submit", "jobType": "paint"}, "invalid_field"),
    ({"type": "job:submit", "jobType": 1}, "invalid_field"),
    ({"type": "job:submit", "jobType": None}, "invalid_field"),
    ({"type": "job:submit", "jobType": "generate"}, "invalid_field"),
    ({"type": "job:submit", "jobType": "generate", "params": []}, "invalid_field"),
    ({"type": "job:submit", "jobType": "generate", "params": "x"}, "invalid_field"),
    ({"type": "job:submit", "jobType": "generate", "params": {"prompt": 1}}, "invalid_field"),
    (SUBMIT | {"prompt": 1}, "invalid_field"),
    (SUBMIT | {"prompt": None}, "invalid_field"),
    (SUBMIT | {"prompt": ["a"]}, "invalid_field"),
    (SUBMIT | {"prompt": "x" * 10_001}, "invalid_field"),
    (SUBMIT | {"prompt": "a\x00b"}, "invalid_field"),
    (SUBMIT | {"prompt": "\ud800"}, "invalid_field"),
    (SUBMIT | {"size": "big"}, "invalid_field"),
    (SUBMIT | {"size": "0x0"}, "invalid_field"),
    (SUBMIT | {"size": "64x63"}, "invalid_field"),
    (SUBMIT | {"size": "4104x64"}, "invalid_field"),
    (SUBMIT | {"size": "-64x64"}, "invalid_field"),
    (SUBMIT | {"size": "64x64\n"}, "invalid_field"),
    (SUBMIT | {"size": [64, 64]}, "invalid_field"),
    (SUBMIT | {"size": "9" * 4000 + "x64"}, "invalid_field"),
    (SUBMIT | {"num_inference_steps": 0}, "invalid_field"),
    (SUBMIT | {"num_inference_steps": 151}, "invalid_field"),
    (SUBMIT | {"num_inference_steps": 4.5}, "invalid_field"),
    (SUBMIT | {"num_inference_steps": "4"}, "invalid_field"),
    (SUBMIT | {"num_inference_steps": True}, "invalid_field"),
    (SUBMIT | {"guidance_scale": -0.1}, "invalid_field"),
    (SUBMIT | {"guidance_scale": 20.1}, "invalid_field"),
    (SUBMIT | {"guidance_scale": 10**400}, "invalid_field"),
    (SUBMIT | {"seed": -1}, "invalid_field"),
    (SUBMIT | {"seed": 2**32}, "invalid_field"),
    (SUBMIT | {"seed": 1.5}, "invalid_field"),
    (SUBMIT | {"style_lora": []}, "invalid_field"),
    (SUBMIT | {"style_lora": {"level": 9}}, "invalid_field"),
    (SUBMIT | {"style_lora": {"levle": 1}}, "invalid_field"),
    (SUBMIT | {"superres": "true"}, "invalid_field"),
    (SUBMIT | {"superres_format": "bmp"}, "invalid_field"),
    (SUBMIT | {"superres_quality": 0}, "invalid_field"),
    (SUBMIT | {"superres_magnitude": 4}, "invalid_field"),
    (SUBMIT | {"scheduler": ""}, "invalid_field"),
    (SUBMIT | {"scheduler": "none such"}, "invalid_field"),
    (SUBMIT | {"mode": ""}, "invalid_field"),
    (SUBMIT | {"mode": "none such"}, "mode_not_found"),
    (SUBMIT | {"mode": "x" * 201}, "invalid_field"),
    (SUBMIT | {"priority": 4}, "invalid_field"),
    (SUBMIT | {"priority": "soon"}, "invalid_field"),
    (SUBMIT | {"idempotencyKey": ""}, "invalid_field"),
    (SUBMIT | {"idempotencyKey": "k" * 201}, "invalid_field"),
    (SUBMIT | {"idempotencyKey": 1}, "invalid_field"),
    (SUBMIT | {"previews": "all"}, "invalid_field"),
    (SUBMIT | {"kind": "generate"}, "invalid_field"),
    (SUBMIT | {"owner": "somebody else"}, "invalid_field"),
    (SUBMIT | {"__proto__": {}}, "invalid_field"),
    ({"type": "job:submit", "jobType": "sr"}, "invalid_field"),
    ({"type": "job:submit", "jobType": "sr", "fileRef": "../x"}, "invalid_field"),
    ({"type": "job:submit", "jobType": "sr", "fileRef": "abc"}, "file_not_found"),
    ({"type": "job:submit", "jobType": "comfy", "workflowId": ""}, "invalid_field"),
    ({"type": "job:submit", "jobType": "comfy", "workflowId": "w"}, "comfy_unreachable"),
    ({"type": "dream:start"}, "invalid_field"),
    ({"type": "dream:start", "prompt": "x"}, "service_unavailable"),
    ({"type": "dream:stop"}, "service_unavailable"),
    ({"type": "storage:put", "key": "health", "payload": "b"}, "invalid_field"),
]


async def test_each_malformed_frame_is_answered_and_the_socket_stays_open(gateway, worker):
    assert len(FRAMES) + len(MESSAGES) >= 100
    async with gateway.socket() as client:
        for frame, code in FRAMES:
            await client.connection.send(frame)
            error = await client.until("error")
            assert error["code"] == code, frame[:80]
            assert set(error) <= {"type", "id", "code", "message", "retryable", "fields"}
        for number, (message, code) in enumerate(MESSAGES):
            text = json.dumps({"id": number} | message)
            await client.connection.send(text)
            error = await client.until("error")
            assert error["code"] == code, (text[:200], error)
            if "id" not in message:
                assert error["id"] == number
            assert bool(error.get("fields")) == (code in ("invalid_field", "file_not_found")), error
        await client.settle()
    assert not worker.mirror.queued


async def test_binary_frames_are_refused_and_the_socket_stays_open(gateway, worker):
    async with gateway.socket() as client:
        for frame in (b"", b"\x00\xff", b'{"type": "ping"}', b"x" * 1_000_000):
            await client.connection.send(frame)
            assert (await client.until("error"))["code"] == "unsupported_frame"
        await client.settle()


async def test_fragmented_and_hurried_frames_are_answered_one_by_one(gateway, worker):
    async with gateway.socket() as client:
        await client.connection.send(["{", '"type": "pi', 'ng", "id": 9}'])
        await client.until("pong", id=9)
        for number in range(500):
            await client.connection.send("{" if number % 2 else json.dumps({"type": "ping", "id": number}))
        await client.settle()
    assert [message["type"] for message in client.seen if message["type"] == "error"] == ["error"] * 250


BODIES = [
    (b"", 400),
    (b" ", 400),
    (b"{", 400),
    (b"prompt=x", 400),
    (b"\xff\xfe", 400),
    (b'{"prompt": "\xff"}', 400),
    (b'{"prompt": NaN}', 400),
    (b"\x00" * 100, 400),
    (b'{"prompt": "x"} and more', 400),
    (b"[" * DEEP, 422),
    (b"null", 422),
    (b"true", 422),
    (b"1", 422),
    (b'"prompt"', 422),
    (b"[]", 422),
    (b'[{"prompt": "x"}]', 422),
    (b"{}", 422),
    (b'{"prompt": null}', 422),
    (b'{"prompt": 1}', 422),
    (b'{"prompt": {"a": 1}}', 422),
    (b'{"prompt": "x", "prompt": "y"}', 422),
    (b'{"prompt": "x", "size": "1x1"}', 422),
    (b'{"prompt": "x", "size": 512}', 422),
    (b'{"prompt": "x", "seed": "7"}', 422),
    (b'{"prompt": "x", "seed": 1e400}', 422),
    (b'{"prompt": "x", "guidance_scale": "1"}', 422),
    (b'{"prompt": "x", "style_lora": "ink"}', 422),
    (b'{"prompt": "x", "superres": null, "superres_quality": 101}', 422),
    (b'{"prompt": "\\ud800"}', 422),
    (b'{"prompt": "' + b"x" * 10_001 + b'"}', 422),
    (b'{"prompt": "x", "junk": "' + b"x" * 1_100_000 + b'"}', 413),
]


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
async def test_each_malformed_body_is_a_clear_4xx(gateway, worker, path):
    for body, status in BODIES:
        answer = await gateway.http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (body[:80], answer.text)
        told = answer.json()
        assert {"detail", "code", "requestId"} <= told.keys()
        assert told["requestId"] == answer.headers["x-request-id"]
        if status == 422:
            assert all(set(entry) == {"loc", "msg", "type"} for entry in told["detail"]), told
            assert all(entry["loc"][0] == "body" for entry in told["detail"]), told
        else:
            assert isinstance(told["detail"], str)
    assert not worker.mirror.queued


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
async def test_a_body_of_another_type_is_a_415(gateway, worker, content_type):
    answer = await gateway.http.post(
        "/generate", content=b'{"prompt": "x"}', headers={"Content-Type": content_type}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_body_of_20_mb_is_refused_without_being_kept(gateway, worker):
    async def chunks():
        for _ in range(320):
            yield b"x" * 65_536

    async def refused(content) -> None:
        headers = {"Content-Type": "application/json"}
        answer = await gateway.http.post("/generate", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")

    await refused(b"x" * 20_971_520)
    tracemalloc.start()  # the client holds one chunk at a time here, so what is kept is kept by the gateway
    try:
        await refused(chunks())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10 << 20


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/jobs/x/y", 404),
        ("GET", "/generate", 405),
        ("PUT", "/v1/jobs", 405),
        ("POST", "/health", 405),
        ("DELETE", "/storage/x", 405),
        ("BREW", "/generate", 405),
        ("GET", "/v1/ws", 405),
        ("POST", "/v1/ws", 405),
    ],
)
async def test_unknown_paths_and_methods_are_json_errors_too(gateway, method, path, status):
    answer = await gateway.http.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == {404: "not_found", 405: "method_not_allowed"}[status]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/generate", "OPTIONS, POST"),
        ("/v1/jobs", "GET, OPTIONS, POST"),
        ("/v1/jobs/x", "DELETE, GET, OPTIONS, PATCH"),
        ("/v1/queue", "GET, OPTIONS, PATCH"),
        ("/storage/x", "GET, HEAD, OPTIONS, PUT"),
    ],
)
async def test_options_names_every_method_of_a_path(gateway, path, methods):
    answer = await gateway.http.options(path)
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)
