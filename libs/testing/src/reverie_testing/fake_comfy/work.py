"""What the fake's nodes do."""

# ruff: noqa: D103, PLR0917 -- a function is what the class of its name does; its arguments are that class's inputs

from __future__ import annotations

from typing import Any

from reverie_testing.fake_comfy.nodes import Call, NodeFailure, Result, WorkerExit
from reverie_testing.fake_comfy.pictures import Picture, noise, opened, preview, tint

#: A sampling step's work at pace 1.
STEP_MS = 50.0
#: Previews of latents are scaled up to this.
PREVIEW_PX = 512


async def empty_image(_: Call, width: int, height: int, batch_size: int, color: int) -> Result:
    return Result((Picture(width, height, batch_size, color),))


async def image_scale(
    _: Call, image: Picture, upscale_method: str, width: int, height: int, crop: str
) -> Result:
    return Result((image.changed(width=width or image.width, height=height or image.height),))


async def image_scale_by(_: Call, image: Picture, upscale_method: str, scale_by: float) -> Result:
    width, height = round(image.width * scale_by), round(image.height * scale_by)
    return Result((image.changed(width=width, height=height),))


async def unchanged(_: Call, image: Picture, **inputs: Any) -> Result:
    return Result((image.changed(colour=tint(image.colour, sorted(inputs.items()))),))


async def image_invert(_: Call, image: Picture) -> Result:
    return Result((image.changed(colour=0xFFFFFF ^ image.colour),))


async def image_batch(_: Call, image1: Picture, image2: Picture) -> Result:
    return Result((image1.changed(count=image1.count + image2.count),))


async def image_blend(
    _: Call, image1: Picture, image2: Picture, blend_factor: float, blend_mode: str
) -> Result:
    return Result((image1.changed(colour=tint(image1.colour, image2.colour, blend_factor, blend_mode)),))


async def image_composite(
    _: Call,
    destination: Picture,
    source: Picture,
    x: int,
    y: int,
    resize_source: bool,
    mask: Picture | None = None,
) -> Result:
    return Result((destination.changed(colour=tint(destination.colour, source.colour, x, y)),))


async def solid_mask(_: Call, value: float, width: int, height: int) -> Result:
    return Result((Picture(width, height, colour=int(value * 255)),))


async def feather_mask(_: Call, mask: Picture, **sides: int) -> Result:
    return Result((mask,))


async def lora_loader(_: Call, model: Any, clip: Any, lora_name: str, **strengths: float) -> Result:
    return Result((f"{model} {lora_name}", f"{clip} {lora_name}"))


async def save_image(call: Call, images: Picture, filename_prefix: str = "ComfyUI") -> Result:
    saved = [call.save("output", filename_prefix, images) for _ in range(images.count)]
    return Result(ui={"images": saved})


async def preview_image(call: Call, images: Picture) -> Result:
    saved = [call.save("temp", "ComfyUI_temp_fakes", images) for _ in range(images.count)]
    return Result(ui={"images": saved})


async def save_image_websocket(call: Call, images: Picture) -> Result:
    for index in range(images.count):
        data = preview(images.width, images.colour, "PNG")
        await call.progress(index, images.count, ("PNG", data))
    return Result()


async def load_image(call: Call, image: str) -> Result:
    data = call.file(image)
    try:
        picture = opened(data)
    except OSError as error:
        raise NodeFailure("PIL.UnidentifiedImageError", str(error)) from None
    return Result((picture, picture))


async def checkpoint_loader(_: Call, ckpt_name: str) -> Result:
    return Result((f"model {ckpt_name}", f"clip {ckpt_name}", f"vae {ckpt_name}"))


async def text_encode(_: Call, text: str, clip: Any) -> Result:
    return Result((f"{clip}: {text}",))


async def empty_latent(_: Call, width: int, height: int, batch_size: int) -> Result:
    return Result((Picture(width, height, batch_size),))


async def vae_encode(_: Call, pixels: Picture, vae: Any) -> Result:
    return Result((pixels,))


async def vae_decode(_: Call, samples: Picture, vae: Any) -> Result:
    return Result((samples,))


async def sampler(
    call: Call,
    model: Any,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Any,
    negative: Any,
    latent_image: Picture,
    denoise: float,
) -> Result:
    colour = tint(seed, cfg, positive, negative, latent_image.colour, denoise)
    shown = ("JPEG", preview(PREVIEW_PX, colour, "JPEG")) if call.previews else None
    for step in range(1, steps + 1):
        await call.rest(STEP_MS)
        await call.progress(step, steps, shown)
    return Result((latent_image.changed(colour=colour),))


async def upscale_loader(_: Call, model_name: str) -> Result:
    return Result((model_name,))


async def upscale(call: Call, upscale_model: Any, image: Picture) -> Result:
    await call.progress(1, 1)
    factor = 2 if "x2" in upscale_model else 4
    return Result((image.changed(width=image.width * factor, height=image.height * factor),))


async def rec_loop(
    call: Call,
    steps: int,
    delay_ms: int,
    size: int,
    preview: str,  # the recorded name
    seed: int,
    fail_at: int = 0,
    text: bool = False,
    clock: bool = False,
    deaf: bool = False,
    noise: bool = False,
    image: Picture | None = None,
) -> Result:
    for step in range(1, steps + 1):
        await call.rest(delay_ms)
        if fail_at and step == fail_at:
            raise NodeFailure("ValueError", f"RecLoop fails at step {step} on request")
        if deaf:
            continue
        if text:
            await call.text(f"step {step}/{steps}")
        shown = None
        if preview != "none":
            colour = (255 * step // steps) << 16 | (seed % 256) << 8 | 128
            shown = (preview, drawn(size, colour, preview, noise))
        await call.progress(step, steps, shown)
    return Result((Picture(size, size, colour=tint(seed)),))


def drawn(size: int, colour: int, image_format: str, noisy: bool) -> bytes:
    """A preview; apart from `rec_loop`, whose inputs have the functions' names."""
    return noise(size, image_format) if noisy else preview(size, colour, image_format)


async def rec_fail(_: Call, image: Picture, message: str = "boom") -> Result:
    raise NodeFailure("RuntimeError", message)


async def rec_exit(_: Call, image: Picture, message: str = "boom") -> Result:
    raise WorkerExit(message)


async def rec_expand(_: Call, steps: int, seed: int) -> Result:
    loop = {"steps": steps, "delay_ms": 50, "size": 32, "preview": "JPEG", "seed": seed}
    graph = {
        "1": {"class_type": "RecLoop", "inputs": loop},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    }
    return Result((["2", 0],), expand=graph)


async def rec_async(call: Call, steps: int, delay_ms: int, seed: int) -> Result:
    for step in range(1, steps + 1):
        await call.rest(delay_ms)
        await call.progress(step, steps)
    return Result((Picture(32, 32, colour=tint(seed)),))
