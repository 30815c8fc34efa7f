"""Blobs in a bucket of S3, or of a server that speaks its protocol.

S3 cannot note a use without writing the object again, so a use is an empty object of the same path under `used/`;
its age is the time of the use.  Between the last look of `delete` and the deletion itself lies one round trip in
which a use goes unseen; callers delete only what nobody has used for long.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from reverie_storage.blobs import Blob, require_path
from reverie_storage.keyed import KeyedStorage
from reverie_storage.port import StorageUnavailable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: Patience with a server that does not answer, and with one that answers with a fault, in seconds.
CONNECT_S: Final = 3
REQUEST_S: Final = 60
RETRY_S: Final = 5
_USED: Final = "used"
_PROBE: Final = "probe"

T = TypeVar("T")


class S3Storage(KeyedStorage):
    """The store below `s3://bucket/prefix`; endpoint, region and credentials come from the environment.

    ValueError if the address names no bucket.
    """

    def __init__(
        self, url: str, *, environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(S3Blobs(_bucket(url, environ)), now=now)


class S3Blobs:
    """See `Blobs`."""

    provider = "s3"

    def __init__(self, bucket: S3Store) -> None:
        self._bucket = bucket

    async def write(self, path: str, content: bytes | Path, *, content_type: str) -> None:
        """See `Blobs.write`; a large file goes up in parts and appears with the last one."""
        attributes = {"Content-Type": content_type}
        putting = obstore.put_async(self._bucket, require_path(path), content, attributes=attributes)
        await _answered(putting)

    async def stat(self, path: str) -> Blob | None:
        """See `Blobs.stat`."""
        meta = await self._head(require_path(path))
        return None if meta is None else _blob(meta, used_at=0.0)

    async def read(self, path: str, *, start: int, stop: int) -> bytes:
        """See `Blobs.read`."""
        reading = obstore.get_range_async(self._bucket, require_path(path), start=start, end=stop)
        return bytes(await _answered(reading))

    async def read_whole(self, path: str) -> bytes | None:
        """See `Blobs.read_whole`."""
        try:
            found = await _answered(obstore.get_async(self._bucket, require_path(path)))
            return bytes(await _answered(found.bytes_async()))
        except _Missing:
            return None

    async def touch(self, path: str, *, size_bytes: int | None = None) -> bool:
        """See `Blobs.touch`."""
        meta = await self._head(require_path(path))
        if meta is None or size_bytes not in (None, meta["size"]):
            return False
        await _answered(obstore.put_async(self._bucket, f"{_USED}/{path}", b""))
        return True

    async def delete(self, path: str, *, unless_used_since: float | None) -> bool:
        """See `Blobs.delete`."""
        paths = [require_path(path), f"{_USED}/{path}"]
        if unless_used_since is not None:
            metas = await asyncio.gather(*map(self._head, paths))
            if any(meta["last_modified"].timestamp() >= unless_used_since for meta in metas if meta):
                return False
        for each in paths:
            try:
                await _answered(obstore.delete_async(self._bucket, each))
            except _Missing:
                continue
        return True

    async def walk(self, folder: str) -> AsyncIterator[Blob]:
        """See `Blobs.walk`."""
        used = {
            meta["path"].removeprefix(f"{_USED}/"): meta["last_modified"].timestamp()
            async for meta in self._listed(f"{_USED}/{folder}".rstrip("/"))
        }
        async for meta in self._listed(folder):
            if not meta["path"].startswith(f"{_USED}/"):
                yield _blob(meta, used_at=used.get(meta["path"], 0.0))

    async def check(self) -> None:
        """See `Blobs.check`."""
        path = f"{_PROBE}/{secrets.token_hex(8)}"
        await _answered(obstore.put_async(self._bucket, path, b"probe"))
        await _answered(obstore.delete_async(self._bucket, path))

    async def tidy(self, *, before: float) -> None:
        """See `Blobs.tidy`; parts of broken uploads are the bucket's own lifecycle rules' business."""
        async for meta in self._listed(_PROBE):
            if meta["last_modified"].timestamp() < before:
                await _answered(obstore.delete_async(self._bucket, meta["path"]))

    async def _head(self, path: str) -> ObjectMeta | None:
        try:
            return await _answered(obstore.head_async(self._bucket, path))
        except _Missing:
            return None

    async def _listed(self, folder: str) -> AsyncIterator[ObjectMeta]:
        pages = obstore.list(self._bucket, prefix=folder or None)
        while True:
            try:
                page = await _answered(pages.__anext__())
            except StopAsyncIteration:
                return
            for meta in page:
                yield meta


class _Missing(StorageUnavailable):
    """There is no such object."""


async def _answered(request: Awaitable[T]) -> T:
    """The answer; whatever goes wrong is StorageUnavailable in one sentence, without addresses or keys."""
    try:
        return await request
    except FileNotFoundError:
        raise _Missing("no such object, or no such bucket") from None
    except PermissionError:
        raise StorageUnavailable("the store refuses our credentials") from None
    except (BaseError, OSError) as error:
        # What obstore says of it has the address in it.
        raise StorageUnavailable("the store does not answer, or not as it should") from error


def _blob(meta: ObjectMeta, *, used_at: float) -> Blob:
    created_at = meta["last_modified"].timestamp()
    return Blob(meta["path"], meta["size"], created_at, max(created_at, used_at))


def _bucket(url: str, environ: Mapping[str, str]) -> S3Store:
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be s3://bucket or s3://bucket/prefix")
    endpoint = (
        environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or environ.get("AWS_ENDPOINT")
    )
    given: dict[str, Any] = {
        "endpoint": endpoint,
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        "access_key_id": environ.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": environ.get("AWS_SESSION_TOKEN"),
    }
    config: S3Config = {name: value for name, value in given.items() if value}  # type: ignore[assignment]  # its keys
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "timeout": timedelta(seconds=REQUEST_S),
        # An endpoint that is named with http is wanted so: a server of one's own in one's own network.
        "allow_http": (endpoint or "").startswith("http://"),
    }
    retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=RETRY_S)}
    prefix = parts.path.strip("/") or None
    return S3Store(parts.netloc, prefix=prefix, config=config, client_options=client, retry_config=retry)
