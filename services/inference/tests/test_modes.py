"""`modes.yml`: what it says, and what a broken one changes (nothing)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_inference.modes.catalogue import CatalogueError, read_catalogue, single_model

WHOLE = """
model_root: models
lora_root: loras
default_mode: photo
modes:
  photo:
    model: xl
    loras: [{path: detail.safetensors, strength: 0.8, adapter_name: detail}]
    default_size: 1024x768
    default_steps: 30
    default_guidance: 5
    scheduler: DPM++ 2M
    metadata: {licence: openrail}
    pinned: true
  hub: {model: someone/some-model}
  gone: {model: nothing.safetensors}
styles:
  ink: {path: ink.safetensors, strength: 0.5}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "models" / "xl").mkdir(parents=True, exist_ok=True)
    (folder / "loras").mkdir(exist_ok=True)
    (folder / "loras" / "detail.safetensors").touch()
    path = folder / "modes.yml"
    path.write_text(text)
    return path


def test_a_file_s_modes_have_their_models_loras_and_defaults(tmp_path: Path) -> None:
    catalogue = read_catalogue(written(tmp_path, WHOLE))
    photo = catalogue.modes["photo"]
    assert catalogue.default_mode == "photo"
    assert (photo.model, photo.shown) == (str(tmp_path / "models" / "xl"), "xl")
    assert (photo.default_size, photo.default_steps, photo.default_guidance) == ((1024, 768), 30, 5.0)
    assert (photo.scheduler, photo.metadata, photo.pinned) == ("DPM++ 2M", {"licence": "openrail"}, True)
    (lora,) = photo.loras
    assert (lora.name, lora.strength, lora.path) == (
        "detail",
        0.8,
        str(tmp_path / "loras" / "detail.safetensors"),
    )
    assert catalogue.styles["ink"].strength == 0.5


def test_a_mode_whose_files_are_missing_says_which_and_the_others_are_there(tmp_path: Path) -> None:
    modes = read_catalogue(written(tmp_path, WHOLE)).modes
    assert modes["gone"].missing == "the model nothing.safetensors is not there"
    assert not modes["photo"].missing
    (tmp_path / "loras" / "detail.safetensors").unlink()
    assert "detail.safetensors" in read_catalogue(tmp_path / "modes.yml").modes["photo"].missing


def test_users_see_no_path_of_the_machine(tmp_path: Path) -> None:
    text = f"modes: {{a: {{model: '{tmp_path}/models/xl'}}, b: {{model: '{tmp_path}/absent'}}}}"
    modes = read_catalogue(written(tmp_path, text)).modes
    assert (modes["a"].shown, modes["b"].missing) == ("xl", "the model absent is not there")


def test_what_looks_like_a_hugging_face_id_and_is_no_folder_is_one(tmp_path: Path) -> None:
    hub = read_catalogue(written(tmp_path, WHOLE)).modes["hub"]
    assert (hub.model, hub.missing) == ("someone/some-model", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modes: {}", "at least one mode"),
        ("modes: [a]", "$.modes"),
        ("modes: {a: {model: x, steps: 3}}", "steps"),
        ("modes: {a: {model: x, default_steps: 0}}", "default_steps"),
        ("modes: {a: {model: x, default_steps: '3'}}", "default_steps"),
        ("modes: {a: {model: x, default_size: 70x70}}", "modes.a.default_size"),
        ("modes: {a: {model: x, default_guidance: 21}}", "default_guidance"),
        ("modes: {a: {model: x, loras: [{path: p, strength: 99}]}}", "strength"),
        ("modes: {a: {model: x, loras: [{path: p}, {path: p}]}}", "one adapter_name"),
        ("modes: {a: {}}", "model"),
        ("modes: {'': {model: x}}", "length >= 1"),
        ("default_mode: b\nmodes: {a: {model: x}}", "none of the modes (a)"),
        ("modes: {a: {model: x}, a: {model: y}}", "given twice"),
        ("modes: {a: {model: x}", "line"),
        ("modes: !!python/object/apply:os.system ['true']", "line 1"),
        ("", "Expected `object`"),
    ],
)
def test_a_broken_file_is_refused_whole_naming_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(written(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_file_holds_the_outcome_is_modes_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(content)
    try:
        modes = read_catalogue(path).modes
    except CatalogueError:
        return
    assert modes


def test_a_worker_with_one_model_has_one_pinned_mode_named_as_the_model(tmp_path: Path) -> None:
    catalogue = single_model(str(tmp_path / "dreamy.safetensors"))
    assert list(catalogue.modes) == [catalogue.default_mode] == ["dreamy"]
    assert catalogue.modes["dreamy"].pinned
