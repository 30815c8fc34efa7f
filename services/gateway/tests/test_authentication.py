"""Without a valid token nothing is answered but health, the page and what its key opens."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.exceptions import InvalidStatus

from reverie_gateway.app import Parts, build_app
from reverie_gateway.settings import AuthSettings, Settings
from reverie_gateway.tokens import issue
from reverie_runtime.settings import SettingsError, load_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"
#: All that is served without a token; metrics have a rule of their own.
OPEN = {"/", "/health", "/ready", "/schema/openapi.json", "/metrics"}
PRIVATE = Ed25519PrivateKey.generate()
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def token(owner="me", *, lifetime_s=600, **options):
    return issue(SECRET, owner=owner, now=time.time(), lifetime_s=lifetime_s, **options)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(stage):
    """The module's gateway, which asks for tokens."""
    return await stage.gateway(auth=AuthSettings(key=SECRET, public_key=PEM))


def wrong_tokens():
    claims = {"sub": "me", "exp": time.time() + 600}
    return {
        "expired": issue(SECRET, owner="me", now=time.time() - 700, lifetime_s=600),
        "wrong signature": token()[:-10] + "AAAAAAAAAA",
        "another secret": jwt.encode(claims, "x" * 40, algorithm="HS256"),
        "no signature": jwt.encode(claims, None, algorithm="none"),
        "another's private key": jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA"),
        "wrong audience": token(audience="somebody else"),
        "too long a life": token(lifetime_s=7200),
        "no owner": jwt.encode({"exp": claims["exp"]}, SECRET, algorithm="HS256"),
        "not a token": "hello",
    }


def routes():
    app = build_app(Parts(**dict.fromkeys(Parts.__struct_fields__)))
    for route in app.routes:
        for method in getattr(route, "methods", ()):
            path = route.path.replace("{job_id:str}", "abc").replace("{key:path}", "abc.png")
            if method != "OPTIONS" and "{" not in path:
                yield method, path


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in routes() if p not in OPEN])
async def test_every_route_that_is_not_open_wants_a_token(gateway, method, path):
    answer = await gateway.http.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="reverie"'
    assert method == "HEAD" or answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("name", wrong_tokens())
async def test_a_token_that_is_not_to_be_believed_is_refused_without_a_reason(gateway, name):
    text = wrong_tokens()[name]
    answer = await gateway.http.get("/v1/jobs", headers=bearer(text))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="reverie", error="invalid_token"'
    usual = await gateway.http.get("/v1/jobs", headers=bearer("x"))
    assert answer.json()["detail"] == usual.json()["detail"]
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.socket(additional_headers=bearer(text)):
            pass
    assert refused.value.response.status_code == 401


async def test_health_the_page_and_the_description_are_for_everybody(gateway):
    for path in ("/", "/health", "/ready", "/schema/openapi.json"):
        assert (await gateway.http.get(path)).status_code == 200
    assert (await gateway.http.get("/storage/health")).status_code == 401


async def test_who_knows_the_key_of_an_object_may_read_it(gateway, stage):
    key = await stage.storage.put(b"a picture", content_type="image/png")
    assert (await gateway.http.get(f"/storage/{key}")).content == b"a picture"
    assert (await gateway.http.get(f"/storage/{'0' * 64}.png")).status_code == 404
    assert (await gateway.http.get("/storage/a-name")).status_code == 401  # names can be guessed


async def test_both_kinds_of_keys_are_believed(gateway):
    claims = {"sub": "me", "exp": time.time() + 60}
    for text in (token(), jwt.encode(claims, PRIVATE, algorithm="EdDSA")):
        assert (await gateway.http.get("/v1/jobs", headers=bearer(text))).status_code == 200
        async with gateway.socket(additional_headers=bearer(text)) as client:
            await client.until("system:status")


async def test_a_token_in_the_address_or_beside_another_is_none(gateway):
    assert (await gateway.http.get(f"/v1/jobs?token={token()}")).status_code == 401
    twice = [("Authorization", f"Bearer {token()}"), ("Authorization", f"Bearer {token('they')}")]
    assert (await gateway.http.get("/v1/jobs", headers=twice)).status_code == 401
    basic = {"Authorization": f"Basic {token()}"}
    assert (await gateway.http.get("/v1/jobs", headers=basic)).status_code == 401


async def test_metrics_are_for_this_machine_and_for_administrators(gateway):
    forwarded = {"X-Forwarded-For": "192.0.2.1"}
    admin = bearer(token(admin=True))
    assert (await gateway.http.get("/metrics")).status_code == 200
    for sender in ("192.0.2.1", "127.0.0.1"):
        passed_on = {"X-Forwarded-For": sender}
        assert (await gateway.http.get("/metrics", headers=passed_on)).status_code == 401
    assert (await gateway.http.get("/metrics", headers=forwarded | bearer(token()))).status_code == 403
    assert (await gateway.http.get("/metrics", headers=forwarded | admin)).status_code == 200


async def test_a_page_of_an_allowed_origin_may_read_that_it_has_to_log_in(gateway):
    headers = {"Origin": "http://localhost:5173"}
    answer = await gateway.http.get("/v1/jobs", headers=headers)
    assert answer.headers["access-control-allow-origin"] == headers["Origin"]
    preflight = headers | {"Access-Control-Request-Method": "POST"}
    answer = await gateway.http.options("/v1/jobs", headers=preflight)
    assert answer.status_code == 204
    assert "Authorization" in answer.headers["access-control-allow-headers"]


async def test_a_gateway_without_a_key_serves_everybody_as_one_user(stage):
    gateway = await stage.gateway()
    for headers in ({}, bearer("anything")):
        assert (await gateway.http.get("/v1/jobs", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"REVERIE_GATEWAY__HOST": "0.0.0.0"}, ["gateway.host", "auth.key", "auth.open"]),
        ({"REVERIE_GATEWAY__HOST": "::"}, ["gateway.host", "auth.key", "auth.open"]),
        ({"REVERIE_GATEWAY__HOST": "studio.example"}, ["gateway.host"]),
        ({"REVERIE_AUTH__KEY": "short"}, ["auth.key", "32 bytes"]),
    ],
)
async def test_a_gateway_that_strangers_could_use_unasked_does_not_start(environ, names):
    with pytest.raises(SettingsError) as refused:
        load_settings(Settings, config=None, environ=environ)
    sentence = str(refused.value)
    assert all(name in sentence for name in names)
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"REVERIE_GATEWAY__HOST": "localhost"},
        {"REVERIE_GATEWAY__HOST": "::1"},
        {"REVERIE_GATEWAY__HOST": "0.0.0.0", "REVERIE_AUTH__KEY": SECRET},
        {"REVERIE_GATEWAY__HOST": "0.0.0.0", "REVERIE_AUTH__PUBLIC_KEY": PEM},
        {"REVERIE_GATEWAY__HOST": "0.0.0.0", "REVERIE_AUTH__OPEN": "true"},
    ],
)
async def test_on_this_machine_with_a_key_or_when_told_to_it_starts(environ):
    load_settings(Settings, config=None, environ=environ)


async def test_a_public_key_may_stand_in_a_file(stage, tmp_path: Path):
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    gateway = await stage.gateway(auth=AuthSettings(public_key=str(file)))
    believed = jwt.encode({"sub": "me", "exp": time.time() + 60}, PRIVATE, algorithm="EdDSA")
    assert (await gateway.http.get("/v1/jobs", headers=bearer(believed))).status_code == 200
    assert (await gateway.http.get("/v1/jobs", headers=bearer(token()))).status_code == 401
