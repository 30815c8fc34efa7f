"""What `reverie up` was asked to do: options over the user's variables over the TOML file over defaults."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.services import (
    CONFIG,
    PREFIX,
    SERVICES,
    SHARED_SECTIONS,
    Service,
    check_sections,
)
from reverie_runtime.settings import DrainSettings

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4200
DEFAULT_DATA = Path("reverie-data")
#: The model that a checkout brings along, below `models/builtin` or REVERIE_BUILTIN_MODELS.
BUILTIN_MODEL = "text-to-image"
#: The super-resolution beside it, which enlarges pictures of any model.
BUILTIN_SUPER_RESOLUTION = "super-resolution"
#: A model folder with this file says itself what enlarges its pictures.
MODEL_CARD = "reverie.json"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class UpOptions(NamedTuple):
    """The command line of `reverie up`; None where nothing was said."""

    host: str | None = None
    port: int | None = None
    data: Path | None = None
    nats: str | None = None
    model: str | None = None
    config: Path | None = None
    generate: bool = True
    modes: Path | None = None
    comfy: tuple[str, ...] = ()


class Plan(NamedTuple):
    """Everything decided; `nats` is None where our own server is to be started.

    `modes` is a file of several models, and then there is no single `model`.  `super_resolution` is None where the
    model brings its own, or there is none.  `comfy` are ComfyUI servers, `name=url`; `services` those to be run.
    """

    host: str
    port: int
    data: Path
    nats: str | None
    model: str
    super_resolution: str | None
    worker: str
    node: str | None
    storage: str | None
    log_format: str | None
    drain_s: float
    config: Path | None
    generate: bool
    modes: str | None
    comfy: tuple[str, ...]
    services: tuple[Service, ...]


def resolve(options: UpOptions, environment: Mapping[str, str]) -> Plan:
    """Decide; Failure in one sentence where something cannot be."""
    check_sections(environment)
    config = options.config or _path(environment.get(CONFIG))
    table = _read(config) if config else {}

    def given(section: str, key: str) -> str | None:
        name = f"{PREFIX}{section}__{key}".upper()
        value = environment.get(name) or table.get(section, {}).get(key)  # empty counts as absent
        return None if value is None else str(value)

    modes = find_modes(options.modes or _path(given("inference", "modes")), options.model)
    model = "" if modes else find_model(options.model or given("inference", "model"), environment)
    data = (options.data or DEFAULT_DATA).expanduser().absolute()
    return Plan(
        host=options.host or given("gateway", "host") or DEFAULT_HOST,
        port=_port(options.port if options.port is not None else given("gateway", "port")),
        data=data,
        nats=options.nats or given("nats", "url"),
        model=model,
        super_resolution=given("inference", "super_resolution") or find_super_resolution(model, environment),
        worker=given("inference", "name") or worker_name(data),
        node=given("inference", "node") or given("monitor", "node"),
        storage=given("storage", "path"),
        log_format=given("log", "format"),
        drain_s=_seconds(given("drain", "deadline_s")),
        config=config.absolute() if config else None,
        generate=options.generate,
        modes=modes,
        comfy=name_instances(options.comfy),
        services=tuple(each for each in SERVICES if _is_wanted(each, options, environment, table)),
    )


def name_instances(given: Sequence[str]) -> tuple[str, ...]:
    """ComfyUI servers as the bridge's settings want them; those without a name are `comfy`, `comfy2` and so on."""
    named: list[str] = []
    for each in given:
        name, separator, url = each.partition("=")
        if not separator or "/" in name:
            name, url = "comfy" if len(given) == 1 or not named else f"comfy{len(named) + 1}", each
        if not url.startswith(("http://", "https://")):
            raise Failure(
                ExitCode.USAGE,
                f"{each} is no ComfyUI server.",
                advice="Give --comfy http://host:8188, or --comfy name=http://host:8188.",
            )
        named.append(f"{name}={url}")
    return tuple(named)


def _is_wanted(
    service: Service, options: UpOptions, environment: Mapping[str, str], table: Mapping[str, Any]
) -> bool:
    """Whether a service is to run: one on demand only where something is said to it."""
    section = service.sections[0]
    if not service.on_demand or (section == "comfy" and options.comfy):
        return True
    prefix = f"{PREFIX}{section}__".upper()
    return section in table or any(name.startswith(prefix) and value for name, value in environment.items())


def find_modes(modes: Path | None, model: str | None) -> str | None:
    """The file of modes made absolute; Failure if it is not there, or a single model was asked for as well."""
    if modes is None:
        return None
    path = modes.expanduser().absolute()
    if model is not None:
        raise Failure(
            ExitCode.USAGE,
            "--model and a file of modes do not go together.",
            advice="Add the model to the file, or leave the file away.",
        )
    if not path.is_file():
        raise Failure(ExitCode.USAGE, f"There is no file of modes at {modes}.", advice="Check --modes.")
    return str(path)


def find_model(model: str | None, environment: Mapping[str, str]) -> str:
    """A Hugging Face id as it is, a path made absolute, or the built-in model; Failure if it is not there."""
    if model is None:
        return _builtin_model(environment)
    path = Path(model).expanduser()
    if path.exists():
        return str(path.absolute())
    if _HUB_ID.fullmatch(model) and not model.endswith((".safetensors", ".ckpt")):
        return model
    raise Failure(
        ExitCode.USAGE,
        f"There is no model at {path}.",
        advice="Give a diffusers folder, a .safetensors file or a Hugging Face id such as owner/name.",
    )


def find_super_resolution(model: str, environment: Mapping[str, str]) -> str | None:
    """The built-in super-resolution for a model that brings none; None where it is not there."""
    path = _builtin_models(environment) / BUILTIN_SUPER_RESOLUTION
    return str(path) if path.is_dir() and not (Path(model) / MODEL_CARD).is_file() else None


def _builtin_models(environment: Mapping[str, str]) -> Path:
    checkout = Path(__file__).resolve().parents[3]
    folder = Path(environment.get("REVERIE_BUILTIN_MODELS") or checkout / "models" / "builtin")
    return folder.expanduser().absolute()


def _builtin_model(environment: Mapping[str, str]) -> str:
    path = _builtin_models(environment) / BUILTIN_MODEL
    if not path.is_dir():
        raise Failure(
            ExitCode.USAGE,
            f"The built-in model is not at {path}.",
            advice="Run from a complete checkout, set REVERIE_BUILTIN_MODELS, or give a model with --model.",
        )
    return str(path)


def worker_name(data: Path) -> str:
    """A name that this data directory's worker keeps over restarts, and no other worker has.

    A worker that comes back under its name takes back at once what its last incarnation was doing.
    """
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-")[:32] or "host"
    return f"{host}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:6]}"


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _port(value: str | int | None) -> int:
    try:
        port = DEFAULT_PORT if value is None else int(value)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise Failure(ExitCode.USAGE, f"{value} is no port.", advice="Give one from 1 to 65535 with --port.")
    return port


def _seconds(value: str | None) -> float:
    try:
        return DrainSettings().deadline_s if value is None else float(value)
    except ValueError:
        raise Failure(
            ExitCode.USAGE,
            f"{value!r} is no number of seconds.",
            advice="Correct drain.deadline_s (REVERIE_DRAIN__DEADLINE_S).",
        ) from None


def _read(path: Path) -> dict[str, Any]:
    """The TOML file; Failure for one that cannot be read, or with a section that belongs to no service."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(
            ExitCode.USAGE, f"{path} cannot be read: {error.strerror}.", advice="Check --config."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failure(ExitCode.USAGE, f"{path} is not valid TOML: {error}.", advice="Correct it.") from None
    known = sorted({*SHARED_SECTIONS, *(section for service in SERVICES for section in service.sections)})
    for section, value in table.items():
        if section not in known or not isinstance(value, dict):
            raise Failure(
                ExitCode.USAGE,
                f"{path}: {section} is no section of any service.",
                advice=f"There are {', '.join(f'[{name}]' for name in known)}.",
            )
    return table
