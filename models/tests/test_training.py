from pathlib import Path

import pytest
import torch
from torch import nn

from reverie_inference.upscalers.compact import CompactNetwork
from reverie_models import vocabulary
from reverie_models.super_resolution import bicubic, start_as_bicubic
from reverie_models.training import Average, Run, cosine_rate, fresh_rng


def _run(folder: Path, minutes: float = 1) -> tuple[nn.Linear, Run]:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    return model, Run(folder / "line.ckpt", model, torch.optim.AdamW(model.parameters(), lr=0.1), minutes)


def _learn(model: nn.Linear, run: Run, steps: int) -> None:
    for _ in range(steps):
        rng = fresh_rng(1, run.step)
        run.learn((model(torch.tensor([[rng.random(), 1.0]])) - 3).square().mean())


def test_a_stopped_run_resumes_where_it_was_saved(tmp_path: Path):
    model, run = _run(tmp_path)
    _learn(model, run, 5)
    run.save()
    again, resumed = _run(tmp_path)
    assert resumed.step == 5
    assert resumed.budget.spent > 0
    assert torch.equal(again.weight, model.weight)
    assert all(torch.equal(a, b) for a, b in zip(resumed.average.values, run.average.values, strict=True))


def test_a_run_whose_minutes_are_spent_is_over_at_once(tmp_path: Path):
    _, run = _run(tmp_path, minutes=0.0001)
    run.budget.spent = 1.0
    run.save()
    _, resumed = _run(tmp_path, minutes=0.0001)
    assert resumed.over


def test_the_rate_warms_up_and_falls_to_a_hundredth():
    rates = [cosine_rate(1.0, share, step=10_000) for share in (0, 0.25, 0.5, 0.75, 1, 1.5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.01)
    assert cosine_rate(1.0, 0, step=9, warm_up=100) == pytest.approx(0.1)


def test_swapping_twice_returns_the_live_weights():
    model = nn.Linear(2, 2)
    average = Average(model.parameters())
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    live = model.weight.detach().clone()
    average.swap()
    assert torch.equal(model.weight, before)
    average.swap()
    assert torch.equal(model.weight, live)


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution_starts_near_bicubic(scale: int):
    torch.manual_seed(0)
    network = CompactNetwork(scale)
    start_as_bicubic(network)
    picture = torch.rand(1, 3, 16, 16)
    inner = slice(2 * scale, -2 * scale)
    difference = network.upscale(picture) - bicubic(picture, 16 * scale)
    assert difference[..., inner, inner].abs().mean() < 0.04


def test_the_vocabulary_knows_its_words_whole_and_spells_the_others(tmp_path: Path):
    tokenizer = vocabulary.prepared(tmp_path)
    assert tokenizer.tokenize("A Turquoise rhombus") == ["a</w>", "turquoise</w>", "rhombus</w>"]
    assert len(tokenizer.tokenize("zxqv")) > 1
    ids = tokenizer("a red circle " * 40, truncation=True).input_ids
    assert len(ids) == vocabulary.CAPTION_TOKENS
    assert tokenizer.get_vocab() == vocabulary.prepared(tmp_path).get_vocab()
