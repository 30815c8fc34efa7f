from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reverie_inference.models.checkpoint import load_pipeline, one_reason
from reverie_inference.models.clip_tokenizer import clip_tokenizer
from reverie_inference.models.loaded import LoadedModel
from reverie_inference.models.single_file import single_file_configs
from reverie_inference.models.text_to_image import draws_under_masks
from reverie_inference.models.weight_file import TensorInfo, WeightFile, read_weight_file
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_testing.tiny_models import original_checkpoint


class Explosive:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def refused(reference: Path | str, **options: Any) -> ReverieError:
    with pytest.raises(ReverieError) as caught:
        load_pipeline(reference, device="cpu", **options)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    assert "/tmp" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("name", "family"), [("sd15", "sd15"), ("sdxl", "sdxl"), ("sd3", "sd3"), ("tiny_vae", "sd15")]
)
def test_a_diffusers_folder_is_loaded_with_its_family_and_sizes(
    models: dict[str, LoadedModel], name: str, family: str
) -> None:
    model = models[name]
    assert model.family == family
    assert model.native_size == model.default_size == (64, 64)
    assert getattr(model.pipeline, "safety_checker", None) is None


def test_a_single_file_in_the_original_layout_is_the_same_model_as_its_folder(
    models: dict[str, LoadedModel], single_file: Path
) -> None:
    model = load_pipeline(single_file, device="cpu", offline=True)
    assert (model.family, model.mode) == ("sd15", "single")
    original = models["sd15"].pipeline
    for component in ("unet", "vae", "text_encoder"):
        expected = getattr(original, component).state_dict()
        loaded = getattr(model.pipeline, component).state_dict()
        assert expected.keys() == loaded.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    picture = model.pipeline("a cat", num_inference_steps=1, height=64, width=64).images[0]
    assert picture.size == (64, 64)


def test_an_xl_single_file_makes_the_same_picture_as_its_folder(
    models: dict[str, LoadedModel], tmp_path: Path
) -> None:
    original = models["sdxl"].pipeline
    model = load_pipeline(
        original_checkpoint(original, tmp_path / "xl.safetensors"), device="cpu", offline=True
    )
    assert model.family == "sdxl"
    assert model.pipeline.unet.config.transformer_layers_per_block == [1, 2]
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        expected = getattr(original, component).state_dict()
        loaded = getattr(model.pipeline, component).state_dict()
        assert expected.keys() == loaded.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    # The tokenizers differ (the tiny model's knows single bytes), so compare behind them.
    embeds = {
        "prompt_embeds": torch.ones(1, 77, 96),
        "pooled_prompt_embeds": torch.ones(1, 64),
        "negative_prompt_embeds": torch.zeros(1, 77, 96),
        "negative_pooled_prompt_embeds": torch.zeros(1, 64),
    }
    pictures = [
        pipeline(
            **embeds,
            width=64,
            height=64,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        ).images
        for pipeline in (original, model.pipeline)
    ]
    assert torch.allclose(*pictures, atol=1e-5)


def test_what_is_in_place_of_a_folder_is_counted_by_the_bytes_of_its_parts(
    model_folders: dict[str, Path],
) -> None:
    told: list[float] = []
    load_pipeline(model_folders["sd15"], device="cpu", on_progress=told.append)
    sizes = [
        sum(file.stat().st_size for file in part.glob("*.safetensors"))
        for part in model_folders["sd15"].iterdir()
        if part.is_dir()
    ]
    reached = {round(share, 6) for share in told}
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    largest = max(sizes) / sum(sizes)
    assert any(
        after - before == pytest.approx(largest) for before, after in zip([0, *told], told, strict=False)
    )
    assert len(reached) > 2


def test_what_is_in_place_of_a_single_file_is_counted_by_its_parts(single_file: Path) -> None:
    told: list[float] = []
    load_pipeline(single_file, device="cpu", on_progress=told.append)
    assert told == [pytest.approx((number + 1) / len(told)) for number in range(len(told))]
    assert len(told) > 3


def test_the_configuration_read_off_a_full_size_file_is_that_of_stable_diffusion_1_5() -> None:
    configs = single_file_configs(full_size_sd15(), "sd15")
    unet = configs["unet"]
    assert unet["block_out_channels"] == [320, 640, 1280, 1280]
    assert unet["layers_per_block"] == 2
    assert unet["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert unet["up_block_types"] == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    assert (unet["cross_attention_dim"], unet["attention_head_dim"]) == (768, 8)
    assert configs["vae"]["block_out_channels"] == [128, 256, 512, 512]
    assert configs["vae"]["layers_per_block"] == 2
    text = configs["text_encoder"]
    assert (text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]) == (768, 12, 12)


def full_size_sd15() -> WeightFile:
    """Header of a real checkpoint, made without memory for its weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from reverie_testing.tiny_models import original_names

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
            )
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in original_names(unet, vae, text)}
    return WeightFile(
        Path("v1-5.safetensors"), {name: TensorInfo("F16", shape, (0, 0)) for name, shape in shapes.items()}
    )


def test_the_tokenizer_gives_the_token_ids_of_the_released_clip_models() -> None:
    tokenizer = clip_tokenizer(49408)
    ids = tokenizer(["a photo of a cat", "an astronaut riding a horse"]).input_ids
    assert ids[0] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ids[1] == [49406, 550, 18376, 6765, 320, 4558, 49407]


def test_the_tokenizer_of_a_smaller_encoder_stays_within_its_embeddings() -> None:
    tokenizer = clip_tokenizer(1000)
    assert max(tokenizer("a photo of a cat 🐈 \x00 ÿ").input_ids) == 999
    with pytest.raises(ValueError, match="514"):
        clip_tokenizer(513)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("save", [torch.save, pickle.dump], ids=["torch", "pickle"])
def test_a_pickled_checkpoint_is_refused_unopened_under_any_name(
    tmp_path: Path, suffix: str, save: Any
) -> None:
    path, trace = tmp_path / f"model{suffix}", tmp_path / "opened"
    with path.open("wb") as file:
        save({"weight": Explosive(trace), "more": list(range(1000))}, file)
    error = refused(path)
    assert error.code is ErrorCode.UNSAFE_CHECKPOINT
    assert "safetensors" in error.message
    assert not trace.exists()


def test_a_folder_with_pickled_weights_only_is_refused(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folders["sd15"], folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert refused(folder).code is ErrorCode.UNSAFE_CHECKPOINT


def test_pickled_weights_beside_safetensors_are_left_alone(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folders["sd15"], folder)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Explosive(tmp_path / "x")))
    assert load_pipeline(folder, device="cpu").family == "sd15"
    assert not (tmp_path / "x").exists()


def test_a_folder_with_code_of_its_own_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folders["sd15"], folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["my_unet", "MyUNet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit('run')")
    assert refused(folder).code is ErrorCode.UNSAFE_CHECKPOINT
    index["_class_name"] = ["pipeline", "MyPipeline"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert refused(folder).code is ErrorCode.UNSUPPORTED_MODEL


@pytest.mark.parametrize("kept", [0, 5, 100, 5000, -1])
def test_a_truncated_file_is_refused_with_its_reason(single_file: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(single_file.read_bytes()[:kept])
    error = refused(path)
    assert error.code is ErrorCode.MODEL_LOAD_FAILED
    assert "cut short" in error.message


@pytest.mark.parametrize("content", [b"garbage, and long enough to be read", b"\x10" + bytes(7) + b"x" * 99])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert refused(path).code is ErrorCode.MODEL_LOAD_FAILED


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {f"tensor_{index:05}": torch.zeros(1) for index in range(1000)}
    save_file(tensors, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    # Headers may be padded with spaces: this one to a length that begins with the bytes 80 04 01.
    padded = 0x010480 + 0x010000 * (length // 0x010000)
    header = data[8 : 8 + length].ljust(padded)
    path.write_bytes(padded.to_bytes(8, "little") + header + data[8 + length :])
    assert len(read_weight_file(path).tensors) == 1000


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["lora_unet_down_blocks_0.lora_down.weight"], "LoRA"),
        (["conv_in.weight", "down_blocks.0.resnets.0.norm1.weight"], "UNet alone"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "no text encoder"),
        (["something.else"], "inference.config"),
    ],
)
def test_a_part_of_a_model_is_refused_saying_what_it_is(tmp_path: Path, keys: list[str], said: str) -> None:
    path = tmp_path / "part.safetensors"
    save_file({key: torch.zeros(4, 4, 3, 3) for key in keys}, path)
    error = refused(path)
    assert error.code is ErrorCode.UNSUPPORTED_MODEL
    assert said in error.message


def test_an_incomplete_checkpoint_is_refused_naming_what_is_missing(
    single_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "partial.safetensors"
    tensors = load_file(single_file)
    save_file({key: value for key, value in tensors.items() if "decoder" not in key}, path)
    error = refused(path)
    assert error.code is ErrorCode.UNSUPPORTED_MODEL
    assert "decoder" in error.message


def with_input_channels(single_file: Path, path: Path, channels: int) -> Path:
    tensors = load_file(single_file)
    tensors["model.diffusion_model.input_blocks.0.0.weight"] = torch.zeros(32, channels, 3, 3)
    save_file(tensors, path)
    return path


def test_an_inpainting_model_is_loaded_and_an_editing_one_refused(single_file: Path, tmp_path: Path) -> None:
    model = load_pipeline(
        with_input_channels(single_file, tmp_path / "inpainting.safetensors", 9), device="cpu"
    )
    assert model.family == "sd15"
    assert draws_under_masks(model.pipeline)
    assert (
        "8 input channels" in refused(with_input_channels(single_file, tmp_path / "e.safetensors", 8)).message
    )


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_id_that_cannot_be_had_is_named(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused("somebody/some-model", offline=offline)
    assert error.code is ErrorCode.MODEL_LOAD_FAILED
    assert "somebody/some-model" in error.message


@pytest.mark.parametrize("name", ["nothing-here", "./nothing/here.safetensors", "/nothing/here"])
def test_a_path_that_is_not_there_is_named_without_its_folders(name: str) -> None:
    error = refused(name)
    assert error.code is ErrorCode.MODEL_LOAD_FAILED
    assert name.rsplit("/", 1)[-1] in error.message


def test_an_empty_folder_and_a_missing_part_are_refused(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in refused(tmp_path / "empty").message
    folder = tmp_path / "model"
    shutil.copytree(model_folders["sd15"], folder)
    shutil.rmtree(folder / "vae")
    assert "vae" in refused(folder).message


def test_a_card_beside_the_model_names_its_mode_sizes_and_defaults(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "text-to-image"
    shutil.copytree(model_folders["sd15"], folder)
    (tmp_path / "super-resolution").mkdir()
    (tmp_path / "super-resolution" / "x4.safetensors").touch()
    card = {
        "mode": "builtin",
        "native_size": [64, 64],
        "default_size": [256, 256],
        "default_steps": 8,
        "default_guidance": 2.5,
        "super_resolution": "../super-resolution",
    }
    (folder / "reverie.json").write_text(json.dumps(card))
    model = load_pipeline(folder, device="cpu")
    assert (model.mode, model.native_size, model.default_size) == ("builtin", (64, 64), (256, 256))
    assert (model.default_steps, model.default_guidance, model.native_only) == (8, 2.5, True)
    assert list(model.upscaler_weights) == [4]
    (folder / "reverie.json").write_text('{"native_size": "big"}')
    assert "reverie.json" in refused(folder).message


def test_half_precision_weights_of_a_variant_are_found(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folders["sd15"], folder)
    for weights in list(folder.glob("*/*.safetensors")):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert load_pipeline(folder, device="cpu").dtype == torch.float32


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ReverieError, match=r"inference\.device"):
        load_pipeline("anything", device="cuda:99")


def test_a_configuration_folder_supplies_what_a_single_file_lacks(
    model_folders: dict[str, Path], single_file: Path
) -> None:
    model = load_pipeline(single_file, device="cpu", config=model_folders["sd15"])
    assert model.native_size == (64, 64)
    assert len(model.pipeline.tokenizer) == 514


def test_reasons_lose_the_folders_of_this_machine() -> None:
    error = OSError("Error no file named x found in directory /home/me/models/unet.\nmore")
    assert one_reason(error) == "Error no file named x found in directory unet"
