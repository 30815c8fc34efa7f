"""What can be set for a dreams service, with its bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from reverie_runtime.settings import DrainSettings, HealthSettings, LogSettings, NatsSettings
from reverie_storage.settings import StorageSettings

HEALTH_PORT = 4205


class DreamsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `dreams`."""

    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{0,64}$",
            description="name of this process, by which it takes its sessions back; empty is the host's",
        ),
    ] = ""
    sessions_per_user: Annotated[
        int, Meta(ge=1, le=100, description="sessions of one user that may dream at once")
    ] = 1
    max_in_flight: Annotated[
        int, Meta(ge=1, le=256, description="drafts of one session that wait or run at once, at most")
    ] = 32
    draft_steps: Annotated[
        int, Meta(ge=0, le=150, description="denoising steps of a draft; 0 is 60 % of the mode's default")
    ] = 0
    draft_size: Annotated[
        str,
        Meta(pattern=r"^(\d+x\d+)?$", description="size of a draft, `WxH`; empty is the mode's native one"),
    ] = ""
    prune: Annotated[bool, Meta(description="whether drafts that look bad half-way are given up")] = True
    modifiers: Annotated[
        str,
        Meta(description="TOML file of phrases that prompts may be given; empty is the one that comes along"),
    ] = ""
    scorers: Annotated[
        tuple[str, ...],
        Meta(
            description="scorers with their weights, such as `builtin=1`, `technical=0.2`, or with options "
            "`clip:/models/clip=1`; weight 0 only reports"
        ),
    ] = ("builtin=1", "technical=0.15", "aesthetic=0")
    builtin_scorer: Annotated[
        str, Meta(description="folder of the built-in image-text model; empty is that of the checkout")
    ] = ""
    calibration: Annotated[
        str,
        Meta(description="folder of recorded calibrations, `<scorer>.json`, before those that come along"),
    ] = ""
    preload: Annotated[
        bool,
        Meta(
            description="whether scorers are loaded at the start, and not by the first session, which waits then"
        ),
    ] = False
    keep_days: Annotated[
        float, Meta(gt=0, le=3650, description="days after its end that a session and its pictures are kept")
    ] = 30.0

    def __post_init__(self) -> None:
        """ValueError for scorers that are not `name[:options]=weight`."""
        read_scorers(self.scorers)


class ScorerChoice(msgspec.Struct, frozen=True):
    """One scorer of the settings."""

    name: str
    options: str
    weight: float


def read_scorers(chosen: tuple[str, ...]) -> list[ScorerChoice]:
    """The scorers of a setting; ValueError naming the wrong one."""
    choices = []
    for text in chosen:
        place, separator, weight = text.rpartition("=")
        name, _, options = place.partition(":")
        try:
            number = float(weight)
        except ValueError:
            number = -1.0
        if not separator or not name or not 0 <= number <= 100:
            raise ValueError(f"dreams.scorers: {text!r} is not name=weight or name:options=weight")
        choices.append(ScorerChoice(name, options, number))
    if not any(choice.weight > 0 for choice in choices):
        raise ValueError("dreams.scorers: at least one scorer needs a weight above 0")
    return choices


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All sections of the dreams service."""

    dreams: DreamsSettings = DreamsSettings()
    nats: NatsSettings = NatsSettings()
    storage: StorageSettings = StorageSettings()
    health: HealthSettings = HealthSettings(port=HEALTH_PORT)
    log: LogSettings = LogSettings()
    drain: DrainSettings = DrainSettings()
