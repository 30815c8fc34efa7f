from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reverie_inference.engine.picture import encode_picture, generation_parameters
from reverie_protocol.jobs import JobMeta

META = JobMeta(
    seed=42,
    backend="diffusers",
    model="builtin",
    scheduler="Euler a",
    steps=8,
    guidance=2.5,
    size="256x256",
    native_size="64x64",
)
PROMPTS = ["a red circle", "naïve café", "🐈 مرحبا", "line one\nline two", "a\x00b", ""]


def noise(width: int = 48, height: int = 32) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_the_parameters_read_as_the_a1111_web_ui_writes_them() -> None:
    text = generation_parameters("a red circle", "ugly", META, version="0.1.0")
    assert text.splitlines() == [
        "a red circle",
        "Negative prompt: ugly",
        "Steps: 8, Sampler: Euler a, CFG scale: 2.5, Seed: 42, Size: 256x256, Model: builtin, "
        "Native size: 64x64, Version: Reverie 0.1.0",
    ]


def test_a_partial_picture_says_so() -> None:
    assert "Partial: True" in generation_parameters("x", None, META, version="1", partial=True)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_png_keeps_its_pixels_and_its_parameters(prompt: str) -> None:
    text = generation_parameters(prompt, prompt, META, version="0.1.0")
    encoded = encode_picture(noise(), parameters=text)
    picture = Image.open(io.BytesIO(encoded.content))
    assert (encoded.content_type, encoded.width, encoded.height) == ("image/png", 48, 32)
    assert np.array_equal(np.array(picture), np.array(noise()))
    assert picture.info["parameters"] == text
    assert prompt.replace("\x00", "") in text


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_jpeg_keeps_its_parameters_in_the_exif_user_comment(prompt: str) -> None:
    text = generation_parameters(prompt, None, META, version="0.1.0")
    encoded = encode_picture(noise(), picture_format="jpeg", quality=90, parameters=text)
    assert encoded.content_type == "image/jpeg"
    comment = Image.open(io.BytesIO(encoded.content)).getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\x00").decode("utf-16-be") == text


@pytest.mark.parametrize("picture_format", ["png", "jpeg"])
def test_without_parameters_a_file_holds_no_metadata(picture_format: str) -> None:
    content = encode_picture(noise(), picture_format=picture_format).content
    assert b"Steps" not in content
    assert b"Exif" not in content
    assert "parameters" not in Image.open(io.BytesIO(content)).info


def test_jpeg_quality_is_honoured() -> None:
    sizes = [
        len(encode_picture(noise(), picture_format="jpeg", quality=quality).content) for quality in (10, 95)
    ]
    assert sizes[0] < sizes[1]


def test_a_model_name_with_separators_is_quoted() -> None:
    from msgspec.structs import replace

    text = generation_parameters("x", None, replace(META, model='a, "b": c'), version="1")
    assert 'Model: "a, \\"b\\": c"' in text


@pytest.mark.parametrize("letter", ["я", "😀"])
def test_the_longest_prompts_never_cost_a_jpeg_its_picture(letter: str) -> None:
    text = generation_parameters(letter * 10_000, letter * 10_000, META, version="0.1.0")
    encoded = encode_picture(noise(), picture_format="jpeg", quality=90, parameters=text)
    exif = Image.open(io.BytesIO(encoded.content)).getexif().get_ifd(0x8769)[0x9286]
    comment = exif.removeprefix(b"UNICODE\x00").decode("utf-16-be")
    assert comment.startswith(letter * 1000)
    assert comment.endswith("Version: Reverie 0.1.0")
