from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie_inference.engine.picture_plan import PicturePlan, plan_picture
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.sizes import MAX_RESULT_SIDE_PX

NATIVE = (64, 64)
sides = st.integers(8, 512).map(lambda eighths: eighths * 8)


def builtin(width: int, height: int, **options: object) -> PicturePlan:
    return plan_picture(
        (width, height),
        NATIVE,
        **{"scales": (2, 4), "native_only": True, "multiple": 4, **options},  # type: ignore[arg-type]  # options by name
    )


def test_the_default_picture_is_the_native_one_enlarged_four_times() -> None:
    assert builtin(256, 256) == PicturePlan((64, 64), (4,), (256, 256), 0, (256, 256))


@pytest.mark.parametrize(
    ("size", "drawn", "scales"),
    [
        ((64, 64), (64, 64), ()),
        ((128, 128), (64, 64), (2,)),
        ((512, 512), (64, 64), (4, 2)),
        ((384, 384), (64, 64), (4, 2)),
        ((1024, 1024), (64, 64), (4, 4)),
        ((512, 256), (92, 44), (4, 2)),
    ],
)
def test_a_model_of_one_native_size_draws_about_that_and_is_enlarged_to_what_is_asked(
    size: tuple[int, int], drawn: tuple[int, int], scales: tuple[int, ...]
) -> None:
    plan = builtin(*size)
    assert (plan.drawn, plan.scales, plan.final) == (drawn, scales, size)


def test_an_ordinary_model_draws_what_is_asked() -> None:
    plan = plan_picture((768, 512), (512, 512), scales=(2, 4))
    assert plan == PicturePlan((768, 512), (), (768, 512), 0, (768, 512))


def test_sides_that_the_network_cannot_draw_are_drawn_nearby_and_brought_to_size() -> None:
    plan = plan_picture((520, 512), (512, 512), multiple=16)
    assert (plan.drawn, plan.picture) == ((512, 512), (520, 512))


def test_super_resolution_doubles_the_finished_picture_for_each_pass() -> None:
    assert builtin(256, 256, superres=True, magnitude=2).final == (1024, 1024)
    plan = plan_picture((512, 512), (512, 512), scales=(2,), superres=True, magnitude=3)
    assert (plan.superres_passes, plan.final) == (3, (4096, 4096))


def test_a_result_beyond_the_limit_is_refused_naming_the_field() -> None:
    with pytest.raises(ReverieError) as caught:
        builtin(2048, 64, superres=True, magnitude=3)
    assert caught.value.code is ErrorCode.INVALID_FIELD
    assert caught.value.fields[0].loc == ("superres_magnitude",)


def test_super_resolution_without_its_weights_is_refused() -> None:
    with pytest.raises(ReverieError) as caught:
        plan_picture((512, 512), (512, 512), superres=True)
    assert caught.value.code is ErrorCode.SUPERRES_DISABLED


def test_without_any_super_resolution_the_native_picture_is_brought_to_size_by_lanczos() -> None:
    assert builtin(256, 256, scales=()) == PicturePlan((64, 64), (), (256, 256), 0, (256, 256))


@given(sides, sides)
def test_any_size_is_drawn_small_and_in_its_shape_and_reached_by_enlarging(width: int, height: int) -> None:
    plan = builtin(width, height)
    assert plan.final == (width, height)
    assert all(side % 4 == 0 and 16 <= side <= MAX_RESULT_SIDE_PX for side in plan.drawn)
    if plan.scales:
        assert prod(plan.scales) * plan.drawn[0] >= width
        assert prod(plan.scales) * plan.drawn[1] >= height
    if max(width, height) <= 8 * min(width, height):
        assert plan.drawn[0] * plan.drawn[1] <= 1.3 * NATIVE[0] * NATIVE[1]
        drawn_shape = plan.drawn[0] / plan.drawn[1]
        assert 0.7 < drawn_shape / (width / height) < 1.4
