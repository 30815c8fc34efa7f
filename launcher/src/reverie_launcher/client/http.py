"""The HTTP side: jobs, status and stored outputs."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from reverie_launcher.client.address import Address
from reverie_launcher.client.refusals import http_failure, not_reverie, unreachable
from reverie_protocol.comfy import ComfyWorkflows
from reverie_protocol.comfy_bodies import ComfyInstances
from reverie_protocol.dream_bodies import DreamCandidatePage, DreamPage, DreamReplayed, DreamView
from reverie_protocol.http_bodies import JobAccepted, JobPage, JobView, QueueView, UploadAccepted
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.jobs import JobState
from reverie_protocol.model_bodies import ModelsStatus, ModesReread, ModesView, ModeSwitched
from reverie_protocol.server_messages import SystemStatus

TIMEOUT_S = 15.0

T = TypeVar("T")


class HttpClient:
    """Requests to one server; every failure is a `Failure`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        # A proxy from the environment is for the world outside, not for this machine.
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=not address.local)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def job(self, job_id: str) -> JobView:
        """One job as it stands now."""
        return _decode(await self._get(f"/v1/jobs/{job_id}"), JobView)

    async def jobs(self, *, state: str | None, limit: int) -> JobPage:
        """The owner's jobs, newest first."""
        query = {"limit": str(limit)} | ({"state": state} if state else {})
        return _decode(await self._get("/v1/jobs", query), JobPage)

    async def cancel(self, job_id: str) -> JobState:
        """Stop a job; its state afterwards (`running` until the worker stops at its next step)."""
        body = await self._request("DELETE", f"/v1/jobs/{job_id}")
        return _decode(body, JobView).state

    async def move(self, job_id: str, *, lane: str, place: str | None) -> JobView:
        """Put a job into a lane, and where a place is given (`front` or `back`) to that end of it."""
        body = {"priority": lane} | ({"place": place} if place else {})
        return _decode(await self._request("PATCH", f"/v1/jobs/{job_id}", json=body), JobView)

    async def retry(self, job_id: str) -> JobAccepted:
        """Do a failed or cancelled job again; the retry that there is already where it was asked for before."""
        return _decode(await self._request("POST", f"/v1/jobs/{job_id}/retry"), JobAccepted)

    async def queue(self) -> QueueView:
        """The queue and its gates."""
        return _decode(await self._get("/v1/queue"), QueueView)

    async def set_gates(self, body: Mapping[str, object]) -> QueueView:
        """Open and close gates, as `PATCH /v1/queue` has it."""
        return _decode(await self._request("PATCH", "/v1/queue", json=body), QueueView)

    async def modes(self) -> ModesView:
        """Every mode there is."""
        return _decode(await self._get("/api/modes"), ModesView)

    async def models_status(self) -> ModelsStatus:
        """The current mode among other things."""
        return _decode(await self._get("/api/models/status"), ModelsStatus)

    async def switch_mode(self, mode: str) -> ModeSwitched:
        """Make a mode that of jobs that name none."""
        return _decode(await self._request("POST", "/api/modes/switch", json={"mode": mode}), ModeSwitched)

    async def reload_modes(self) -> ModesReread:
        """Have the workers read their files of modes again."""
        return _decode(await self._request("POST", "/api/modes/reload"), ModesReread)

    async def submit(self, body: Mapping[str, object], idempotency_key: str) -> JobAccepted:
        """A job over HTTP; the original one where the key was used before."""
        headers = {"Idempotency-Key": idempotency_key}
        return _decode(await self._request("POST", "/v1/jobs", json=body, headers=headers), JobAccepted)

    async def upload(self, content: bytes) -> str:
        """Send a picture; the reference by which jobs name it for a while."""
        body = await self._request("POST", "/v1/upload", files={"file": ("picture", content)})
        return _decode(body, UploadAccepted).file_ref

    async def start_dream(self, body: Mapping[str, object]) -> DreamView:
        """Begin a dream session."""
        return _decode(await self._request("POST", "/v1/dreams", json=body), DreamView)

    async def dream(self, session: str) -> DreamView:
        """A dream session as it is now."""
        return _decode(await self._get(f"/v1/dreams/{_path(session)}"), DreamView)

    async def dreams(self, *, limit: int) -> DreamPage:
        """Dream sessions, the latest first."""
        return _decode(await self._get("/v1/dreams", {"limit": str(limit)}), DreamPage)

    async def guide_dream(self, session: str, body: Mapping[str, object]) -> DreamView:
        """Steer a dream session."""
        return _decode(await self._request("PATCH", f"/v1/dreams/{_path(session)}", json=body), DreamView)

    async def stop_dream(self, session: str) -> DreamView:
        """Have it make no more candidates."""
        return _decode(await self._request("POST", f"/v1/dreams/{_path(session)}/stop"), DreamView)

    async def dream_top(self, session: str, query: Mapping[str, str]) -> DreamCandidatePage:
        """The best candidates of a dream session."""
        return _decode(await self._get(f"/v1/dreams/{_path(session)}/top", query), DreamCandidatePage)

    async def replay_dream(self, session: str) -> DreamReplayed:
        """Choose all its candidates again."""
        return _decode(await self._get(f"/v1/dreams/{_path(session)}/replay"), DreamReplayed)

    async def comfy_workflows(self) -> ComfyWorkflows:
        """The ComfyUI workflows there are."""
        return _decode(await self._get("/v1/comfy/workflows"), ComfyWorkflows)

    async def comfy_instances(self) -> ComfyInstances:
        """The ComfyUI servers; for administrators."""
        return _decode(await self._get("/v1/comfy/instances"), ComfyInstances)

    async def put_comfy_instance(self, name: str, body: Mapping[str, object]) -> ComfyInstance:
        """Enter a ComfyUI server, or change what is wanted of one."""
        return _decode(await self._request("PUT", _instance(name), json=body), ComfyInstance)

    async def delete_comfy_instance(self, name: str) -> ComfyInstance:
        """Take a ComfyUI server out; its last record."""
        return _decode(await self._request("DELETE", _instance(name)), ComfyInstance)

    async def status(self) -> SystemStatus:
        """State of the platform, as `system:status` has it."""
        return _decode(await self._get("/v1/system/status"), SystemStatus)

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the server says that it can work, and its whole answer."""
        answer = await self._send("GET", "/ready")
        if answer.status_code not in (200, 503):
            raise http_failure(answer.status_code, answer.content)
        return answer.status_code == 200, _decode(answer.content, dict[str, Any])

    async def download(self, url: str) -> bytes:
        """A stored output."""
        return await self._get(url)

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        return await self._request("GET", path, params=query)

    async def _request(self, method: str, path: str, **arguments: Any) -> bytes:
        answer = await self._send(method, path, **arguments)
        if answer.is_error:
            raise http_failure(answer.status_code, answer.content)
        return answer.content

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        url = self.address.absolute(path)
        if url.startswith(
            f"{self.address.url}/"
        ):  # a picture may lie elsewhere, where our token is none of their business
            arguments["headers"] = {**self.address.credentials, **arguments.get("headers", {})}
        try:
            return await self._http.request(method, url, **arguments)
        except httpx.HTTPError as error:
            raise unreachable(self.address.url, error) from None


def _instance(name: str) -> str:
    return f"/v1/comfy/instances/{quote(name, safe='')}"


def _path(part: str) -> str:
    return quote(part, safe="")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        raise not_reverie("the server gave an answer that cannot be read") from None
