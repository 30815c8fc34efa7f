"""From `python -m reverie_x` to a served process and its orderly end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from reverie_runtime.bus.nats import connect_nats
from reverie_runtime.bus.port import Bus, BusError
from reverie_runtime.clock import Clock, SystemClock
from reverie_runtime.health import Health, health_app
from reverie_runtime.http_server import StartError, serve_http
from reverie_runtime.logs import configure_logs
from reverie_runtime.metrics import Metrics
from reverie_runtime.settings import CONFIG_VARIABLE, SettingsError, document_settings, load_settings

CONNECT_TIMEOUT_S: Final = 2.0
CONNECT_RETRY_S: Final = 0.2
CANCEL_GRACE_S: Final = 2.0

S = TypeVar("S", bound=msgspec.Struct)
S_contra = TypeVar("S_contra", bound=msgspec.Struct, contravariant=True)

log = structlog.get_logger(__name__)


class Exit(IntEnum):
    """Exit codes of a service."""

    OK = 0
    FAILED = 1
    BAD_SETTINGS = 2


class Serve(Protocol[S_contra]):
    """A service: entered when ready, drained on exit.

    It adds health checks and metrics where it makes the parts that they are about.
    """

    def __call__(
        self, settings: S_contra, *, bus: Bus, clock: Clock, health: Health, metrics: Metrics
    ) -> AbstractAsyncContextManager[object]:
        """The running service."""


def run_service(
    name: str,
    settings: type[S],
    serve: Serve[S],
    *,
    tolerated_sections: Collection[str] = (),
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run one service until SIGTERM or SIGINT; its exit code.

    `settings` has the sections `nats`, `log`, `drain`, and `health` unless the service serves health by itself.
    The first signal drains within `drain.deadline_s`, a second one ends the process at once.
    """
    environ = os.environ if environ is None else environ
    arguments = _parser(name).parse_args(argv)
    if arguments.settings:
        sys.stdout.write(document_settings(settings))
        return Exit.OK
    file = arguments.config or environ.get(CONFIG_VARIABLE)
    try:
        resolved = load_settings(
            settings,
            config=Path(file) if file else None,
            environ=environ,
            tolerated_sections=tolerated_sections,
        )
    except SettingsError as error:
        return _end(name, str(error), Exit.BAD_SETTINGS)
    process = _Process(name, resolved)
    configure_logs(process.settings.log, service=name)
    try:
        in_time = asyncio.run(process.run(serve))
    except StartError as error:
        return _end(name, str(error), Exit.FAILED)
    except Exception as error:
        log.exception("the service crashed")
        return _end(name, f"crashed: {type(error).__name__}, see the log above", Exit.FAILED)
    if in_time:
        return _end(name, process.gave_up, Exit.FAILED) if process.gave_up else Exit.OK
    code = _end(name, "work in progress was cut off at drain.deadline_s", Exit.FAILED)
    logging.shutdown()
    os._exit(code)  # a thread that did not stop in time would keep the process alive


class _Process:
    """One run: connect, serve, wait for a signal, drain."""

    def __init__(self, name: str, settings: Any) -> None:
        self.settings = settings
        self._name = name
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._health = Health(on_give_up=self._stop.set)
        self._health.hold = "it is starting"
        self._metrics = Metrics()
        self._ready = False

    @property
    def gave_up(self) -> str:
        """Why the service could not go on; empty if it was asked to end."""
        return self._health.gave_up

    async def run(self, serve: Serve[Any]) -> bool:
        """Whether everything ended in time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        serving = asyncio.create_task(self._serve(serve), name=self._name)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done() and not self._ready:
            serving.cancel()
        await asyncio.wait((serving,), timeout=self.settings.drain.deadline_s)
        in_time = serving.done()
        if not in_time:
            serving.cancel()
            await asyncio.wait((serving,), timeout=CANCEL_GRACE_S)
        if serving.done() and not serving.cancelled():
            serving.result()
        return in_time

    async def _serve(self, serve: Serve[Any]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            address = getattr(self.settings, "health", None)
            if address is not None:
                app = health_app(self._health, self._metrics)
                served = serve_http(app, host=address.host, port=address.port, setting="health.port")
                host, port = await stack.enter_async_context(served)
                log.info("health is served", host=host, port=port)
            bus = await self._connect()
            self._health.hold = "it is starting"
            stack.push_async_callback(bus.close)
            self._health.add_bus(bus)
            await stack.enter_async_context(self._metrics.measure(bus, self._clock))
            service = serve(
                self.settings, bus=bus, clock=self._clock, health=self._health, metrics=self._metrics
            )
            async with service:
                self._ready = True
                if not self._stop.is_set():
                    self._health.hold = ""
                log.info("ready")
                await self._stop.wait()
                log.info("draining", deadline_s=self.settings.drain.deadline_s)
            log.info("drained")

    async def _connect(self) -> Bus:
        """The bus, however long it takes to appear."""
        reason = ""
        while True:
            try:
                return await connect_nats(
                    self.settings.nats.url, name=self._name, connect_timeout=CONNECT_TIMEOUT_S
                )
            except BusError as error:
                if str(error) != reason:
                    log.warning("waiting for NATS", reason=str(error))
                reason = str(error)
                self._health.hold = f"waiting for NATS: {reason}"
                await self._clock.sleep(CONNECT_RETRY_S)

    def _signalled(self) -> None:
        if self._stop.is_set():
            os._exit(_end(self._name, "ended by a second signal", Exit.FAILED))
        self._health.hold = "it is stopping"
        self._stop.set()


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"reverie_{name}", description=f"The {name} service of Reverie.")
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of settings (or {CONFIG_VARIABLE})")
    parser.add_argument(
        "--settings", action="store_true", help="print every setting and its default, then exit"
    )
    return parser


def _end(name: str, sentence: str, code: Exit) -> Exit:
    sys.stderr.write(f"reverie {name}: {sentence}\n")
    return code
