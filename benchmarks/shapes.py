"""Models of the real classes and sizes with random weights: how long they take does not depend on what they know.

Built once into `.cache/benchmarks/shapes` (SD 1.5: 2 GB, SDXL: 7 GB in half precision); nothing is fetched.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from product import BUILTIN_MODEL

from reverie_testing.tiny_models import TOKENS, tiny_sd3_pipeline, tiny_sd_pipeline, tiny_sdxl_pipeline

PLACE: Final = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "shapes"
#: Small ones that any CPU runs, and those that want an accelerator.
ON_A_CPU: Final = ("builtin", "tiny-sd", "tiny-sdxl", "tiny-sd3")
ON_A_GPU: Final = ("builtin", "sd-turbo", "sd15", "sdxl")
_TINY: Final = {"tiny-sd": tiny_sd_pipeline, "tiny-sdxl": tiny_sdxl_pipeline, "tiny-sd3": tiny_sd3_pipeline}
_NOISE: Final = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_VOCABULARY: Final = 49408


def shape(name: str) -> Path:
    """The folder of a model, built if it is not there yet."""
    if name == "builtin":
        return BUILTIN_MODEL
    place = PLACE / name
    if (place / "model_index.json").exists():
        return place
    half_done = PLACE / f"{name}.part"
    shutil.rmtree(half_done, ignore_errors=True)
    half_done.parent.mkdir(parents=True, exist_ok=True)
    if name in _TINY:
        _TINY[name](half_done)
    else:
        _full_size(name).save_pretrained(half_done, safe_serialization=True)
    half_done.rename(place)
    return place


def _full_size(name: str) -> Any:
    """A pipeline as released, on the CPU, with random weights in half precision."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        return _sdxl() if name == "sdxl" else _stable_diffusion(2 if name == "sd-turbo" else 1)
    finally:
        torch.set_default_dtype(before)


def _stable_diffusion(version: int) -> Any:
    """1.5, or 2.1's layout, which SD-Turbo has."""
    import diffusers

    from reverie_inference.models.clip_tokenizer import clip_tokenizer

    second = version == 2
    width = 1024 if second else 768
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=width,
        attention_head_dim=(5, 10, 20, 20) if second else 8,
        use_linear_projection=second,
    )
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text(width, layers=23 if second else 12, heads=width // 64),
        tokenizer=clip_tokenizer(_VOCABULARY),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**_NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    import diffusers

    from reverie_inference.models.clip_tokenizer import clip_tokenizer

    unet = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(force_upcast=False),
        text_encoder=_text(768, layers=12, heads=12),
        text_encoder_2=_text(1280, layers=32, heads=20, projection=1280),
        tokenizer=clip_tokenizer(_VOCABULARY),
        tokenizer_2=clip_tokenizer(_VOCABULARY),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading"),
        add_watermarker=False,
    )


def _vae(**more: Any) -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        **more,
    )


def _text(width: int, *, layers: int, heads: int, projection: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=TOKENS,
        projection_dim=projection or width,
        bos_token_id=_VOCABULARY - 2,
        eos_token_id=_VOCABULARY - 1,
        pad_token_id=_VOCABULARY - 1,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
