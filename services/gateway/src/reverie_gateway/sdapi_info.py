"""What A1111 tells of the pictures it made: `parameters`, and `info` as JSON in a text."""

from __future__ import annotations

from collections.abc import Sequence
from time import gmtime, strftime
from typing import Any

import msgspec
from msgspec.structs import asdict

from reverie_gateway.batches import seed_of
from reverie_protocol.jobs import GenerateParams, Job, JobMeta
from reverie_protocol.sdapi_bodies import ImageToImage, TextToImage
from reverie_protocol.sizes import parse_size

#: Pictures, which nobody wants back.
_UNTOLD = frozenset({"init_images", "mask"})


def parameters_of(body: TextToImage, jobs: Sequence[Job]) -> dict[str, object]:
    """The request, with what really held where it left that open, and where masks are handled our way."""
    meta = _meta(jobs[0])
    width, height = _size(jobs[0])
    told = {name: value for name, value in asdict(body).items() if name not in _UNTOLD}
    told["style_lora"] = asdict(body.style_lora)
    made: dict[str, object] = {
        "steps": meta.steps,
        "cfg_scale": meta.guidance,
        "width": width,
        "height": height,
    }
    made |= {"sampler_name": meta.scheduler, "negative_prompt": ""}
    told |= {name: value for name, value in made.items() if told[name] is None}
    if isinstance(body, ImageToImage):
        told |= {"init_images": None, "mask": None, "inpaint_full_res": False, "mask_blur": 0}
    return told


def info_of(body: TextToImage, jobs: Sequence[Job], *, first_seed: int) -> str:
    """JSON of the pictures in `jobs`, and of the request where there are none."""
    metas = [_meta(job) for job in jobs]
    meta = metas[0] if metas else JobMeta(first_seed, "")
    width, height = _size(jobs[0]) if jobs else (body.width or 0, body.height or 0)
    seeds = [each.seed for each in metas]
    negative = body.negative_prompt or ""
    info: dict[str, Any] = {
        "prompt": body.prompt,
        "all_prompts": [body.prompt] * len(jobs),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(jobs),
        "seed": first_seed,
        "all_seeds": seeds,
        "subseed": first_seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": meta.scheduler,
        "cfg_scale": meta.guidance,
        "steps": meta.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": meta.mode,
        "sd_model_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": meta.strength or None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [infotext_of(job) for job in jobs],
        "styles": [],
        "job_timestamp": strftime("%Y%m%d%H%M%S", gmtime(jobs[0].created_at if jobs else 0)),
        "clip_skip": 1,
        "is_using_inpainting_conditioning": False,
        "version": "Reverie",
        "job_ids": [job.id for job in jobs],
    }
    return msgspec.json.encode(info).decode()


def infotext_of(job: Job) -> str:
    """How a picture was made, in the form that A1111 writes into its pictures."""
    meta, params = _meta(job), job.params
    lines = [params.prompt] if isinstance(params, GenerateParams) else []
    if isinstance(params, GenerateParams) and params.negative_prompt:
        lines.append(f"Negative prompt: {params.negative_prompt}")
    settings = {
        "Steps": meta.steps,
        "Sampler": meta.scheduler,
        "CFG scale": f"{meta.guidance:g}",
        "Seed": meta.seed,
        "Size": "{}x{}".format(*_size(job)),
        "Model": meta.mode,
    }
    if meta.strength:
        settings["Denoising strength"] = f"{meta.strength:g}"
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _meta(job: Job) -> JobMeta:
    """What the job was made with; of a cancelled one nothing more is known than what it was asked to be."""
    if job.meta is not None:
        return job.meta
    params = job.params
    if not isinstance(params, GenerateParams):
        return JobMeta(0, "")
    return JobMeta(
        seed=seed_of(params.seed, 0) or 0,
        backend="",
        mode=params.mode or "",
        scheduler=params.scheduler or "",
        steps=params.num_inference_steps or 0,
        guidance=params.guidance_scale or 0.0,
        size=params.size or "",
    )


def _size(job: Job) -> tuple[int, int]:
    """Width and height that were asked for, else those of the picture; zeros where nobody said."""
    asked = job.params.size if isinstance(job.params, GenerateParams) else None
    try:
        return parse_size(asked or _meta(job).size)
    except ValueError:
        return (0, 0)
