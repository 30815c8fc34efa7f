"""CLIP's tokenizer for checkpoints that come without one."""

from __future__ import annotations

import gzip
from importlib.resources import files
from itertools import islice

from transformers import CLIPTokenizer

MAX_TOKENS = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_BYTES = 256
_SMALLEST = 2 * _BYTES + 2


def clip_tokenizer(vocabulary_size: int, *, pad_token: str = _END) -> CLIPTokenizer:
    """The tokenizer of a text encoder with `vocabulary_size` embeddings (49,408 in every released model).

    A smaller encoder gets the first merges only, so that no token id lies beyond its embeddings.  ValueError if
    it has fewer embeddings than there are single bytes.
    """
    if vocabulary_size < _SMALLEST:
        raise ValueError(f"a CLIP text encoder needs {_SMALLEST} tokens, this has {vocabulary_size}")
    merges = _merges(vocabulary_size - _SMALLEST)
    # Ids in CLIP's order: bytes, bytes that end a word, merges, start, end.
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges]
    tokens += [_START, _END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=MAX_TOKENS,
    )


def _merges(count: int) -> list[tuple[str, str]]:
    """The first `count` merges, most frequent first."""
    source = files("reverie_inference").joinpath("data/clip/merges.txt.gz")
    with source.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
        pairs = (line.split() for line in islice(lines, count))
        return [(first, second) for first, second in pairs]


def _byte_letters() -> list[str]:
    """One printable letter per byte, in the order of GPT-2's byte-level encoding: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(_BYTES) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(_BYTES + index) for index in range(len(others))]
