"""Liveness, readiness and metrics over HTTP.

A check is declared where its dependency is made: `health.add("storage", storage_check)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import structlog

from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.metrics import CONTENT_TYPE, Metrics

CHECK_TIMEOUT_S: Final = 2.0

#: Returns None if all is well, else one sentence for an operator.
Check = Callable[[], Awaitable[str | None]]
Asgi = Callable[[MutableMapping[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


class Health:
    """What this process needs in order to do its work."""

    def __init__(self, on_give_up: Callable[[], None] = lambda: None) -> None:
        self._on_give_up = on_give_up
        self._checks: dict[str, Check] = {}
        self._notes: dict[str, Callable[[], dict[str, str]]] = {}
        #: Why the process itself is not ready, whatever the checks say: it starts or stops.
        self.hold = ""
        #: Why the service cannot go on in this process; empty as long as it can.
        self.gave_up = ""

    def give_up(self, reason: str) -> None:
        """End this process in good order, as failed: only a new one can do better."""
        self.hold = self.gave_up = reason
        self._on_give_up()

    def add(self, name: str, check: Check) -> None:
        """Make readiness depend on a check."""
        self._checks[name] = check

    def add_notes(self, name: str, notes: Callable[[], dict[str, str]]) -> None:
        """Let `/ready` tell what is amiss around this process although it can do its work: sentences by subject."""
        self._notes[name] = notes

    def notes(self) -> dict[str, str]:
        """What is amiss, by `name/subject`."""
        return {
            f"{name}/{subject}": sentence
            for name, notes in self._notes.items()
            for subject, sentence in notes().items()
        }

    def add_bus(self, bus: Bus) -> None:
        """Make readiness depend on a round trip through the bus's storage."""

        async def check() -> str | None:
            try:
                await bus.check(timeout=CHECK_TIMEOUT_S)
            except BusError as error:
                return str(error)
            return None

        self.add("nats", check)

    async def failures(self) -> dict[str, str]:
        """Reasons for not being ready, by check; all checks run at once, none longer than CHECK_TIMEOUT_S."""
        checks = dict(self._checks)  # a service that starts adds to them while they run
        reasons = await asyncio.gather(*(self._run(name, check) for name, check in checks.items()))
        failed = {name: reason for name, reason in zip(checks, reasons, strict=True) if reason}
        return {"service": self.hold} | failed if self.hold else failed

    async def _run(self, name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return await check()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except Exception:
            log.exception("a health check failed", check=name)
            return "the check itself failed, see the log"


def health_app(health: Health, metrics: Metrics) -> Asgi:
    """An ASGI application with `/health`, `/ready` and `/metrics`."""

    async def app(
        scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        match scope["path"]:
            case "/health":
                await _answer(send, 200, {"status": "ok"})
            case "/ready":
                failures = await health.failures()
                status = "unavailable" if failures else "ok"
                notes = {"notes": notes} if (notes := health.notes()) else {}
                await _answer(
                    send, 503 if failures else 200, {"status": status, "reasons": failures, **notes}
                )
            case "/metrics":
                await _send(send, 200, metrics.render(), CONTENT_TYPE)
            case _:
                await _answer(send, 404, {"detail": "there is /health, /ready and /metrics"})

    return app


async def _answer(send: Callable[..., Any], status: int, body: object) -> None:
    await _send(send, status, msgspec.json.encode(body), "application/json")


async def _send(send: Callable[..., Any], status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
