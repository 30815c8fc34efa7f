"""Pictures that are bombs, cut short, or something else besides, on every path that takes one over HTTP."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from functools import cache

import pytest
import pytest_asyncio
from PIL import Image

from reverie_protocol.jobs import JobType

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/upload", "/superres", "/v1/superres")


def encoded(kind, side=64):
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *, rows=None, extra=b""):
    """A grey PNG of zeros, which say little however many they are; of `rows` rows in truth."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes(1 + width)
    pixels = b"".join(squeeze.compress(row) for _ in range(height if rows is None else rows))
    data = chunk(b"IDAT", pixels + squeeze.flush())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("bomb.png", bytes(50_000_000))
    return buffer.getvalue()


def comment_bomb():
    comment = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    return png(16, 16, extra=chunk(b"zTXt", comment) * 3)


HOSTILE = {
    "200 megapixels": (lambda: png(20_000, 10_000), 413),
    "200 megapixels that are not there": (lambda: png(20_000, 10_000, rows=1), 413),
    "four thousand million rows": (lambda: png(1, 2**32 - 1, rows=1), 413),
    "a megapixel too many in one row": (lambda: png(65_000_000, 1), 413),
    "comments that unpack to 300 MB": (comment_bomb, 415),
    "a zip bomb": (zip_bomb, 415),
    "a gzip of zeros": (lambda: gzip.compress(bytes(50_000_000)), 415),
    "a truncated JPEG": (lambda: encoded("JPEG")[:1500], 415),
    "a JPEG of its head alone": (lambda: encoded("JPEG")[:30], 415),
    "a truncated WebP": (lambda: encoded("WEBP")[:700], 415),
    "a PNG that is a zip too": (lambda: encoded("PNG") + zip_bomb(), 415),
    "a JPEG that is a page too": (lambda: encoded("JPEG") + b"<script>alert(1)</script>", 415),
    "a page that is a picture too": (lambda: b"<html><!--" + encoded("PNG") + b"-->", 415),
    "a picture behind GIF's signature": (lambda: b"GIF89a" + encoded("PNG"), 415),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415),
    "noise": (lambda: os.urandom(100_000), 415),
}


@cache
def made(name):
    return HOSTILE[name][0]()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def enlarger(stage, gateway):
    """The module's worker, which can only enlarge, known to the gateway."""
    worker = await stage.worker(job_types=(JobType.SR,))
    async with gateway.socket() as client:
        while (await client.until("system:status"))["workers"] == 0:
            pass
    return worker


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", HOSTILE)
async def test_it_is_a_4xx_without_a_job_and_the_gateway_serves_on(gateway, enlarger, name, path):
    content, status = made(name), HOSTILE[name][1]
    answer = await gateway.http.post(path, files={"file": ("x.png", content, "image/png")})
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["code"] == {413: "payload_too_large", 415: "unsupported_media_type"}[status]
    assert isinstance(told["detail"], str)
    assert not enlarger.mirror.queued
    assert (await gateway.http.get("/health")).status_code == 200
