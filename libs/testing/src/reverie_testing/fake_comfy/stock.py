"""The classes that the fake knows: stock ones and the recording aids (Rec*), as real servers describe them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from reverie_testing.fake_comfy import work
from reverie_testing.fake_comfy.features import Features, features_of
from reverie_testing.fake_comfy.nodes import NodeClass, Run

#: `/object_info` of real servers, one file per version, without texts for people.
OBJECT_INFO = Path(__file__).parent / "object_info"

RUNS: dict[str, Run] = {
    "EmptyImage": work.empty_image,
    "ImageScale": work.image_scale,
    "ImageScaleBy": work.image_scale_by,
    "ImageBlur": work.unchanged,
    "ImageSharpen": work.unchanged,
    "ImageQuantize": work.unchanged,
    "ImageInvert": work.image_invert,
    "ImageBatch": work.image_batch,
    "ImageBlend": work.image_blend,
    "ImageCompositeMasked": work.image_composite,
    "SolidMask": work.solid_mask,
    "FeatherMask": work.feather_mask,
    "SaveImage": work.save_image,
    "PreviewImage": work.preview_image,
    "SaveImageWebsocket": work.save_image_websocket,
    "LoadImage": work.load_image,
    "CheckpointLoaderSimple": work.checkpoint_loader,
    "LoraLoader": work.lora_loader,
    "CLIPTextEncode": work.text_encode,
    "EmptyLatentImage": work.empty_latent,
    "KSampler": work.sampler,
    "VAEEncode": work.vae_encode,
    "VAEDecode": work.vae_decode,
    "UpscaleModelLoader": work.upscale_loader,
    "ImageUpscaleWithModel": work.upscale,
    "RecLoop": work.rec_loop,
    "RecFail": work.rec_fail,
    "RecExit": work.rec_exit,
    "RecExpand": work.rec_expand,
    "RecAsync": work.rec_async,
}


def classes_of(features: Features) -> dict[str, NodeClass]:
    """The classes as the newest server that is not newer than this version described them."""
    recorded = sorted((features_of(path.stem).number, path) for path in OBJECT_INFO.glob("*.json"))
    path = [path for number, path in recorded if number <= features.number][-1]
    return {
        name: NodeClass(name, RUNS[name], info, name == "RecAsync", name != "SaveImageWebsocket")
        for name, info in _read(path).items()
    }


@cache
def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))
