"""Image to image and inpainting: which fields go together, and how many of the steps a strength takes."""

from __future__ import annotations

from typing import Final

from reverie_protocol.jobs import GenerateParams

#: Strength where the request names none: diffusers' own, for pictures that change, and for parts drawn anew.
DEFAULT_STRENGTH: Final = 0.8
DEFAULT_MASK_STRENGTH: Final = 1.0


def strength_of(params: GenerateParams, steps: int) -> float:
    """The strength of a job with an `initImage`; where it is not given, at least one step is taken."""
    if params.strength is not None:
        return params.strength
    return DEFAULT_STRENGTH if params.maskImage is None and steps > 1 else DEFAULT_MASK_STRENGTH


def steps_taken(steps: int, strength: float) -> int:
    """How many of `steps` denoising steps are taken: rounded down, as diffusers does."""
    return min(int(steps * strength), steps)


def conflicts(params: GenerateParams) -> dict[str, str]:
    """What is wrong with fields that are fine each by itself; by the field's name, what is wrong with it."""
    if params.initImage is None:
        given = {"maskImage": params.maskImage, "strength": params.strength}
        return {name: "needs an initImage" for name, value in given.items() if value is not None}
    steps = params.num_inference_steps
    if params.strength is not None and steps and not steps_taken(steps, params.strength):
        return {"strength": too_weak(steps)}
    return {}


def too_weak(steps: int) -> str:
    """What is wrong with a strength that leaves nothing to do."""
    return f"leaves none of the {steps} steps to be taken"
