"""What strategies are made of: seeds, noise between seeds, modifiers of the prompt, the guidance scale."""

from __future__ import annotations

import random
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from reverie_protocol.jobs import MAX_SEED, MAX_VARIATIONS, Variation

#: A guidance scale is never moved outside these.
LEAST_SCALE, MOST_SCALE = 1.0, 20.0
#: Modifiers that a prompt may carry at temperature 1.
MOST_MODIFIERS: Final = 3


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy's choice: the noise, what is added to the prompt, and where it came from."""

    seed: int
    variations: tuple[Variation, ...] = ()
    modifiers: tuple[str, ...] = ()
    guidance_scale: float | None = None
    parents: tuple[int, ...] = ()
    mutation: str = ""


class Modifiers(msgspec.Struct, frozen=True):
    """Phrases by group; a prompt takes at most one of a group, since those of one group exclude each other."""

    groups: dict[str, tuple[str, ...]]

    def draw(self, rng: random.Random, *, temperature: float) -> tuple[str, ...]:
        """None at temperature 0, more and more often some beyond."""
        count = sum(rng.random() < temperature / 2 for _ in range(MOST_MODIFIERS))
        names = rng.sample(sorted(self.groups), min(count, len(self.groups)))
        return tuple(rng.choice(self.groups[name]) for name in names)

    def changed(self, held: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
        """One taken away, exchanged or added."""
        if not self.groups:
            return held
        kept = list(held)
        if kept and rng.random() < 0.5:
            kept.pop(rng.randrange(len(kept)))
            if rng.random() < 0.5:
                return tuple(kept)
        used = {name for name, phrases in self.groups.items() if not set(phrases).isdisjoint(kept)}
        free = sorted(set(self.groups) - used)
        if free and len(kept) < MOST_MODIFIERS:
            kept.append(rng.choice(self.groups[rng.choice(free)]))
        return tuple(kept)


def read_modifiers(path: str = "") -> Modifiers:
    """The list of a file, or the one that comes along; ValueError in one sentence for a file that is none."""
    try:
        text = Path(path).read_text("utf-8") if path else _own_list()
        table = tomllib.loads(text)
        groups = {name: msgspec.convert(group["phrases"], tuple[str, ...]) for name, group in table.items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"dreams.modifiers: {path} cannot be read: {error}") from None
    except (KeyError, TypeError, msgspec.ValidationError):
        raise ValueError(
            f"dreams.modifiers: {path} must hold groups, each with a list of text `phrases`"
        ) from None
    return Modifiers({name: phrases for name, phrases in groups.items() if phrases})


def draw_seed(rng: random.Random) -> int:
    """A seed of noise."""
    return rng.randrange(MAX_SEED + 1)


def nearby(
    seed: int, variations: tuple[Variation, ...], rng: random.Random, *, weight: float
) -> tuple[int, tuple[Variation, ...]]:
    """Noise near this: moved by `weight` towards that of a new seed.

    A chain that is full loses its smallest move; that changes the noise little, and always in the same way.
    """
    return along(seed, variations, draw_seed(rng), weight=weight)


def along(
    seed: int, variations: tuple[Variation, ...], towards: int, *, weight: float
) -> tuple[int, tuple[Variation, ...]]:
    """Noise moved by `weight` towards that of another seed."""
    moves = list(variations)
    if len(moves) >= MAX_VARIATIONS:
        moves.remove(min(moves, key=lambda move: move.weight))
    return seed, (*moves, Variation(towards, round(min(1.0, max(0.0, weight)), 4)))


def scaled(scale: float | None, rng: random.Random, *, temperature: float) -> float | None:
    """A guidance scale somewhat off; None, which is the mode's own, stays."""
    if scale is None:
        return None
    moved = scale * (1 + 0.4 * temperature * rng.uniform(-1, 1))
    return round(min(MOST_SCALE, max(LEAST_SCALE, moved)), 3)


def mutated(
    parent: Move, id_: int, search_modifiers: Modifiers, rng: random.Random, *, temperature: float
) -> Move:
    """A child of a candidate: its noise moved, now and then its modifiers or its guidance scale too."""
    weight = 0.05 + 0.55 * temperature * rng.random()
    seed, variations = nearby(parent.seed, parent.variations, rng, weight=weight)
    said = [f"noise {weight:.2f}"]
    modifiers, scale = parent.modifiers, parent.guidance_scale
    if rng.random() < 0.6 * temperature:
        modifiers = search_modifiers.changed(modifiers, rng)
        said.append("modifiers")
    if rng.random() < 0.5 * temperature:
        scale = scaled(scale, rng, temperature=temperature)
        said.append("scale")
    return replace(
        parent,
        seed=seed,
        variations=variations,
        modifiers=modifiers,
        guidance_scale=scale,
        parents=(id_,),
        mutation=" ".join(said),
    )


def _own_list() -> str:
    return files("reverie_dreams").joinpath("modifiers.toml").read_text("utf-8")
