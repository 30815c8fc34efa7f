"""A candidate as the log tells it: how it was made, and how it was judged."""

from __future__ import annotations

import base64
from typing import Final

import msgspec
import numpy as np

from reverie_protocol.dream_log import Proposed
from reverie_protocol.dreams import DreamCandidate
from reverie_protocol.jobs import GenerateParams
from reverie_storage.port import url_of

#: Numbers in a signature; more would only make the log longer.
SIGNATURE: Final = 64
#: Side of the thumbnails that are offered, one of those that gateways make.
THUMBNAIL_PX: Final = 256


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One try.  `epoch` counts the guides that changed what drafts show; `key` is the draft's picture.

    `signature` is a direction in a space where alike pictures lie close, empty if there is none.
    """

    id: int
    job: str
    params: GenerateParams
    strategy: str
    parents: tuple[int, ...] = ()
    mutation: str = ""
    modifiers: tuple[str, ...] = ()
    epoch: int = 0
    scores: dict[str, float] = {}
    hash: str = ""
    signature: tuple[int, ...] = ()
    key: str = ""
    width: int = 0
    height: int = 0
    rendering: str = ""
    render_ended: bool = False
    full_key: str = ""
    at: float = 0.0

    @property
    def seed(self) -> int:
        """Seed of its noise."""
        return self.params.seed or 0


def proposed(event: Proposed, *, epoch: int, at: float) -> Candidate:
    """What a proposal says of a candidate."""
    return Candidate(
        id=event.id,
        job=event.job,
        params=event.params,
        strategy=event.strategy,
        parents=event.parents,
        mutation=event.mutation,
        modifiers=event.modifiers,
        epoch=epoch,
        at=at,
    )


def likeness(one: Candidate, other: Candidate) -> float:
    """Cosine of two signatures, -1..1; 0 where one has none."""
    if not one.signature or not other.signature:
        return 0.0
    a, b = np.asarray(one.signature, float), np.asarray(other.signature, float)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1.0))


def pack_signature(direction: np.ndarray) -> str:
    """[D] numbers, made a signature of `SIGNATURE` signed bytes, base64."""
    vector = np.asarray(direction, float).ravel()
    if vector.size > SIGNATURE:
        # Fixed for good: signatures of one log are compared with each other.
        mixing = np.random.Generator(np.random.PCG64(vector.size)).standard_normal((vector.size, SIGNATURE))
        vector = vector @ mixing
    largest = float(np.max(np.abs(vector), initial=0.0)) or 1.0
    return base64.b64encode(np.round(vector / largest * 127).astype(np.int8).tobytes()).decode()


def unpack_signature(text: str) -> tuple[int, ...]:
    """The signed bytes of a signature."""
    return tuple(int(number) for number in np.frombuffer(base64.b64decode(text), np.int8))


def shown(candidate: Candidate, *, score: float, fitness: float) -> DreamCandidate:
    """A candidate as clients see it."""
    key = candidate.full_key or candidate.key
    url = url_of(key) if key else None
    params = candidate.params
    return DreamCandidate(
        id=candidate.id,
        seed=candidate.seed,
        score=round(score, 4),
        fitness=round(fitness, 4),
        prompt=params.prompt,
        timestamp=candidate.at,
        rendered=bool(candidate.full_key),
        url=url,
        thumbnail_url=f"{url}?thumbnail={THUMBNAIL_PX}" if url else None,
        params={
            name: value
            for name, value in msgspec.to_builtins(params).items()
            if name in SHOWN_PARAMS and value not in (None, ())
        },
        scores={name: round(value, 4) for name, value in candidate.scores.items()},
        parents=candidate.parents,
        mutation=candidate.mutation,
        strategy=candidate.strategy,
    )


#: The parameters of a draft that say what it is; the rest are defaults.
SHOWN_PARAMS: Final = (
    "prompt",
    "negative_prompt",
    "mode",
    "size",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "variations",
)
