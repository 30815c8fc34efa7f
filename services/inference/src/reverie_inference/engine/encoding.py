"""Prompts to what the network is told: once for all that ask together, and never twice for the same question."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from reverie_inference.engine.request import Request
from reverie_inference.families.port import Conditioning
from reverie_inference.families.registry import families


def encoding_key(request: Request) -> tuple[Hashable, ...]:
    """What must be equal for two requests of one model to be encoded together."""
    return (_guided(request), request.negative_prompt is None)


def known_encoding(request: Request) -> Conditioning | None:
    """What the encoders said to the same question before."""
    known: Conditioning | None = request.model.encodings.get(_question(request))
    return known


@torch.inference_mode()
def encode(requests: Sequence[Request]) -> list[Conditioning]:
    """What the network is told of each; alike in `encoding_key`, and of one model that wears their LoRAs."""
    found = {_question(request): known_encoding(request) for request in requests}
    unknown = {
        question: request.asked for request in requests if found[question := _question(request)] is None
    }
    if unknown:
        model = requests[0].model
        said = families()[model.family].encode(model, list(unknown.values()))
        for question, told in zip(unknown, said, strict=True):
            model.encodings.keep(question, told)
            found[question] = told
    answers = (found[_question(request)] for request in requests)
    return [answer for answer in answers if answer is not None]


def _guided(request: Request) -> bool:
    return families()[request.model.family].guided(request.model, request.guidance)


def _question(request: Request) -> Hashable:
    """What decides the answer: guided jobs hear the same whatever their scale."""
    guided = _guided(request)
    return (
        (request.loras, request.asked, guided)
        if not guided
        else (request.loras, request.prompt, request.negative_prompt, request.plan.drawn)
    )
