"""The classes that the fake knows: the stock ones of the recorded workflows, and the recording aids (Rec*)."""

from __future__ import annotations

from typing import Any

from reverie_testing.fake_comfy import work
from reverie_testing.fake_comfy.nodes import NodeClass, Spec

SIDE = 16384
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
SAMPLERS = [
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "lms",
    "dpmpp_2m",
    "dpmpp_sde",
    "ddpm",
    "lcm",
    "ddim",
    "uni_pc",
]
SCHEDULERS = ["normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform"]

IMAGE: Spec = ["IMAGE"]


def whole(default: int, low: int, high: int, **more: Any) -> Spec:
    """An INT input."""
    return ["INT", {"default": default, "min": low, "max": high, **more}]


def real(default: float, low: float, high: float, step: float = 0.01) -> Spec:
    """A FLOAT input."""
    return ["FLOAT", {"default": default, "min": low, "max": high, "step": step}]


HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
TEXT: Spec = ["STRING", {"multiline": True, "dynamicPrompts": True}]
SEED = whole(0, 0, 2**64 - 1)

CLASSES = {
    node.name: node
    for node in (
        NodeClass(
            "EmptyImage",
            work.empty_image,
            {
                "width": whole(512, 1, SIDE),
                "height": whole(512, 1, SIDE),
                "batch_size": whole(1, 1, 4096),
                "color": whole(0, 0, 0xFFFFFF),
            },
            outputs=("IMAGE",),
        ),
        NodeClass(
            "ImageScale",
            work.image_scale,
            {
                "image": IMAGE,
                "upscale_method": [METHODS],
                "width": whole(512, 0, SIDE),
                "height": whole(512, 0, SIDE),
                "crop": [["disabled", "center"]],
            },
            outputs=("IMAGE",),
        ),
        NodeClass(
            "ImageBlur",
            work.image_blur,
            {"image": IMAGE, "blur_radius": whole(1, 1, 31), "sigma": real(1.0, 0.1, 10.0, 0.1)},
            outputs=("IMAGE",),
        ),
        NodeClass("ImageInvert", work.image_invert, {"image": IMAGE}, outputs=("IMAGE",)),
        NodeClass("ImageBatch", work.image_batch, {"image1": IMAGE, "image2": IMAGE}, outputs=("IMAGE",)),
        NodeClass(
            "SaveImage",
            work.save_image,
            {"images": IMAGE, "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
            hidden=HIDDEN,
            output_node=True,
        ),
        NodeClass("PreviewImage", work.preview_image, {"images": IMAGE}, hidden=HIDDEN, output_node=True),
        NodeClass(
            "SaveImageWebsocket",
            work.save_image_websocket,
            {"images": IMAGE},
            output_node=True,
            cacheable=False,
        ),
        NodeClass(
            "LoadImage",
            work.load_image,
            {"image": [[], {"image_upload": True}]},
            outputs=("IMAGE", "MASK"),
        ),
        NodeClass(
            "CheckpointLoaderSimple",
            work.checkpoint_loader,
            {"ckpt_name": [["tiny_sd15_random.safetensors"]]},
            outputs=("MODEL", "CLIP", "VAE"),
            category="loaders",
        ),
        NodeClass(
            "CLIPTextEncode",
            work.text_encode,
            {"text": TEXT, "clip": ["CLIP"]},
            outputs=("CONDITIONING",),
            category="conditioning",
        ),
        NodeClass(
            "EmptyLatentImage",
            work.empty_latent,
            {
                "width": whole(512, 16, SIDE, step=8),
                "height": whole(512, 16, SIDE, step=8),
                "batch_size": whole(1, 1, 4096),
            },
            outputs=("LATENT",),
            category="latent",
        ),
        NodeClass(
            "KSampler",
            work.sampler,
            {
                "model": ["MODEL"],
                "seed": SEED,
                "steps": whole(20, 1, 10000),
                "cfg": real(8.0, 0.0, 100.0, 0.1),
                "sampler_name": [SAMPLERS],
                "scheduler": [SCHEDULERS],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
                "denoise": real(1.0, 0.0, 1.0),
            },
            outputs=("LATENT",),
            category="sampling",
        ),
        NodeClass(
            "VAEEncode",
            work.vae_encode,
            {"pixels": IMAGE, "vae": ["VAE"]},
            outputs=("LATENT",),
            category="latent",
        ),
        NodeClass(
            "VAEDecode",
            work.vae_decode,
            {"samples": ["LATENT"], "vae": ["VAE"]},
            outputs=("IMAGE",),
            category="latent",
        ),
        NodeClass(
            "UpscaleModelLoader",
            work.upscale_loader,
            {"model_name": [["tiny_esrgan_x2_random.safetensors", "tiny_esrgan_x4_random.safetensors"]]},
            outputs=("UPSCALE_MODEL",),
            category="loaders",
        ),
        NodeClass(
            "ImageUpscaleWithModel",
            work.upscale,
            {"upscale_model": ["UPSCALE_MODEL"], "image": IMAGE},
            outputs=("IMAGE",),
        ),
        NodeClass(
            "RecLoop",
            work.rec_loop,
            {
                "steps": whole(10, 1, 100000),
                "delay_ms": whole(100, 0, 60000),
                "size": whole(64, 8, 4096),
                "preview": [["none", "JPEG", "PNG"]],
                "seed": whole(0, 0, 2**63),
            },
            {
                "fail_at": whole(0, 0, 100000),
                "text": ["BOOLEAN", {"default": False}],
                "clock": ["BOOLEAN", {"default": False}],
                "deaf": ["BOOLEAN", {"default": False}],
                "noise": ["BOOLEAN", {"default": False}],
                "image": IMAGE,
            },
            {"unique_id": "UNIQUE_ID"},
            outputs=("IMAGE",),
            category="rec",
        ),
        NodeClass(
            "RecFail",
            work.rec_fail,
            {"image": IMAGE, "message": ["STRING", {"default": "boom"}]},
            outputs=("IMAGE",),
            category="rec",
        ),
        NodeClass(
            "RecExit",
            work.rec_exit,
            {"image": IMAGE, "message": ["STRING", {"default": "boom"}]},
            outputs=("IMAGE",),
            category="rec",
        ),
        NodeClass(
            "RecExpand",
            work.rec_expand,
            {"steps": ["INT", {"default": 3}], "seed": ["INT", {"default": 0}]},
            outputs=("IMAGE",),
            category="rec",
        ),
        NodeClass(
            "RecAsync",
            work.rec_async,
            {
                "steps": ["INT", {"default": 5}],
                "delay_ms": ["INT", {"default": 50}],
                "seed": ["INT", {"default": 0}],
            },
            hidden={"unique_id": "UNIQUE_ID"},
            outputs=("IMAGE",),
            asynchronous=True,
            category="rec",
        ),
    )
}
