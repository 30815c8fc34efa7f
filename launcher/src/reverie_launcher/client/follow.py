"""Follows one job from submit to its end over the WebSocket, across lost connections and restarted servers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException

from reverie_launcher.client.http import HttpClient
from reverie_launcher.client.refusals import failure, not_reverie, unreachable
from reverie_launcher.client.tracking import Link, Preview, Tracked, advance
from reverie_launcher.exits import ExitCode, Failure
from reverie_protocol.errors import ErrorCode
from reverie_protocol.http_bodies import JobView
from reverie_protocol.jobs import JobState
from reverie_protocol.preview import decode_preview
from reverie_protocol.server_messages import (
    Error,
    JobAck,
    JobComplete,
    JobFailed,
    JobProgress,
    JobStateChanged,
)

OPEN_TIMEOUT_S = 10.0
#: How long a server that was there before may be away before we give up.
PATIENCE_S = 60.0
#: A silence after which the job is looked up over HTTP: an event may never be missed for good.
SILENCE_S = 5.0
#: What a restart may cause for a moment; anything else that is refused stays refused.
TRANSIENT = (ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.STORAGE_UNAVAILABLE)
#: HTTP status of a handshake without a valid token.
UNAUTHORIZED = 401
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 3.0
MAX_FRAME_BYTES = 32 * 1024 * 1024

_decoder = msgspec.json.Decoder(Error | JobAck | JobStateChanged | JobProgress | JobComplete | JobFailed)


class Follower:
    """Submits one job and follows it.  `observe` is called with the job after every event."""

    def __init__(
        self,
        http: HttpClient,
        body: Mapping[str, object],
        *,
        idempotency_key: str,
        observe: Callable[[Tracked], None],
        rng: random.Random,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.job = Tracked()
        self._http = http
        self._body = body
        self._key = idempotency_key
        self._observe = observe
        self._rng = rng
        self._patience_s = patience_s
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._sent = False

    async def run(self) -> Tracked:
        """The finished job; Failure if it was refused, or the server stays away."""
        retry_s = FIRST_RETRY_S
        while not self.job.finished:
            try:
                async with self._connect() as socket:
                    retry_s = FIRST_RETRY_S
                    await self._converse(socket)
            except (OSError, TimeoutError, WebSocketException, _Transient) as error:
                if _is_refused(error) or not self._sent or self._clock() - self._heard_at > self._patience_s:
                    raise self._give_up(error) from None
            if not self.job.finished:
                self._update(msgspec.structs.replace(self.job, link=Link.LOST))
                await asyncio.sleep(self._rng.uniform(0, retry_s))  # full jitter
                retry_s = min(retry_s * 2, LONGEST_RETRY_S)
        return self.job

    async def cancel(self) -> JobState | None:
        """Stop the job, whether or not its ack has arrived; None if it was never sent."""
        if not self._sent:
            return None
        job_id = self.job.job_id
        if job_id is None:
            # The submit is on its way: submitting again under the same key names the one job there is.
            job_id = (await self._http.submit(self._body, self._key)).job_id
        return await self._http.cancel(job_id)

    def _connect(self) -> connect:
        address = self._http.address
        return connect(
            address.socket_url,
            open_timeout=OPEN_TIMEOUT_S,
            max_size=MAX_FRAME_BYTES,
            compression=None,
            proxy=None if address.local else True,
            additional_headers=address.credentials,
        )

    async def _converse(self, socket: ClientConnection) -> None:
        """Submit (again), then read until the job has ended."""
        self._update(msgspec.structs.replace(self.job, link=Link.CONNECTED))
        submit = {"type": "job:submit", "id": self._key, "idempotencyKey": self._key, **self._body}
        self._sent = True
        await socket.send(msgspec.json.encode(submit).decode())
        while not self.job.finished:
            try:
                async with asyncio.timeout(SILENCE_S):
                    frame = await socket.recv()
            except TimeoutError:
                await self._look_up()
                continue
            if isinstance(frame, bytes):
                self._receive_preview(frame)
            else:
                await self._receive(frame)

    async def _receive(self, frame: str) -> None:
        try:
            message = _decoder.decode(frame)
        except msgspec.DecodeError:
            return  # a message that does not concern us, or is younger than we are
        if isinstance(message, Error):
            if message.id == self._key:
                self._refuse(message)
            return
        if self.job.job_id is None and not isinstance(message, JobAck):
            return  # another job of ours: events before the ack cannot be this one's
        if isinstance(message, JobAck) and message.id != self._key:
            return
        self._heard_at = self._clock()
        self._update(advance(self.job, message))
        if isinstance(message, JobAck) and message.existing:
            await self._look_up()

    def _refuse(self, message: Error) -> None:
        if message.code in TRANSIENT:
            raise _Transient(message.message)
        raise failure(message.code, message.message, fields=message.fields)

    def _receive_preview(self, frame: bytes) -> None:
        try:
            header, picture = decode_preview(frame)
        except (ValueError, msgspec.DecodeError):
            return
        if header.job_id == self.job.job_id and header.attempt == self.job.attempt:
            preview = Preview(picture, header.step)
            self._update(msgspec.structs.replace(self.job, preview=preview))

    async def _look_up(self) -> None:
        """Ask over HTTP how the job stands, and take its end from there."""
        if self.job.job_id is None:
            return
        try:
            view = await self._http.job(self.job.job_id)
        except Failure as error:
            if error.exit_code is ExitCode.UNREACHABLE:
                raise _Transient(error.message) from None
            raise
        self._heard_at = self._clock()
        if view.state.terminal:
            self._update(_ended(self.job, view))

    def _update(self, job: Tracked) -> None:
        if job is not self.job:
            self.job = job
            self._observe(job)

    def _give_up(self, error: Exception) -> Failure:
        url = self._http.address.url
        if _is_refused(error):
            return failure(
                ErrorCode.UNAUTHENTICATED, "the server wants a valid token", job_id=self.job.job_id
            )
        if isinstance(error, InvalidStatus):
            return not_reverie(f"the server answered {error.response.status_code} to a WebSocket")
        if isinstance(error, InvalidHandshake):
            return not_reverie("the server does not speak WebSocket")
        if self.job.job_id is None:
            if isinstance(error, _Transient):
                return failure(ErrorCode.SERVICE_UNAVAILABLE, str(error))
            return unreachable(url, error)
        return Failure(
            ExitCode.UNREACHABLE,
            f"The server at {url} has been away for {self._patience_s:.0f} s.",
            advice=f"The job is not lost: ask for {url}/v1/jobs/{self.job.job_id} when it is back.",
            code="unreachable",
            job_id=self.job.job_id,
        )


class _Transient(Exception):
    """Refused for a reason that passes."""


def _is_refused(error: Exception) -> bool:
    """Whether the server does not believe our token (any more)."""
    return isinstance(error, InvalidStatus) and error.response.status_code == UNAUTHORIZED


def _ended(job: Tracked, view: JobView) -> Tracked:
    changes: dict[str, Any] = {
        "state": view.state,
        "outputs": view.outputs,
        "meta": view.meta,
        "error": view.error,
        "partial": view.partial,
    }
    return msgspec.structs.replace(job, **changes)
