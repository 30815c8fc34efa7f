"""Diffusers pipelines with random weights, small enough to build in a test: no download, seconds on one core.

Each builder writes a folder that `from_pretrained` loads unchanged and returns its path.  Weights follow from
`seed`.  The pictures are noise; what matters is that every component is of the real class and layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

TOKENS = 77
_BYTES = sorted(ByteLevel.alphabet())
_VOCABULARY = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]


def byte_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows single bytes only: any text, 514 tokens, no vocabulary file."""
    vocabulary = {token: index for index, token in enumerate(_VOCABULARY)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


def _text_config(width: int, layers: int = 2, projection: int | None = None) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=TOKENS,
        projection_dim=projection or width,
        bos_token_id=len(_VOCABULARY) - 2,
        eos_token_id=len(_VOCABULARY) - 1,
        pad_token_id=len(_VOCABULARY) - 1,
    )


def _vae(factor: int = 2, width: int = 32, **extra: Any) -> AutoencoderKL:
    blocks = factor.bit_length()
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(width,) * blocks,
        latent_channels=extra.pop("latent_channels", 4),
        layers_per_block=extra.pop("layers_per_block", 1),
        sample_size=64,
        **extra,
    )


def tiny_sd_pipeline(
    path: Path, *, seed: int = 0, width: int = 32, levels: int = 2, tiny_vae: bool = False
) -> Path:
    """Stable Diffusion 1.x: native 64x64 px, VAE factor 2 (4 with `tiny_vae`)."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16 if tiny_vae else 32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(width,) * levels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    if tiny_vae:
        vae = AutoencoderTiny(
            encoder_block_out_channels=(16, 16, 16),
            decoder_block_out_channels=(16, 16, 16),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        )
        vae.register_to_config(block_out_channels=[16, 16, 16])
    else:
        vae = _vae()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(_text_config(32)),
        tokenizer=byte_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def tiny_sdxl_pipeline(path: Path, *, seed: int = 0) -> Path:
    """Stable Diffusion XL: two text encoders, size conditioning, native 64x64 px, VAE factor 2."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32 + 64,
        attention_head_dim=(1, 1),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 64,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(force_upcast=False),
        text_encoder=CLIPTextModel(_text_config(32)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(64, projection=64)),
        tokenizer=byte_tokenizer(),
        tokenizer_2=byte_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def tiny_sd3_pipeline(path: Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 3: a flow-matching transformer that the step engine does not know."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=4,
        pos_embed_max_size=96,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(_text_config(32, projection=32)),
        tokenizer=byte_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(32, projection=32)),
        tokenizer_2=byte_tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def original_checkpoint(pipeline: Any, path: Path) -> Path:
    """Write a Stable Diffusion 1.x or XL pipeline as one file in the layout of the original release.

    The key names are those of the model classes of CompVis and Stability AI: `model.diffusion_model`,
    `first_stage_model`, `cond_stage_model.transformer` or `conditioner.embedders`.
    """
    tensors = dict(original_names(pipeline.unet, pipeline.vae))
    if hasattr(pipeline, "text_encoder_2"):
        tensors |= _clip_names(pipeline.text_encoder, "conditioner.embedders.0.transformer")
        tensors |= _open_clip_names(pipeline.text_encoder_2, "conditioner.embedders.1.model")
    else:
        tensors |= _clip_names(pipeline.text_encoder, "cond_stage_model.transformer")
        tensors["alphas_cumprod"] = pipeline.scheduler.alphas_cumprod
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    return path


def original_names(
    unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor under the name (and in the shape) that the original layout of 1.x has for it."""
    for key, value in unet.state_dict().items():
        yield f"model.diffusion_model.{_unet_key(key, unet.config)}", value
    for key, value in vae.state_dict().items():
        name, linear = _vae_key(key, len(vae.config.block_out_channels))
        # The original attention of the autoencoder is made of 1x1 convolutions.
        yield f"first_stage_model.{name}", value[:, :, None, None] if linear else value
    if text_encoder is not None:
        yield from _clip_names(text_encoder, "cond_stage_model.transformer").items()


def _clip_names(encoder: CLIPTextModel, prefix: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.text_model.{key.removeprefix('text_model.')}": value
        for key, value in encoder.state_dict().items()
    }


_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _open_clip_names(encoder: CLIPTextModelWithProjection, prefix: str) -> dict[str, torch.Tensor]:
    """OpenCLIP keeps query, key and value in one matrix, and its projection the other way round."""
    weights = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    named = {
        "token_embedding.weight": weights["embeddings.token_embedding.weight"],
        "positional_embedding": weights["embeddings.position_embedding.weight"],
        "text_projection": weights["text_projection.weight"].T,
        "ln_final.weight": weights["final_layer_norm.weight"],
        "ln_final.bias": weights["final_layer_norm.bias"],
    }
    for layer in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [weights[f"{ours}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            named[f"{theirs}.attn.in_proj_{kind}"] = torch.cat(parts)
            for name, other in _OPEN_CLIP.items():
                named[f"{theirs}.{other}.{kind}"] = weights[f"{ours}.{name}.{kind}"]
    return {f"{prefix}.{name}": value for name, value in named.items()}


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _unet_key(key: str, config: Any) -> str:
    """Name of one UNet tensor in the original layout, where blocks are numbered through."""
    stem, kind = key.rsplit(".", 1)
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{kind}"
    parts = key.split(".")
    per_level = config.layers_per_block
    if parts[0] == "mid_block":
        place = "middle_block." + ("1" if parts[1] == "attentions" else str(2 * int(parts[2])))
        return _inner(place, parts[1], parts[3:])
    level, section, index = int(parts[1]), parts[2], int(parts[3])
    if parts[0] == "down_blocks":
        if section == "downsamplers":
            return f"input_blocks.{(per_level + 1) * (level + 1)}.0.op.{kind}"
        place = f"input_blocks.{1 + level * (per_level + 1) + index}"
    else:
        attends = config.up_block_types[level].startswith("CrossAttn")
        if section == "upsamplers":
            last = (per_level + 1) * level + per_level
            return f"output_blocks.{last}.{2 if attends else 1}.conv.{kind}"
        place = f"output_blocks.{(per_level + 1) * level + index}"
    return _inner(f"{place}.{1 if section == 'attentions' else 0}", section, parts[4:])


def _inner(place: str, section: str, rest: list[str]) -> str:
    if section == "resnets":
        rest = [_RESNET[rest[0]], *rest[1:]]
    return ".".join([place, *rest])


_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def _vae_key(key: str, levels: int) -> tuple[str, bool]:
    """Name of one autoencoder tensor in the original layout, and whether it is a linear weight there."""
    name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    for index in range(2):
        name = name.replace(f"mid_block.resnets.{index}", f"mid.block_{index + 1}")
    if "mid_block.attentions.0" in name:
        half, inner = name.split(".mid_block.attentions.0.")
        stem, kind = inner.rsplit(".", 1)
        linear = kind == "weight" and stem != "group_norm"
        return f"{half}.mid.attn_1.{_VAE_ATTENTION[stem]}.{kind}", linear
    for level in range(levels):
        name = name.replace(f"down_blocks.{level}.", f"down.{level}.")
        name = name.replace(f"up_blocks.{level}.", f"up.{levels - 1 - level}.")
    name = name.replace("resnets.", "block.")
    name = name.replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")
    return name, False


def tiny_lora(model: Path, path: Path, *, seed: int = 0, rank: int = 2) -> Path:
    """A LoRA with random weights for the UNet of a tiny pipeline folder, as trainers write it; returns its file."""
    from diffusers import DiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(seed)
    pipeline = DiffusionPipeline.from_pretrained(model, local_files_only=True)
    pipeline.unet.add_adapter(
        LoraConfig(r=rank, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    )
    type(pipeline).save_lora_weights(
        path.parent,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        weight_name=path.name,
        safe_serialization=True,
    )
    return path
