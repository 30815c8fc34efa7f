"""Dreams through a gateway: what it asks the dreams service, what it answers, and whom it tells."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
import pytest_asyncio

from reverie_gateway.settings import AuthSettings
from reverie_gateway.tokens import issue
from reverie_protocol.dream_control import AnyDreamRequest, DreamAnswer, GuideDream, RecentDreams, TopDreams
from reverie_protocol.dreams import (
    DreamCandidate,
    DreamCandidateEvent,
    DreamGuidance,
    DreamPlan,
    DreamSession,
    DreamState,
    DreamStats,
    DreamStatusEvent,
)
from reverie_protocol.errors import ErrorCode, FieldError
from reverie_protocol.subjects import DREAM_CTL, DREAM_STATUS, dream_candidate

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
STATS = DreamStats(is_dreaming=True, dream_count=7, candidates=3, top_k=100, elapsed_seconds=2.0, scored=6)


def bearer(owner, *, admin=False):
    token = issue(SECRET, owner=owner, admin=admin, now=time.time(), lifetime_s=600)
    return {"Authorization": f"Bearer {token}"}


MINE, THEIRS, ADMIN = bearer("me"), bearer("they"), bearer("root", admin=True)


def session_of(owner="me", **changes):
    session = DreamSession(
        id="s1",
        owner=owner,
        state=DreamState.DREAMING,
        plan=DreamPlan(prompt="fog"),
        stats=STATS,
        started_at=1.0,
        ends_at=2.0,
        updated_at=1.0,
    )
    return msgspec.structs.replace(session, **changes)


class BenchDreams:
    """Answers what gateways ask about dreams as the test says, on the real bus."""

    def __init__(self, bus):
        self.bus = bus
        self.asked = []
        self.answer = DreamAnswer(session=session_of())

    @asynccontextmanager
    async def running(self):
        subscription = await self.bus.subscribe(DREAM_CTL, self._answer)
        try:
            yield self
        finally:
            await subscription.unsubscribe()

    async def _answer(self, message):
        self.asked.append(msgspec.json.decode(message.data, type=AnyDreamRequest))
        await self.bus.publish(message.reply, msgspec.json.encode(self.answer))

    async def tell_status(self, owner="me"):
        event = DreamStatusEvent(session_id="s1", owner=owner, state=DreamState.DREAMING, stats=STATS)
        await self.bus.publish(DREAM_STATUS, msgspec.json.encode(event))

    async def tell_candidate(self, candidate, owner="me"):
        event = DreamCandidateEvent(session_id="s1", owner=owner, candidate=candidate)
        await self.bus.publish(dream_candidate("s1"), msgspec.json.encode(event))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET))


@pytest_asyncio.fixture(loop_scope="module")
async def dreams(stage):
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(BenchDreams(await stage.bus("bench-dreams")).running())


async def asked(client, kind, **fields):
    await client.send({"type": kind, "id": "q", **fields})
    while True:
        message = await client.next()
        if isinstance(message, dict) and message.get("id") == "q":
            return message


async def test_a_session_is_begun_steered_and_stopped_on_the_socket(gateway, dreams):
    async with gateway.socket(additional_headers=MINE) as client:
        started = await asked(client, "dream:start", prompt="fog", duration=60, strategy="slerp", seed=4)
        assert started == {"type": "dream:started", "id": "q", "sessionId": "s1"}
        plan = dreams.asked[-1].plan
        assert (plan.prompt, plan.duration_s, plan.strategy, plan.seed) == ("fog", 60, "slerp", 4)
        assert not dreams.asked[-1].draw_seed
        await asked(client, "dream:start", prompt="fog", duration_hours=2)
        assert (dreams.asked[-1].plan.duration_s, dreams.asked[-1].draw_seed) == (7200, True)

        guidance = DreamGuidance(temperature=0.1, more_like=(3,))
        dreams.answer = DreamAnswer(session=session_of(guidance=guidance))
        guided = await asked(client, "dream:guide", params={"temperature": 0.1, "more_like": [3]})
        assert (guided["type"], guided["params"]["temperature"]) == ("dream:guide:ok", 0.1)
        assert isinstance(dreams.asked[-1], GuideDream)
        assert dreams.asked[-1].guidance == guidance
        stopped = await asked(client, "dream:stop")
        assert (stopped["type"], stopped["stats"]["dream_count"]) == ("dream:stopped", 7)
        assert {request.owner for request in dreams.asked} == {"me"}
        assert not any(request.admin for request in dreams.asked)


async def test_a_session_is_begun_and_stopped_by_http_in_the_shapes_of_the_old_api(gateway, dreams):
    body = {"prompt": "fog", "duration_hours": 0.5, "unknown": 1, "strategy": None}
    answer = await gateway.http.post("/dreams/start", json=body, headers=MINE)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "started",
        "sessionId": "s1",
        "base_prompt": "fog",
        "duration_hours": 0.5,
        "top_k": 100,
    }
    assert dreams.asked[-1].plan.duration_s == 1800
    answer = await gateway.http.post("/dreams/stop", headers=MINE)
    assert answer.json() == {"status": "stopped", "total_dreams": 7, "candidates_kept": 3}
    dreams.answer = DreamAnswer(code=ErrorCode.SESSION_NOT_FOUND, message="there is no such dream session")
    answer = await gateway.http.post("/dreams/stop", headers=MINE)
    assert answer.json() == {"status": "stopped", "total_dreams": 0, "candidates_kept": 0}
    assert (await gateway.http.get("/dreams/status", headers=MINE)).json()["is_dreaming"] is False
    assert (await gateway.http.get("/dreams/top", headers=MINE)).json() == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DreamAnswer(code=ErrorCode.ALREADY_DREAMING, message="already dreaming: session s0"), 400),
        (
            DreamAnswer(
                code=ErrorCode.INVALID_FIELD,
                message="strategy: must be one of grid, slerp",
                fields=(FieldError(("strategy",), "must be one of grid, slerp", "choice"),),
            ),
            422,
        ),
        (DreamAnswer(code=ErrorCode.MODE_NOT_FOUND, message="there is no mode 'x'"), 404),
    ],
    ids=["already", "strategy", "mode"],
)
async def test_what_the_service_refuses_comes_back_with_its_own_status(gateway, dreams, error, status):
    dreams.answer = error
    answer = await gateway.http.post("/dreams/start", json={"prompt": "fog"}, headers=MINE)
    assert (answer.status_code, answer.json()["code"]) == (status, error.code)
    async with gateway.socket(additional_headers=MINE) as client:
        refused = await asked(client, "dream:start", prompt="fog")
        assert (refused["type"], refused["code"], refused["message"]) == ("error", error.code, error.message)


async def test_the_best_and_the_latest_are_listed_with_filters_and_pages(gateway, dreams, stage):
    key = await stage.storage.put(b"a picture", content_type="image/png")
    found = DreamCandidate(
        id=3, seed=5, score=0.9, prompt="fog, calm", rendered=True, url=f"/storage/{key}", parents=(1,)
    )
    dreams.answer = DreamAnswer(session=session_of(), candidates=(found,), total=9)
    for kind, verb in (("top", TopDreams), ("recent", RecentDreams)):
        query = "?limit=5&offset=1&min_score=0.5&rendered_only=true"
        answer = await gateway.http.get(f"/dreams/{kind}{query}", headers=MINE)
        [row] = answer.json()
        assert (row["seed"], row["score"], row["rendered"], row["prompt"]) == (5, 0.9, True, "fog, calm")
        assert row["image_data"] == "YSBwaWN0dXJl"
        request = dreams.asked[-1]
        assert isinstance(request, verb)
        assert (request.limit, request.offset, request.min_score, request.rendered_only) == (5, 1, 0.5, True)
        page = (await gateway.http.get(f"/v1/dreams/s1/{kind}{query}", headers=MINE)).json()
        assert (page["sessionId"], page["total"], page["candidates"][0]["id"]) == ("s1", 9, 3)
        async with gateway.socket(additional_headers=MINE) as client:
            result = await asked(client, f"dream:{kind}", limit=5, min_score=0.5)
            assert (result["type"], result["total"]) == (f"dream:{kind}:result", 9)
            assert result["candidates"][0]["parents"] == [1]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "min_score=2", "rendered_only=perhaps", "offset=-1"])
async def test_a_wrong_filter_is_a_422_that_names_it(gateway, dreams, query):
    for path in ("/dreams/top", "/dreams/recent", "/v1/dreams/s1/top"):
        answer = await gateway.http.get(f"{path}?{query}", headers=MINE)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_states_and_finds_go_to_the_sockets_of_the_owner_alone(gateway, dreams):
    async with (
        gateway.socket(additional_headers=MINE) as mine,
        gateway.socket(additional_headers=THEIRS) as theirs,
        gateway.socket(additional_headers=ADMIN) as admin,
    ):
        for client in (mine, theirs, admin):
            await client.settle()
        await dreams.tell_status()
        status = await mine.until("dream:status")
        assert (status["sessionId"], status["state"]) == ("s1", "dreaming")
        assert status["stats"]["dreams_per_hour"] == 0
        candidate = DreamCandidate(
            id=3, seed=5, score=0.9, thumbnail_url="/storage/x.png?thumbnail=256", scores={"builtin": 0.9}
        )
        await dreams.tell_candidate(candidate)
        found = await mine.until("dream:candidate")
        assert (found["candidateId"], found["seed"], found["score"]) == (3, 5, 0.9)
        assert found["thumbnailUrl"].startswith("/storage/")
        for client in (theirs, admin):
            await client.settle()
            assert not any(message["type"].startswith("dream:") for message in client.seen)
    for path in ("/dreams/status", "/dreams/stats"):
        dreams.answer = DreamAnswer(session=session_of())
        shown = (await gateway.http.get(path, headers=MINE)).json()
        assert (shown["is_dreaming"], shown["dream_count"], shown["elapsed_seconds"]) == (True, 7, 2.0)
        assert ("dreams_per_hour" in shown) == (path == "/dreams/stats")


async def test_who_asks_is_said_by_the_gateway_and_everybodys_sessions_are_for_administrators(
    gateway, dreams
):
    dreams.answer = DreamAnswer(session=session_of(), sessions=(session_of(),), total=1)
    for who, owner, admin in ((MINE, "me", False), (ADMIN, "root", True)):
        for method, path, body in (
            ("GET", "/v1/dreams/s1", None),
            ("PATCH", "/v1/dreams/s1", {"temperature": 0.3}),
            ("POST", "/v1/dreams/s1/stop", None),
            ("GET", "/v1/dreams/s1/top", None),
        ):
            answer = await gateway.http.request(method, path, json=body, headers=who)
            assert answer.status_code == 200, answer.text
            request = dreams.asked[-1]
            assert (request.owner, request.admin, request.session_id) == (owner, admin, "s1")
        await gateway.http.get("/v1/dreams?owner=*", headers=who)
        assert (dreams.asked[-1].owner, dreams.asked[-1].admin) == (owner, admin)
        await gateway.http.get("/v1/dreams", headers=who)
        assert not dreams.asked[-1].admin
    assert (await gateway.http.get("/v1/dreams/a.b", headers=MINE)).status_code == 404


async def test_without_the_service_everything_about_dreams_is_unavailable(gateway):
    for method, path in (("POST", "/dreams/stop"), ("GET", "/dreams/status"), ("GET", "/v1/dreams")):
        answer = await gateway.http.request(method, path, headers=MINE)
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
