"""Small texts under names, thumbnails of pictures, and the one gateway that sweeps."""

from __future__ import annotations

import asyncio
import io
import time
from urllib.parse import quote

import pytest
from PIL import Image

from reverie_gateway import texts
from reverie_gateway.settings import AuthSettings
from reverie_gateway.sweeper import LEASE_KEY, LEASES, ROUND_S, Sweeper
from reverie_gateway.tokens import issue
from reverie_jobs.mirror import JobMirror, follow
from reverie_jobs.store import JOBS
from reverie_protocol.client_messages import MAX_STORED_TEXT_CHARS
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_runtime.bus.memory import MemoryBus, MemoryServer
from reverie_storage.memory import MemoryStorage
from reverie_storage.port import TTL_S, Name, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "a secret of at least thirty-two bytes"


def bearer(owner):
    return {"Authorization": f"Bearer {issue(SECRET, owner=owner, now=time.time(), lifetime_s=600)}"}


def png(width=640, height=320, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 99 if mode == "L" else (200, 30, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("key", ["note", "dream:12:frame.3", "A" * 200, "0", "healthy", "x_y-z..w"])
async def test_a_text_that_was_put_is_read_back(gateway, key):
    answer = await gateway.http.put(f"/storage/{key}", json={"payload": "grüße\n", "unknown": 1})
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "key": key})
    found = await gateway.http.get(f"/storage/{key}")
    assert (found.status_code, found.content) == (200, "grüße\n".encode())
    headers = found.headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["x-storage-key"] == key
    assert abs(float(headers["x-storage-created-at"]) - time.time()) < 60
    assert headers["cache-control"] == "private, no-cache"
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_name_may_be_percent_encoded(gateway):
    await gateway.http.put("/storage/a%3Ab", json={"payload": "x"})
    assert (await gateway.http.get("/storage/a:b")).content == b"x"


async def test_a_text_has_ranges_and_a_validator_that_changes_with_it(gateway):
    await gateway.http.put("/storage/v", json={"payload": "0123456789"})
    part = await gateway.http.get("/storage/v", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    etag = part.headers["etag"]
    assert (await gateway.http.get("/storage/v", headers={"If-None-Match": etag})).status_code == 304
    head = await gateway.http.head("/storage/v")
    assert (head.headers["content-length"], head.headers["etag"], head.content) == ("10", etag, b"")
    beyond = await gateway.http.get("/storage/v", headers={"Range": "bytes=10-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */10")
    await gateway.http.put("/storage/v", json={"payload": "other"})
    changed = await gateway.http.get("/storage/v", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.content) == (200, b"other")


async def test_the_socket_puts_texts_too_and_echoes_the_id(gateway):
    async with gateway.socket() as client:
        await client.send({"type": "storage:put", "id": "q1", "key": "ws:1", "payload": "from afar"})
        answer = await client.until("storage:put:ok")
        assert answer == {"type": "storage:put:ok", "id": "q1", "key": "ws:1", "url": "/storage/ws:1"}
        for key in ("health", "0" * 64 + ".png", "a/b", "", "../x"):
            await client.send({"type": "storage:put", "id": 2, "key": key, "payload": "x"})
            error = await client.until("error", id=2)
            assert (error["code"], error["fields"][0]["loc"]) == ("invalid_field", ["key"])
        await client.send({"type": "storage:put", "id": 3, "key": "k", "payload": "x" * 65_537})
        assert (await client.until("error", id=3))["fields"][0]["type"] == "too_long"
    assert (await gateway.http.get("/storage/ws:1")).text == "from afar"


@pytest.mark.parametrize("key", ["a/b", "-x", "%2e%2e%2fx", "x" * 201, "0" * 64 + ".png", "a b", "%00", "é"])
async def test_a_name_that_is_none_is_refused(gateway, key):
    answer = await gateway.http.put(f"/storage/{key}", json={"payload": "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert answer.json()["detail"][0]["loc"] == ["path", "key"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "missing"),
        ({"payload": 1}, "type_error"),
        ({"payload": None}, "type_error"),
        ({"payload": "x" * (MAX_STORED_TEXT_CHARS + 1)}, "too_long"),
        ({"payload": "\ud800"}, "invalid_text"),
    ],
)
async def test_a_payload_that_is_no_small_text_is_refused(gateway, body, kind):
    import json

    headers = {"Content-Type": "application/json"}
    answer = await gateway.http.put("/storage/k", content=json.dumps(body), headers=headers)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, kind)
    assert answer.json()["detail"][0]["loc"] == ["body", "payload"]


async def raw_status(gateway, method, path):
    """The status of a request whose path nobody has tidied up on its way."""
    body = b'{"payload": "hostile"}'
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


PLAIN = (
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "named/text/x",
    "..\\x",
    "a\0b",
    "a/../../b",
    ".incoming-x",
)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_a_hostile_key_in_any_encoding_names_nothing(gateway, stage, method):
    await gateway.http.put("/storage/x", json={"payload": "x"})
    there = sorted(path for path in stage.storage_folder.parent.rglob("*") if "nats" not in path.parts)
    encodings = (
        lambda key: quote(key, safe=""),
        lambda key: quote(quote(key, safe=""), safe=""),
        lambda key: quote(key, safe="/").replace(".", "%2e"),
        lambda key: quote(key.replace("/", "\\"), safe=""),
        lambda key: quote(key, safe="").replace("%2F", "%c0%af").replace(".", "%c0%ae"),
        lambda key: quote(key.replace("/", "\uff0f").replace(".", "\uff0e"), safe=""),
        lambda key: "".join(f"%{byte:02x}" for byte in key.encode("utf-16-le")),
        lambda key: "%u002e%u002e%u2215" + quote(key, safe=""),
        lambda key: ";/" + quote(key, safe="/"),
    )
    for key in (encode(key) for encode in encodings for key in PLAIN):
        status = await raw_status(gateway, method, f"/storage/{key}")
        assert status in (404, 422), (key, status)
    assert there == sorted(
        path for path in stage.storage_folder.parent.rglob("*") if "nats" not in path.parts
    )


async def test_the_path_of_health_takes_no_text(gateway):
    answer = await gateway.http.put("/storage/health", json={"payload": "x"})
    assert answer.status_code in (405, 422)
    assert (await gateway.http.get("/storage/health")).json()["ok"]


async def test_with_tokens_a_name_is_each_owners_own(stage):
    gateway = await stage.gateway(auth=AuthSettings(key=SECRET))
    assert (await gateway.http.put("/storage/mine", json={"payload": "x"})).status_code == 401
    for owner in ("ann", "bob"):
        stored = await gateway.http.put("/storage/same", json={"payload": owner}, headers=bearer(owner))
        assert stored.status_code == 200
    for owner in ("ann", "bob"):
        assert (await gateway.http.get("/storage/same", headers=bearer(owner))).text == owner
    assert (await gateway.http.get("/storage/same")).status_code == 401
    assert (await gateway.http.get("/storage/same", headers=bearer("eve"))).status_code == 404
    await gateway.leave()


async def test_an_owner_keeps_texts_up_to_a_bound_and_may_always_replace_them(monkeypatch):
    monkeypatch.setattr(texts, "MAX_OWNER_BYTES", 2 * texts.MIN_COUNTED_BYTES)
    kept = texts.Texts(MemoryStorage())
    for key in ("a", "b", "a", "b"):
        await kept.put(key, "short", owner="me")
    with pytest.raises(ReverieError) as refused:
        await kept.put("c", "", owner="me")
    assert refused.value.code is ErrorCode.RATE_LIMITED
    await kept.put("c", "ü" * texts.MIN_COUNTED_BYTES, owner="they")
    with pytest.raises(ReverieError):
        await kept.put("d", "", owner="they")
    kept = texts.Texts(MemoryStorage())
    monkeypatch.setitem(TTL_S, Shelf.TEXT, -1.0)
    for key in ("a", "b", "c", "d"):  # those that have expired count no more
        await kept.put(key, "gone at once", owner="me")


async def test_a_text_is_read_at_every_gateway(stage, gateway):
    other = await stage.gateway()
    await gateway.http.put("/storage/shared", json={"payload": "x"})
    assert (await other.http.get("/storage/shared")).text == "x"
    await other.leave()


@pytest.mark.parametrize("side", [64, 256, 1024])
async def test_a_thumbnail_is_a_small_webp_that_may_be_cached_for_ever(stage, gateway, side):
    key = await stage.storage.put(png(), content_type="image/png")
    answer = await gateway.http.get(f"/storage/{key}?thumbnail={side}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(answer.content)) as small:
        assert max(small.size) == min(side, 640)
        assert small.width == 2 * small.height
    assert answer.headers["x-storage-key"] == key
    assert "immutable" in answer.headers["cache-control"]
    whole = await gateway.http.head(f"/storage/{key}")
    assert answer.headers["etag"] not in (whole.headers["etag"], "")
    again = await gateway.http.get(
        f"/storage/{key}?thumbnail={side}", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == 304


async def test_a_thumbnail_is_made_once_and_kept(stage, gateway):
    key = await stage.storage.put(png(100, 90), content_type="image/png")
    url = f"/storage/{key}?thumbnail=64"
    answers = await asyncio.gather(*(gateway.http.get(url) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    kept = await stage.storage.find(Name(Shelf.THUMBNAIL, "", f"{key} 64"))
    assert {answer.content for answer in answers} == {kept.content}
    await stage.storage.write(Name(Shelf.THUMBNAIL, "", f"{key} 64"), b"as kept", content_type="image/webp")
    assert (await gateway.http.get(url)).content == b"as kept"


@pytest.mark.parametrize("side", ["0", "65", "-64", "064", "1e2", "99999999999999999999", "", "64 "])
async def test_other_sizes_are_not_made(stage, gateway, side):
    key = await stage.storage.put(png(), content_type="image/png")
    answer = await gateway.http.get(f"/storage/{key}", params={"thumbnail": side})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert answer.json()["detail"][0]["loc"] == ["query", "thumbnail"]


async def test_what_is_no_picture_has_no_thumbnail(stage, gateway):
    for content, content_type in ((b"text", "text/plain"), (b"broken", "image/png")):
        key = await stage.storage.put(content, content_type=content_type)
        answer = await gateway.http.get(f"/storage/{key}?thumbnail=64")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    await gateway.http.put("/storage/no-picture", json={"payload": "text"})
    for side in ("64", "-1"):
        answer = await gateway.http.get(f"/storage/no-picture?thumbnail={side}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    missing = await gateway.http.get(f"/storage/{'0' * 64}.png?thumbnail=64")
    assert missing.status_code == 404


async def test_everything_works_on_a_bucket_of_s3(stage, s3_server, monkeypatch):
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    gateway = await stage.gateway(storage_settings={"url": "s3://pictures/gateway"})
    assert (await gateway.http.get("/storage/health")).json() == {"ok": True, "provider": "s3"}
    status = (await gateway.http.get("/v1/system/status")).json()
    assert status["storage"] == {"ok": True, "provider": "s3"}
    await gateway.http.put("/storage/a:b", json={"payload": "hello"})
    assert (await gateway.http.get("/storage/a:b")).text == "hello"
    content = png()
    reference = (await gateway.http.post("/v1/upload", files={"file": content})).json()["fileRef"]
    await stage.worker()
    body = {"jobType": "generate", "prompt": "x", "initImage": reference}
    url = (await gateway.http.post("/v1/jobs", json=body)).headers["location"]
    key = (await gateway.http.get(url)).json()["params"]["initImage"]
    assert (await gateway.http.get(f"/storage/{key}")).content == content
    part = await gateway.http.get(f"/storage/{key}", headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    assert (await gateway.http.get(f"/storage/{key}?thumbnail=64")).headers["content-type"] == "image/webp"
    await gateway.http.delete(url)
    await gateway.leave()


class Later:
    """A clock that lies ahead, and stops a round's pause until it is told to go on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.paused = asyncio.Queue()
        self._go = asyncio.Semaphore(0)

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.paused.put_nowait(seconds)
            await self._go.acquire()

    def go_on(self) -> None:
        self._go.release()


async def test_one_of_several_gateways_sweeps_in_a_round():
    bus = MemoryBus(MemoryServer())
    storage, clocks = MemoryStorage(), [Later(), Later()]
    await storage.write(Name(Shelf.TEXT, "ann", "k"), b"x", content_type="text/plain")
    leases, mirror = await bus.bucket(LEASES), JobMirror()
    async with follow(mirror, await bus.bucket(JOBS)):
        first, second = (Sweeper(storage, mirror, leases, clock=clock, quota_bytes=0) for clock in clocks)
        clocks[0].ahead_s = clocks[1].ahead_s = 400.0
        async with asyncio.timeout(20):
            await leases.create(LEASE_KEY, b"")  # as if another gateway swept in this round
            async with first.run():
                assert await clocks[0].paused.get() == ROUND_S
                assert [place async for place in storage.places(Shelf.TEXT)]
                await leases.delete(LEASE_KEY)  # as its expiry does
                async with second.run():
                    await clocks[1].paused.get()
                    assert not [place async for place in storage.places(Shelf.TEXT)]


async def test_nothing_is_swept_while_it_is_unknown_what_jobs_refer_to():
    bus = MemoryBus(MemoryServer())
    storage, clock, mirror = MemoryStorage(), Later(), JobMirror()
    key = await storage.put(b"picture", content_type="image/png")
    jobs = await bus.bucket(JOBS)
    sweeper = Sweeper(storage, mirror, await bus.bucket(LEASES), clock=clock, quota_bytes=1)
    clock.ahead_s = 1e6
    assert await sweeper.sweep() is None  # no mirror yet
    await jobs.create("younger", b'{"of": "a later version"}')
    async with follow(mirror, jobs):
        assert await sweeper.sweep() is None
        assert await storage.stat(key) is not None
        await jobs.purge("younger")
        async with asyncio.timeout(20):
            while mirror.unreadable:
                await asyncio.sleep(0.01)
        assert (await sweeper.sweep()).evicted == 1
