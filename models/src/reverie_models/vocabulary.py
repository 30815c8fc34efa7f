"""The tokenizer: a small byte-pair CLIPTokenizer that knows our words whole."""

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from reverie_models.captions import describe
from reverie_models.scenes import draw_landscape, draw_pair, draw_single

CAPTION_TOKENS = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"
EVERYDAY_WORDS = (
    "a an the of in on at with and or to from by for is are very under over above below beside next "
    "left right top bottom center middle small large tiny big huge photo picture image painting "
    "drawing illustration landscape portrait beautiful cat dog bird horse fish flower forest river "
    "lake ocean beach city street car boat ship castle tower bridge road field garden snow rain cloud "
    "storm moon sun star stars night day evening morning dawn dusk light dark bright colorful teal "
    "gold silver robot astronaut planet space galaxy dragon person man woman child face eyes style "
    "art digital watercolor oil sketch pixel blurry ugly low high quality best detailed realistic "
    "cartoon anime background foreground circles squares triangles hearts rings crosses diamonds "
)
_WORD_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def _sample_captions(count: int) -> list[str]:
    rng = random.Random("vocabulary")
    draws = rng.choices((draw_single, draw_pair, draw_landscape), (3, 3, 4), k=count)
    return [describe(draw(rng), rng) for draw in draws]


def build() -> CLIPTokenizer:
    """The tokenizer of all shipped models; equally frequent merges may come in another order.

    Unknown words fall apart into letters and bytes; texts beyond 32 tokens are cut where
    `truncation=True` is asked for, as pipelines do.
    """
    bytes_alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        initial_alphabet=bytes_alphabet,
        end_of_word_suffix="</w>",
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_sample_captions(20_000), *EVERYDAY_WORDS.split()], trainer)
    bpe = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = bpe["vocab"]
    for symbol in bytes_alphabet:
        for token in (symbol, symbol + "</w>"):
            vocabulary.setdefault(token, len(vocabulary))
    for token in (_START, _END):
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(merge) for merge in bpe["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CAPTION_TOKENS)


def load(folder: Path) -> CLIPTokenizer:
    """The tokenizer saved in a folder."""
    return CLIPTokenizer.from_pretrained(folder)


def prepared(work: Path) -> CLIPTokenizer:
    """The tokenizer of a training folder, built on first use."""
    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").exists():
        build().save_pretrained(folder)
    return load(folder)
