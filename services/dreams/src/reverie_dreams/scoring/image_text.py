"""`builtin` and `clip`: how well a picture answers a prompt, by an image–text model of the CLIP kind."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

#: Pictures that go through the model at once.
BATCH: Final = 16
#: The folder below `models/builtin`, or REVERIE_BUILTIN_MODELS.
BUILTIN: Final = "scorer"


class ImageTextScorer:
    """Cosine of the picture's and the prompt's directions."""

    def __init__(self, place: str, *, local_only: bool) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPModel

        # The machine's cores belong to the workers: a scorer is a guest.
        torch.set_num_threads(1)
        self._torch = torch
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = device
        loaded: Any = CLIPModel.from_pretrained(place, local_files_only=local_only)
        self._model = loaded.eval().to(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(place, local_files_only=local_only)
        self._side, self._mean, self._std = _preparation(place, local_only, self._model)
        self._longest = int(self._model.config.text_config.max_position_embeddings)
        self._prompts: dict[str, Any] = {}

    def raw(self, pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        """See `Scorer.raw`; -1..1."""
        directions = self.looks(pictures)
        return [float(value) for value in directions @ self._prompt(prompt)]

    def looks(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """See `Looking.looks`; unit vectors."""
        torch = self._torch
        rows: list[np.ndarray] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                pixels = np.stack([self._prepared(picture) for picture in pictures[start : start + BATCH]])
                seen = self._model.vision_model(pixel_values=torch.from_numpy(pixels).to(self._device))
                directions = self._model.visual_projection(seen.pooler_output)
                rows.append(_unit(directions.float().cpu().numpy()))
        return np.concatenate(rows) if rows else np.zeros((0, 1))

    def _prompt(self, prompt: str) -> np.ndarray:
        if prompt not in self._prompts:
            if len(self._prompts) > 64:
                self._prompts.clear()
            tokens = self._tokenizer(
                [prompt], padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            )
            tokens = {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask")}
            with self._torch.inference_mode():
                read = self._model.text_model(**tokens)
                direction = self._model.text_projection(read.pooler_output)
            self._prompts[prompt] = _unit(direction.float().cpu().numpy())[0]
        return np.asarray(self._prompts[prompt])

    def _prepared(self, picture: Image.Image) -> np.ndarray:
        """[3, S, S]: the shorter side to S, the middle cut out, as these models were trained."""
        side, rgb = self._side, picture.convert("RGB")
        if rgb.size != (side, side):
            factor = side / min(rgb.size)
            size = (max(side, round(rgb.width * factor)), max(side, round(rgb.height * factor)))
            rgb = rgb.resize(size, Image.Resampling.BICUBIC)
            left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
            rgb = rgb.crop((left, top, left + side, top + side))
        scaled = (np.asarray(rgb, np.float32) / 255 - self._mean) / self._std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def builtin(options: str = "") -> ImageTextScorer:
    """The scorer that comes along; `options` names another folder."""
    return ImageTextScorer(options or str(builtin_folder()), local_only=True)


def clip(options: str = "") -> ImageTextScorer:
    """A CLIP from a folder or by its Hugging Face id."""
    place = options or "openai/clip-vit-base-patch32"
    return ImageTextScorer(place, local_only=Path(place).expanduser().is_dir())


def builtin_folder() -> Path:
    """Where the scorer that comes along lies."""
    checkout = Path(__file__).resolve().parents[5]
    models = os.environ.get("REVERIE_BUILTIN_MODELS") or checkout / "models" / "builtin"
    return Path(models).expanduser() / BUILTIN


def _preparation(place: str, local_only: bool, model: Any) -> tuple[int, np.ndarray, np.ndarray]:
    """Side in pixels, mean and deviation of the colours, as the model's own file says."""
    side = int(model.config.vision_config.image_size)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    path = Path(place).expanduser() / "preprocessor_config.json"
    if not local_only:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(place, "preprocessor_config.json"))
    if path.is_file():
        said = json.loads(path.read_text("utf-8"))
        mean, std = said.get("image_mean", mean), said.get("image_std", std)
    return side, np.asarray(mean, np.float32), np.asarray(std, np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9))
