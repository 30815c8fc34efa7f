"""Whose a frame without a prompt id is."""

from __future__ import annotations

import pytest

from reverie_comfy_bridge.run.attribution import Attribution
from reverie_comfy_bridge.wire.frames import (
    Executing,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    FeatureFlags,
    Frame,
    NodeText,
    Picture,
    Progress,
    Status,
)
from reverie_comfy_bridge.wire.queue import Queue, QueuedPrompt

PICTURE = Picture(b"x", "image/jpeg")


def runs(*ids: str) -> Queue:
    return Queue(tuple(map(QueuedPrompt, ids)))


def whose(attribution: Attribution, frame: Frame = PICTURE) -> str | None:
    attributed = attribution.attribute(frame)
    return None if attributed is None else getattr(attributed, "prompt_id", None)


def test_nothing_is_attributed_before_a_prompt_was_named() -> None:
    assert whose(Attribution()) is None


@pytest.mark.parametrize("frame", [PICTURE, NodeText("1", "step"), Executing("", "1"), Progress("")])
def test_what_names_no_prompt_belongs_to_the_one_that_was_named_last(frame: Frame) -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("a"))
    attribution.attribute(Progress("b", "1", 1, 2))
    assert whose(attribution, frame) == "b"


@pytest.mark.parametrize(
    "end", [Executing("a", None), ExecutionSuccess("a"), ExecutionError("a"), ExecutionInterrupted("a")]
)
def test_after_its_end_nothing_belongs_to_a_prompt(end: Frame) -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("a"))
    attribution.attribute(end)
    assert whose(attribution) is None


def test_a_prompt_that_is_sent_without_a_client_takes_its_previews_with_it() -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("ours"))
    attribution.attribute(Executing("ours", None))
    attribution.attribute(Progress("strange", "1", 1, 2))
    assert whose(attribution) == "strange"


def test_after_a_reconnect_only_a_look_or_a_name_makes_it_certain() -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("a"))
    attribution.opened()
    assert whose(attribution, Executing("", "1")) is None
    attribution.looked(runs("a"))
    assert whose(attribution, Executing("", "1")) == "a"


def test_two_that_run_at_once_are_ambiguous() -> None:
    attribution = Attribution()
    attribution.looked(runs("a", "b"))
    assert whose(attribution) is None


def test_a_look_that_is_older_than_the_end_counts_for_nothing() -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("a"))
    attribution.attribute(Executing("a", None))
    attribution.looked(runs("a"))
    assert whose(attribution) is None


def test_what_the_socket_says_outweighs_a_look() -> None:
    attribution = Attribution()
    attribution.attribute(ExecutionStart("b"))
    attribution.looked(runs("a"))
    assert whose(attribution) == "b"


def test_frames_of_no_prompt_and_named_ones_pass_as_they_are() -> None:
    attribution = Attribution()
    named = Picture(b"x", "image/jpeg", "a")
    for frame in (Status(1), FeatureFlags({}), named):
        assert attribution.attribute(frame) is frame
