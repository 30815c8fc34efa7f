"""The text-to-image generator: a small latent diffusion UNet, told its caption twice.

Cross-attention says where; a pooled caption added to the time embedding (diffusers'
``addition_embed_type="text"``) says what, and scales every residual block with it.
"""

import json
import os
import random
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import (
    AutoencoderTiny,
    AutoPipelineForText2Image,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from reverie_models import scorer, vocabulary
from reverie_models.captions import describe
from reverie_models.checker import Tally, held_out_prompts
from reverie_models.scenes import Scene, draw_scene
from reverie_models.training import (
    Average,
    Budget,
    cosine_rate,
    fresh_rng,
    half_where_safe,
    load_checkpoint,
    pictures_of,
    save_checkpoint,
    training_device,
)

DEFAULT_STEPS = 10
DEFAULT_GUIDANCE = 2.5
NATIVE_SIZE = 64
_BATCH_EACH = 32  # of every process
_FRESH_EACH = 8
_POOL = 120_000
_PEAK_RATE = 1e-3
_TEXT_RATE_SHARE = 0.3
_UNTOLD_SHARE = 0.1
_BETAS = (1e-4, 0.02)
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": _BETAS[0],
    "beta_end": _BETAS[1],
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
}


def build_unet(channels: int) -> UNet2DConditionModel:
    """An untrained UNet over 8x8 latents; attention at 8x8 and in the middle."""
    return UNet2DConditionModel(
        sample_size=NATIVE_SIZE // 8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(96, 128),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(3, 4),
        cross_attention_dim=scorer.WIDTH,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=256,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_text_encoder(work: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The scorer's text tower where one was trained, else an untrained one."""
    encoder = CLIPTextModel(scorer.text_config(tokenizer))
    if (work / "scorer" / "config.json").exists():
        trained, _ = scorer.load(work / "scorer")
        encoder.load_state_dict(trained.text_model.state_dict())
    return encoder


class LatentPool:
    """Pictures already encoded, of which each batch replaces a share by fresh ones.

    A scene is worded anew each time it is drawn; the oldest make room when the pool is full.
    """

    def __init__(self, autoencoder: AutoencoderTiny, capacity: int) -> None:
        config = autoencoder.config
        side = NATIVE_SIZE // 8
        self._latents = torch.empty(capacity, config.latent_channels, side, side, device=autoencoder.device)
        self._scenes: list[Scene] = []
        self._next = 0
        self._encoder = autoencoder.encoder
        self._scale = config.scaling_factor

    @torch.no_grad()
    def add(self, scenes: list[Scene]) -> None:
        """Encodes scenes into the pool."""
        device = self._latents.device
        pictures = (pictures_of(scenes) * 2 - 1).to(device, memory_format=torch.channels_last)
        with half_where_safe(device):
            latents = self._encoder(pictures)
        for scene, latent in zip(scenes, latents.float() * self._scale, strict=True):
            self._latents[self._next] = latent
            if self._next < len(self._scenes):
                self._scenes[self._next] = scene
            else:
                self._scenes.append(scene)
            self._next = (self._next + 1) % len(self._latents)

    def draw(self, count: int, rng: random.Random) -> tuple[Tensor, list[Scene]]:
        """Scaled latents [count, C, 8, 8] and their scenes."""
        picked = [rng.randrange(len(self._scenes)) for _ in range(count)]
        return self._latents[picked], [self._scenes[index] for index in picked]


def _mixture(share: float) -> dict[str, float]:
    """Single figures first, then more and more pairs."""
    return {"pairs": 0.25 + 0.2 * min(1.0, 2 * share), "landscapes": 0.15}


def _captions(scenes: list[Scene], rng: random.Random) -> list[str]:
    return ["" if rng.random() < _UNTOLD_SHARE else describe(scene, rng) for scene in scenes]


def _timesteps(count: int) -> Tensor:
    """Timesteps spread evenly over a density with its peak in the middle."""
    even = (torch.arange(count) + torch.rand(count)) / count
    bent = even + 0.35 * torch.sin(2 * torch.pi * even) / (2 * torch.pi)
    return (bent * 1000).long().clamp(0, 999)


class Course:
    """UNet and text encoder in training, alone or as one of several processes."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.tokenizer = vocabulary.prepared(work)
        self.device = training_device()
        self.autoencoder = AutoencoderTiny.from_pretrained(work / "autoencoder").eval()
        self.autoencoder.to(self.device)
        self.text = build_text_encoder(work, self.tokenizer).to(self.device)
        self.unet = build_unet(self.autoencoder.config.latent_channels).to(self.device)
        if self.device.type == "cpu":
            # The fused attention's backward pass costs a third of a training step on CPUs.
            self.unet.set_attn_processor(AttnProcessor())
            self.text.set_attn_implementation("eager")
        self.trained = [*self.unet.parameters(), *self.text.parameters()]
        groups = [
            {"params": list(self.unet.parameters()), "share": 1.0},
            {"params": list(self.text.parameters()), "share": _TEXT_RATE_SHARE},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=_PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.99))
        self.average = Average(self.trained, 0.9990)
        self.step, self.samples, self.spent = 0, 0, 0.0
        betas = torch.linspace(*_BETAS, 1000)
        self._kept = torch.cumprod(1 - betas, 0).to(self.device)
        if state := load_checkpoint(work / "generator.ckpt"):
            self.unet.load_state_dict(state["unet"])
            self.text.load_state_dict(state["text"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average.values = state["average"]
            self.step, self.samples, self.spent = state["step"], state["samples"], state["spent"]

    def learn(self, latents: Tensor, ids: Tensor, rate: float) -> float:
        """One optimiser step over this process's part of the batch; returns its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        timesteps = _timesteps(len(latents)).to(self.device)
        kept = self._kept[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        with half_where_safe(self.device):
            states = self.text(input_ids=ids).last_hidden_state
            guess = self.unet(noisy, timesteps, encoder_hidden_states=states).sample
        loss = nn.functional.mse_loss(guess.float(), velocity)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        if self.world > 1:
            self._share_gradients()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.average.update(self.step)
        self.step += 1
        self.samples += len(latents) * self.world
        return loss.item()

    def _share_gradients(self) -> None:
        gradients = [p.grad for p in self.trained if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def save(self, elapsed: float) -> None:
        """Writes the checkpoint that training resumes from."""
        save_checkpoint(
            self.work / "generator.ckpt",
            {
                "unet": self.unet.state_dict(),
                "text": self.text.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.values,
                "step": self.step,
                "samples": self.samples,
                "spent": elapsed,
            },
        )

    def check(self, count: int = 96) -> str:
        """What the averaged weights reach on held-out prompts."""
        self.average.swap()
        self.unet.eval()
        self.text.eval()
        pipeline = assemble(self.autoencoder, self.text, self.tokenizer, self.unet)
        tallies = measure(pipeline, count)
        self.unet.train()
        self.text.train()
        self.average.swap()
        return "; ".join(f"{kind}: {tally}" for kind, tally in tallies.items())


def measure(
    pipeline: StableDiffusionPipeline,
    count: int,
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
) -> dict[str, Tally]:
    """Checks `count` pictures of single figures and half as many of pairs."""
    tallies = {}
    for kind, many in (("single", count), ("pair", count // 2)):
        prompts = held_out_prompts(kind, many)
        tally = Tally()
        for start in range(0, many, 32):
            part = prompts[start : start + 32]
            pictures = pipeline(
                [caption for caption, _ in part],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(start),
                output_type="np",
            ).images
            for picture, (_, scene) in zip(pictures, part, strict=True):
                tally.add(picture * 255, scene)
        tallies[kind] = tally
    return tallies


def train(work: Path, minutes: float, seed: int = 3, checks_every: float = 300) -> None:
    """Trains into `work/text-to-image`; resumes from `work/generator.ckpt`.

    With RANK, WORLD_SIZE and a rendezvous from torchrun's environment, processes add up to
    larger batches; checkpoints do not depend on their number.
    """
    course = Course(work, seed)
    if course.world > 1:
        dist.init_process_group("gloo")
    budget = Budget(minutes * 60, course.spent)
    pool = LatentPool(course.autoencoder, _POOL // course.world)
    first = fresh_rng(seed, 10**9 + course.step + 10**6 * course.rank)
    for _ in range(32):
        pool.add([draw_scene(first, **_mixture(budget.share)) for _ in range(64)])
    print(f"generator from step {course.step}", flush=True)
    losses: list[float] = []
    share, next_check = budget.share, budget.elapsed + checks_every
    while share < 1:
        torch.manual_seed((seed * 64 + course.rank) * 10_000_019 + course.step)
        rng = fresh_rng(seed + 1000 * course.rank, course.step)
        pool.add([draw_scene(rng, **_mixture(share)) for _ in range(_FRESH_EACH)])
        latents, scenes = pool.draw(_BATCH_EACH, rng)
        ids = scorer.tokens_of(course.tokenizer, _captions(scenes, rng)).to(course.device)
        rate = cosine_rate(_PEAK_RATE, share, course.step, warm_up=200)
        losses.append(course.learn(latents, ids, rate))
        if course.step % 10 == 0:
            share = _agreed(budget.share, course.world)
        if course.rank:
            continue
        if course.step % 200 == 0:
            print(
                f"generator {course.step} {budget.elapsed:.0f}s {course.samples} samples"
                f" loss {sum(losses) / len(losses):.4f} rate {rate:.1e}",
                flush=True,
            )
            losses.clear()
        if course.step % 400 == 0:
            course.save(budget.elapsed)
        if budget.elapsed >= next_check:
            print(f"generator {course.step} {course.check()}", flush=True)
            next_check = budget.elapsed + checks_every
    if course.rank == 0:
        course.save(budget.elapsed)
        export_pipeline(work)
        print(f"generator finished: {course.samples} samples; {course.check(192)}", flush=True)


def _agreed(share: float, world: int) -> float:
    """The first process's share of the budget, so that all stop together."""
    if world == 1:
        return share
    value = torch.tensor([share])
    dist.broadcast(value, 0)
    return float(value)


def assemble(
    autoencoder: AutoencoderTiny,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """The diffusers pipeline around the given parts."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**_SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export_pipeline(work: Path) -> None:
    """Writes the averaged weights as `work/text-to-image`: a pipeline folder and its defaults."""
    course = Course(work, seed=0)
    course.average.swap()
    parts = course.autoencoder, course.text, course.unet
    autoencoder, text, unet = (part.cpu().half() for part in parts)
    folder = work / "text-to-image"
    pipeline = assemble(autoencoder, text, course.tokenizer, unet)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _forget_origin(folder / "vae" / "config.json")
    defaults = {
        "mode": "builtin",
        "native_size": [NATIVE_SIZE, NATIVE_SIZE],
        "default_size": [256, 256],
        "default_steps": DEFAULT_STEPS,
        "default_guidance": DEFAULT_GUIDANCE,
        "super_resolution": "../super-resolution",
    }
    (folder / "reverie.json").write_text(json.dumps(defaults, indent=2) + "\n")


def _forget_origin(path: Path) -> None:
    """Takes the training folder's place out of a saved configuration."""
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def load(folder: Path) -> StableDiffusionPipeline:
    """The shipped pipeline in float32."""
    pipeline = AutoPipelineForText2Image.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
