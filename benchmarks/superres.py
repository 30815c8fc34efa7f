"""Super-resolution in megapixels a second (of the result) against the bare network, tiled and untiled.

    .venv/bin/python benchmarks/superres.py [--side 768] [--rounds 5] [--network FILE] [--device auto] [--threads 1]
                                            [--no-http]

The baseline is the network's own forward pass over the whole picture, bytes to bytes, in plain torch.  Beside it in
the same process: our enlarging without tiles, with its own tiles, with small ones, and as a job of the engine.
Rounds of all alternate, so that a busy neighbour disturbs all alike; medians count.  Then `POST /superres` of the
same picture through the running product, decoding, storing and encoding included.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import torch
from PIL import Image
from product import running_product

from reverie_inference.engine.enlarging import Enlarging, resolve_enlarging
from reverie_inference.engine.events import Finished
from reverie_inference.engine.pictures import Pictures
from reverie_inference.engine.upscaling import tile_side, upscale
from reverie_inference.models.device import pick_device
from reverie_inference.upscalers.library import load_upscaler
from reverie_inference.upscalers.network import Upscaler
from reverie_protocol.jobs import SuperResolutionParams

BUILT_IN = (
    Path(__file__).resolve().parent.parent / "models" / "builtin" / "super-resolution" / "x2.safetensors"
)
SMALL_TILE_PX = 128
T = TypeVar("T")


def picture(side: int) -> Image.Image:
    """Smooth shapes with some noise on them, as photographs have."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    waves = np.stack(
        [np.sin(9 * rows + 5 * columns), np.cos(7 * columns), np.sin(11 * rows * columns)], axis=-1
    )
    noise = np.random.default_rng(0).normal(0, 4, waves.shape)
    return Image.fromarray((waves * 100 + 128 + noise).clip(0, 255).astype("u1"))


def bare(network: Upscaler, values: torch.Tensor) -> torch.Tensor:
    """What it takes without us: to single precision, the forward pass, back to bytes in the machine's memory."""
    with torch.inference_mode():
        enlarged = network(values.to(network.device).float() / 255)  # type: ignore[operator]  # a torch module
        return enlarged.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def value_of(work: Generator[None, None, T]) -> T:
    """Carry out all of it."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def as_job(network: Upscaler, image: Image.Image) -> Image.Image:
    """The engine's own way, from a picture to a picture."""
    params = SuperResolutionParams(fileRef="benchmark", magnitude=1)
    job = Enlarging("benchmark", resolve_enlarging(params, Pictures(image), {network.scale: network}))
    while True:
        for event in job.advance():
            if isinstance(event, Finished):
                return event.picture


def measure(
    ways: dict[str, Callable[[], object]], rounds: int, *, megapixels: float
) -> dict[str, dict[str, float]]:
    """Median megapixels a second of each way, and its ratio to the first one's; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began_at = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - began_at)
    speeds = {name: megapixels / statistics.median(taken) for name, taken in seconds.items()}
    first = next(iter(speeds.values()))
    return {
        name: {"megapixels_per_s": round(speed, 3), "ratio": round(speed / first, 3)}
        for name, speed in speeds.items()
    }


def over_http(image: Image.Image, rounds: int) -> float:
    """Median seconds of a request, from a PNG to a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    seconds = []
    with running_product() as product, httpx.Client(base_url=product.url, timeout=600) as client:
        for _ in range(rounds + 1):
            began_at = time.perf_counter()
            files = {"file": ("picture.png", buffer.getvalue(), "image/png")}
            answer = client.post("/superres", files=files, data={"magnitude": "1"})
            answer.raise_for_status()
            seconds.append(time.perf_counter() - began_at)
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure and print one JSON line per figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=768, help="of the square picture, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", type=Path, default=BUILT_IN, help="a .safetensors file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-http", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = load_upscaler(options.network, pick_device(options.device))
    image = picture(options.side)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    megapixels = (options.side * network.scale) ** 2 / 1e6
    ways: dict[str, Callable[[], object]] = {
        "bare torch": lambda: bare(network, values),
        "untiled": lambda: value_of(upscale(network, values, tile=options.side)),
        f"tiles of {tile_side(network)}": lambda: value_of(upscale(network, values)),
        f"tiles of {SMALL_TILE_PX}": lambda: value_of(upscale(network, values, tile=SMALL_TILE_PX)),
        "job of the engine": lambda: as_job(network, image),
    }
    expected = bare(network, values).int()
    tiled = value_of(upscale(network, values, tile=SMALL_TILE_PX)).int()
    about = {
        "network": network.name,
        "scale": network.scale,
        "side": options.side,
        "device": str(network.device),
    }
    print(
        json.dumps(
            {"figure": "largest difference of tiled", "of_255": int((tiled - expected).abs().max()), **about}
        )
    )
    for name, row in measure(ways, options.rounds, megapixels=megapixels).items():
        print(json.dumps({"figure": f"super-resolution, {name}", **row, **about}), flush=True)
    if not options.no_http:
        seconds = over_http(image, options.rounds)
        line = {"figure": "POST /superres", "seconds": round(seconds, 3)}
        print(json.dumps({**line, "megapixels_per_s": round(megapixels / seconds, 3), "side": options.side}))


if __name__ == "__main__":
    main()
