"""Who does not send his request in time is cut off; who is slow but honest is not, and others are served."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
import pytest_asyncio
from PIL import Image

pytestmark = pytest.mark.asyncio(loop_scope="module")

SILENCE_S = 0.6
BYTES_PER_S = 2000
GENEROUS_S = 20.0
HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


def picture():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    return buffer.getvalue()


def form(content):
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    return head + content + b"\r\n--b--\r\n"


def upload_head(length, more=b""):
    return (
        b"POST /v1/upload HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n" % length
        + more
        + b"\r\n"
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def hasty(stage):
    """A gateway with little patience."""
    return await stage.gateway(request_silence_s=SILENCE_S, request_bytes_per_s=float(BYTES_PER_S))


async def cut(port, begin, drip=b""):
    """What the gateway says before it hangs up on a client that begins and then drips."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)

    async def dripping():
        while drip:
            await asyncio.sleep(0.05)
            writer.write(drip)

    feeding = asyncio.create_task(dripping())
    try:
        async with asyncio.timeout(GENEROUS_S):
            said = bytearray()
            try:
                while part := await reader.read(65536):
                    said += part
            except ConnectionError:
                pass  # it hung up while we were sending
            return bytes(said)
    finally:
        feeding.cancel()
        writer.close()


@pytest.mark.parametrize(
    ("begin", "drip"),
    [
        (b"GET /health HTTP/1.1\r\nHo", b""),
        (b"GET /health HTTP/1.1\r\nX-Slow: ", b"a"),
        (POST + b"Content-Length: 1000\r\n\r\n{", b""),
        (POST + b"Content-Length: 1000\r\n\r\n{", b" "),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (upload_head(10**6) + form(picture())[:2000], b"a"),
        (b"GET /v1/ws HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b""),
    ],
    ids=[
        "half a head",
        "a dripping head",
        "half a body",
        "a dripping body",
        "dripping chunks",
        "upload",
        "handshake",
    ],
)
async def test_a_request_that_does_not_come_is_a_408_and_the_end(hasty, begin, drip):
    said = await cut(hasty.port, begin, drip)
    assert said.startswith(b"HTTP/1.1 408 "), said
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == "request_timeout"


async def test_a_body_that_is_broken_off_is_no_fault_of_the_gateway(hasty):
    await cut(hasty.port, POST + b"Content-Length: 1000\r\n\r\n{")
    metrics = (await hasty.http.get("/metrics")).text
    assert 'route="/v1/jobs' in metrics
    assert 'status="500"' not in metrics


async def test_a_connection_that_says_nothing_is_closed(hasty):
    assert await cut(hasty.port, b"") == b""


async def test_a_kept_connection_owes_its_next_request_as_a_whole(hasty):
    said = await cut(hasty.port, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\nGET /he", b"a")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in said


@pytest.mark.parametrize("drip", [b"", b"a", b"a" * 60_000], ids=["silent", "dripping", "quick"])
async def test_what_comes_behind_an_early_answer_is_not_read_for_ever(hasty, drip):
    begin = b"POST /nothing HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000000\r\n\r\n{"
    said = await cut(hasty.port, begin, drip)
    assert said.startswith(b"HTTP/1.1 404 "), said
    assert b" 408 " not in said


async def test_a_slow_and_honest_upload_goes_on_for_as_long_as_it_takes(hasty):
    content = form(picture())
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    writer.write(upload_head(len(content), b"Connection: close\r\n"))
    pieces = 12
    size = -(-len(content) // pieces)
    for start in range(0, len(content), size):  # 1.8 s in all, three times what silence may last
        writer.write(content[start : start + size])
        await asyncio.sleep(SILENCE_S / 4)
    async with asyncio.timeout(GENEROUS_S):
        said = await reader.read()
    assert said.startswith(b"HTTP/1.1 200 "), said
    writer.close()


async def test_others_are_served_while_many_are_cut(hasty):
    begins = [b"GET /health HTTP/1.1\r\nX: ", POST + b"Content-Length: 50\r\n\r\n"] * 20
    cutting = asyncio.gather(*(cut(hasty.port, begin, b" ") for begin in begins))
    while not cutting.done():
        assert (await hasty.http.get("/health")).status_code == 200
        async with hasty.socket() as client:
            await client.until("system:status")
    assert all(b" 408 " in said for said in cutting.result())


async def test_a_long_wait_for_an_answer_is_nobodys_silence(hasty, stage):
    worker = await stage.worker()
    async with hasty.socket() as client:
        while (await client.until("system:status"))["workers"] == 0:
            pass
    asked = asyncio.create_task(hasty.http.post("/generate", json={"prompt": "x"}))
    held = await worker.claim((await worker.next_job()).id)
    await asyncio.sleep(2 * SILENCE_S)  # longer than a request may take, and this is none
    await worker.complete(held)
    assert (await asked).status_code == 200


async def test_a_socket_that_says_nothing_stays(hasty):
    async with hasty.socket() as client:
        await asyncio.sleep(2 * SILENCE_S)
        await client.settle()


async def test_a_socket_that_is_open_owes_nothing_however_long_it_is_silent(hasty):
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
    try:
        async with hasty.socket() as client:
            await client.until("system:status")
            watch = loop.create_future()
            loop.call_later(2 * SILENCE_S, watch.set_result, None)  # what would cut it is due before that
            await watch
            await client.settle()
    finally:
        loop.set_exception_handler(None)
    assert not faults
