"""The services that `reverie up` runs, and the environment that each of them gets."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import NamedTuple

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.ports import LOOPBACK, choose_port
from reverie_launcher.readiness import http_ready
from reverie_launcher.supervisor import Launch

PREFIX = "REVERIE_"
CONFIG = "REVERIE_CONFIG"
#: Variables without a section: the launcher's own, or of every service.
UNSECTIONED = (CONFIG, "REVERIE_URL", "REVERIE_TOKEN", "REVERIE_BUILTIN_MODELS", "REVERIE_DEBUG")
#: Settings sections that every service has.
SHARED_SECTIONS = ("nats", "storage", "log", "drain")

#: Values by section and key, as they go into REVERIE_<SECTION>__<KEY>.
Values = Mapping[str, Mapping[str, str]]


class Service(NamedTuple):
    """One service: its name, its module, the settings sections it has beside the shared ones.

    `listens` is the section with the host and port of its HTTP server.  Two services of one machine cannot share
    what the user says there: it is the first one's, and who is not `addressed` gets an address of ours.
    One that is `on_demand` runs only where its first section says anything.
    """

    name: str
    module: str
    sections: tuple[str, ...]
    listens: str = "health"
    addressed: bool = True
    on_demand: bool = False


SERVICES = (
    Service("gateway", "reverie_gateway", ("gateway", "auth"), listens="gateway"),
    Service("inference", "reverie_inference", ("inference", "health")),
    Service("dreams", "reverie_dreams", ("dreams", "health"), addressed=False),
    Service("monitor", "reverie_monitor", ("monitor", "alerts", "health"), addressed=False),
    Service("comfy-bridge", "reverie_comfy_bridge", ("comfy", "health"), addressed=False, on_demand=True),
)


def check_sections(environment: Mapping[str, str]) -> None:
    """Failure if a REVERIE_ variable belongs to no service: it would be silently without effect."""
    known = {*SHARED_SECTIONS, *(section for service in SERVICES for section in service.sections)}
    for name in sorted(environment):
        section = name.removeprefix(PREFIX).partition("__")[0].lower()
        if not name.startswith(PREFIX) or name in UNSECTIONED or section in known:
            continue
        allowed = ", ".join(f"{PREFIX}{known_section.upper()}__" for known_section in sorted(known))
        raise Failure(
            ExitCode.USAGE,
            f"The variable {name} belongs to no service.",
            advice=f"Unset it, or begin it with one of {allowed}.",
        )


def environment_of(service: Service, user: Mapping[str, str], values: Values) -> dict[str, str]:
    """The whole environment of one service: what is not Reverie's, the user's variables for it, our values."""
    sections = (*SHARED_SECTIONS, *service.sections)
    theirs = tuple(f"{PREFIX}{section.upper()}__" for section in sections)
    environment = foreign_environment(user)
    environment |= {name: value for name, value in user.items() if name.startswith(theirs) or name == CONFIG}
    for section in sections:
        for key, value in values.get(section, {}).items():
            environment[f"{PREFIX}{section}__{key}".upper()] = value
    # Its output is read through a pipe, where Python would keep lines back.
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def foreign_environment(user: Mapping[str, str]) -> dict[str, str]:
    """The variables that are not Reverie's."""
    return {name: value for name, value in user.items() if not name.startswith(PREFIX)}


def prepare(service: Service, user: Mapping[str, str], values: Values, rng: random.Random) -> Launch:
    """How to start a service now.  One without a given port gets a free one, another at each start."""
    own = f"{PREFIX}{service.listens}__".upper()
    keys = ("host", "port") if service.addressed else ()
    given = {key: user[own + key.upper()] for key in keys if user.get(own + key.upper())}
    address = {"host": LOOPBACK, **given, **values.get(service.listens, {})}
    if "port" not in address:
        address["port"] = str(choose_port(rng))
    environment = environment_of(service, user, {**values, service.listens: address})
    ready = http_ready(reachable(address["host"]), int(address["port"]))
    return Launch((sys.executable, "-m", service.module), environment, ready)


def reachable(host: str) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    return {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}.get(host, host)
