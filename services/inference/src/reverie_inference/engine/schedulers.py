"""Schedulers by the names that users know (A1111's) and by diffusers' class names."""

from __future__ import annotations

import re
from typing import Any

import diffusers
import msgspec

from reverie_protocol.errors import ErrorCode, FieldError, ReverieError

_KARRAS, _PLAIN = {"use_karras_sigmas": True}, {"use_karras_sigmas": False}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_ODE = {"algorithm_type": "dpmsolver++"}


class Recipe(msgspec.Struct, frozen=True):
    """A diffusers scheduler class and what is set on it beside the model's own noise schedule."""

    class_name: str
    options: dict[str, Any] = {}


RECIPES: dict[str, Recipe] = {
    "Euler": Recipe("EulerDiscreteScheduler", _PLAIN),
    "Euler Karras": Recipe("EulerDiscreteScheduler", _KARRAS),
    "Euler a": Recipe("EulerAncestralDiscreteScheduler"),
    "Heun": Recipe("HeunDiscreteScheduler", _PLAIN),
    "Heun Karras": Recipe("HeunDiscreteScheduler", _KARRAS),
    "DPM2": Recipe("KDPM2DiscreteScheduler", _PLAIN),
    "DPM2 Karras": Recipe("KDPM2DiscreteScheduler", _KARRAS),
    "DPM2 a": Recipe("KDPM2AncestralDiscreteScheduler", _PLAIN),
    "DPM2 a Karras": Recipe("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "DPM++ 2M": Recipe("DPMSolverMultistepScheduler", {**_ODE, **_PLAIN}),
    "DPM++ 2M Karras": Recipe("DPMSolverMultistepScheduler", {**_ODE, **_KARRAS}),
    "DPM++ 2M SDE": Recipe("DPMSolverMultistepScheduler", {**_SDE, **_PLAIN}),
    "DPM++ 2M SDE Karras": Recipe("DPMSolverMultistepScheduler", {**_SDE, **_KARRAS}),
    "DPM++ 2S": Recipe("DPMSolverSinglestepScheduler", {**_ODE, **_PLAIN}),
    "DPM++ 2S Karras": Recipe("DPMSolverSinglestepScheduler", {**_ODE, **_KARRAS}),
    "DPM++ SDE": Recipe("DPMSolverSinglestepScheduler", {**_SDE, **_PLAIN}),
    "DPM++ SDE Karras": Recipe("DPMSolverSinglestepScheduler", {**_SDE, **_KARRAS}),
    "DDIM": Recipe("DDIMScheduler"),
    "DDPM": Recipe("DDPMScheduler"),
    "PLMS": Recipe("PNDMScheduler", {"skip_prk_steps": True}),
    "DEIS": Recipe("DEISMultistepScheduler", _PLAIN),
    "UniPC": Recipe("UniPCMultistepScheduler", _PLAIN),
    "UniPC Karras": Recipe("UniPCMultistepScheduler", _KARRAS),
    "LCM": Recipe("LCMScheduler"),
    "TCD": Recipe("TCDScheduler"),
}


def scheduler_names(model_scheduler: Any) -> tuple[str, ...]:
    """Names that a model with this scheduler of its own can be sampled with."""
    if not _has_noise_schedule(model_scheduler):
        return (type(model_scheduler).__name__,)
    return tuple(RECIPES)


def make_scheduler(model_scheduler: Any, name: str | None) -> tuple[str, Any]:
    """A fresh scheduler for one job, and the name it goes by.

    It has the model's own noise schedule; None is the model's own scheduler.  ReverieError `invalid_field` for a
    name that is unknown, or that does not suit the model.
    """
    own = type(model_scheduler)
    if name is None or _key(name) == _key(own.__name__):
        return own.__name__, own.from_config(model_scheduler.config)
    for known in scheduler_names(model_scheduler):
        recipe = RECIPES.get(known)
        if recipe and _key(known) == _key(name):
            return known, _build(model_scheduler, recipe)
    for recipe in RECIPES.values():
        if _key(recipe.class_name) == _key(name) and _has_noise_schedule(model_scheduler):
            return recipe.class_name, _build(model_scheduler, Recipe(recipe.class_name))
    raise _unknown(name, scheduler_names(model_scheduler))


def _build(model_scheduler: Any, recipe: Recipe) -> Any:
    scheduler_class = getattr(diffusers, recipe.class_name)
    return scheduler_class.from_config(model_scheduler.config, **recipe.options)


def _has_noise_schedule(scheduler: Any) -> bool:
    """Whether it diffuses with betas, like all of ours, and does not match flows, like SD3's and Flux's."""
    return hasattr(scheduler, "alphas_cumprod")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _unknown(name: str, known: tuple[str, ...]) -> ReverieError:
    message = f"There is no scheduler {name!r} for this model; there are: {', '.join(known)}."
    field = FieldError(("scheduler",), message, "unknown_scheduler")
    return ReverieError(ErrorCode.INVALID_FIELD, message, fields=[field])
