"""Settings are resolved once, and complain by name."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from reverie_runtime.settings import (
    HealthSettings,
    NatsSettings,
    SettingsError,
    document_settings,
    load_settings,
)


class Oven(msgspec.Struct, frozen=True):
    """A section."""

    recipe: Annotated[str, msgspec.Meta(description="What to bake")]
    heat: Annotated[int, msgspec.Meta(ge=50, le=250, description="Degrees")] = 180
    fan: bool = False
    mode: Literal["top", "bottom"] = "top"
    racks: tuple[str, ...] = ()
    timer_s: float | None = None

    def __post_init__(self) -> None:
        if self.fan and self.mode == "top":
            raise ValueError("a fan needs mode bottom")


class Bakery(msgspec.Struct, frozen=True):
    """A tree."""

    oven: Oven
    nats: NatsSettings = NatsSettings()
    health: HealthSettings = HealthSettings(port=4300)


def load(text: str | None = None, folder: Path | None = None, **environ: str) -> Bakery:
    config = None
    if text is not None and folder is not None:
        config = folder / "reverie.toml"
        config.write_text(text)
    return load_settings(Bakery, config=config, environ=environ, tolerated_sections=("shop",))


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    settings = load("[oven]\nrecipe = 'bread'\nheat = 200\n", tmp_path, REVERIE_OVEN__HEAT="220")
    assert settings.oven == Oven(recipe="bread", heat=220)


def test_text_of_the_environment_becomes_the_type_of_the_key() -> None:
    oven = load(
        REVERIE_OVEN__RECIPE="1",
        REVERIE_OVEN__FAN="true",
        REVERIE_OVEN__MODE="bottom",
        REVERIE_OVEN__RACKS="low, high",
        REVERIE_OVEN__TIMER_S="1.5",
    ).oven
    assert oven == Oven(recipe="1", fan=True, mode="bottom", racks=("low", "high"), timer_s=1.5)


def test_an_empty_variable_counts_as_absent() -> None:
    assert load(REVERIE_OVEN__RECIPE="x", REVERIE_OVEN__HEAT="").oven.heat == 180


def test_a_service_may_give_a_shared_section_its_own_default() -> None:
    settings = load(REVERIE_OVEN__RECIPE="x", REVERIE_HEALTH__HOST="0.0.0.0")
    assert settings.health == HealthSettings(host="0.0.0.0", port=4300)


def test_sections_of_other_services_are_tolerated(tmp_path: Path) -> None:
    load("[oven]\nrecipe = 'x'\n[shop]\nanything = 1\n", tmp_path, REVERIE_SHOP__OPEN="yes")


def test_what_is_not_ours_in_the_environment_is_ignored() -> None:
    load(REVERIE_OVEN__RECIPE="x", REVERIE_CONFIG="elsewhere", PATH="/bin")


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("", {}, ["oven.recipe", "REVERIE_OVEN__RECIPE", "required"]),
        ("", {"REVERIE_OVEN__HEAT": "hot"}, ["REVERIE_OVEN__HEAT", "integer at least 50 and at most 250"]),
        ("", {"REVERIE_OVEN__HEAT": "40"}, ["REVERIE_OVEN__HEAT", "at least 50"]),
        ("", {"REVERIE_OVEN__MODE": "side"}, ["REVERIE_OVEN__MODE", "bottom", "top"]),
        ("", {"REVERIE_OVEN__FAN": "maybe"}, ["REVERIE_OVEN__FAN", "true or false"]),
        ("", {"REVERIE_OVEN__HEET": "1"}, ["REVERIE_OVEN__HEET", "heet", "heat"]),
        ("", {"REVERIE_OWEN__HEAT": "1"}, ["REVERIE_OWEN__HEAT", "owen", "oven"]),
        ("", {"REVERIE_HEAT": "1"}, ["REVERIE_HEAT", "REVERIE_<SECTION>__<KEY>"]),
        ("[oven]\nheat = '200'\n", {}, ["oven.heat", "reverie.toml", "integer", "a str"]),
        ("[oven]\nheet = 200\n", {}, ["oven.heet", "reverie.toml", "heat"]),
        ("[owen]\nheat = 200\n", {}, ["owen", "oven"]),
        ("heat = 200\n", {}, ["heat", "reverie.toml", "[section]"]),
        ("[oven\n", {}, ["reverie.toml", "not TOML"]),
        ("[oven]\nrecipe = 'x'\nfan = true\n", {}, ["oven", "a fan needs mode bottom"]),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_what_is_allowed(
    tmp_path: Path, text: str, environ: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(text, tmp_path, **environ)
    message = str(raised.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_value_is_never_repeated_because_it_may_be_a_secret() -> None:
    with pytest.raises(SettingsError) as raised:
        load(REVERIE_OVEN__HEAT="hunter2")
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml: cannot be read: No such file"):
        load_settings(Bakery, config=tmp_path / "absent.toml", environ={})


def test_the_tree_documents_itself() -> None:
    table = document_settings(Bakery)
    assert "| `oven.recipe` | `REVERIE_OVEN__RECIPE` | text | required | What to bake |" in table
    assert (
        "| `oven.heat` | `REVERIE_OVEN__HEAT` | an integer at least 50 and at most 250 | `180` | Degrees |"
        in table
    )
    assert "| `health.port` | `REVERIE_HEALTH__PORT` |" in table
    assert "`4300`" in table
