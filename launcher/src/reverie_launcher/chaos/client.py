"""A client as a careful program would be: submits with a key, returns to another gateway, notes all it hears.

One `Client` is one person's program: one socket at a time, and HTTP beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from reverie_launcher.chaos.evidence import (
    RETENTION_S,
    Acknowledged,
    CancelAcknowledged,
    Connection,
    Joined,
    Polled,
    Resumed,
    Retold,
    Transition,
    Unexpected,
)
from reverie_launcher.chaos.workload import SIZE, JobPlan, Path
from reverie_protocol.jobs import JobState

ANSWER_S: Final = 6.0
HTTP_TIMEOUT_S: Final = 6.0
RETRY_S: Final = (0.05, 0.4)
POLL_S: Final = 0.5
#: Requests of one client that are tried at once, and its polls a second: a program that asked for each of its
#: thousand waiting jobs by itself would be an attack.
MOST_TRIES: Final = 8
POLLS_PER_S: Final = 10.0
PING_S: Final = 2.0
#: How often a client asks once more for a job although it knows the end.
END_POLLED: Final = 0.3
LOST = (WebSocketException, OSError, TimeoutError)
HTTP_BAD_REQUEST: Final = 400
HTTP_CONFLICT: Final = 409
HTTP_NOT_FOUND: Final = 404
HTTP_FAULT: Final = 500


class Refused(Exception):
    """The server said no; `retryable` is its own verdict."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.retryable = retryable


class Client:
    """Carries out the plans of its jobs.  What it learns is in `log`, `acknowledged`, `cancelled` and `polled`."""

    def __init__(
        self,
        number: int,
        urls: Sequence[str],
        plans: Sequence[JobPlan],
        *,
        rng: random.Random,
        started: float,
        unexpected: list[Unexpected],
        retention_s: float = RETENTION_S,
    ) -> None:
        self.name = f"client-{number}"
        self.log: list[Connection] = []
        self.acknowledged: list[Acknowledged] = []
        self.cancelled: list[CancelAcknowledged] = []
        self.polled: list[Polled] = []
        self.ended: dict[
            str, JobState | None
        ] = {}  # None: it is forgotten, and this client never heard how it ended
        self.cuts = 0
        self.repeats = 0
        self._unexpected = unexpected
        self._retention_s = retention_s
        self._urls = urls
        self._plans = plans
        self._rng = rng
        self._started = started
        self._at = number
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._socket: ClientConnection | None = None
        self._open = asyncio.Event()
        self._cursor: int | None = None
        self._joined = False  # on the present connection; what comes before is a snapshot
        self._epoch = ""
        self._over: dict[str, asyncio.Event] = {}
        self._tries = asyncio.Semaphore(MOST_TRIES)
        self._polling = asyncio.Lock()
        # No proxy and no certificates: these are ports of this machine.
        self._http = httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=False, verify=False)

    async def run(self) -> None:
        """Submit, cancel, poll; return when every job of the plan is over as far as the client knows."""
        async with self.connected():
            await asyncio.gather(*(self._live(plan) for plan in self._plans))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Have a socket, one after the other, while the context is open."""
        socket = asyncio.create_task(self._keep_socket(), name=f"{self.name} socket")
        try:
            yield
        finally:
            socket.cancel()
            await asyncio.gather(socket, return_exceptions=True)
            await self._http.aclose()

    # --- the socket

    async def _keep_socket(self) -> None:
        while True:
            url = self._next_url()
            with contextlib.suppress(*LOST):
                await self._converse(url)
            self._open.clear()
            self._socket = None
            self._fail_answers()
            await self._pause()

    async def _converse(self, url: str) -> None:
        address = url.replace("http", "ws", 1) + "/v1/ws"
        async with connect(
            address,
            open_timeout=ANSWER_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=1.0,
            max_size=None,
            proxy=None,
        ) as socket:
            connection = Connection(self.name, f"{url} connection {len(self.log) + 1}")
            self.log.append(connection)
            self._socket, self._joined = socket, False
            await socket.send(json.dumps(self._greeting()))
            self._open.set()
            async for frame in socket:
                if isinstance(frame, str):
                    self._hear(connection, json.loads(frame))

    def _greeting(self) -> dict[str, Any]:
        epoch = {"epoch": self._epoch} if self._epoch else {}
        if self._cursor is None:
            return {"type": "hello"}
        return {"type": "resume", "cursor": self._cursor, **epoch}

    def _hear(self, connection: Connection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "hello:ok":
                connection.entries.append(Joined(message["seq"]))
                self._cursor, self._joined = message["seq"], True
                self._epoch = message.get("epoch", "")
            case "resumed":
                self._joined = True
                connection.entries.append(Resumed(message["recovered"], message["from"], message["seq"]))
                self._epoch = message.get("epoch", "")
                if not message["recovered"]:
                    self._cursor = message["seq"]
            case "job:state" | "job:complete" | "job:error":
                self._learn(connection, message)
            case "job:ack" | "job:cancel:ok" | "error" if "id" in message:
                if message.get("existing"):
                    connection.entries.append(Retold(message["jobId"]))
                answer = self._answers.pop(message["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(message)

    def _learn(self, connection: Connection, message: dict[str, Any]) -> None:
        state = JobState.COMPLETED if message["type"] == "job:complete" else JobState(message["state"])
        told = Transition(message["jobId"], state, message["seq"], message["jobSeq"])
        connection.entries.append(told)
        if self._joined and self._cursor is not None:
            self._cursor = max(self._cursor, told.seq)
        if state.terminal:
            self._end(told.job_id, state)

    def _end(self, job_id: str, state: JobState | None) -> None:
        self.ended[job_id] = state
        if job_id in self._over:
            self._over[job_id].set()

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the socket was lost"))
                answer.exception()  # seen, also where nobody waits for it any more
        self._answers.clear()

    async def _ask(self, message: dict[str, Any], *, cut: bool = False) -> dict[str, Any]:
        """The answer to one message; LOST if the socket breaks, Refused if it is an error."""
        async with asyncio.timeout(ANSWER_S):
            await self._open.wait()
        socket = self._socket
        if socket is None:
            raise ConnectionError("the socket was lost")
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(ANSWER_S):
                await socket.send(json.dumps({**message, "id": number}))
                if cut:
                    self.cuts += 1
                    socket.transport.abort()
                reply = await answer
        finally:
            self._answers.pop(number, None)
            if not answer.done():
                answer.cancel()
        if reply["type"] == "error":
            raise Refused(reply["code"], reply["message"], retryable=reply["retryable"])
        return reply

    # --- one job

    async def _live(self, plan: JobPlan) -> None:
        await asyncio.sleep(max(0.0, self._started + plan.at_s - asyncio.get_running_loop().time()))
        job_id = await self.submit(plan, plan.path, cut=plan.cuts_after_submit)
        if job_id is None:
            return
        # A key is known for as long as its job: later it would make another one.
        until = time.time() + self._retention_s / 2
        async with asyncio.TaskGroup() as tasks:
            for _ in range(plan.repeats):
                self.repeats += 1
                tasks.create_task(self.submit(plan, self._rng.choice(tuple(Path)), until=until))
            if plan.conflicts:
                tasks.create_task(self._conflict(plan, job_id, until=until))
            if plan.cancel_after_s is not None:
                tasks.create_task(
                    self.cancel(job_id, plan.cancel_path, after_s=plan.cancel_after_s, until=until)
                )
            tasks.create_task(self.follow(job_id, eagerly=plan.polls))

    async def submit(
        self, plan: JobPlan, path: Path, *, cut: bool = False, until: float = math.inf
    ) -> str | None:
        """Try until it is acknowledged; the job's id, None if it was refused for good, or late at `until`."""
        async with self._tries:
            return await self._insist(plan, path, cut=cut, until=until)

    async def _insist(self, plan: JobPlan, path: Path, *, cut: bool, until: float) -> str | None:
        while time.time() < until:
            try:
                answer = await (self._submit_on_socket if path is Path.SOCKET else self._submit_over_http)(
                    plan, cut=cut
                )
            except Refused as refused:
                if not refused.retryable:
                    self._unexpected.append(Unexpected("", f"{self.name}: {plan.key} was refused: {refused}"))
                    return None
            except (*LOST, httpx.HTTPError):
                pass
            else:
                ack = Acknowledged(
                    plan.key, answer["jobId"], answer["seq"], answer.get("existing", False), time.time()
                )
                self.acknowledged.append(ack)
                return ack.job_id
            cut = False
            await self._pause()
        return None

    async def _submit_on_socket(self, plan: JobPlan, *, cut: bool) -> dict[str, Any]:
        return await self._ask({"type": "job:submit", **_body(plan)}, cut=cut)

    async def _submit_over_http(self, plan: JobPlan, *, cut: bool) -> dict[str, Any]:
        sending = asyncio.create_task(self._call("POST", "/v1/jobs", json=_body(plan)))
        if cut:
            self.cuts += 1
            await asyncio.wait({sending}, timeout=self._rng.uniform(0.0, 0.02))
            sending.cancel()
        try:
            return await sending
        except asyncio.CancelledError:
            if not cut:
                raise
            raise ConnectionError("cut by the client") from None

    async def _conflict(self, plan: JobPlan, job_id: str, *, until: float) -> None:
        """The same key with another body must be refused, once the job is there."""
        async with self._tries:
            await self._provoke(plan, job_id, until=until)

    async def _provoke(self, plan: JobPlan, job_id: str, *, until: float) -> None:
        while time.time() < until:
            try:
                await self._call("POST", "/v1/jobs", json={**_body(plan), "prompt": "something else"})
            except Refused as refused:
                if not refused.retryable:
                    if refused.code != "idempotency_conflict":
                        self._unexpected.append(
                            Unexpected(job_id, f"another body under its key got {refused}")
                        )
                    return
            except (*LOST, httpx.HTTPError):
                pass
            else:
                self._unexpected.append(Unexpected(job_id, "another body under its key was acknowledged"))
                return
            await self._pause()

    async def cancel(self, job_id: str, path: Path, *, after_s: float = 0.0, until: float = math.inf) -> None:
        """Cancel, trying until that is acknowledged, or not before `until`."""
        await asyncio.sleep(after_s)
        async with self._tries:
            await self._insist_on_cancel(job_id, path, until=until)

    async def _insist_on_cancel(self, job_id: str, path: Path, *, until: float) -> None:
        while time.time() < until:
            try:
                if path is Path.SOCKET:
                    answer = await self._ask({"type": "job:cancel", "jobId": job_id})
                else:
                    answer = await self._call("DELETE", f"/v1/jobs/{job_id}")
            except Refused as refused:
                if not refused.retryable:
                    self._unexpected.append(Unexpected(job_id, f"its cancel was refused: {refused}"))
                    return
            except (*LOST, httpx.HTTPError):
                pass
            else:
                self.cancelled.append(CancelAcknowledged(job_id, JobState(answer["state"]), time.time()))
                return
            await self._pause()

    async def move(self, job_id: str, lane: int) -> None:
        """Put a job into another lane, trying until that is acknowledged."""
        while True:
            try:
                await self._call("PATCH", f"/v1/jobs/{job_id}", json={"priority": lane})
            except Refused as refused:
                if not refused.retryable:
                    self._unexpected.append(Unexpected(job_id, f"its move was refused: {refused}"))
                    return
            except httpx.HTTPError:
                pass
            else:
                return
            await self._pause()

    async def follow(self, job_id: str, *, eagerly: bool) -> None:
        """Until it is over: by what the socket says, and by asking now and then, in case that was away."""
        patience_s = POLL_S if eagerly else 8 * POLL_S
        over = self._over.setdefault(job_id, asyncio.Event())
        while job_id not in self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await over.wait()
            if job_id not in self.ended or eagerly:
                await self._poll(job_id)

    async def _poll(self, job_id: str) -> None:
        async with self._polling:
            await asyncio.sleep(1 / POLLS_PER_S)
            if job_id not in self.ended or self._rng.random() < END_POLLED:
                await self._ask_for(job_id)

    async def _ask_for(self, job_id: str) -> None:
        try:
            view = await self._call("GET", f"/v1/jobs/{job_id}")
        except Refused as refused:
            if refused.code == "job_not_found":
                self._miss(job_id)
            return
        except (*LOST, httpx.HTTPError):
            return
        state = JobState(view["state"])
        self.polled.append(Polled(job_id, state, view["seq"], time.time()))
        if state.terminal:
            self._end(job_id, state)

    def _miss(self, job_id: str) -> None:
        """There is no such job (any more): what is older than the retention is not asked for again."""
        now = time.time()
        self.polled.append(Polled(job_id, None, None, now))
        submitted = min((ack.at for ack in self.acknowledged if ack.job_id == job_id), default=now)
        if now - submitted > self._retention_s:
            self._end(job_id, None)

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """A decoded answer; Refused by what the server says, httpx.HTTPError if it says nothing."""
        answer = await self._http.request(method, self._next_url() + path, **options)
        try:
            body: dict[str, Any] = answer.json()
        except (
            ValueError
        ):  # the HTTP server itself, before our application: the request was garbled on its way
            raise httpx.RemoteProtocolError("an answer that is no JSON") from None
        if (answer.status_code, body.get("code")) == (HTTP_BAD_REQUEST, "invalid_message"):
            # Ours are well-formed, so it was garbled on its way.  Were they refused as such, the job would not end.
            raise httpx.RemoteProtocolError("the request did not arrive as it was sent")
        if answer.is_success:
            return body
        if answer.status_code == HTTP_FAULT:
            self._unexpected.append(Unexpected("", f"{method} {path} answered 500: {body}"))
        retryable = answer.status_code in (429, 500, 502, 503, 504)
        raise Refused(str(body.get("code")), str(body.get("detail")), retryable=retryable)

    def _next_url(self) -> str:
        self._at += 1
        return self._urls[self._at % len(self._urls)]

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(*RETRY_S))


class DeafClient:
    """Opens a socket and never reads from it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(self) -> None:
        """Until cancelled; comes back when it is closed."""
        host, port = self._url.removeprefix("http://").split(":")
        request = (
            f"GET /v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port), limit=1)
                writer.write(request.encode())
                await writer.wait_closed()
            await asyncio.sleep(1.0)


def _body(plan: JobPlan) -> dict[str, Any]:
    return {
        "jobType": "generate",
        "prompt": plan.prompt,
        "size": SIZE,
        "num_inference_steps": plan.steps,
        "seed": plan.seed,
        "priority": plan.lane,
        "idempotencyKey": plan.key,
        **({"notBefore": plan.not_before} if plan.not_before is not None else {}),
        **({"startBy": plan.start_by} if plan.start_by is not None else {}),
    }
