"""The server for tests goes away in every way, and comes back."""

import socket

import pytest

from reverie_testing.nats_server import NatsServer


def greeting(server: NatsServer) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 0.3) as connection:
        return connection.recv(4)


def test_it_keeps_its_port_over_a_kill(nats_server: NatsServer) -> None:
    url = nats_server.url
    nats_server.kill()
    with pytest.raises(OSError, match="refused"):
        greeting(nats_server)
    nats_server.start()
    assert nats_server.url == url
    assert greeting(nats_server) == b"INFO"


def test_paused_it_takes_connections_and_says_nothing(nats_server: NatsServer) -> None:
    nats_server.pause()
    with pytest.raises(TimeoutError):
        greeting(nats_server)
    nats_server.resume()
    assert greeting(nats_server) == b"INFO"


def test_a_running_server_is_not_wiped(nats_server: NatsServer) -> None:
    with pytest.raises(AssertionError):
        nats_server.wipe()


def test_stopping_twice_stops_once(nats_server: NatsServer) -> None:
    nats_server.stop()
    nats_server.stop()
    assert not nats_server.running


def test_two_servers_do_not_meet(nats_server: NatsServer, shared_nats_server: NatsServer) -> None:
    assert nats_server.port != shared_nats_server.port
