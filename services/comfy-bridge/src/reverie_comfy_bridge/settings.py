"""What can be set for the ComfyUI bridge, with its bounds."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from reverie_comfy_bridge.instance.client import Timeouts
from reverie_comfy_bridge.instance.findings import Limits
from reverie_comfy_bridge.workflows.safe_nodes import SAFE_NODES
from reverie_jobs.instance_urls import instance_url
from reverie_runtime.settings import DrainSettings, HealthSettings, LogSettings, NatsSettings
from reverie_storage.settings import StorageSettings

#: Beside the worker and the monitor of the same machine, whose defaults are 4201 and 4203.
HEALTH_PORT: Final = 4204
MIB: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class GivenInstance(msgspec.Struct, frozen=True):
    """An instance as the settings name it."""

    name: str
    url: str
    tags: tuple[str, ...] = ()
    max_prompts: int = 1


class InstanceLimits(msgspec.Struct, frozen=True):
    """Times that hold for each instance, in seconds; see the settings."""

    timeouts: Timeouts = Timeouts()
    health: Limits = Limits()
    look_s: float = 2.0
    least_look_s: float = 0.1
    ping_s: float = 5.0
    unreachable_s: float = 90.0
    refused_s: float = 15.0


class ComfySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `comfy`."""

    instances: Annotated[
        tuple[str, ...],
        Meta(
            description="ComfyUI servers, such as `name=http://host:8188`; `tag=…` and `max_prompts=2` may follow "
            "behind blanks.  Others can be added at run time"
        ),
    ] = ()
    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,64}$",
            description="name of this bridge, kept over restarts and no other bridge's; empty is the host's name",
        ),
    ] = ""
    workflows: Annotated[
        str, Meta(description="folder of named workflows beside those that ship; watched; empty is none")
    ] = ""
    shipped_workflows: Annotated[bool, Meta(description="offer the workflows that come with the bridge")] = (
        True
    )
    allowed_nodes: Annotated[
        tuple[str, ...],
        Meta(
            description="classes of nodes that graphs of clients with that right may use; `*` is all; empty is a "
            "list of stock nodes that reach neither files nor network"
        ),
    ] = ()
    preview_method: Annotated[
        Literal["auto", "latent2rgb", "taesd", "none"],
        Meta(description="how ComfyUI makes previews where a job does not say and its version can choose"),
    ] = "auto"
    preview_hz: Annotated[
        float, Meta(gt=0, le=30, description="most previews a second that are passed on, of one job")
    ] = 4.0
    output_mb: Annotated[
        float, Meta(gt=0, le=65536, description="Largest output file that is kept, in MiB")
    ] = 512.0
    outputs: Annotated[int, Meta(ge=1, le=10_000, description="Most output files of one job")] = 256
    connect_s: Annotated[float, Meta(gt=0, le=60, description="Seconds to connect to an instance")] = 5.0
    answer_s: Annotated[float, Meta(gt=0, le=600, description="Seconds for an answer over HTTP")] = 20.0
    object_info_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds for `/object_info`, which is large")
    ] = 120.0
    transfer_s: Annotated[float, Meta(gt=0, le=3600, description="Seconds for one input or output file")] = (
        300.0
    )
    look_s: Annotated[
        float, Meta(ge=0.1, le=60, description="Seconds between looks at the queue while prompts are inside")
    ] = 2.0
    ping_s: Annotated[float, Meta(ge=0.1, le=60, description="Seconds between pings on the socket")] = 5.0
    pong_s: Annotated[
        float, Meta(gt=0, le=600, description="Seconds without an answer to a ping that end a socket")
    ] = 20.0
    status_s: Annotated[
        float,
        Meta(
            gt=0, le=600, description="Seconds without a `status` after a prompt was sent: the socket is deaf"
        ),
    ] = 5.0
    silent_s: Annotated[
        float, Meta(gt=0, description="Seconds without an event of a running prompt: it is interrupted")
    ] = 600.0
    interrupt_s: Annotated[
        float,
        Meta(
            gt=0, description="Seconds in which an interrupt takes effect, or the instance gets no more work"
        ),
    ] = 60.0
    unreachable_s: Annotated[
        float,
        Meta(
            gt=0, description="Seconds without contact after which an instance's jobs go back into the queue"
        ),
    ] = 90.0
    refused_s: Annotated[
        float, Meta(gt=0, description="The same where nobody listens at its port: its process has ended")
    ] = 15.0

    def __post_init__(self) -> None:
        """ValueError for an instance that is not `name=url`."""
        names = [instance.name for instance in self.given_instances]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"comfy.instances: {name!r} stands there twice")

    @property
    def given_instances(self) -> tuple[GivenInstance, ...]:
        """The instances, read."""
        return tuple(_read_instance(text) for text in self.instances)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Classes that clients' own graphs may use."""
        return self.allowed_nodes or SAFE_NODES

    @property
    def limits(self) -> InstanceLimits:
        """The times of each instance."""
        return InstanceLimits(
            timeouts=Timeouts(
                connect_s=self.connect_s,
                answer_s=self.answer_s,
                object_info_s=self.object_info_s,
                transfer_s=self.transfer_s,
            ),
            health=Limits(
                status_s=self.status_s,
                pong_s=self.pong_s,
                silent_s=self.silent_s,
                interrupt_s=self.interrupt_s,
            ),
            look_s=self.look_s,
            ping_s=self.ping_s,
            unreachable_s=self.unreachable_s,
            refused_s=min(self.refused_s, self.unreachable_s),
        )


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the ComfyUI bridge."""

    comfy: ComfySettings = ComfySettings()
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    health: HealthSettings = HealthSettings(port=HEALTH_PORT)
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()


def _read_instance(text: str) -> GivenInstance:
    given, *options = text.split()
    name, separator, url = given.partition("=")
    if not separator or not _NAME.fullmatch(name):
        raise ValueError(
            f"comfy.instances: {given!r} is not name=http://host:port, with a name of 1 to 32 of a-z, 0-9, _ and -"
        )
    try:
        address = instance_url(url)
    except ValueError as error:
        raise ValueError(f"comfy.instances: {name}: its URL {error}") from None
    tags, max_prompts = [], 1
    for option in options:
        key, _, value = option.partition("=")
        if key == "tag" and value:
            tags.append(value)
        elif key == "max_prompts" and value in ("1", "2"):
            max_prompts = int(value)
        else:
            raise ValueError(
                f"comfy.instances: {name}: {option!r} is neither tag=… nor max_prompts=1 or max_prompts=2"
            )
    return GivenInstance(name, address, tuple(tags), max_prompts)
