"""What super-resolution files hold is read off their weights, whoever trained them and however they are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reverie_inference.upscalers.compact import CompactNetwork
from reverie_inference.upscalers.esrgan import EsrganNetwork
from reverie_inference.upscalers.library import load_upscaler, load_upscalers
from reverie_inference.upscalers.network import Network
from reverie_protocol.errors import ErrorCode, ReverieError

PICTURE = torch.rand(1, 3, 13, 10, generator=torch.Generator().manual_seed(5))
BUILT_IN = Path(__file__).parents[3] / "models" / "builtin" / "super-resolution"


def esrgan(fold: int = 1, doublings: int = 2) -> EsrganNetwork:
    torch.manual_seed(2)
    return EsrganNetwork(fold=fold, width=8, growth=4, blocks=2, doublings=doublings).eval()


def second_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As ESRGAN's second release calls them."""
    pairs = (
        (r"body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2."),
        ("conv_body", "trunk_conv"),
        ("conv_up", "upconv"),
        ("conv_hr", "HRconv"),
    )
    for pattern, name in pairs:
        weights = {re.sub(pattern, name, key): value for key, value in weights.items()}
    return weights


def first_names(weights: dict[str, Tensor], doublings: int) -> dict[str, Tensor]:
    """As ESRGAN's first release numbers them: an enlargement, a convolution and an activation for each doubling."""
    numbers = {f"conv_up{index + 1}": 3 * (index + 1) for index in range(doublings)}
    after = 3 * doublings + 2
    numbers |= {"conv_first": 0, "conv_hr": after, "conv_last": after + 2}
    named = {}
    for key, value in weights.items():
        block = re.sub(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.", r"model.1.sub.\1.RDB\2.conv\3.0.", key)
        module, _, kind = key.rpartition(".")
        if block != key:
            named[block] = value
        elif module == "conv_body":
            named[f"model.1.sub.2.{kind}"] = value
        else:
            named[f"model.{numbers[module]}.{kind}"] = value
    return named


def saved(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    return path


def state(network: Network) -> dict[str, Tensor]:
    return dict(network.state_dict())


ESRGANS = [(1, 1), (1, 2), (1, 3), (2, 2)]


@pytest.mark.parametrize(("fold", "doublings"), ESRGANS)
def test_an_esrgan_enlarges_the_same_under_any_of_its_three_sets_of_names(
    tmp_path: Path, fold: int, doublings: int
) -> None:
    network = esrgan(fold, doublings)
    expected = network.upscale(PICTURE)
    scale = 2**doublings // fold
    assert expected.shape == (1, 3, 13 * scale, 10 * scale)
    layouts = {"new": state(network), "second": second_names(state(network))}
    if fold == 1:
        layouts["first"] = first_names(state(network), doublings)
    layouts["wrapped"] = {f"params_ema.{key}": value for key, value in state(network).items()}
    layouts["wrapped"] |= {f"params.{key}": value + 1 for key, value in state(network).items()}
    for name, weights in layouts.items():
        loaded = load_upscaler(saved(tmp_path / f"{name}.safetensors", weights))
        assert (loaded.name, loaded.scale, loaded.multiple) == (name, scale, fold)
        assert torch.equal(loaded.upscale(PICTURE), expected)


def test_an_esrgan_is_the_network_of_its_paper() -> None:
    """Its arithmetic, written out once more for the smallest network there is."""
    network = esrgan(doublings=1)
    w, conv = state(network), torch.nn.functional.conv2d
    lrelu = torch.nn.functional.leaky_relu

    def layer(name: str, values: Tensor) -> Tensor:
        return conv(values, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    first = layer("conv_first", PICTURE)
    features = first
    for block in range(2):
        inside = features
        for dense in (1, 2, 3):
            grown = [inside]
            for number in range(1, 5):
                out = layer(f"body.{block}.rdb{dense}.conv{number}", torch.cat(grown, 1))
                grown.append(lrelu(out, 0.2))
            inside = layer(f"body.{block}.rdb{dense}.conv5", torch.cat(grown, 1)) * 0.2 + inside
        features = inside * 0.2 + features
    features = first + layer("conv_body", features)
    doubled = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    features = lrelu(layer("conv_up1", doubled), 0.2)
    expected = layer("conv_last", lrelu(layer("conv_hr", features), 0.2)).clamp(0, 1)
    assert torch.allclose(network.upscale(PICTURE), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("learned_slopes", [True, False])
def test_a_compact_networks_sizes_are_read_off_its_weights(
    tmp_path: Path, scale: int, learned_slopes: bool
) -> None:
    torch.manual_seed(3)
    network = CompactNetwork(scale, width=6, depth=3, learned_slopes=learned_slopes).eval()
    loaded = load_upscaler(saved(tmp_path / "compact.safetensors", state(network)))
    assert (loaded.scale, loaded.reach) == (scale, 5)
    assert torch.equal(loaded.upscale(PICTURE), network.upscale(PICTURE))


def test_a_pixel_depends_on_nothing_beyond_the_reach_that_a_network_names() -> None:
    for network in (
        CompactNetwork(2, 4, 2).eval(),
        EsrganNetwork(fold=1, width=4, growth=2, blocks=1, doublings=2).eval(),
    ):
        side = 2 * network.reach + 3
        image = torch.full((1, 3, 1, side), 0.5).requires_grad_()
        wide = image.expand(1, 3, side, side)
        middle = network(wide)[0, :, :, side // 2 * network.scale].sum()
        (gradient,) = torch.autograd.grad(middle, image)
        assert float(gradient[..., 0].abs().max()) == 0.0
        assert float(gradient[..., -1].abs().max()) == 0.0


def test_the_built_in_networks_are_found_by_their_scale() -> None:
    found = load_upscalers(BUILT_IN)
    assert {scale: network.name for scale, network in found.items()} == {2: "reverie-x2", 4: "reverie-x4"}


def test_a_folder_gives_one_network_for_each_scale_and_a_file_its_own(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", state(CompactNetwork(2, 4, 1)))
    saved(tmp_path / "b.safetensors", state(CompactNetwork(2, 4, 1)))
    saved(tmp_path / "c.safetensors", state(esrgan()))
    assert {scale: found.name for scale, found in load_upscalers(tmp_path).items()} == {2: "a", 4: "c"}
    saved(tmp_path / "x2.safetensors", state(CompactNetwork(2, 4, 1)))
    assert load_upscalers(tmp_path)[2].name == "reverie-x2"
    assert list(load_upscalers(tmp_path / "c.safetensors")) == [4]


def broken(path: Path) -> Path:
    saved(path, state(CompactNetwork(2, 4, 1)))
    path.write_bytes(path.read_bytes()[:-100])
    return path


def pickled(path: Path) -> Path:
    torch.save(state(CompactNetwork(2, 4, 1)), path)
    return path


@pytest.mark.parametrize(
    ("make", "name", "code", "words"),
    [
        (pickled, "net.pth", ErrorCode.UNSAFE_CHECKPOINT, "pickle"),
        (pickled, "net.safetensors", ErrorCode.UNSAFE_CHECKPOINT, "pickle"),
        (broken, "net.safetensors", ErrorCode.MODEL_LOAD_FAILED, "cut short"),
        (broken, "net.onnx", ErrorCode.MODEL_LOAD_FAILED, "only .safetensors"),
        (
            lambda path: saved(path, state(CompactNetwork(1, 4, 1))),
            "x1.safetensors",
            ErrorCode.MODEL_LOAD_FAILED,
            "does not enlarge",
        ),
        (
            lambda path: saved(path, {k: v for k, v in state(esrgan()).items() if k != "conv_last.weight"}),
            "net.safetensors",
            ErrorCode.MODEL_LOAD_FAILED,
            "lacks conv_last.weight",
        ),
        (
            lambda path: saved(path, {"layers.0.attention.weight": torch.zeros(3, 3)}),
            "transformer.safetensors",
            ErrorCode.MODEL_LOAD_FAILED,
            "reverie-inference[upscalers]",
        ),
        (
            lambda path: saved(path, state(esrgan()) | {"body.0.rdb1.conv1x1.weight": torch.zeros(1)}),
            "relative.safetensors",
            ErrorCode.MODEL_LOAD_FAILED,
            "spandrel",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_reason(
    tmp_path: Path, make: object, name: str, code: ErrorCode, words: str
) -> None:
    path = make(tmp_path / name)  # type: ignore[operator]  # one of several kinds of files
    with pytest.raises(ReverieError) as caught:
        load_upscalers(path)
    assert caught.value.code is code
    assert words in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_folder_without_networks_is_refused_and_one_with_pickles_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReverieError, match="no such file, or no folder"):
        load_upscalers(tmp_path / "nowhere")
    pickled(tmp_path / "4x.pth")
    with pytest.raises(ReverieError) as caught:
        load_upscalers(tmp_path)
    assert caught.value.code is ErrorCode.UNSAFE_CHECKPOINT
