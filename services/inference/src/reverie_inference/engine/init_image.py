"""Image to image and inpainting: what a picture starts from, computed as diffusers' own pipelines do, bit for bit.

Source of the order of operations: `StableDiffusionImg2ImgPipeline`, `StableDiffusionInpaintPipeline` and their XL
kin of diffusers 0.42.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from reverie_inference.engine.pictures import Pictures
from reverie_inference.models.image_to_image import takes_init_image, takes_mask_image
from reverie_inference.models.loaded import LoadedModel, Size
from reverie_inference.models.text_to_image import draws_under_masks
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError
from reverie_protocol.init_image import steps_taken, strength_of, too_weak
from reverie_protocol.jobs import GenerateParams
from reverie_protocol.sizes import MAX_SIDE_PX, MIN_SIDE_PX

#: What shows through a transparent picture, and through a transparent mask (which keeps what is there).
_BEHIND_PICTURE, _BEHIND_MASK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Start:
    """What a picture starts from: `image` (RGB) and `mask` (L, white is drawn anew), both of the drawn size.

    `steps` of the job's denoising steps are taken, the last ones.
    """

    image: Image.Image
    mask: Image.Image | None
    strength: float
    steps: int

    @property
    def digest(self) -> str:
        """Names its pictures."""
        masked = b"" if self.mask is None else self.mask.tobytes()
        return hashlib.sha256(self.image.tobytes() + masked).hexdigest()


def size_of(image: Image.Image, multiple: int) -> Size:
    """The size to draw a picture like this at: its own, within what can be asked for, in whole multiples."""
    shrink = min(1.0, MAX_SIDE_PX / max(image.size))
    width, height = (max(MIN_SIDE_PX, int(side * shrink)) for side in image.size)
    return (max(multiple, width - width % multiple), max(multiple, height - height % multiple))


def start_of(
    params: GenerateParams, model: LoadedModel, pictures: Pictures, *, drawn: Size, steps: int
) -> Start | None:
    """What these parameters start from, None for text alone; ReverieError `invalid_field` naming the field."""
    if pictures.init is None:
        _require_no_picture_needed(model)
        return None
    if not takes_init_image(model):
        raise _refusal("initImage", f"The mode {model.mode} makes pictures from text only.")
    if pictures.mask is not None and not takes_mask_image(model):
        raise _refusal("maskImage", f"The mode {model.mode} takes no mask.")
    if pictures.mask is None and draws_under_masks(model.pipeline):
        raise _refusal("maskImage", f"The mode {model.mode} draws under a mask only; it needs a maskImage.")
    strength = strength_of(params, steps)
    taken = steps_taken(steps, strength)
    if not taken:
        raise _refusal("strength", f"The strength {strength:g} {too_weak(steps)}.")
    image = _resized(_flat(pictures.init, _BEHIND_PICTURE), drawn)
    mask = None
    if pictures.mask is not None:
        mask = _resized(_flat(pictures.mask, _BEHIND_MASK), drawn).convert("L")
    return Start(image, mask, strength, taken)


class Origin:
    """The latents of one job's picture, and the way back to them outside the mask.

    Everything random comes from the job's own generator, in the order in which diffusers draws it.
    """

    def __init__(self, model: LoadedModel, start: Start, scheduler: Any, generator: torch.Generator) -> None:
        self._model = model
        self._start = start
        self._scheduler = scheduler
        self._generator = generator
        self._timesteps: torch.Tensor
        self._latents: torch.Tensor | None = None
        self._noise: torch.Tensor
        self._mask: torch.Tensor | None = None
        self._masked_latents: torch.Tensor | None = None

    def timesteps(self, steps: int) -> torch.Tensor:
        """The timesteps of the steps to be taken, of the `steps` that the scheduler is set to."""
        skipped = (steps - self._start.steps) * self._scheduler.order
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(skipped)
        self._timesteps = self._scheduler.timesteps[skipped:]
        return self._timesteps

    def first_latents(self, dtype: torch.dtype) -> torch.Tensor:
        """The picture's latents with the first timestep's noise on them; call it once, after `timesteps`."""
        start, model = self._start, self._model
        values = model.pipeline.image_processor.preprocess(start.image)
        if start.mask is None:
            self._latents = self._encode(values, dtype)
            self._noise = self._draw(self._latents.shape, dtype)
            return self._noised()
        width, height = start.image.size
        pixels = _mask_values(start.mask, model.pipeline.vae_scale_factor)
        anew = start.strength == 1
        keeps_latents = not draws_under_masks(model.pipeline)
        if keeps_latents or not anew:
            # As diffusers has it: the layout in memory decides how convolutions round.
            self._latents = self._encode(values, dtype).contiguous()
        factor = model.pipeline.vae_scale_factor
        shape = (1, model.pipeline.vae.config.latent_channels, height // factor, width // factor)
        self._noise = self._draw(shape, dtype)
        latents = self._noise * self._scheduler.init_noise_sigma if anew else self._noised()
        self._mask = torch.nn.functional.interpolate(pixels, size=shape[2:]).to(model.device, dtype)
        if keeps_latents:
            self._spend(shape, dtype)
        else:
            self._masked_latents = self._encode(values * (pixels < 0.5), dtype)
        return latents

    def unet_input(self, scaled: torch.Tensor) -> torch.Tensor:
        """The UNet's input for scaled latents [N, C, H, W]: a UNet made for masks sees mask and picture too."""
        if self._mask is None or self._masked_latents is None:
            return scaled
        count = scaled.shape[0]
        beside = [torch.cat([part] * count) for part in (self._mask, self._masked_latents)]
        return torch.cat([scaled, *beside], dim=1)

    def restored(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """The latents after step number `step` (from 0), with the picture put back where the mask is black."""
        if self._mask is None or self._masked_latents is not None or self._latents is None:
            return latents
        kept = self._latents
        if step < len(self._timesteps) - 1:
            following = torch.tensor([self._timesteps[step + 1]])
            kept = self._scheduler.add_noise(kept, self._noise, following)
        return (1 - self._mask) * kept + self._mask * latents

    def _noised(self) -> torch.Tensor:
        noised: torch.Tensor = self._scheduler.add_noise(self._latents, self._noise, self._timesteps[:1])
        return noised

    def _encode(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Latents of a picture [1, 3, H, W] of -1..1."""
        vae, config = self._model.pipeline.vae, self._model.pipeline.vae.config
        upcast = self._upcasts()
        values = values.to(device=self._model.device, dtype=torch.float32 if upcast else dtype)
        if upcast:
            vae.to(torch.float32)
        try:
            encoded = vae.encode(values)
            drawn = hasattr(encoded, "latent_dist")
            latents = encoded.latent_dist.sample(self._generator) if drawn else encoded.latents
        finally:
            if upcast:
                vae.to(dtype)
        latents = latents.to(dtype)
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if self._model.family == "sdxl" and mean is not None and std is not None:
            shift = torch.tensor(mean).view(1, -1, 1, 1).to(latents.device, dtype)
            spread = torch.tensor(std).view(1, -1, 1, 1).to(latents.device, dtype)
            normal: torch.Tensor = (latents - shift) * config.scaling_factor / spread
            return normal
        scaled: torch.Tensor = config.scaling_factor * latents
        return scaled

    def _spend(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Draw what diffusers draws to encode the masked picture, which these models do not look at."""
        if hasattr(self._model.pipeline.vae, "quant_conv"):  # not the tiny autoencoder, which draws nothing
            self._draw(shape, torch.float32 if self._upcasts() else dtype)

    def _draw(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        drawn: torch.Tensor = randn_tensor(
            shape, generator=self._generator, device=self._model.device, dtype=dtype
        )
        return drawn

    def _upcasts(self) -> bool:
        """XL's autoencoder overflows in half precision, so it encodes in single."""
        config = self._model.pipeline.vae.config
        return self._model.family == "sdxl" and bool(getattr(config, "force_upcast", False))


def _require_no_picture_needed(model: LoadedModel) -> None:
    if draws_under_masks(model.pipeline):
        raise _refusal("initImage", f"The mode {model.mode} needs an initImage and a maskImage.")


def _flat(image: Image.Image, behind: tuple[int, int, int]) -> Image.Image:
    """RGB, with `behind` where the picture is transparent."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*behind, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _resized(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _mask_values(mask: Image.Image, factor: int) -> torch.Tensor:
    """[1, 1, H, W] of 0 and 1."""
    processor = VaeImageProcessor(
        vae_scale_factor=factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True
    )
    values: torch.Tensor = processor.preprocess(mask)
    return values


def _refusal(name: str, message: str) -> ReverieError:
    return ReverieError(
        ErrorCode.INVALID_FIELD, message, fields=[FieldError((name,), message, "unsupported")]
    )
