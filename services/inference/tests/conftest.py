"""Tiny models, built once per session, on one thread: a busy machine makes more threads slower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reverie_inference.models.checkpoint import load_pipeline
from reverie_inference.models.loaded import LoadedModel
from reverie_testing.tiny_models import (
    original_checkpoint,
    tiny_sd3_pipeline,
    tiny_sd_pipeline,
    tiny_sdxl_pipeline,
)

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Diffusers folders by family."""
    root = tmp_path_factory.mktemp("models")
    return {
        "sd15": tiny_sd_pipeline(root / "tiny-sd"),
        "sdxl": tiny_sdxl_pipeline(root / "tiny-sdxl"),
        "sd3": tiny_sd3_pipeline(root / "tiny-sd3"),
        "tiny_vae": tiny_sd_pipeline(root / "tiny-taesd", tiny_vae=True),
    }


@pytest.fixture(scope="session")
def models(model_folders: dict[str, Path]) -> dict[str, LoadedModel]:
    """The same, loaded."""
    return {name: load_pipeline(path, device="cpu") for name, path in model_folders.items()}


@pytest.fixture(scope="session")
def single_file(models: dict[str, LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.x model as one file in the original layout."""
    path = tmp_path_factory.mktemp("files") / "single.safetensors"
    return original_checkpoint(models["sd15"].pipeline, path)
