"""What every store promises, asked of each adapter; S3 against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reverie_storage.blobs import require_path
from reverie_storage.filesystem import FilesystemStorage
from reverie_storage.keyed import MAX_NAMED_BYTES, KeyedStorage
from reverie_storage.memory import MemoryStorage
from reverie_storage.port import Name, Shelf, StorageUnavailable, content_key, content_type_of
from reverie_storage.s3 import S3Storage
from reverie_testing.s3_server import BUCKET, S3Server

PNG = "image/png"


class Hands:
    """The clock that the store looks at: real, and put forward at will."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(params=["filesystem", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, hands: Hands) -> KeyedStorage:
    if request.param == "filesystem":
        return FilesystemStorage(tmp_path / "store", now=hands)
    if request.param == "memory":
        return MemoryStorage(now=hands)
    server: S3Server = request.getfixturevalue("s3_server")
    # As if it were a store of its own: a test sees its prefix only.
    prefix = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    return S3Storage(f"s3://{BUCKET}/{prefix}", environ=server.environ, now=hands)


async def read_all(storage: KeyedStorage, key: str, start: int, stop: int) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start=start, stop=stop)])


async def keys_of(storage: KeyedStorage) -> set[str]:
    return {found.key async for found in storage.objects()}


async def places_of(storage: KeyedStorage, shelf: Shelf) -> list[str | None]:
    return [
        thing.key if (thing := await storage.open_place(place)) else None
        async for place in storage.places(shelf)
    ]


def text(key: str, owner: str = "ann") -> Name:
    return Name(Shelf.TEXT, owner, key)


async def test_what_was_put_is_read_back_with_its_type_size_and_age(storage: KeyedStorage) -> None:
    began = time.time()
    key = await storage.put(b"picture", content_type=PNG)
    found = await storage.stat(key)
    assert found is not None
    assert (found.key, found.size_bytes, found.content_type) == (key, 7, PNG)
    assert began - 2 <= found.created_at <= time.time() + 2
    assert await read_all(storage, key, 0, 7) == b"picture"


async def test_a_range_is_read_across_the_borders_of_chunks(storage: KeyedStorage) -> None:
    content = os.urandom(700_000)
    key = await storage.put(content, content_type=PNG)
    for start, stop in ((0, 700_000), (1, 2), (262_143, 262_145), (699_999, 700_000), (5, 5)):
        assert await read_all(storage, key, start, stop) == content[start:stop]


async def test_reading_past_the_end_of_an_object_says_so(storage: KeyedStorage) -> None:
    key = await storage.put(b"short", content_type=PNG)
    with pytest.raises(StorageUnavailable):
        await read_all(storage, key, 0, 6)


async def test_a_file_is_put_like_its_content(storage: KeyedStorage, tmp_path: Path) -> None:
    content = os.urandom(6_000_000)  # on S3 more than one part
    path = tmp_path / "upload"
    path.write_bytes(content)
    key = await storage.put_file(path, content_type=PNG)
    assert key == content_key(content, content_type=PNG)
    assert await read_all(storage, key, 5_999_000, 6_000_000) == content[5_999_000:]
    assert path.read_bytes() == content


async def test_the_key_and_the_etag_follow_from_the_content(storage: KeyedStorage) -> None:
    first = await storage.put(b"a", content_type=PNG)
    assert await storage.put(b"a", content_type=PNG) == first
    others = {await storage.put(b"b", content_type=PNG), await storage.put(b"a", content_type="image/jpeg")}
    assert first not in others
    found = await storage.stat(first)
    assert found is not None
    assert found.etag == f'"{first.removesuffix(".png")}"'
    assert await keys_of(storage) == {first, *others}


async def test_putting_again_at_the_same_time_is_harmless(storage: KeyedStorage) -> None:
    content = os.urandom(50_000)
    keys = await asyncio.gather(*(storage.put(content, content_type=PNG) for _ in range(8)))
    assert await keys_of(storage) == set(keys) == {keys[0]}
    assert await read_all(storage, keys[0], 0, 50_000) == content


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_harmless(storage: KeyedStorage) -> None:
    key = await storage.put(b"x", content_type=PNG)
    kept = await storage.put(b"y", content_type=PNG)
    assert await storage.delete(key)
    assert await storage.delete(key)
    assert await storage.stat(key) is None
    with pytest.raises(StorageUnavailable):
        await read_all(storage, key, 0, 1)
    assert await keys_of(storage) == {kept}


async def test_an_object_that_was_used_since_is_not_deleted(storage: KeyedStorage, hands: Hands) -> None:
    key = await storage.put(b"x", content_type=PNG)
    assert not await storage.delete(key, unless_used_since=time.time() - 60)
    assert await read_all(storage, key, 0, 1) == b"x"
    assert await storage.delete(key, unless_used_since=time.time() + 60)
    assert await storage.stat(key) is None


async def test_a_use_is_noted_by_touching_and_by_putting_again(storage: KeyedStorage, tmp_path: Path) -> None:
    assert not await storage.touch("0" * 64 + ".png")
    touched = await storage.put(b"touched", content_type=PNG)
    again = await storage.put(b"again", content_type=PNG)
    tick = 1.1 if storage.provider == "s3" else 0.02  # S3 tells times in whole seconds
    await asyncio.sleep(tick)
    between = time.time()
    idle = await storage.put(b"idle", content_type=PNG)
    await asyncio.sleep(tick)
    assert await storage.touch(touched)
    await storage.put(b"again", content_type=PNG)
    used = {found.key: found.used_at async for found in storage.objects()}
    assert min(used[touched], used[again]) > used[idle] - 0.01
    created = await storage.stat(touched)
    assert created is not None
    assert created.created_at < between
    assert not await storage.delete(touched, unless_used_since=between)


async def test_a_named_thing_is_its_owners_and_its_shelfs(storage: KeyedStorage) -> None:
    thing = await storage.write(text("note:1"), b"hello", content_type="text/plain")
    assert (thing.key, thing.content, thing.content_type) == ("note:1", b"hello", "text/plain")
    assert await storage.find(text("note:1")) == thing
    assert await storage.find(text("note:1", owner="bob")) is None
    assert await storage.find(Name(Shelf.UPLOAD, "ann", "note:1")) is None
    await storage.write(text("note:1", owner="bob"), b"his", content_type="text/plain")
    assert await storage.find(text("note:1")) == thing


async def test_writing_a_name_again_replaces_it_and_changes_the_etag(storage: KeyedStorage) -> None:
    first = await storage.write(text("k"), b"1", content_type="text/plain")
    second = await storage.write(text("k"), b"2", content_type="text/plain")
    assert await storage.find(text("k")) == second
    assert first.etag != second.etag
    with pytest.raises(ValueError, match="at most"):
        await storage.write(text("k"), bytes(MAX_NAMED_BYTES + 1), content_type="text/plain")


async def test_a_named_thing_expires_by_itself(storage: KeyedStorage, hands: Hands) -> None:
    thing = await storage.write(text("k"), b"1", content_type="text/plain")
    assert thing.expires_at == thing.created_at + 300
    hands.ahead_s = 299
    assert await storage.find(text("k")) == thing
    hands.ahead_s = 301
    assert await storage.find(text("k")) is None
    assert await places_of(storage, Shelf.TEXT) == ["k"]  # until somebody sweeps


async def test_places_are_listed_by_shelf_and_cleared(storage: KeyedStorage) -> None:
    for key in ("a", "b"):
        await storage.write(text(key), b"1", content_type="text/plain")
    await storage.write(Name(Shelf.UPLOAD, "ann", "c"), b"1", content_type="text/plain")
    assert sorted(filter(None, await places_of(storage, Shelf.TEXT))) == ["a", "b"]
    assert await places_of(storage, Shelf.UPLOAD) == ["c"]
    assert await keys_of(storage) == set()  # names are no objects
    places = [place async for place in storage.places(Shelf.TEXT)]
    assert not await storage.clear(places[0], unless_used_since=time.time() - 60)
    assert await storage.clear(places[0])
    assert len(await places_of(storage, Shelf.TEXT)) == 1


async def test_the_store_proves_that_it_can_be_written_and_leaves_nothing(storage: KeyedStorage) -> None:
    await storage.check()
    await storage.tidy(before=time.time() + 60)
    assert await keys_of(storage) == set()


ENCODINGS = (
    lambda name: name,
    quote,
    lambda name: quote(quote(name)),
    lambda name: name.replace("/", "\\"),
    lambda name: name.replace("/", "%5c").replace(".", "%2e"),
    lambda name: name.replace("/", "%c0%af").replace(".", "\uff0e"),
    lambda name: unicodedata.normalize("NFKC", name.replace("/", "\uff0f").replace(".", "\u2024")),
    lambda name: name.encode("utf-8").decode("utf-16-le", "ignore") + name,
    lambda name: name + "\0.png",
)
PARTS = st.sampled_from(
    ["..", ".", "", "~", "etc", "passwd", "C:", "CON", "\0", "\n", " ", "a" * 300, "é", "named"]
)
HOSTILE = st.builds(
    lambda parts, start, end, encode: encode(start + "/".join(parts) + end),
    st.lists(PARTS, min_size=1, max_size=6),
    st.sampled_from(["", "/", "\\\\", "file:///", "s3://"]),
    st.sampled_from(["", "/", ".png", "/" + "0" * 64 + ".png", "0" * 64 + ".png/.."]),
    st.sampled_from(ENCODINGS),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(HOSTILE)
async def test_no_key_reaches_outside_the_store(storage: KeyedStorage, tmp_path: Path, key: str) -> None:
    assert content_type_of(key) is None
    assert await storage.stat(key) is None
    assert not await storage.touch(key)
    with pytest.raises(StorageUnavailable):
        await read_all(storage, key, 0, 1)
    assert await storage.delete(key)
    with contextlib.suppress(ValueError):
        assert ".." not in f"/{require_path(key)}".split("/")
        assert not key.startswith("/")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["store"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(HOSTILE)
async def test_any_name_is_kept_inside_the_store(storage: KeyedStorage, tmp_path: Path, key: str) -> None:
    name = text(key, owner=key)
    await storage.write(name, key.encode(), content_type="text/plain")
    found = await storage.find(name)
    assert found is not None
    assert (found.key, found.content) == (key, key.encode())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["store"])
    for path in (tmp_path / "store").rglob("*"):
        assert path.name in ("named", *map(str, Shelf)) or set(path.name) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "key", ["../" * 21 + "a.png", "." * 64 + ".png", "/" + "a" * 63 + ".png", "a" * 64 + ".exe"]
)
def test_what_is_as_long_as_a_content_address_is_none_yet(key: str) -> None:
    assert content_type_of(key) is None


@given(st.text(max_size=120))
def test_no_key_but_a_content_address_names_anything(key: str) -> None:
    assert content_type_of(key) is None
