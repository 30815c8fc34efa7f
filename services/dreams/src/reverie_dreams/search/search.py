"""A session as the fold of its log: what was tried, what is kept, and what is in force.  Pure.

The same events give the same search in every process, so a session goes on where it was after any restart, and a
replay makes the same candidates.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import asdict, replace

from reverie_dreams.scoring.duplicates import alike
from reverie_dreams.search.candidate import Candidate, likeness, proposed, shown, unpack_signature
from reverie_dreams.search.moves import Modifiers, Move
from reverie_protocol.dream_log import (
    Adopted,
    DreamHappening,
    Dropped,
    Guided,
    Kept,
    Merged,
    Proposed,
    Pruned,
    Rendered,
    Rendering,
    Scored,
    Started,
    Stopped,
)
from reverie_protocol.dreams import DreamCandidate, DreamGuidance, DreamPlan, DreamState, DreamStats
from reverie_protocol.jobs import MAX_PROMPT_CHARS, GenerateParams

#: How far likeness to what is wanted, or not, may move a score.
TASTE: Final = 0.3
#: Judged candidates that are remembered although they are not kept.
REMEMBERED: Final = 500
#: What a guide changes that makes drafts in flight unfit: they would show what nobody asks for any more.
VISIBLE: Final = ("prompt", "negative_prompt", "guidance_scale")


class Search:
    """What strategies read: `temperature`, `seed`, `index`, `parents`, `judged`, `modifiers`.

    `index` counts the proposals since the strategy or what drafts show was changed.
    """

    def __init__(self) -> None:
        self.modifiers = Modifiers({})
        self.state = DreamState.DREAMING
        self.end_reason = ""
        self.guidance = DreamGuidance()
        self.flying: dict[int, Candidate] = {}
        self.judged: deque[Candidate] = deque(maxlen=REMEMBERED)
        self.epoch = 0
        self.index = 0
        self.next_id = 1
        self.stats = DreamStats()
        self.since_render = 0
        self.best_ever = 0.0
        #: Pictures that nobody needs any more; whoever acts on the search empties it.
        self.released: list[str] = []
        self._weights: dict[str, float] = {}
        self._kept: dict[int, Candidate] = {}
        self._ranked: list[int] = []
        self._likes: dict[int, Candidate] = {}
        self._dislikes: dict[int, Candidate] = {}
        self._plan: DreamPlan | None = None
        self._base: GenerateParams | None = None

    @property
    def plan(self) -> DreamPlan:
        """What was asked for at the start."""
        assert self._plan is not None, "a log begins with `started`"
        return self._plan

    @property
    def base(self) -> GenerateParams:
        """What all drafts have in common now."""
        assert self._base is not None, "a log begins with `started`"
        return self._base

    @property
    def seed(self) -> int:
        """Where all random choices come from."""
        return self.plan.seed

    @property
    def temperature(self) -> float:
        """How far to wander, 0..1."""
        changed = self.guidance.temperature
        return self.plan.temperature if changed is None else changed

    @property
    def threshold(self) -> float:
        """Least score that is kept."""
        changed = self.guidance.similarity_threshold
        return self.plan.similarity_threshold if changed is None else changed

    @property
    def strategy(self) -> str:
        """Name of the strategy in force."""
        return self.guidance.strategy or self.plan.strategy

    @property
    def render_interval(self) -> int:
        """Judged candidates between two full renders."""
        return self.guidance.render_interval or self.plan.render_interval

    @property
    def weights(self) -> dict[str, float]:
        """How much each scorer counts."""
        return self.guidance.weights or self.plan.weights or self._weights

    @property
    def kept(self) -> list[Candidate]:
        """The best, best first."""
        return [self._kept[id_] for id_ in self._ranked]

    def find(self, id_: int) -> Candidate | None:
        """A candidate that is remembered."""
        if id_ in self._kept or id_ in self.flying:
            return self._kept.get(id_) or self.flying.get(id_)
        return next((candidate for candidate in self.judged if candidate.id == id_), None)

    def parents(self) -> list[Candidate]:
        """Kept candidates that show what is asked for now, the fittest first; liked ones lead.

        While too few are kept, the fittest of those judged lately stand in: a search needs somewhere to go from.
        """
        fitting = {candidate.id: candidate for candidate in self.kept if candidate.epoch == self.epoch}
        if len(fitting) < 4:
            lately = (candidate for candidate in self.judged if candidate.epoch == self.epoch)
            fitting |= {candidate.id: candidate for candidate in lately}
        ranked = sorted(fitting.values(), key=lambda c: (c.id not in self._likes, -self.fitness(c), c.id))
        return [candidate for candidate in ranked if candidate.id not in self._dislikes]

    def score(self, candidate: Candidate) -> float:
        """Weighted mean of its calibrated scores, 0..1."""
        total = sum(self.weights.get(name, 0.0) for name in candidate.scores)
        if total <= 0:
            return 0.0
        return sum(self.weights.get(name, 0.0) * score for name, score in candidate.scores.items()) / total

    def fitness(self, candidate: Candidate) -> float:
        """The score, moved by likeness to what is wanted and what is not; 0..1."""
        liked = max((likeness(candidate, other) for other in self._likes.values()), default=0.0)
        disliked = max((likeness(candidate, other) for other in self._dislikes.values()), default=0.0)
        return min(1.0, max(0.0, self.score(candidate) + TASTE * (liked - disliked)))

    def show(self, candidate: Candidate) -> DreamCandidate:
        """As clients see it."""
        return shown(candidate, score=self.score(candidate), fitness=self.fitness(candidate))

    def rng(self, *more: object) -> random.Random:
        """Random numbers that depend on the session's seed and `more`, and on nothing else."""
        return random.Random("/".join(map(str, (self.seed, *more))))

    def propose(
        self, choose: Callable[[Search, random.Random], Move], *, job: str, strategy: str
    ) -> Proposed:
        """The next candidate by a strategy's choice."""
        move = choose(self, self.rng(self.next_id))
        prompt = ", ".join((self.base.prompt, *move.modifiers))[:MAX_PROMPT_CHARS]
        scale = self.base.guidance_scale if move.guidance_scale is None else move.guidance_scale
        params = replace(
            self.base, prompt=prompt, seed=move.seed, variations=move.variations, guidance_scale=scale
        )
        return Proposed(
            id=self.next_id,
            job=job,
            params=params,
            strategy=strategy,
            parents=move.parents,
            mutation=move.mutation,
            modifiers=move.modifiers,
        )

    def judge(self, scored: Scored) -> list[DreamHappening]:
        """What follows from a score: the event itself, and whether the candidate is kept or merged."""
        candidate = _judged(self.flying[scored.id], scored)
        score, fitness = self.score(candidate), self.fitness(candidate)
        twin = next((other for other in self.kept if alike(candidate.hash, other.hash)), None)
        if score < self.threshold:
            return [scored]
        if twin is not None and self.fitness(twin) >= fitness:
            return [scored, Merged(id=scored.id, into=twin.id)]
        if twin is not None:
            return [
                scored,
                Kept(id=scored.id, score=score, out=(twin.id,)),
                Merged(id=twin.id, into=scored.id),
            ]
        if len(self._ranked) < self.plan.top_k:
            return [scored, Kept(id=scored.id, score=score)]
        worst = self._kept[self._ranked[-1]]
        if fitness <= self.fitness(worst):
            return [scored]
        return [scored, Kept(id=scored.id, score=score, out=(worst.id,))]

    def unfit(self) -> list[Candidate]:
        """Drafts in flight that show what is not asked for any more."""
        return [candidate for candidate in self.flying.values() if candidate.epoch != self.epoch]

    def unrendered(self) -> list[Candidate]:
        """Kept candidates without a full picture, best first."""
        return [candidate for candidate in self.kept if not candidate.rendering]

    def rendering(self) -> list[Candidate]:
        """Kept candidates whose full picture is being made."""
        return [
            candidate
            for candidate in self._kept.values()
            if candidate.rendering and not candidate.render_ended
        ]

    def keys(self) -> set[str]:
        """Pictures that are needed."""
        needed = (*self._kept.values(), *self._likes.values(), *self._dislikes.values())
        return {key for candidate in needed for key in (candidate.key, candidate.full_key) if key}

    def apply(self, event: DreamHappening, *, at: float) -> None:  # noqa: PLR0912  # one branch per event
        """Fold one event in."""
        match event:
            case Started():
                self._plan, self._base = event.plan, event.params
                self._weights, self.modifiers = event.weights, Modifiers(event.modifiers)
            case Guided():
                self._guide(event.guidance)
            case Proposed():
                self.flying[event.id] = proposed(event, epoch=self.epoch, at=at)
                self.next_id = event.id + 1
                self.index += 1
                self._count(dream_count=1)
            case Pruned():
                if self.flying.pop(event.id, None) is not None:
                    self._count(pruned=1)
            case Dropped():
                if self.flying.pop(event.id, None) is not None:
                    self._count(dropped=1)
            case Scored():
                self._score(event, at)
            case Kept():
                self._keep(event)
            case Merged():
                self._count(merged=1)
            case Rendering():
                self._change(event.id, rendering=event.job)
                self.since_render = 0
            case Rendered():
                self._rendered(event)
            case Stopped():
                if self.state is DreamState.DREAMING:
                    self.end_reason = event.why
                self.state = event.state
            case Adopted():
                pass

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self.stats, name) + number for name, number in more.items()}
        self.stats = replace(self.stats, **counted)

    def _guide(self, guidance: DreamGuidance) -> None:
        given = {name: value for name, value in asdict(guidance).items() if value is not None}
        before = (self.strategy, self.base)
        if given.pop("forget_likes", False):
            self._likes, self._dislikes = {}, {}
        self._remember(self._likes, self._dislikes, given.pop("more_like", ()))
        self._remember(self._dislikes, self._likes, given.pop("less_like", ()))
        visible = {name: given[name] for name in VISIBLE if name in given}
        self.guidance = replace(
            self.guidance,
            **given,
            more_like=tuple(self._likes) or None,
            less_like=tuple(self._dislikes) or None,
        )
        self._base = replace(self.base, **visible)
        if self.base != before[1]:
            self.epoch += 1
        if (self.strategy, self.base) != before:
            self.index = 0
        self._forget_low()
        self._ranked.sort(key=self._rank)

    def _remember(self, these: dict[int, Candidate], those: dict[int, Candidate], ids: Sequence[int]) -> None:
        for id_ in ids:
            candidate = self.find(id_)
            if candidate is not None and candidate.signature:
                these[id_] = candidate
                those.pop(id_, None)

    def _forget_low(self) -> None:
        low = [id_ for id_ in self._ranked if self.score(self._kept[id_]) < self.threshold]
        for id_ in low:
            self._let_go(id_)

    def _score(self, event: Scored, at: float) -> None:
        flown = self.flying.pop(event.id, None)
        if flown is None:
            return
        candidate = replace(_judged(flown, event), at=at)
        self.judged.append(candidate)
        self.best_ever = max(self.best_ever, self.score(candidate))
        self.since_render += 1
        self._count(scored=1)

    def _keep(self, event: Kept) -> None:
        candidate = self.find(event.id)
        for id_ in event.out:
            self._let_go(id_)
        if candidate is None or event.id in self._kept:
            return
        self._kept[event.id] = candidate
        insort(self._ranked, event.id, key=self._rank)

    def _let_go(self, id_: int) -> None:
        candidate = self._kept.pop(id_, None)
        if candidate is not None:
            self._ranked.remove(id_)
            self.released += [key for key in (candidate.key, candidate.full_key) if key]

    def _rendered(self, event: Rendered) -> None:
        candidate = self._kept.get(event.id)
        if candidate is None:
            self.released += [event.key] if event.key else []
            return
        self._change(event.id, full_key=event.key, render_ended=True)
        if event.key:
            self._count(rendered=1)

    def _change(self, id_: int, **changes: object) -> None:
        if id_ in self._kept:
            self._kept[id_] = replace(self._kept[id_], **changes)

    def _rank(self, id_: int) -> tuple[float, int]:
        return (-self.fitness(self._kept[id_]), id_)


def _judged(candidate: Candidate, scored: Scored) -> Candidate:
    return replace(
        candidate,
        scores=scored.scores,
        hash=scored.hash,
        signature=unpack_signature(scored.signature),
        key=scored.key,
        width=scored.width,
        height=scored.height,
    )
