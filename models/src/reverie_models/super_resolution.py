"""Trains the super-resolution networks on clean and on generated-looking pictures."""

import random
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from reverie_inference.upscalers.compact import CompactNetwork
from reverie_models.scenes import Scene, draw_landscape, draw_pair, draw_single
from reverie_models.training import (
    Run,
    fresh_rng,
    half_where_safe,
    pictures_of,
    psnr,
    training_device,
)

SCALES = (2, 4)
WIDTH, DEPTH = 32, 8
_BATCH = 16
_PEAK_RATE = 1e-3
_NATIVE = 64
_CROP = 40
_POOL = 512


def _scenes(rng: random.Random, count: int) -> list[Scene]:
    draws = (draw_single, draw_pair, draw_landscape)
    return [draw(rng) for draw in rng.choices(draws, (4, 3, 4), k=count)]


def bicubic(picture: Tensor, size: int) -> Tensor:
    """The yardstick: bicubic resizing of [N, 3, H, W], antialiased where it shrinks."""
    shrinks = size < picture.shape[-1]
    resized = functional.interpolate(picture, size=(size, size), mode="bicubic", antialias=shrinks)
    return resized.clamp(0, 1)


@torch.no_grad()
def as_generated(
    autoencoder: AutoencoderTiny, pictures: Tensor, noise: float, source: torch.Generator
) -> Tensor:
    """Pictures [N, 3, 64, 64] as the generator's decoder draws them, 0 to 1.

    `noise`: deviation of what is added to the latents, in units of the latents' own.
    """
    latents = autoencoder.encode(pictures * 2 - 1).latents
    shake = torch.randn(latents.shape, generator=source).to(latents)
    latents = latents + shake * noise / autoencoder.config.scaling_factor
    drawn: Tensor = autoencoder.decode(latents).sample
    return (drawn / 2 + 0.5).clamp(0, 1)


class _Pairs:
    """Pictures in both sizes, half of them clean, of which some are replaced at every step."""

    def __init__(self, autoencoder: AutoencoderTiny, scale: int) -> None:
        self._autoencoder, self._scale = autoencoder, scale
        self._lows: list[Tensor] = []
        self._highs: list[Tensor] = []
        self._next = 0

    def add(self, rng: random.Random, count: int) -> None:
        """Draws new pictures, the oldest making room."""
        scenes = _scenes(rng, count)
        highs = pictures_of(scenes, _NATIVE * self._scale)
        clean = count // 2
        source = torch.Generator().manual_seed(rng.getrandbits(32))
        noise = 0.15 * rng.random()
        generated = as_generated(self._autoencoder, pictures_of(scenes[clean:]), noise, source)
        for low, high in zip([*bicubic(highs[:clean], _NATIVE), *generated], highs, strict=True):
            if len(self._lows) < _POOL:
                self._lows.append(low)
                self._highs.append(high)
            else:
                self._lows[self._next], self._highs[self._next] = low, high
            self._next = (self._next + 1) % _POOL

    def draw(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Low- and high-resolution crops, some of them mirrored."""
        lows, highs = [], []
        for _ in range(_BATCH):
            index = rng.randrange(len(self._lows))
            top, left = (rng.choice((0, _NATIVE - _CROP, rng.randint(0, _NATIVE - _CROP))) for _ in "yx")
            low = self._lows[index][:, top : top + _CROP, left : left + _CROP]
            top, left, side = top * self._scale, left * self._scale, _CROP * self._scale
            high = self._highs[index][:, top : top + side, left : left + side]
            mirrored = [axis for axis in (1, 2) if rng.random() < 0.5]
            lows.append(low.flip(mirrored))
            highs.append(high.flip(mirrored))
        return torch.stack(lows), torch.stack(highs)


@torch.no_grad()
def start_as_bicubic(network: CompactNetwork) -> None:
    """Sets the weights so that the network begins near bicubic interpolation.

    The first convolution lays the nine neighbours of each pixel into 27 channels, those between pass
    them on, and the last mixes them with bicubic's 5x5 weights, less the repeated pixel.
    """
    first, *between, last = [layer for layer in network.body if isinstance(layer, nn.Conv2d)]
    for layer in (first, *between, last):
        nn.init.normal_(layer.weight, std=0.05)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layer.weight[: None if layer is last else 27] *= 0.02
    for channel in range(27):
        colour, row, column = channel % 3, channel // 9, channel // 3 % 3
        first.weight[channel] = 0
        first.weight[channel, colour, row, column] = 1
        for layer in between:
            layer.weight[channel, channel, 1, 1] += 1
    scale = network.scale
    for row in range(-2, 3):
        for column in range(-2, 3):
            dot = torch.zeros(1, 1, 9, 9)
            dot[0, 0, 4 + row, 4 + column] = 1
            spread = functional.interpolate(dot, scale_factor=scale, mode="bicubic")
            weights = spread[0, 0, 4 * scale : 5 * scale, 4 * scale : 5 * scale].flatten()
            if row == column == 0:
                weights = weights - 1
            near = max(-1, min(1, row)), max(-1, min(1, column))
            far = row - near[0], column - near[1]
            for colour in range(3):
                channel = 9 * (near[0] + 1) + 3 * (near[1] + 1) + colour
                outputs = slice(colour * scale * scale, (colour + 1) * scale * scale)
                last.weight[outputs, channel, far[0] + 1, far[1] + 1] += weights


@torch.no_grad()
def measure(
    network: CompactNetwork, autoencoder: AutoencoderTiny, count: int = 60
) -> dict[str, tuple[float, float]]:
    """Mean dB of the network and of bicubic, on clean and on generated-looking pictures."""
    scenes = _scenes(random.Random("super-resolution check"), count)
    size = _NATIVE * network.scale
    truth = pictures_of(scenes, size)
    source = torch.Generator().manual_seed(5)
    lows = {
        "clean": bicubic(truth, _NATIVE),
        "generated": as_generated(autoencoder, pictures_of(scenes), 0.05, source),
    }
    return {
        kind: (
            float(psnr(network.upscale(low), truth).mean()),
            float(psnr(bicubic(low, size), truth).mean()),
        )
        for kind, low in lows.items()
    }


def _report(network: CompactNetwork, autoencoder: AutoencoderTiny) -> str:
    figures = measure(network, autoencoder).items()
    return ", ".join(f"{k} {mine:.2f} (bicubic {base:.2f}) dB" for k, (mine, base) in figures)


def train(work: Path, minutes: float, scale: int, seed: int = 4) -> None:
    """Trains into `work/super-resolution/x<scale>.safetensors`; needs `work/autoencoder`."""
    device = training_device()
    autoencoder = AutoencoderTiny.from_pretrained(work / "autoencoder").eval()
    torch.manual_seed(seed)
    network = CompactNetwork(scale, WIDTH, DEPTH)
    start_as_bicubic(network)
    network.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.99))
    run = Run(work / f"super-resolution-x{scale}.ckpt", network, optimiser, minutes)
    pairs = _Pairs(autoencoder, scale)
    for part in range(16):
        pairs.add(fresh_rng(seed + 1, run.step + part), 32)
    losses: list[float] = []
    while not run.over:
        rng = fresh_rng(seed, run.step)
        pairs.add(rng, 2)
        low, high = pairs.draw(rng)
        with half_where_safe(device):
            guess = network(low.to(device, memory_format=torch.channels_last))
        loss = torch.sqrt(torch.square(guess.float() - high.to(device)) + 1e-5).mean()
        run.learn(loss, largest_gradient=0.5)
        losses.append(loss.item())
        if run.step % 200 == 0:
            mean = sum(losses) / len(losses)
            print(f"x{scale} {run.step} {run.budget.elapsed:.0f}s loss {mean:.5f}", flush=True)
            losses.clear()
        if run.step % 1000 == 0:
            run.save()
            run.average.swap()
            print(f"x{scale} {run.step} {_report(network, autoencoder)}", flush=True)
            run.average.swap()
    run.save()
    run.average.swap()
    folder = work / "super-resolution"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / f"x{scale}.safetensors", metadata={"scale": str(scale)})
    print(f"x{scale} finished after {run.step} steps: {_report(network, autoencoder)}", flush=True)
