"""HTTP to one ComfyUI: every call bounded in time and size, nothing followed, nothing retried here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from reverie_comfy_bridge.instance.reasons import Reason
from reverie_comfy_bridge.wire.answers import (
    Denied,
    PostAnswer,
    SystemStats,
    Uncertain,
    read_features,
    read_post_answer,
    read_queue_remaining,
    read_system_stats,
)
from reverie_comfy_bridge.wire.outputs import OutputFile
from reverie_comfy_bridge.wire.queue import History, Queue, read_history, read_queue
from reverie_comfy_bridge.wire.values import as_mapping, as_text, read_json
from reverie_comfy_bridge.workflows.node_classes import NodeClasses, read_node_classes

#: Largest JSON answer that is read, in bytes: `/queue` and `/history` hold whole graphs with what editors attach.
MAX_ANSWER_BYTES: Final = 64 << 20
#: Entries of the whole history that are looked at for prompts of ours.
RECENT_ENTRIES: Final = 64
Answer = TypeVar("Answer")
_CHUNK_BYTES: Final = 256 << 10
#: Answers from this size on are decoded in a thread, so that the event loop goes on.
_LARGE_BYTES: Final = 512 << 10


class Unreachable(Exception):
    """The instance did not answer as a ComfyUI does: a stable `reason`, and a sentence for an operator.

    Unless it was `sent`, nothing has reached it.
    """

    def __init__(self, reason: str, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.sent = sent


class TooLarge(Exception):
    """An answer is larger than what is taken."""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds that calls may take: to connect, to answer, and for `/object_info`, which may be slow."""

    connect_s: float = 5.0
    answer_s: float = 20.0
    object_info_s: float = 120.0
    transfer_s: float = 300.0


class InstanceClient:
    """One instance's HTTP.  Raises Unreachable where there is no usable answer."""

    def __init__(self, url: str, *, timeouts: Timeouts = Timeouts()) -> None:  # noqa: B008  # frozen
        self._timeouts = timeouts
        self._http = httpx.AsyncClient(
            base_url=url,
            follow_redirects=False,
            # A proxy that the environment names is for the outside.
            trust_env=False,
            # ComfyUI refuses an Origin other than its own; httpx sends none.  Encodings could hide the real size.
            headers={"accept-encoding": "identity", "user-agent": "reverie-comfy-bridge"},
            timeout=httpx.Timeout(timeouts.answer_s, connect=timeouts.connect_s),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=20.0),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def system_stats(self) -> SystemStats:
        """Version and devices."""
        stats = read_system_stats(await self._get("/system_stats"))
        if stats is None:
            raise Unreachable(Reason.HTTP_FAILED, "what answers there is no ComfyUI")
        return stats

    async def flags(self) -> Mapping[str, object] | None:
        """The server's feature flags; None where its version knows none."""
        return read_features(*await self._call("GET", "/features"))

    async def node_classes(self) -> NodeClasses:
        """Every class of nodes with its inputs."""
        body = await self._get("/object_info", timeout=self._timeouts.object_info_s)
        classes = await asyncio.to_thread(lambda: read_node_classes(read_json(body)))
        if not classes:
            raise Unreachable(Reason.HTTP_FAILED, "its /object_info cannot be read")
        return classes

    async def remaining(self) -> int | None:
        """How many prompts run or wait: the cheap question."""
        return read_queue_remaining(await self._get("/prompt"))

    async def queue(self) -> Queue | None:
        """What runs and waits; None if the answer cannot be read, which proves nothing."""
        return await _read(read_queue, await self._get("/queue"))

    async def history(self, prompt_id: str) -> History | None:
        """What is known of one prompt's end; None if the answer cannot be read."""
        return await _read(read_history, await self._get(f"/history/{quote(prompt_id, safe='')}"))

    async def recent_history(self) -> History | None:
        """The last prompts that ended, everybody's."""
        body = await self._get("/history", params={"max_items": str(RECENT_ENTRIES)})
        return await _read(read_history, body)

    async def post_prompt(self, body: Mapping[str, Any]) -> PostAnswer:
        """Queue a prompt; never raises: without an answer it is `Uncertain`, or `Denied` if nothing was sent."""
        try:
            status, answer = await self._call("POST", "/prompt", content=msgspec.json.encode(body))
        except Unreachable as error:
            return Uncertain(None, error.detail) if error.sent else Denied(0, error.detail)
        return read_post_answer(status, answer)

    async def dequeue(self, prompt_id: str) -> None:
        """Take a waiting prompt out of the queue; the answer says nothing about whether it was there."""
        await self._post("/queue", {"delete": [prompt_id]})

    async def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running prompt of this id, or (None) whatever runs; the answer says nothing either."""
        await self._post("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    async def forget(self, prompt_id: str) -> None:
        """Delete a prompt's history entry."""
        await self._post("/history", {"delete": [prompt_id]})

    async def upload(self, name: str, content: bytes, *, content_type: str) -> str:
        """Put an image into the instance's input folder; the name under which a node finds it."""
        form = {"type": "input", "subfolder": "reverie", "overwrite": "false"}
        files = {"image": (name, content, content_type)}
        status, answer = await self._call(
            "POST", "/upload/image", data=form, files=files, timeout=self._timeouts.transfer_s
        )
        stored = as_mapping(read_json(answer))
        given = as_text(stored.get("name"))
        if status != 200 or not given:
            raise Unreachable(Reason.HTTP_FAILED, f"it did not take an input image: {status}")
        subfolder = as_text(stored.get("subfolder"))
        return f"{subfolder}/{given}" if subfolder else given

    async def fetch(self, file: OutputFile, path: Path, *, max_bytes: int) -> str | None:
        """An output file into `path`; the media type that the server names, None if there is no such file.

        TooLarge beyond `max_bytes`.
        """
        where = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder_type}
        async with self._answer("GET", "/view", params=where, timeout=self._timeouts.transfer_s) as answer:
            if answer.status_code in (400, 403, 404):
                return None
            if answer.status_code != 200:
                raise _wrong(answer.status_code)
            written = 0
            with path.open("wb") as output:
                async for chunk in answer.aiter_bytes(_CHUNK_BYTES):
                    written += len(chunk)
                    if written > max_bytes:
                        raise TooLarge
                    await asyncio.to_thread(output.write, chunk)
            said: str = answer.headers.get("content-type", "")
            return said.partition(";")[0].strip().lower()

    async def _get(
        self, path: str, *, params: Mapping[str, str] | None = None, timeout: float = 0.0
    ) -> bytes:
        status, body = await self._call("GET", path, params=params, timeout=timeout)
        if status != 200:
            raise _wrong(status)
        return body

    async def _post(self, path: str, body: Mapping[str, object]) -> None:
        status, _ = await self._call("POST", path, content=msgspec.json.encode(body))
        if status >= 300:
            raise _wrong(status)

    async def _call(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        if "content" in options:
            options["headers"] = {"content-type": "application/json"}
        async with self._answer(method, path, **options) as answer:
            body = bytearray()
            async for chunk in answer.aiter_bytes(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise Unreachable(Reason.HTTP_FAILED, f"its answer to {path} is too large")
            return answer.status_code, bytes(body)

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, path: str, *, timeout: float = 0.0, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """One call; its time counts from the first byte sent to the last one read."""
        limit_s = timeout or self._timeouts.answer_s
        waits = httpx.Timeout(limit_s, connect=self._timeouts.connect_s)
        try:
            async with (
                asyncio.timeout(limit_s),
                self._http.stream(method, path, timeout=waits, **options) as answer,
            ):
                yield answer
        except httpx.ConnectTimeout:
            raise Unreachable(Reason.TIMEOUT, "no connection in time", sent=False) from None
        except httpx.ConnectError as error:
            raise Unreachable(_reason_of(error), f"no connection: {_short(error)}", sent=False) from None
        except (TimeoutError, httpx.TimeoutException):
            raise Unreachable(Reason.TIMEOUT, f"no answer to {path} within {limit_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(
                Reason.CONNECTION_LOST, f"the connection broke: {type(error).__name__}"
            ) from None


async def _read(reader: Callable[[bytes], Answer | None], body: bytes) -> Answer | None:
    return await asyncio.to_thread(reader, body) if len(body) >= _LARGE_BYTES else reader(body)


def _wrong(status: int) -> Unreachable:
    return Unreachable(Reason.HTTP_FAILED, f"it answers {status}")


def _reason_of(error: BaseException) -> Reason:
    """Why a connection could not be made, from what is behind the error."""
    behind: list[BaseException | None] = [error]
    while behind:
        cause = behind.pop()
        if isinstance(cause, ConnectionRefusedError):
            return Reason.REFUSED
        if isinstance(cause, socket.gaierror):
            return Reason.NAME_UNKNOWN
        if cause is not None:
            behind += [cause.__cause__ or cause.__context__, *getattr(cause, "exceptions", ())]
    return Reason.CONNECTION_LOST


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
