"""Our own nats-server: a real one, on a port of its own, with durable writes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.nats_server import NatsServer, check_given, configuration, worth_showing
from reverie_launcher.ports import PRIVATE_PORTS, choose_port
from reverie_launcher.supervisor import Child, Supervisor
from reverie_testing.nats_server import NatsServer as GivenServer


class Silent:
    def line(self, child: str, text: str) -> None: ...

    def notice(self, child: str, text: str) -> None: ...

    def warning(self, child: str, text: str) -> None: ...


@asynccontextmanager
async def running(server: NatsServer) -> AsyncIterator[Child]:
    child = Child("nats", server.prepare, reporter=Silent(), drain_s=10, rng=random.Random(1))
    supervisor = Supervisor()
    try:
        async with asyncio.timeout(30):
            await supervisor.start([child])
        yield child
    finally:
        await supervisor.stop()


def make(folder: Path, seed: int = 1) -> NatsServer:
    return NatsServer(folder / "nats", dict(os.environ), random.Random(seed))


async def test_after_a_kill_it_comes_back_on_the_same_port_with_what_was_written(tmp_path: Path) -> None:
    server = make(tmp_path)
    async with running(server) as child:
        url = server.url
        client = await nats.connect(url)
        bucket = await client.jetstream().create_key_value(bucket="jobs")
        await bucket.put("key", b"value")
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while child.starts < 2:
                await asyncio.sleep(0.01)
            await child.ready.wait()
        assert server.url == url
        await client.close()
        client = await nats.connect(url)
        entry = await (await client.jetstream().key_value("jobs")).get("key")
        assert entry.value == b"value"
        await client.close()


async def test_once_it_was_ready_its_port_stays_even_while_somebody_else_has_it(tmp_path: Path) -> None:
    server = make(tmp_path)
    async with running(server):
        url = server.url
        server.prepare()  # as before a restart, with the port still taken
        assert server.url == url


async def test_the_next_run_has_the_same_port_if_it_is_free(tmp_path: Path) -> None:
    async with running(first := make(tmp_path, seed=1)):
        pass
    assert make(tmp_path, seed=2).port == first.port


async def test_a_port_that_somebody_else_takes_first_is_given_up_for_another(tmp_path: Path) -> None:
    server = make(tmp_path)
    taken = server.port
    with socket.create_server(("127.0.0.1", taken)):
        async with running(server):
            assert server.port != taken


async def test_two_servers_that_start_at_once_get_two_ports(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one", seed=7), make(tmp_path / "two", seed=7)
    async with running(one), running(two):
        assert one.port != two.port


async def test_it_listens_on_loopback_only_and_syncs_every_write(tmp_path: Path) -> None:
    settings = json.loads(configuration(tmp_path / 'odd "name"', 24_000, "name"))
    assert settings["listen"] == "127.0.0.1:24000"
    assert settings["jetstream"] == {"store_dir": str(tmp_path / 'odd "name"'), "sync_interval": "always"}
    assert (settings["max_payload"], settings["ping_interval"]) == (1 << 20, "5s")


async def test_a_folder_with_an_odd_name_works(tmp_path: Path) -> None:
    folder = tmp_path / 'ödd "näme" $HOME {x}'
    async with running(make(folder)):
        assert (folder / "nats" / "jetstream").is_dir()


def test_private_ports_are_not_among_those_of_outgoing_connections() -> None:
    range_file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(range_file.read_text().split()[0]) if range_file.exists() else 32_768
    assert PRIVATE_PORTS.stop <= first
    assert choose_port(random.Random(1)) in PRIVATE_PORTS


async def test_a_given_server_with_jetstream_passes_the_check(nats_server: GivenServer) -> None:
    await check_given(nats_server.url)


async def test_a_given_server_that_is_not_there_is_one_sentence(nats_server: GivenServer) -> None:
    nats_server.kill()
    with pytest.raises(Failure, match="cannot be reached") as failed:
        await check_given(nats_server.url)
    assert failed.value.exit_code is ExitCode.UNREACHABLE
    assert "--nats" in failed.value.advice


def test_only_warnings_of_nats_server_are_worth_showing() -> None:
    assert not worth_showing("[1] 2026/01/01 00:00:00.0 [INF] Server is ready")
    assert worth_showing("[1] 2026/01/01 00:00:00.0 [WRN] disk is slow")
    assert worth_showing("nats-server: open nats.conf: permission denied")
