"""Names of saved pictures: telling, safe, and never over another file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_launcher.exits import ExitCode, Failure
from reverie_launcher.picture_files import MAX_SLUG_CHARS, check_target, save, slug


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red circle, on a BLUE background!", "a-red-circle-on-a-blue-background"),
        ("../../etc/passwd", "etc-passwd"),
        ("Zürich im Schnee", "zürich-im-schnee"),
        ("…", "picture"),
        ("", "picture"),
        ("one " * 40, "one-" * 11 + "one"),
        ("x" * 300, "x" * MAX_SLUG_CHARS),
    ],
)
def test_a_prompt_becomes_a_file_name(prompt: str, name: str) -> None:
    assert slug(prompt) == name


@given(st.text())
def test_a_name_never_leaves_its_folder_nor_hides(prompt: str) -> None:
    name = slug(prompt)
    assert 0 < len(name) <= MAX_SLUG_CHARS
    assert not set(name) & set("/\\.\0\n -") - {"-"}
    assert not name.startswith(("-", "."))


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    target = tmp_path / "cat.png"
    saved = [save(bytes([number]), target, "unused.png") for number in range(3)]
    assert [path.name for path in saved] == ["cat.png", "cat-1.png", "cat-2.png"]
    assert [path.read_bytes() for path in saved] == [b"\0", b"\1", b"\2"]


def test_a_folder_gets_the_default_name_and_nothing_means_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert save(b"x", Path("out"), "cat-7.png") == Path("out/cat-7.png")
    assert save(b"x", None, "cat-7.png") == Path("cat-7.png")


def test_a_target_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    check_target(tmp_path / "cat.png")
    check_target(Path("-"))
    with pytest.raises(Failure, match="There is no folder") as failed:
        check_target(tmp_path / "absent" / "cat.png")
    assert failed.value.exit_code is ExitCode.USAGE
