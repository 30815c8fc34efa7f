"""What holds for every request: foreign pages, host names, request ids, CORS."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "https://evil.example"
SUBMIT = {"jobType": "generate", "prompt": "x"}


async def test_a_page_from_elsewhere_may_neither_submit_nor_cancel_nor_open_a_socket(gateway, worker):
    for origin in (EVIL, "null", "file://", "http://127.0.0.1.evil.example", "http://evil.example:4200"):
        headers = {"Origin": origin}
        for method, path in (("POST", "/generate"), ("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/x")):
            answer = await gateway.http.request(method, path, headers=headers, content=b"{}")
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), origin
        with pytest.raises(InvalidStatus) as refused:
            async with gateway.socket(origin=origin):
                pass
        assert refused.value.response.status_code == 403
        assert b'"forbidden"' in refused.value.response.body
    answer = await gateway.http.get("/v1/jobs", headers={"Origin": EVIL})
    assert "access-control-allow-origin" not in answer.headers
    assert not worker.mirror.queued


async def test_its_own_page_pages_of_this_machine_and_programs_may(gateway, worker):
    own = gateway.url
    for origin in (
        own,
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "http://[::1]:5173",
        "http://a.localhost",
    ):
        answer = await gateway.http.post("/v1/jobs", json={}, headers={"Origin": origin})
        assert answer.status_code == 422
        assert answer.headers["access-control-allow-origin"] == origin
        async with gateway.socket(origin=origin) as client:
            await client.until("system:status")
    async with gateway.socket() as client:
        await client.until("system:status")


async def test_named_origins_are_allowed_and_told_what_they_may_read(stage):
    gateway = await stage.gateway(cors_origins=("https://studio.example",))
    headers = {"Origin": "https://studio.example"}
    preflight = await gateway.http.options(
        "/v1/jobs", headers=headers | {"Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://studio.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"]
    assert "Idempotency-Key" in allowed
    assert "X-Stainless-Lang" in allowed  # OpenAI's JavaScript client cannot leave it out
    answer = await gateway.http.get("/health", headers=headers)
    assert "X-Seed" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]
    other = {"Origin": "https://studio.example.evil", "Access-Control-Request-Method": "POST"}
    foreign = await gateway.http.options("/v1/jobs", headers=other)
    assert "access-control-allow-origin" not in foreign.headers


async def test_a_foreign_host_name_on_loopback_is_refused_because_it_may_have_been_rebound(gateway, stage):
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "a@localhost",
        "x/y",
        "a b",
        "",
    ):
        answer = await gateway.http.get("/v1/jobs", headers={"Host": host})
        assert answer.status_code == 403, host
    for host in ("localhost", "localhost:1", "127.0.0.1:9", "[::1]:4200", "192.168.0.7:4200", "LOCALHOST"):
        assert (await gateway.http.get("/health", headers={"Host": host})).status_code == 200, host
    proxied = await stage.gateway(allowed_hosts=("reverie.example",))
    answer = await proxied.http.get("/health", headers={"Host": "reverie.example"})
    assert answer.status_code == 200


async def test_every_answer_has_a_request_id_and_keeps_a_sensible_one(gateway):
    made = (await gateway.http.get("/health")).headers["x-request-id"]
    assert made
    assert (await gateway.http.get("/health")).headers["x-request-id"] != made
    mine = await gateway.http.get("/nothing", headers={"X-Request-Id": "mine-1"})
    assert mine.headers["x-request-id"] == mine.json()["requestId"] == "mine-1"
    bad = await gateway.http.get("/health", headers={"X-Request-Id": "a b"})
    assert bad.headers["x-request-id"] != "a b"


async def test_health_readiness_and_metrics_answer(gateway, worker):
    health = await gateway.http.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    ready = await gateway.http.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "reasons": {}, "workers": 1})
    async with gateway.socket() as client:
        await client.settle()
        text = (await gateway.http.get("/metrics")).text
    assert "reverie_gateway_sockets 1.0" in text
    assert 'reverie_gateway_request_seconds_count{route="/health",status="200"}' in text
    assert "reverie_gateway_jobs_queued 0.0" in text


async def test_a_bug_of_ours_is_a_500_that_tells_nothing_but_a_request_id(gateway, worker, monkeypatch):
    def broken(*_args, **_options):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("reverie_gateway.http_generate.parse_generate", broken)
    answer = await gateway.http.post("/generate", json={"prompt": "x"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    monkeypatch.setattr("reverie_gateway.jobs.new_job", broken)
    async with gateway.socket() as client:
        await client.send({"type": "job:submit", "id": 4, **SUBMIT})
        error = await client.until("error")
        assert (error["id"], error["code"]) == (4, "internal")
        assert "secret" not in error["message"]
        await client.settle()


async def raw(gateway, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to some bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_a_client_of_http_1_0_needs_no_host(gateway, worker):
    head, body = await raw(gateway, b"GET /health HTTP/1.0\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert json.loads(body) == {"status": "ok"}
    head, _ = await raw(gateway, b"GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n")
    assert b" 403 " in head.splitlines()[0]


@pytest.mark.parametrize(
    "request_", [b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_http_gets_an_error_with_a_code_and_the_connection_ends(gateway, worker, request_):
    head, body = await raw(gateway, request_)
    assert b" 400 " in head.splitlines()[0]
    assert b"content-type: application/json" in head.lower()
    assert json.loads(body)["code"] == "invalid_message"


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs", "/v1/queue"])
async def test_an_encoded_body_is_refused_instead_of_misread(gateway, worker, path):
    method = "PATCH" if path == "/v1/queue" else "POST"
    for coding in ("gzip", "br", "identity, gzip"):
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        answer = await gateway.http.request(method, path, headers=headers, content=gzip.compress(b"{}"))
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    plain = await gateway.http.request(method, path, headers={"Content-Encoding": "identity"}, content=b"[]")
    assert plain.status_code == 422


async def test_without_a_worker_it_is_ready_to_take_jobs_and_says_that_nobody_does_them(own_stage):
    gateway = await own_stage.gateway()
    ready = await gateway.http.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "reasons": {}, "workers": 0})
    taken = await gateway.http.post("/v1/jobs", json=SUBMIT)
    assert taken.status_code == 202
