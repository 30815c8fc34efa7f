"""Each service gets its own variables and no others."""

from __future__ import annotations

import importlib
import random
import sys

import msgspec
import pytest

from reverie_launcher.services import SERVICES, SHARED_SECTIONS, Service, environment_of, prepare, reachable

GATEWAY, INFERENCE, DREAMS, MONITOR, BRIDGE = SERVICES
USER = {
    "PATH": "/bin",
    "REVERIE_LOG__LEVEL": "debug",
    "REVERIE_GATEWAY__MAX_QUEUED": "7",
    "REVERIE_INFERENCE__MODEL": "theirs",
    "REVERIE_URL": "http://elsewhere",
}
VALUES = {
    "nats": {"url": "nats://here"},
    "inference": {"model": "ours"},
    "gateway": {"port": "4200", "host": "::"},
}


def test_a_service_gets_shared_sections_and_its_own_and_nothing_of_another() -> None:
    assert environment_of(GATEWAY, USER, VALUES) == {
        "PATH": "/bin",
        "PYTHONUNBUFFERED": "1",
        "REVERIE_LOG__LEVEL": "debug",
        "REVERIE_GATEWAY__MAX_QUEUED": "7",
        "REVERIE_NATS__URL": "nats://here",
        "REVERIE_GATEWAY__PORT": "4200",
        "REVERIE_GATEWAY__HOST": "::",
    }


def test_what_was_decided_goes_over_the_users_variable() -> None:
    environment = environment_of(INFERENCE, USER, VALUES)
    assert environment["REVERIE_INFERENCE__MODEL"] == "ours"
    assert not [name for name in environment if name.startswith("REVERIE_GATEWAY__")]


def test_a_service_without_a_given_port_gets_a_free_one_on_loopback() -> None:
    launch = prepare(INFERENCE, USER, VALUES, random.Random(1))
    assert launch.arguments == (sys.executable, "-m", "reverie_inference")
    assert launch.environment["REVERIE_HEALTH__HOST"] == "127.0.0.1"
    assert int(launch.environment["REVERIE_HEALTH__PORT"]) > 1023


def test_a_port_that_the_user_wants_for_a_service_is_kept() -> None:
    launch = prepare(INFERENCE, {**USER, "REVERIE_HEALTH__PORT": "4201"}, VALUES, random.Random(1))
    assert launch.environment["REVERIE_HEALTH__PORT"] == "4201"


def test_the_monitor_does_not_take_the_port_that_is_meant_for_the_worker() -> None:
    launch = prepare(MONITOR, {**USER, "REVERIE_HEALTH__PORT": "4201"}, VALUES, random.Random(1))
    assert launch.environment["REVERIE_HEALTH__PORT"] != "4201"


def test_a_later_service_is_one_line() -> None:
    launch = prepare(
        Service("dreams", "reverie_dreams", ("dreams", "health")), USER, VALUES, random.Random(1)
    )
    assert launch.arguments[-1] == "reverie_dreams"
    assert "REVERIE_HEALTH__PORT" in launch.environment


def test_a_server_that_listens_everywhere_is_reached_on_loopback() -> None:
    assert (reachable("0.0.0.0"), reachable("::"), reachable("10.0.0.7")) == ("127.0.0.1", "::1", "10.0.0.7")


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_table_names_exactly_the_sections_that_a_service_has(service: Service) -> None:
    settings = importlib.import_module(f"{service.module}.settings").Settings
    sections = {field.encode_name for field in msgspec.structs.fields(settings)}
    assert sections == {*SHARED_SECTIONS, *service.sections}
