"""The autoencoder between pictures (64x64) and latents (8x8): diffusers' AutoencoderTiny."""

import math
import random
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional

from reverie_models.scenes import draw_landscape, draw_pair, draw_single
from reverie_models.training import (
    Run,
    fresh_rng,
    half_where_safe,
    pictures_of,
    psnr,
    training_device,
)

LATENT_CHANNELS = 12
WIDTH = 48
_BATCH = 16


def build(channels: int = LATENT_CHANNELS) -> AutoencoderTiny:
    """An untrained autoencoder whose residual blocks start as identities."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(0, 1, 1, 2),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_channels=channels,
    )
    with torch.no_grad():
        for layer in [*model.encoder.layers, *model.decoder.layers]:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
                if layer.bias is not None:
                    layer.bias.zero_()
        for block in model.modules():
            if isinstance(block, AutoencoderTinyBlock):
                block.conv[-1].weight.zero_()
                block.conv[-1].bias.zero_()
    return model


def _batch(rng: random.Random, size: int) -> Tensor:
    draws = (draw_single, draw_pair, draw_landscape)
    scenes = [draw(rng) for draw in rng.choices(draws, (4, 4, 2), k=size)]
    return pictures_of(scenes) * 2 - 1


def _edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    return picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]


def _picture_loss(drawn: Tensor, truth: Tensor) -> Tensor:
    loss = (drawn - truth).abs().mean() + functional.mse_loss(drawn, truth)
    for mine, right in zip(_edges(drawn), _edges(truth), strict=True):
        loss = loss + 0.5 * (mine - right).abs().mean()
    return loss


def _latent_loss(latents: Tensor) -> Tensor:
    """Keeps every channel near mean 0 and deviation 1, as the diffusion expects them."""
    means = latents.mean(dim=(0, 2, 3))
    return means.square().mean() + (latents.std(dim=(0, 2, 3)) - 1).square().mean()


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderTiny, count: int = 120) -> float:
    """Mean dB of reconstructing unseen pictures of all kinds."""
    truth = _batch(random.Random("autoencoder check"), count)
    drawn = model.decode(model.encode(truth).latents).sample
    return float(psnr(drawn / 2 + 0.5, truth / 2 + 0.5).mean())


def train(work: Path, minutes: float, seed: int = 1) -> None:
    """Trains into `work/autoencoder`; resumes from `work/autoencoder.ckpt`, skips when done."""
    if (work / "autoencoder" / "config.json").exists():
        return
    model = build().to(training_device())
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    run = Run(work / "autoencoder.ckpt", model, optimiser, minutes)
    _fit(model, run, seed)
    finish(model, work)


def train_decoder(work: Path, minutes: float, seed: int = 5) -> None:
    """Goes on with the decoder alone, so that latents keep their meaning.

    Resumes from `work/decoder.ckpt`; needs a finished autoencoder.
    """
    model = AutoencoderTiny.from_pretrained(work / "autoencoder").to(training_device())
    model.encoder.requires_grad_(False)
    optimiser = torch.optim.AdamW(model.decoder.parameters(), lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    run = Run(work / "decoder.ckpt", model, optimiser, minutes)
    _fit(model, run, seed)
    model.eval().cpu().to(memory_format=torch.contiguous_format)
    model.save_pretrained(work / "autoencoder")
    print(f"decoder finished: {reconstruction_psnr(model):.2f} dB", flush=True)


def _fit(model: AutoencoderTiny, run: Run, seed: int) -> None:
    """Trains what the run's optimiser holds, and leaves the averaged weights in the model."""
    device = model.device
    whole = model.encoder.layers[0].weight.requires_grad
    model.to(memory_format=torch.channels_last)
    errors: list[float] = []
    while not run.over:
        torch.manual_seed(seed * 1_000_003 + run.step)
        truth = _batch(fresh_rng(seed, run.step), _BATCH)
        truth = truth.to(device, memory_format=torch.channels_last)
        with half_where_safe(device):
            latents = model.encoder(truth)
            noise = (0.1 if whole else 0.25) * torch.rand(_BATCH, 1, 1, 1, device=device)
            drawn = model.decoder(latents + noise * torch.randn_like(latents))
        latents, drawn = latents.float(), drawn.float()
        loss = _picture_loss(drawn, truth)
        run.learn(loss + 0.03 * _latent_loss(latents) if whole else loss)
        errors.append(float(functional.mse_loss(drawn.detach(), truth)) / 4)
        if run.step % 100 == 0:
            decibel = -10 * math.log10(sum(errors) / len(errors))
            print(f"autoencoder {run.step} {run.budget.elapsed:.0f}s {decibel:.2f} dB", flush=True)
            errors.clear()
        if run.step % 500 == 0:
            run.save()
    run.save()
    run.average.swap()


@torch.no_grad()
def finish(model: AutoencoderTiny, work: Path) -> None:
    """Measures the latents' scale, and writes the model."""
    model.eval().cpu().to(memory_format=torch.contiguous_format)
    latents = model.encode(_batch(random.Random("autoencoder scale"), 256)).latents
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.save_pretrained(work / "autoencoder")
    print("channel deviations", [round(float(x), 2) for x in latents.std(dim=(0, 2, 3))])
    print(f"autoencoder finished: {reconstruction_psnr(model):.2f} dB", flush=True)
