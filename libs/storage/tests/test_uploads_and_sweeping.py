"""What a reference stands for and for how long; what a sweep takes away and what it never touches."""

from __future__ import annotations

import io
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from PIL import Image

from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.pictures import Pictures
from reverie_storage.port import Name, Shelf, StorageUnavailable, url_of
from reverie_storage.settings import StorageSettings, open_storage
from reverie_storage.sweeping import GRACE_S, MOST_LEFT_IN_A_ROW, sweep
from reverie_storage.uploads import Uploads


class Store:
    """A store whose clock can be put forward, with uploads in it."""

    def __init__(self, folder: Path) -> None:
        self.ahead_s = 0.0
        self.folder = folder
        self.storage = FilesystemStorage(folder / "store", now=self.now)
        self.uploads = Uploads(self.storage, Pictures(), new_reference=lambda: secrets.token_hex(16))

    def now(self) -> float:
        return time.time() + self.ahead_s

    async def upload(self, *, owner: str = "ann", colour: str = "red"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        path = self.folder / "upload"
        path.write_bytes(buffer.getvalue())
        return await self.uploads.keep(path, owner=owner)

    async def sweep(self, *referred: str, quota_bytes: int = 0):
        return await sweep(self.storage, referred=lambda: referred, now=self.now(), quota_bytes=quota_bytes)

    async def has(self, key: str) -> bool:
        return await self.storage.stat(key) is not None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


async def test_a_reference_leads_to_its_picture_with_and_without_prefix(store: Store) -> None:
    kept = await store.upload()
    assert (kept.width, kept.height, kept.content_type) == (8, 8, "image/png")
    for given in (kept.reference, f"fileRef:{kept.reference}", kept.reference):
        assert (await store.uploads.resolve(given, owner="ann")).key == kept.key


async def test_the_key_of_a_stored_picture_is_a_reference_too(store: Store) -> None:
    kept = await store.upload()
    assert (await store.uploads.resolve(f"fileRef:{kept.key}", owner="bob")).key == kept.key


@pytest.mark.parametrize("given", ["0" * 32, "", "fileRef:", "x", "../../etc/passwd", "0" * 64 + ".png"])
async def test_a_reference_that_nobody_has_is_not_found(store: Store, given: str) -> None:
    with pytest.raises(ReverieError) as missing:
        await store.uploads.resolve(given, owner="ann")
    assert missing.value.code == ErrorCode.FILE_NOT_FOUND


async def test_a_text_is_no_picture(store: Store) -> None:
    key = await store.storage.put(b"hello", content_type="text/plain")
    with pytest.raises(ReverieError):
        await store.uploads.resolve(key, owner="ann")


async def test_anothers_and_an_expired_reference_are_as_unknown_as_none(store: Store) -> None:
    kept = await store.upload(owner="ann")
    messages = set()
    for reference, owner, ahead_s in (
        ("0" * 32, "bob", 0),
        (kept.reference, "bob", 0),
        (kept.reference, "ann", 301),
    ):
        store.ahead_s = ahead_s
        with pytest.raises(ReverieError) as missing:
            await store.uploads.resolve(reference, owner=owner)
        messages.add(missing.value.message)
    assert len(messages) == 1


async def test_what_follows_a_cameras_first_picture_is_not_stored(store: Store) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    path = store.folder / "upload"
    path.write_bytes(buffer.getvalue() * 2)
    kept = await store.uploads.keep(path, owner="ann")
    found = await store.storage.stat(kept.key)
    assert found is not None
    assert found.size_bytes == len(buffer.getvalue())


async def test_an_upload_that_no_job_took_goes_with_its_reference(store: Store) -> None:
    kept = await store.upload()
    store.ahead_s = 299
    assert (await store.sweep()).expired == 0
    store.ahead_s = GRACE_S + 301
    assert (await store.sweep()).expired == 1
    assert not await store.has(kept.key)
    assert (await store.sweep()).expired == 0


async def test_an_upload_lives_as_long_as_a_job_refers_to_it(store: Store) -> None:
    kept = await store.upload()
    for ahead_s in (301, 10_000, 1_000_000):
        store.ahead_s = ahead_s
        await store.sweep(kept.key, quota_bytes=1)
        assert await store.has(kept.key)
    assert (await store.sweep(quota_bytes=1)).evicted == 1
    assert not await store.has(kept.key)


async def test_the_same_picture_sent_again_keeps_what_the_first_reference_leaves(store: Store) -> None:
    first = await store.upload()
    store.ahead_s = GRACE_S + 200
    again = await store.upload(owner="bob")
    assert again.key == first.key
    store.ahead_s = GRACE_S + 301
    assert (await store.sweep()).expired == 1
    assert (await store.uploads.resolve(again.reference, owner="bob")).key == first.key


async def test_a_look_up_keeps_the_sweeper_away_until_the_job_is_seen(store: Store) -> None:
    kept = await store.upload()
    store.ahead_s = 299
    await store.uploads.resolve(kept.reference, owner="ann")
    store.ahead_s = 299 + GRACE_S - 1
    await store.sweep(quota_bytes=1)
    assert await store.has(kept.key)


async def test_texts_and_thumbnails_go_when_they_have_expired(store: Store) -> None:
    text, thumbnail = Name(Shelf.TEXT, "ann", "k"), Name(Shelf.THUMBNAIL, "", "k")
    for name in (text, thumbnail):
        await store.storage.write(name, b"x", content_type="text/plain")
    store.ahead_s = 310
    assert (await store.sweep()).expired == 1
    store.ahead_s = 8 * 86_400
    assert (await store.sweep()).expired == 1
    assert not [place async for place in store.storage.places(Shelf.THUMBNAIL)]


async def test_beyond_the_quota_the_least_recently_used_go_first_and_only_as_many_as_needed(
    store: Store,
) -> None:
    keys = []
    for number in range(4):
        store.ahead_s = number * 100.0
        keys.append(await store.storage.put(bytes([number]) * 1000, content_type="image/png"))
        await store.storage.touch(keys[-1])
    store.ahead_s = 400.0
    await store.storage.touch(keys[0])
    store.ahead_s = 10_000.0
    swept = await store.sweep(keys[1], quota_bytes=2500)
    assert (swept.evicted, swept.used_bytes) == (2, 2000)
    assert [await store.has(key) for key in keys] == [True, True, False, False]


async def test_within_the_quota_and_within_the_grace_nothing_goes(store: Store) -> None:
    key = await store.storage.put(bytes(1000), content_type="image/png")
    store.ahead_s = GRACE_S - 5
    assert (await store.sweep(quota_bytes=10)).evicted == 0
    store.ahead_s = 10_000.0
    assert (await store.sweep(quota_bytes=1000)).evicted == 0
    assert (await store.sweep()).evicted == 0
    assert await store.has(key)
    swept = await store.sweep(key, quota_bytes=10)
    assert (swept.evicted, swept.over_bytes) == (0, 990)


class Stubborn(BaseHTTPRequestHandler):
    """Passes everything on to an S3 server, but refuses to delete what is named in `kept`."""

    endpoint = ""
    kept: ClassVar[set[str]] = set()

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        deletes = self.command == "DELETE" or self.path.endswith("?delete")
        if deletes and any(key in self.path or key.encode() in body for key in self.kept):
            status, headers, answer = 409, {}, b""
        else:
            asked = httpx.request(
                self.command, self.endpoint + self.path, headers=dict(self.headers), content=body
            )
            status, headers, answer = asked.status_code, asked.headers, asked.content
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("content-length", str(len(answer))))
        self.end_headers()
        self.wfile.write(answer if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

    def log_message(self, *_: object) -> None:
        """Nothing."""


async def test_one_object_that_a_bucket_keeps_does_not_keep_the_others(s3_server) -> None:
    handler = type("Handler", (Stubborn,), {"endpoint": s3_server.endpoint, "kept": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {**s3_server.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
        storage = open_storage(StorageSettings(url="s3://pictures/stubborn"), environ=environ)
        keys = [await storage.put(bytes([number]) * 1000, content_type="image/png") for number in range(3)]
        text = Name(Shelf.TEXT, "ann", "k")
        await storage.write(text, b"x", content_type="text/plain")
        handler.kept.add(keys[1])
        later = time.time() + 10_000
        swept = await sweep(storage, referred=set, now=later, quota_bytes=1)
        assert (swept.expired, swept.evicted, swept.left) == (1, 2, 1)
        assert swept.reason
        assert [await storage.stat(key) is not None for key in keys] == [False, True, False]
        handler.kept.clear()
        assert (await sweep(storage, referred=set, now=later, quota_bytes=1)).evicted == 1
        server.shutdown()


async def test_a_store_that_removes_nothing_any_more_ends_the_sweep(s3_server) -> None:
    handler = type("Handler", (Stubborn,), {"endpoint": s3_server.endpoint, "kept": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {**s3_server.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
        storage = open_storage(StorageSettings(url="s3://pictures/away"), environ=environ)
        count = MOST_LEFT_IN_A_ROW + 3
        handler.kept |= {await storage.put(bytes([n]) * 9, content_type="image/png") for n in range(count)}
        with pytest.raises(StorageUnavailable):
            await sweep(storage, referred=set, now=time.time() + 10_000, quota_bytes=1)
        server.shutdown()


async def test_a_short_sweep_looks_at_named_things_alone(store: Store) -> None:
    kept = await store.storage.put(bytes(1000), content_type="image/png")
    upload = await store.upload()
    store.ahead_s = 10_000.0
    swept = await sweep(store.storage, referred=set, now=store.now(), quota_bytes=1, whole=False)
    assert (swept.expired, swept.evicted, swept.used_bytes) == (1, 0, None)
    assert await store.has(kept)
    assert not await store.has(upload.key)


async def test_a_use_while_it_is_being_deleted_saves_an_object(store: Store, monkeypatch) -> None:
    import os

    key = await store.storage.put(b"x", content_type="image/png")
    file = store.folder / "store" / key[:2] / key
    old = time.time() - 10_000
    os.utime(file, (old, old))
    rename = os.rename

    def used_meanwhile(source, target) -> None:
        os.utime(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", used_meanwhile)
    assert not await store.storage.delete(key, unless_used_since=time.time() - 5000)
    assert await store.has(key)
    assert [path.name for path in file.parent.iterdir()] == [key]


async def test_what_a_crashed_writer_left_is_tidied_away_once_it_is_old(store: Store) -> None:
    key = await store.storage.put(b"x", content_type="image/png")
    left = store.folder / "store" / key[:2] / ".incoming-abc"
    left.write_bytes(b"half")
    await store.sweep()
    assert left.exists()
    store.ahead_s = 10_000.0
    await store.sweep()
    assert not left.exists()
    assert await store.has(key)


def test_addresses_of_names_are_quoted() -> None:
    assert url_of("dream:1") == "/storage/dream:1"
    assert url_of("a b?") == "/storage/a%20b%3F"


async def test_settings_choose_the_store(tmp_path: Path, s3_server) -> None:
    folder = open_storage(StorageSettings(path=str(tmp_path)))
    bucket = open_storage(StorageSettings(url="s3://pictures/chosen"), environ=s3_server.environ)
    assert (folder.provider, bucket.provider) == ("filesystem", "s3")
    key = await bucket.put(b"x", content_type="image/png")
    await bucket.check()
    other = open_storage(StorageSettings(url="s3://pictures/other"), environ=s3_server.environ)
    assert await other.stat(key) is None


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "s3://", "s3:///x", "s3://key:secret@bucket", "/data", "memory://"]
)
def test_an_address_of_no_store_that_we_know_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix") as refused:
        StorageSettings(url=url)
    assert "secret" not in str(refused.value)


async def test_a_bucket_that_is_not_there_or_not_reachable_says_so_without_an_address(s3_server) -> None:
    missing = open_storage(StorageSettings(url="s3://missing/x"), environ=s3_server.environ)
    environ = {**s3_server.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    away = open_storage(StorageSettings(url="s3://pictures/x"), environ=environ)
    for storage in (missing, away):
        with pytest.raises(StorageUnavailable) as refused:
            await storage.check()
        assert "127.0.0.1" not in str(refused.value)
