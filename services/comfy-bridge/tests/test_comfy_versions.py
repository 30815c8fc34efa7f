"""What a version can do: never more than is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_comfy_bridge.wire.version import Features, features_of, read_release


@pytest.mark.parametrize("version", [None, "", "unknown", "latest", 3, "0", "v", "2024-06", "0.x.1", []])
def test_an_unknown_version_can_do_nothing_that_is_not_certain(version: object) -> None:
    assert features_of(version) == Features()


def test_an_unknown_version_with_features_has_the_protocol_of_the_release_that_brought_them() -> None:
    features = features_of("nightly", {"supports_preview_metadata": True})
    assert features.own_prompt_id
    assert features.feature_flags
    assert not features.interrupt_by_id
    assert features.prompt_id_is_uuid


@pytest.mark.parametrize(
    ("before", "since", "feature"),
    [
        ("0.3.44", "0.3.45", "own_prompt_id"),
        ("0.3.44", "0.3.45", "feature_flags"),
        ("0.3.56", "0.3.57", "interrupt_by_id"),
        ("0.3.59", "0.3.60", "history_offset"),
        ("0.4.9", "0.5.0", "preview_method"),
        ("0.5.9", "0.6.0", "jobs"),
        ("0.24.9", "0.25.0", "prompt_id_is_uuid"),
        ("0.25.1", "0.26.0", "cancel_jobs"),
    ],
)
def test_a_feature_is_there_since_its_release(before: str, since: str, feature: str) -> None:
    assert getattr(features_of(before), feature) is False
    assert getattr(features_of(since), feature) is True


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.33.0", (0, 33, 0)),
        (" v0.3.57", (0, 3, 57)),
        ("0.5", (0, 5, 0)),
        ("1.0.0", (1, 0, 0)),
        ("0.3.56-12-gabcdef0", (0, 3, 56)),
        ("0.3.57+local", (0, 3, 57)),
        ("0.3.57rc1", (0, 3, 56)),
        ("0.26.0-dev3", (0, 25, 999_999)),
        ("0.36.1.post1", (0, 36, 1)),
    ],
)
def test_a_release_is_read_from_the_forms_it_has(version: str, release: tuple[int, int, int]) -> None:
    assert read_release(version) == release


@given(st.text())
def test_no_version_whatever_raises(version: str) -> None:
    features_of(version)
