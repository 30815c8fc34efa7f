"""`/storage`: whole objects and parts of them, validators, hostile keys, a store that is gone."""

from __future__ import annotations

import os
import stat

import httpx
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks


async def stored(stage, content=CONTENT, content_type="image/png"):
    return await stage.storage.put(content, content_type=content_type)


async def test_an_object_comes_whole_with_its_type_and_may_be_cached_for_ever(stage, gateway):
    key = await stored(stage)
    answer = await gateway.http.get(f"/storage/{key}")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    headers = answer.headers
    assert headers.get_list("content-type") == ["image/png"]
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["x-storage-key"] == key
    assert float(headers["x-storage-created-at"]) > 1_700_000_000
    assert headers["etag"] == f'"{key.partition(".")[0]}"'
    assert headers["accept-ranges"] == "bytes"
    assert headers["x-content-type-options"] == "nosniff"
    assert "immutable" in headers["cache-control"]


async def test_a_head_has_the_same_headers_and_no_body(stage, gateway):
    key = await stored(stage)
    whole, head = await gateway.http.get(f"/storage/{key}"), await gateway.http.head(f"/storage/{key}")
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in whole.headers.items() if k not in ignored
    }
    assert (await gateway.http.head("/storage/nothing")).status_code == 404


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_client_that_has_it_is_told_so(stage, gateway, form):
    key = await stored(stage)
    etag = (await gateway.http.head(f"/storage/{key}")).headers["etag"]
    answer = await gateway.http.get(f"/storage/{key}", headers={"If-None-Match": form.format(etag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    other = await gateway.http.get(f"/storage/{key}", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=300000-700000", 300_000, 700_001),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=5-", 5, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=-99999999", 0, SIZE),
        ("bytes=0-99999999", 0, SIZE),
    ],
)
async def test_a_range_comes_as_206(stage, gateway, header, start, stop):
    answer = await gateway.http.get(f"/storage/{await stored(stage)}", headers={"Range": header})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.content == CONTENT[start:stop]


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", "bytes=99999999-", "bytes=-0"])
async def test_a_range_outside_is_a_416_that_tells_the_size(stage, gateway, header):
    answer = await gateway.http.get(f"/storage/{await stored(stage)}", headers={"Range": header})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "header", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=1-2,5-6", "bytes=-", "", "x" * 999]
)
async def test_a_range_that_makes_no_sense_is_ignored(stage, gateway, header):
    answer = await gateway.http.get(f"/storage/{await stored(stage)}", headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


async def test_a_part_of_another_version_is_not_handed_out(stage, gateway):
    key = await stored(stage)
    etag = (await gateway.http.head(f"/storage/{key}")).headers["etag"]
    ask = {"Range": "bytes=0-3"}
    same = await gateway.http.get(f"/storage/{key}", headers=ask | {"If-Range": etag})
    other = await gateway.http.get(f"/storage/{key}", headers=ask | {"If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


@pytest.mark.parametrize(
    "key",
    [
        "nothing",
        "0" * 64 + ".png",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "....//etc/passwd",
        "%00",
        "a%00.png",
        "0" * 64 + ".png%0a",
        "0" * 64 + "%2fx.png",
        "C:%5cwindows",
        ".incoming-x",
        "%C3%A9",
        "x" * 3000,
        "~root",
        "key:with:colons",
    ],
)
async def test_a_hostile_or_unknown_key_is_a_404(gateway, key):
    connection = httpx.AsyncHTTPTransport()
    request = httpx.Request("GET", f"{gateway.url}/storage/x")
    request.url = httpx.URL(f"{gateway.url}/storage/").copy_with(raw_path=f"/storage/{key}".encode())
    answer = await connection.handle_async_request(request)
    body = await answer.aread()
    await connection.aclose()
    assert answer.status_code == 404, body
    assert b'"not_found"' in body
    assert b"root:" not in body


async def test_text_is_served_as_text(stage, gateway):
    key = await stored(stage, b"<script>alert(1)</script>", "text/plain")
    answer = await gateway.http.get(f"/storage/{key}")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_health_says_that_the_store_works_or_why_not(stage, tmp_path):
    broken = tmp_path / "store"
    broken.write_text("a file where a folder should be")
    gateway = await stage.gateway(storage_path=broken)
    answer = await gateway.http.get("/storage/health")
    assert (answer.status_code, answer.json()["ok"]) == (503, False)
    assert answer.json()["provider"] == "filesystem"
    assert str(tmp_path) not in answer.text
    ready = await gateway.http.get("/ready")
    assert (ready.status_code, set(ready.json()["reasons"])) == (503, {"storage"})
    broken.unlink()
    answer = await gateway.http.get("/storage/health")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "provider": "filesystem"})
    assert (await gateway.http.get("/ready")).status_code == 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_an_object_that_cannot_be_read_is_a_503_before_any_byte(stage, gateway):
    key = await stored(stage, b"locked")
    path = stage.storage_folder / key[:2] / key
    path.chmod(stat.S_IWUSR)
    answer = await gateway.http.get(f"/storage/{key}")
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
