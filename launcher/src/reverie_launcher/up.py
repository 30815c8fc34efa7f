"""`reverie up`: everything on one machine, from nothing to a first picture, until Ctrl-C.

`Platform.run` read from top to bottom is the whole life of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from reverie_launcher.banner import banner_rows
from reverie_launcher.client.address import Address, parse_address
from reverie_launcher.client.credentials import own_token
from reverie_launcher.data_directory import DataDirectory
from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.first_picture import make_first_picture
from reverie_launcher.nats_server import NatsServer, check_given, worth_showing
from reverie_launcher.plan import Plan
from reverie_launcher.public_port import check_public_port
from reverie_launcher.services import CONFIG, Values, foreign_environment, prepare, reachable
from reverie_launcher.supervisor import Child, Launch, SettingsRefused, Supervisor
from reverie_launcher.terminal.banner import show_banner
from reverie_launcher.terminal.log_view import LogView

NATS = "nats"
#: nats-server has nothing to drain once its clients are gone.
NATS_STOP_S = 5.0
#: What a service gets beyond its own drain deadline before it is killed.
DRAIN_MARGIN_S = 3.0


class Platform:
    """All processes of one `reverie up`."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], console: Console) -> None:
        self._plan = plan
        self._environment = dict(environment) | ({CONFIG: str(plan.config)} if plan.config else {})
        self._console = console
        self._log = LogView(console, (NATS, *(service.name for service in plan.services)))
        self._rng = random.Random()

    @property
    def address(self) -> Address:
        """Where it is found from this machine."""
        host = reachable(self._plan.host)
        return parse_address(
            f"http://{f'[{host}]' if ':' in host else host}:{self._plan.port}",
            token=own_token(self._environment, self._plan.config),
        )

    async def run(self) -> ExitCode:
        """Start, serve, drain; Failure if it cannot start, or a service refuses its settings."""
        check_public_port(self._plan.host, self._plan.port)
        with contextlib.closing(DataDirectory.open(self._plan.data)) as data:
            data.describe_holder(f"process {os.getpid()}, {self.address.url}")
            supervisor = Supervisor()
            stop = StopSignals(supervisor.kill)
            try:
                async with stop, self._draining(supervisor):
                    nats_url = await self._start_nats(supervisor, data)
                    await self._start_services(supervisor, data, nats_url)
                    show_banner(self._console, await banner_rows(self.address, self._plan, data, nats_url))
                    await self._serve(supervisor, data)
            except SettingsRefused as refused:
                raise Failure(
                    ExitCode.USAGE,
                    f"{refused.child} refuses its settings: {refused.last_line}",
                    advice="Correct them and start again.",
                ) from None
        return ExitCode.INTERRUPTED if stop.repeated else ExitCode.OK

    async def _start_nats(self, supervisor: Supervisor, data: DataDirectory) -> str:
        """URL of the server: the given one, checked, or our own."""
        if self._plan.nats is not None:
            await check_given(self._plan.nats)
            return self._plan.nats
        server = NatsServer(data.nats, foreign_environment(self._environment), self._rng)
        child = self._child(NATS, server.prepare, drain_s=NATS_STOP_S, shows=worth_showing)
        with self._waiting(NATS):
            await supervisor.start([child])
        return server.url

    async def _start_services(self, supervisor: Supervisor, data: DataDirectory, nats_url: str) -> None:
        values = self._values(data, nats_url)
        children = [
            self._child(
                service.name,
                partial(prepare, service, self._environment, values, self._rng),
                drain_s=self._plan.drain_s + DRAIN_MARGIN_S,
            )
            for service in self._plan.services
        ]
        with self._waiting(", ".join(child.name for child in children)):
            await supervisor.start(children)

    def _monitor_values(self) -> dict[str, str]:
        """The monitor asks the gateway, unless the user names others."""
        if self._environment.get("REVERIE_MONITOR__SERVICES"):
            return {}
        return {"services": f"gateway={self.address.url}/ready"}

    def _comfy_values(self) -> dict[str, str]:
        """The bridge's instances, and a name that it keeps over restarts as the worker does."""
        named = {} if self._environment.get("REVERIE_COMFY__NAME") else {"name": self._plan.worker}
        return named | ({"instances": ",".join(self._plan.comfy)} if self._plan.comfy else {})

    def _dreams_values(self) -> dict[str, str]:
        """The dreams process keeps its name over restarts, by which it takes its sessions back."""
        values = {"name": self._plan.worker}
        if models := self._environment.get("REVERIE_BUILTIN_MODELS"):
            values["builtin_scorer"] = str(Path(models).expanduser().absolute() / "scorer")
        given = {name for name in values if self._environment.get(f"REVERIE_DREAMS__{name.upper()}")}
        return {name: value for name, value in values.items() if name not in given}

    def _values(self, data: DataDirectory, nats_url: str) -> Values:
        """What we decide for the services, by settings section."""
        plan = self._plan
        return {
            "nats": {"url": nats_url},
            "storage": {"path": plan.storage or str(data.storage)},
            # JSON is ours to make readable; a format that was asked for is passed on as it is.
            "log": {"format": plan.log_format or "json"},
            "drain": {"deadline_s": f"{plan.drain_s:g}"},
            "gateway": {"host": plan.host, "port": str(plan.port)},
            "monitor": self._monitor_values(),
            "dreams": self._dreams_values(),
            "comfy": self._comfy_values(),
            "inference": {
                **({"modes": plan.modes} if plan.modes else {"model": plan.model}),
                "name": plan.worker,
                **({"node": plan.node} if plan.node else {}),
                **({"super_resolution": plan.super_resolution} if plan.super_resolution else {}),
            },
        }

    def _child(
        self,
        name: str,
        start: Callable[[], Launch],
        *,
        drain_s: float,
        shows: Callable[[str], bool] = lambda _: True,
    ) -> Child:
        return Child(name, start, reporter=self._log, drain_s=drain_s, rng=self._rng, shows=shows)

    def _waiting(self, what: str) -> AbstractContextManager[object]:
        """Says what is being started: moving on a terminal, as a line elsewhere."""
        text = f"starting {what} …"
        if self._console.is_terminal:
            return self._console.status(text)
        self._console.print(text)
        return contextlib.nullcontext()

    async def _serve(self, supervisor: Supervisor, data: DataDirectory) -> None:
        """Make the first picture and go on until a child gives up; stop signals end it by cancelling."""
        picture = (
            asyncio.create_task(make_first_picture(self.address, data.first_picture, self._console))
            if self._plan.generate
            else None
        )
        try:
            await supervisor.failed
        finally:
            if picture is not None:
                picture.cancel()
                await asyncio.gather(picture, return_exceptions=True)

    @asynccontextmanager
    async def _draining(self, supervisor: Supervisor) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._console.print("draining … (Ctrl-C again ends everything at once)", style="dim")
            await supervisor.stop()
            self._console.print("stopped", style="dim")


class StopSignals:
    """The first SIGINT or SIGTERM cancels the task inside, which then drains; the next one kills.

    The cancellation that the first one caused ends here, with the context.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self.requested = False
        self.repeated = False
        self._kill = kill
        self._task: asyncio.Task[object] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        ours = self.requested and kind is asyncio.CancelledError
        if ours and self._task is not None:
            self._task.uncancel()
        return ours

    def _on_signal(self) -> None:
        if self.requested:
            self.repeated = True
            self._kill()
        elif self._task is not None:
            self.requested = True
            self._task.cancel()
