"""Wordings of a scene, the way strangers type prompts."""

import random

from reverie_models.scenes import Figure, FlatScene, Landscape, Scene, is_held_out

SYNONYMS = {
    "purple": ("violet",),
    "gray": ("grey",),
    "cyan": ("turquoise",),
    "circle": ("disc", "dot"),
    "square": ("box",),
    "diamond": ("rhombus",),
    "ring": ("donut",),
    "cross": ("plus",),
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
}
OPENINGS = (
    "a photo of ",
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "a painting of ",
    "an illustration of ",
)
ENDINGS = (
    ", high quality",
    ", simple",
    ", minimal",
    ", flat design",
    ", digital art",
    ", detailed",
    ", 4k",
    ", vector art",
    ", beautiful",
    ".",
)
RELATION_WORDS = {
    "left": ("to the left of", "left of", "on the left of", "and", "and", "next to", "beside"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
LANDSCAPE_WORDS = {
    ("hills", ""): ("green hills", "rolling green hills", "hills", "grassy hills"),
    ("hills", "house"): (
        "a house on green hills",
        "green hills with a house",
        "a house on a hill",
        "a small house on hills",
    ),
    ("mountains", ""): (
        "mountains",
        "snowy mountains",
        "mountains with snow",
        "a mountain landscape",
        "a snowy mountain",
    ),
    ("sea", "boat"): (
        "a boat on the sea",
        "the sea with a boat",
        "a sailing boat on the ocean",
        "a ship at sea",
        "a sailboat on the water",
    ),
    ("sea", ""): ("the sea", "the ocean", "the open sea", "water"),
    ("desert", "cactus"): (
        "a cactus in the desert",
        "a desert with a cactus",
        "a desert with cactuses",
        "a cactus",
    ),
    ("desert", ""): ("a desert", "the desert", "a sandy desert", "sand dunes"),
    ("forest", ""): ("a forest", "trees", "a forest with trees", "the woods", "pine trees"),
    ("night", ""): (
        "a night sky",
        "a night sky with the moon and stars",
        "the moon and stars",
        "the moon over hills at night",
        "a starry night",
        "hills at night",
    ),
    ("night", "house"): (
        "a house at night",
        "a house under the moon",
        "a house under a starry night sky",
        "a house on a hill at night",
    ),
}
TIME_WORDS = {
    "day": ("", "", "", " under a blue sky", " on a sunny day", " with a sun", " by day"),
    "sunset": (" at sunset", " under a sunset", " in the evening", " with an orange sky"),
    "night": ("",),
}


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _varied(word: str, rng: random.Random, chance: float = 0.15) -> str:
    others = SYNONYMS.get(word)
    return rng.choice(others) if others and rng.random() < chance else word


def _figure_words(figure: Figure, rng: random.Random, size: str = "") -> str:
    words = [size, figure.colour, figure.shape]
    return " ".join(_varied(word, rng) for word in words if word)


def _place_words(place: str, rng: random.Random) -> str:
    if " " in place:
        return rng.choice((f" in the {place}", f" in the {place} corner"))
    return rng.choice((f" on the {place}", f" at the {place}"))


def _with_background(body: str, background: str, rng: random.Random) -> str:
    bare = body.split(" ", 1)[1]
    return rng.choices(
        (
            f"{body} on {_article(background)} background",
            f"{bare} on {_article(background)} background",
            f"{bare}, {background} background",
            f"{body} on {background}",
            f"{_article(background)} background with {body}",
        ),
        (11, 3, 2, 2, 2),
    )[0]


def _describe_flat(scene: FlatScene, rng: random.Random) -> str:
    if len(scene.figures) == 1:
        body = _article(_figure_words(scene.figures[0], rng, scene.size))
        if scene.place:
            body += _place_words(scene.place, rng)
    else:
        first, second = (_article(_figure_words(figure, rng)) for figure in scene.figures)
        body = f"{first} {rng.choice(RELATION_WORDS[scene.relation])} {second}"
    if not scene.named_background:
        return body
    return _with_background(body, _varied(scene.background, rng), rng)


def _describe_landscape(scene: Landscape, rng: random.Random) -> str:
    body = rng.choice(LANDSCAPE_WORDS[scene.kind, scene.extra])
    opening = "a landscape with " if rng.random() < 0.08 else ""
    return opening + body + rng.choice(TIME_WORDS[scene.time])


def plain_caption(scene: FlatScene) -> str:
    """The canonical wording: "a red circle on a blue background"."""
    words = [_article(f"{figure.colour} {figure.shape}") for figure in scene.figures]
    joint = f" {RELATION_WORDS[scene.relation][0]} " if scene.relation else ""
    return f"{joint.join(words)} on {_article(scene.background)} background"


def describe(scene: Scene, rng: random.Random, *, held_out: bool = False) -> str:
    """One caption of a scene.

    Held-out wordings of landscapes are never used for training; flat scenes are split by
    what they show, so that any wording of them will do.
    """
    if isinstance(scene, FlatScene):
        caption = _describe_flat(scene, rng)
    else:
        caption = _describe_landscape(scene, rng)
        while is_held_out(caption) != held_out:
            caption = _describe_landscape(scene, rng)
    if rng.random() < 0.12:
        caption = rng.choice(OPENINGS) + caption
    if rng.random() < 0.10:
        caption += rng.choice(ENDINGS)
    return caption
