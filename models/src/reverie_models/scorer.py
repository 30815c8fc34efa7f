"""The image-text scorer: a tiny CLIPModel trained on whole pictures and hard wrong captions."""

import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from reverie_models import vocabulary
from reverie_models.captions import describe
from reverie_models.confusion import confused
from reverie_models.scenes import Scene, draw_landscape, draw_pair, draw_scene, draw_single
from reverie_models.training import (
    Run,
    fresh_rng,
    half_where_safe,
    pictures_of,
    training_device,
)

WIDTH = 128
PICTURE_SIZE = 64
_BATCH = 64
_WRONG_PER_PICTURE = 2
_MEAN = _STD = (0.5, 0.5, 0.5)


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """The text tower that scorer and generator have in common."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=vocabulary.CAPTION_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu",
    )


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained scorer."""
    vision = CLIPVisionConfig(
        image_size=PICTURE_SIZE,
        patch_size=8,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        hidden_act="quick_gelu",
    )
    return CLIPModel(
        CLIPConfig(
            text_config=text_config(tokenizer).to_dict(),
            vision_config=vision.to_dict(),
            projection_dim=WIDTH,
        )
    )


def image_processor() -> CLIPImageProcessor:
    """Any picture to [3, 64, 64], -1 to 1."""
    size = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
    return CLIPImageProcessor(
        size=size,
        crop_size=size,
        do_center_crop=False,
        resample=2,
        image_mean=list(_MEAN),
        image_std=list(_STD),
    )


def tokens_of(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Padded token ids, int64 [N, 32]."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids


def embed_texts(model: CLIPModel, ids: Tensor) -> Tensor:
    """Unit text embeddings [N, 128] of padded ids [N, 32]."""
    pooled = model.text_model(input_ids=ids).pooler_output
    return functional.normalize(model.text_projection(pooled), dim=-1)


def embed_pictures(model: CLIPModel, pictures: Tensor) -> Tensor:
    """Unit picture embeddings [N, 128] of pictures [N, 3, 64, 64] in 0 to 1."""
    pooled = model.vision_model(pixel_values=pictures * 2 - 1).pooler_output
    return functional.normalize(model.visual_projection(pooled), dim=-1)


def _spoiled(pictures: Tensor, rng: random.Random) -> Tensor:
    """Soft edges and noise on some pictures, as a generator makes them."""
    kind = rng.random()
    if kind < 0.25:
        small = functional.interpolate(pictures, scale_factor=0.5, mode="bilinear", antialias=True)
        return functional.interpolate(small, size=PICTURE_SIZE, mode="bilinear")
    if kind < 0.5:
        return (pictures + 0.06 * rng.random() * torch.randn_like(pictures)).clamp(0, 1)
    return pictures


def _loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> tuple[Tensor, float]:
    """Contrastive loss both ways; wrong captions stand beside their own picture only.

    `texts` holds the right captions' embeddings, then each picture's wrong ones in its order.
    """
    count = len(images)
    scale = logit_scale.exp().clamp(max=100)
    across = scale * images @ texts[:count].T
    beside = scale * (images.unsqueeze(1) * texts[count:].view(count, -1, WIDTH)).sum(dim=-1)
    target = torch.arange(count, device=images.device)
    loss = functional.cross_entropy(torch.cat([across, beside], dim=1), target)
    loss = 0.5 * (loss + functional.cross_entropy(across.T, target))
    pair = torch.cat([across.diagonal().unsqueeze(1), beside], dim=1)
    loss = loss + functional.cross_entropy(pair, torch.zeros_like(target))
    return loss, float((pair.argmax(dim=1) == 0).float().mean())


@torch.no_grad()
def ranking_share(
    model: CLIPModel, tokenizer: CLIPTokenizer, scenes: list[Scene], rng: random.Random
) -> float:
    """How often the right caption scores above one wrong by a single word (a pair, a swap)."""
    flat = [describe(scene, rng) for scene in scenes]
    wrong = [confused(scene, rng) for scene in scenes]
    images = embed_pictures(model, pictures_of(scenes).to(model.device))
    mine = (images * embed_texts(model, tokens_of(tokenizer, flat).to(model.device))).sum(dim=-1)
    other = (images * embed_texts(model, tokens_of(tokenizer, wrong).to(model.device))).sum(dim=-1)
    return float((mine > other).float().mean())


def _report(model: CLIPModel, tokenizer: CLIPTokenizer) -> str:
    rng = random.Random("scorer check")
    kinds: dict[str, list[Scene]] = {
        "singles": [draw_single(rng, held_out=True) for _ in range(200)],
        "pairs": [draw_pair(rng, held_out=True) for _ in range(200)],
        "landscapes": [draw_landscape(rng) for _ in range(200)],
    }
    shares = (f"{k} {ranking_share(model, tokenizer, v, rng):.1%}" for k, v in kinds.items())
    return "right above wrong: " + ", ".join(shares)


def train(work: Path, minutes: float, seed: int = 2) -> None:
    """Trains into `work/scorer`; resumes from `work/scorer.ckpt`."""
    tokenizer = vocabulary.prepared(work)
    device = training_device()
    model = build(tokenizer).to(device)
    if device.type == "cpu":
        model.set_attn_implementation("eager")  # half the cost of the fused one, there
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02, betas=(0.9, 0.98))
    run = Run(work / "scorer.ckpt", model, optimiser, minutes)
    model.train()
    log: list[tuple[float, float]] = []
    while not run.over:
        torch.manual_seed(seed * 1_000_003 + run.step)
        rng = fresh_rng(seed, run.step)
        scenes = [draw_scene(rng, pairs=0.45, landscapes=0.1) for _ in range(_BATCH)]
        right = [describe(scene, rng) for scene in scenes]
        wrong = [confused(scene, rng) for scene in scenes for _ in range(_WRONG_PER_PICTURE)]
        pictures = _spoiled(pictures_of(scenes).to(device), rng)
        ids = tokens_of(tokenizer, [*right, *wrong]).to(device)
        with half_where_safe(device):
            images, texts = embed_pictures(model, pictures), embed_texts(model, ids)
        loss, share = _loss(images.float(), texts.float(), model.logit_scale)
        run.learn(loss)
        log.append((loss.item(), share))
        if run.step % 100 == 0:
            mean, ranked = (sum(column) / len(log) for column in zip(*log, strict=True))
            seconds = run.budget.elapsed
            print(f"scorer {run.step} {seconds:.0f}s loss {mean:.3f} right {ranked:.1%}", flush=True)
            log.clear()
        if run.step % 500 == 0:
            run.save()
            run.average.swap()
            save(model.eval(), tokenizer, work / "scorer")
            print(f"scorer {run.step} {_report(model, tokenizer)}", flush=True)
            model.train()
            run.average.swap()
    run.save()
    run.average.swap()
    save(model.eval(), tokenizer, work / "scorer")
    print(f"scorer finished after {run.step} steps; {_report(model, tokenizer)}", flush=True)


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the folder that CLIPModel and CLIPProcessor load, in half precision."""
    half = CLIPModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)


def load(folder: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The scorer in float32 and its tokenizer."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), vocabulary.load(folder)
