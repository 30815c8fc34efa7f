"""Single-file checkpoints in the original (LDM) layout: which family they are and how they are configured.

Such a file holds weights alone.  Its configuration is read off the tensors' shapes, so nothing has to be fetched
and slimmed-down models load as well; what shapes do not tell (head counts, noise schedule) is the family's own.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from reverie_inference.models.weight_file import WeightFile
from reverie_protocol.errors import ErrorCode, ReverieError

Config = dict[str, Any]

UNET = "model.diffusion_model"
VAE = "first_stage_model"
CLIP = "cond_stage_model.transformer.text_model"
XL_CLIP = "conditioner.embedders.0.transformer.text_model"
XL_OPEN_CLIP = "conditioner.embedders.1.model"
_HEAD_WIDTH = 64
#: Input channels of a UNet: the latents; beside them a mask and the masked picture's latents.
_PLAIN, _INPAINTING = 4, 9
_SD15_HEADS = 8


def unsupported(weights: WeightFile, what: str) -> ReverieError:
    """The error for a file that is sound but no text-to-image model that can be run."""
    return ReverieError(ErrorCode.UNSUPPORTED_MODEL, f"{weights.path.name} {what}.")


def single_file_family(weights: WeightFile) -> str:
    """`sd15`, `sdxl`, or `other` for a layout that needs a configuration folder; `unsupported_model` for parts."""
    keys = weights.tensors.keys()
    if f"{UNET}.input_blocks.0.0.weight" in keys:
        if f"{XL_OPEN_CLIP}.text_projection" in keys:
            return "sdxl"
        if f"{CLIP}.embeddings.position_embedding.weight" in keys:
            return "sd15"
        if any(key.startswith("conditioner.embedders.0.model.") for key in keys):
            raise unsupported(weights, "is an SDXL refiner, which makes no picture from text alone")
        if not any(key.startswith(("cond_stage_model.", "conditioner.")) for key in keys):
            raise unsupported(weights, "holds no text encoder; a complete checkpoint is needed")
        return "other"
    if any("lora_" in key or ".lora" in key for key in keys):
        raise unsupported(weights, "is a LoRA, an addition to a model and not a model")
    if any(key.startswith(("down_blocks.", "conv_in.")) for key in keys):
        raise unsupported(weights, "holds a UNet alone; name the diffusers folder it belongs to")
    return "other"


def single_file_configs(weights: WeightFile, family: str) -> dict[str, Config]:
    """The configuration of each component, by component name; `unsupported_model` if one is missing."""
    try:
        if family == "sdxl":
            return _sdxl_configs(weights)
        return _sd15_configs(weights)
    except (KeyError, IndexError) as error:
        raise unsupported(weights, f"lacks parts of a complete model ({error.args[0]})") from error


def vocabulary_sizes(weights: WeightFile, family: str) -> list[int]:
    """Embeddings of each text encoder, in the pipeline's order."""
    keys = [f"{CLIP}.embeddings.token_embedding.weight"]
    if family == "sdxl":
        keys = [f"{XL_CLIP}.embeddings.token_embedding.weight"]
        keys.append(f"{XL_OPEN_CLIP}.token_embedding.weight")
    return [weights.shape(key)[0] for key in keys]


def _sd15_configs(weights: WeightFile) -> dict[str, Config]:
    unet = _unet_config(weights)
    unet |= {"attention_head_dim": _SD15_HEADS, "sample_size": 64}
    return {
        "model_index": {
            "_class_name": "StableDiffusionPipeline",
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "requires_safety_checker": False,
        },
        "unet": unet,
        "vae": _vae_config(weights, scaling_factor=0.18215),
        "text_encoder": _clip_config(weights, CLIP),
        "scheduler": _schedule(weights, "PNDMScheduler", skip_prk_steps=True),
    }


def _sdxl_configs(weights: WeightFile) -> dict[str, Config]:
    text = _open_clip_config(weights)
    unet = _unet_config(weights)
    embedded = weights.shape(f"{UNET}.label_emb.0.0.weight")[1]
    unet |= {
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in unet["block_out_channels"]],
        "sample_size": 128,
        "addition_embed_type": "text_time",
        # Six numbers (original size, crop, target size) stand beside the pooled text.
        "addition_time_embed_dim": (embedded - text["projection_dim"]) // 6,
        "projection_class_embeddings_input_dim": embedded,
    }
    return {
        "model_index": {
            "_class_name": "StableDiffusionXLPipeline",
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "force_zeros_for_empty_prompt": True,
        },
        "unet": unet,
        "vae": _vae_config(weights, scaling_factor=0.13025, force_upcast=True),
        "text_encoder": _clip_config(weights, XL_CLIP),
        "text_encoder_2": text,
        "scheduler": _schedule(weights, "EulerDiscreteScheduler", timestep_spacing="leading"),
    }


def _schedule(weights: WeightFile, name: str, **more: Any) -> Config:
    """The noise schedule both families were trained with.

    Fine-tunes that predict velocity mark themselves with the empty tensors `v_pred` and `ztsnr`.
    """
    return {
        "_class_name": name,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "prediction_type": "v_prediction" if "v_pred" in weights.tensors else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in weights.tensors,
        **more,
    }


def _unet_config(weights: WeightFile) -> Config:
    """Widths, depths and attention of the UNet, read off its numbered blocks."""
    first = weights.shape(f"{UNET}.input_blocks.0.0.weight")
    if first[1] not in (_PLAIN, _INPAINTING):
        raise unsupported(
            weights, f"takes {first[1]} input channels (editing), not {_PLAIN} or {_INPAINTING}"
        )
    widths: list[int] = [first[0]]
    resnets: list[int] = [0]
    depths: list[int] = [0]
    for index in count(1):
        block = f"{UNET}.input_blocks.{index}"
        if f"{block}.0.op.weight" in weights.tensors:
            widths.append(0)
            resnets.append(0)
            depths.append(0)
            continue
        if f"{block}.0.in_layers.2.weight" not in weights.tensors:
            break
        widths[-1] = weights.shape(f"{block}.0.in_layers.2.weight")[0]
        resnets[-1] += 1
        depths[-1] = max(depths[-1], weights.count(f"{block}.1.transformer_blocks"))
    projections = [key for key in weights.tensors if key.startswith(UNET) and key.endswith(".proj_in.weight")]
    cross = next(key for key in weights.tensors if key.endswith(".attn2.to_k.weight"))
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)]
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": first[1],
        "out_channels": weights.shape(f"{UNET}.out.2.weight")[0],
        "block_out_channels": widths,
        "layers_per_block": resnets[0],
        "down_block_types": down,
        "up_block_types": up,
        "cross_attention_dim": weights.shape(cross)[1],
        "transformer_layers_per_block": [max(1, depth) for depth in depths],
        "use_linear_projection": len(weights.shape(projections[0])) == 2,
    }


def _vae_config(weights: WeightFile, **more: Any) -> Config:
    decoder = f"{VAE}.decoder"
    levels = weights.count(f"{decoder}.up")
    widths = [weights.shape(f"{decoder}.up.{level}.block.0.conv1.weight")[0] for level in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "layers_per_block": weights.count(f"{decoder}.up.0.block") - 1,
        "latent_channels": weights.shape(f"{decoder}.conv_in.weight")[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": 512,
        **more,
    }


def _clip_config(weights: WeightFile, prefix: str) -> Config:
    vocabulary, width = weights.shape(f"{prefix}.embeddings.token_embedding.weight")
    layer = f"{prefix}.encoder.layers"
    return _text_config(
        vocabulary,
        width,
        tokens=weights.shape(f"{prefix}.embeddings.position_embedding.weight")[0],
        layers=weights.count(layer),
        inner=weights.shape(f"{layer}.0.mlp.fc1.weight")[0],
        activation="quick_gelu",
        projection=width,
    )


def _open_clip_config(weights: WeightFile) -> Config:
    vocabulary, width = weights.shape(f"{XL_OPEN_CLIP}.token_embedding.weight")
    layer = f"{XL_OPEN_CLIP}.transformer.resblocks"
    return _text_config(
        vocabulary,
        width,
        tokens=weights.shape(f"{XL_OPEN_CLIP}.positional_embedding")[0],
        layers=weights.count(layer),
        inner=weights.shape(f"{layer}.0.mlp.c_fc.weight")[0],
        activation="gelu",
        projection=weights.shape(f"{XL_OPEN_CLIP}.text_projection")[1],
    )


def _text_config(
    vocabulary: int, width: int, *, tokens: int, layers: int, inner: int, activation: str, projection: int
) -> Config:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": tokens,
        "hidden_act": activation,
        "projection_dim": projection,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
