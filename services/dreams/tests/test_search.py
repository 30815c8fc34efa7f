"""The pure parts: strategies, what a guide does, what is kept, merged and pruned, and what a replay makes of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie_dreams.replay import differences
from reverie_dreams.scoring.duplicates import alike
from reverie_dreams.search.candidate import SIGNATURE, pack_signature, unpack_signature
from reverie_dreams.search.moves import Modifiers, read_modifiers
from reverie_dreams.search.search import Search
from reverie_dreams.session.pruning import Pruning, worth_a_look
from reverie_dreams.session.width import Width
from reverie_dreams.strategies.library import load_strategies
from reverie_protocol.dream_log import DreamLogEntry, Dropped, Guided, Kept, Merged, Scored, Started
from reverie_protocol.dreams import DreamGuidance, DreamPlan, DreamStrategy
from reverie_protocol.jobs import MAX_VARIATIONS, GenerateParams

STRATEGIES = load_strategies()
FEW = settings(max_examples=20, deadline=None)


def started(**plan):
    chosen = {"prompt": "fog", "seed": 1, "similarity_threshold": 0.0, "top_k": 10, **plan}
    return Started(
        plan=DreamPlan(**chosen),
        params=GenerateParams(prompt=chosen["prompt"], guidance_scale=5.0, size="64x64"),
        modifiers=read_modifiers().groups,
        weights={"taste": 1.0},
    )


def score_of(params):
    """A landscape that follows from the noise alone: near noise has near scores."""
    value = random.Random(params.seed).random()
    for move in params.variations:
        value += move.weight * (random.Random(move.seed).random() - value)
    return value


def hash_of(params):
    return random.Random(f"{params.seed} {params.variations} {params.prompt}").randbytes(192).hex()


class Session:
    """A session without a bus: what the actor would log, one entry after the other."""

    def __init__(self, strategy="random", **plan):
        self.search = Search()
        self.entries = []
        self.log(started(strategy=strategy, **plan))

    def log(self, *events):
        self.entries.append(DreamLogEntry(at=float(len(self.entries)), host="h", op="o", events=events))
        for event in events:
            self.search.apply(event, at=self.entries[-1].at)

    def propose(self):
        search = self.search
        strategy = STRATEGIES[search.strategy]
        event = search.propose(strategy.propose, job=f"j-{search.next_id}", strategy=search.strategy)
        self.log(event)
        return event

    def judge(self, event, *, score=None, hash_=None, looks=None):
        value = score_of(event.params) if score is None else score
        direction = [value, 1.0, *([0.0] * 6)] if looks is None else looks
        scored = Scored(
            id=event.id,
            scores={"taste": value},
            hash=hash_of(event.params) if hash_ is None else hash_,
            signature=pack_signature(direction),
            key=f"{event.id}.png",
        )
        self.log(*self.search.judge(scored))

    def dream(self, count, *, in_flight=3):
        flying = []
        for _ in range(count):
            flying.append(self.propose())
            if len(flying) >= in_flight:
                self.judge(flying.pop(0))
        for event in flying:
            self.judge(event)


def test_every_strategy_of_the_protocol_is_there():
    assert set(STRATEGIES) >= {strategy.value for strategy in DreamStrategy}


@pytest.mark.parametrize("strategy", list(DreamStrategy))
@FEW
@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0, 1), in_flight=st.integers(1, 6))
def test_a_replay_of_any_session_makes_the_same_candidates(strategy, seed, temperature, in_flight):
    session = Session(strategy, seed=seed, temperature=temperature)
    session.dream(25, in_flight=in_flight)
    session.log(
        Guided(guidance=DreamGuidance(temperature=1 - temperature, more_like=(session.search.kept[0].id,)))
    )
    session.dream(10, in_flight=in_flight)
    session.log(Guided(guidance=DreamGuidance(prompt="sun", strategy="evolutionary")))
    session.dream(10)
    assert differences(session.entries, STRATEGIES) == []
    assert differences(session.entries, {}) != []
    for entry in session.entries:
        for event in entry.events:
            if hasattr(event, "params") and hasattr(event, "mutation"):
                assert len(event.params.variations) <= MAX_VARIATIONS
                assert event.mutation


def test_another_seed_of_the_session_makes_other_candidates():
    one, other = Session(seed=1), Session(seed=2)
    assert one.propose().params.seed != other.propose().params.seed


def test_each_strategy_walks_in_its_own_way():
    made = {}
    for strategy in DreamStrategy:
        session = Session(strategy, temperature=0.6)
        session.dream(40)
        made[strategy] = list(session.search.judged)
    assert not any(c.parents or c.params.variations for c in made["random"])
    legs = [c.params.variations[0].weight for c in made["linear_walk"] if c.params.variations]
    assert legs == sorted(legs[:7]) + legs[7:]  # evenly along the first leg
    assert (
        len({c.params.seed for c in made["grid"]})
        < 10
        < len({c.params.guidance_scale for c in made["random"]})
    )
    assert any(len(c.parents) == 2 and "cross" in c.mutation for c in made["evolutionary"])
    assert all(len(c.parents) <= 1 for c in made["temperature"])
    assert any("group" in c.mutation for c in made["cluster"])
    between = [c for c in made["slerp"] if c.mutation.startswith("between")]
    assert between
    assert all(len(c.parents) == 2 for c in between)
    assert len({(c.parents, c.mutation) for c in between}) == len(between)


@pytest.mark.parametrize("strategy", ["evolutionary", "temperature", "cluster", "slerp"])
def test_a_strategy_that_learns_finds_better_than_chance_where_near_noise_has_near_scores(strategy):
    def best(name):
        found = []
        for seed in range(8):
            session = Session(name, seed=seed, temperature=0.5)
            session.dream(80)
            found += [session.search.score(c) for c in session.search.kept[:10]]
        return sum(found) / len(found)

    assert best(strategy) > best("random") - 0.02


def test_temperature_says_how_far_moves_go():
    def reach(temperature):
        session = Session("evolutionary", temperature=temperature)
        session.dream(60)
        moves = [c.params.variations[-1].weight for c in session.search.judged if len(c.parents) == 1]
        words = sum(len(c.modifiers) for c in session.search.judged)
        return sum(moves) / max(1, len(moves)), words

    (near, few), (far, many) = reach(0.0), reach(1.0)
    assert near < far
    assert few == 0 < many


def test_only_the_best_are_kept_and_what_is_let_go_is_released():
    session = Session()
    events = [session.propose() for _ in range(30)]
    for number, event in enumerate(events):
        session.judge(event, score=(number * 7 % 30) / 30)
    kept = [session.search.score(c) for c in session.search.kept]
    assert kept == sorted(kept, reverse=True)
    assert kept == [n / 30 for n in range(29, 19, -1)]
    assert len(session.search.released) == len(set(session.search.released))
    assert not set(session.search.released) & session.search.keys()


def test_below_the_threshold_nothing_is_kept_and_a_higher_one_lets_go():
    session = Session(similarity_threshold=0.5)
    for score in (0.4, 0.6, 0.8):
        session.judge(session.propose(), score=score)
    assert [round(session.search.score(c), 2) for c in session.search.kept] == [0.8, 0.6]
    session.log(Guided(guidance=DreamGuidance(similarity_threshold=0.7)))
    assert [round(session.search.score(c), 2) for c in session.search.kept] == [0.8]
    assert session.search.released == ["2.png"]


def test_of_two_near_duplicates_the_better_one_stays():
    session = Session()
    first, second, third = (session.propose() for _ in range(3))
    session.judge(first, score=0.5, hash_="0" * 70)
    session.judge(second, score=0.4, hash_="0" * 70)
    session.judge(third, score=0.6, hash_="0" * 70)
    assert [c.id for c in session.search.kept] == [third.id]
    merged = [e for entry in session.entries for e in entry.events if isinstance(e, Merged)]
    assert [(e.id, e.into) for e in merged] == [(second.id, first.id), (first.id, third.id)]
    assert session.search.stats.merged == 2


def test_likes_and_dislikes_move_the_order_and_can_be_forgotten():
    session = Session()
    a, b, c = (session.propose() for _ in range(3))
    session.judge(a, score=0.5, looks=[1, 0, 0, 0])
    session.judge(b, score=0.5, looks=[0, 1, 0, 0])
    session.judge(c, score=0.6, looks=[0, 0, 1, 0])
    order = lambda: [candidate.id for candidate in session.search.kept]  # noqa: E731  # read three times
    assert order() == [c.id, a.id, b.id]
    session.log(Guided(guidance=DreamGuidance(more_like=(b.id,), less_like=(c.id,))))
    assert order() == [b.id, a.id, c.id]
    assert session.search.parents()[0].id == b.id
    assert c.id not in {parent.id for parent in session.search.parents()}
    session.log(Guided(guidance=DreamGuidance(forget_likes=True)))
    assert order() == [c.id, a.id, b.id]


def test_a_guide_makes_only_drafts_unfit_that_show_something_else():
    session = Session()
    session.propose()
    session.log(Guided(guidance=DreamGuidance(temperature=0.9, strategy="grid")))
    assert session.search.unfit() == []
    session.log(Guided(guidance=DreamGuidance(prompt="sun")))
    [misfit] = session.search.unfit()
    session.log(Dropped(id=misfit.id, why="guided"))
    assert session.propose().params.prompt.startswith("sun")
    assert (session.search.stats.dropped, session.search.unfit()) == (1, [])


def test_other_weights_order_what_is_kept_anew():
    session = Session()
    events = [session.propose() for _ in range(2)]
    for event, scores in zip(events, ({"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}), strict=True):
        scored = Scored(id=event.id, scores=scores, hash=hash_of(event.params))
        session.log(*session.search.judge(scored), Kept(id=event.id, score=0.5))  # twice is once
    session.log(Guided(guidance=DreamGuidance(weights={"a": 1.0})))
    assert [c.id for c in session.search.kept] == [1, 2]
    session.log(Guided(guidance=DreamGuidance(weights={"b": 1.0})))
    assert [c.id for c in session.search.kept] == [2, 1]


@FEW
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=900))
def test_a_signature_has_a_fixed_size_at_most_and_reads_back(numbers):
    signature = unpack_signature(pack_signature(numbers))
    assert len(signature) == min(SIGNATURE, len(numbers))
    assert all(-127 <= number <= 127 for number in signature)


def test_hashes_of_another_make_are_never_alike():
    assert not alike("", "")
    assert not alike("00", "0" * 70)
    assert alike("0" * 70, "0" * 70)


def test_modifiers_come_from_a_file_of_ones_own_and_exclude_each_other(tmp_path):
    (tmp_path / "mine.toml").write_text('[light]\nphrases = ["dusk", "dawn"]\n')
    mine = read_modifiers(str(tmp_path / "mine.toml"))
    assert mine == Modifiers({"light": ("dusk", "dawn")})
    for seed in range(20):
        assert len(mine.draw(random.Random(seed), temperature=1.0)) <= 1
        assert len(mine.changed(("dusk",), random.Random(seed))) <= 1
    (tmp_path / "bad.toml").write_text("light = 3")
    for bad in ("bad.toml", "absent.toml"):
        with pytest.raises(ValueError, match=r"dreams\.modifiers"):
            read_modifiers(str(tmp_path / bad))


def test_the_worse_half_is_given_up_once_there_is_something_to_compare_with():
    pruning = Pruning()
    assert not any(pruning.hopeless(score / 10) for score in range(8))
    assert pruning.hopeless(0.05)
    assert not pruning.hopeless(0.75)
    pruning.reset()
    assert not pruning.hopeless(0.0)
    assert [step for step in range(1, 11) if worth_a_look(step, 10)] == [4, 5, 6, 7]
    assert not worth_a_look(1, 2)


def test_as_many_drafts_are_in_flight_as_keep_some_waiting_and_no_more():
    width = Width(8)
    for _ in range(20):
        width.on_ended(waiting=0)
    assert width.target == 8
    for _ in range(200):
        width.on_ended(waiting=7)
    assert width.target == 2
    before = width.target
    width.on_ended(waiting=1)
    assert width.target == before
