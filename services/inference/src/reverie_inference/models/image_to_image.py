"""Which models can start from a picture, and with which pipeline of diffusers."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
from diffusers.pipelines import auto_pipeline

from reverie_inference.families.registry import families
from reverie_inference.models.loaded import LoadedModel

#: What a pipeline must take so that its steps can be watched and its picture has the size that was asked for.
_WANTED = {"prompt", "image", "strength", "num_inference_steps", "callback_on_step_end"}


def takes_init_image(model: LoadedModel) -> bool:
    """Whether pictures can start from another one."""
    return _engine_starts(model) or _sibling(model.pipeline, masked=False) is not None


def takes_mask_image(model: LoadedModel) -> bool:
    """Whether parts of a picture can be drawn anew."""
    return _engine_starts(model) or _sibling(model.pipeline, masked=True) is not None


def _engine_starts(model: LoadedModel) -> bool:
    """Whether the step engine itself starts this model's pictures from others."""
    family = families().get(model.family)
    return family is not None and family.starts_from_pictures


def from_picture(pipeline: Any, *, masked: bool) -> Any:
    """A pipeline with the same parts that starts from a picture, for those with a loop of their own."""
    task = diffusers.AutoPipelineForInpainting if masked else diffusers.AutoPipelineForImage2Image
    made = task.from_pipe(pipeline)
    made.set_progress_bar_config(disable=True)
    return made


def _sibling(pipeline: Any, *, masked: bool) -> type | None:
    """diffusers' class for the same family of models that takes a picture, if its steps can be watched."""
    table = (
        auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING
        if masked
        else auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    )
    found: type | None = auto_pipeline._get_task_class(
        table, type(pipeline).__name__, throw_error_if_not_exist=False
    )
    if found is None:
        return None
    accepted = inspect.signature(found.__call__).parameters
    wanted = _WANTED | ({"mask_image"} if masked else set())
    return found if wanted <= accepted.keys() else None
