"""One data directory, one `reverie up`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reverie_launcher.data_directory import DataDirectory
from reverie_launcher.exits import Failure


def test_a_second_user_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path / "data")
    first.describe_holder("process 77, http://127.0.0.1:4200")
    with pytest.raises(Failure, match=r"in use .*process 77, http://127\.0\.0\.1:4200"):
        DataDirectory.open(tmp_path / "data")
    first.close()
    first.close()
    DataDirectory.open(tmp_path / "data").close()


def test_a_path_that_cannot_be_a_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="cannot be used"):
        DataDirectory.open(tmp_path / "file" / "data")
    assert os.listdir(tmp_path) == ["file"]
