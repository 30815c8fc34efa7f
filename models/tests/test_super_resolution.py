from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reverie_inference.super_resolution import UnusableWeights, Upscaler, load_upscaler, upscale


def _saved(folder: Path, network: Upscaler) -> Path:
    path = folder / "network.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.mark.parametrize(("scale", "width", "depth"), [(2, 8, 1), (4, 16, 3)])
def test_scale_width_and_depth_follow_from_the_file(tmp_path: Path, scale: int, width: int, depth: int):
    network = load_upscaler(_saved(tmp_path, Upscaler(scale, width, depth)))
    assert network.scale == scale
    picture = upscale(network, torch.rand(2, 3, 10, 14))
    assert picture.shape == (2, 3, 10 * scale, 14 * scale)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_layers_are_named_as_in_the_published_compact_network():
    names = list(Upscaler(4, width=8, depth=1).state_dict())
    assert names == [
        "body.0.weight",
        "body.0.bias",
        "body.1.weight",
        "body.2.weight",
        "body.2.bias",
        "body.3.weight",
        "body.4.weight",
        "body.4.bias",
    ]


def test_a_silent_network_repeats_pixels():
    network = Upscaler(2, width=4, depth=1)
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    picture = torch.rand(1, 3, 4, 4)
    assert torch.equal(network.upscale(picture), picture.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("name", ["weights.pth", "weights.ckpt", "weights"])
def test_only_safetensors_files_are_opened(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"never read")
    with pytest.raises(UnusableWeights, match="safetensors"):
        load_upscaler(path)


def test_a_broken_file_is_refused(tmp_path: Path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a header")
    with pytest.raises(UnusableWeights):
        load_upscaler(path)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_file({"encoder.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UnusableWeights):
        load_upscaler(path)
    weights = Upscaler(2, 4, 1).state_dict()
    save_file({**weights, "body.1.bias": torch.zeros(4)}, path)
    with pytest.raises(UnusableWeights):
        load_upscaler(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_upscaler(tmp_path / "nowhere.safetensors")
