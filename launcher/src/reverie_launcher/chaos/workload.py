"""What the clients will do, and what goes wrong on their side.  Pure, like `plan`."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Final

import msgspec

#: Share of the span in which jobs come in; the rest is for them to be done while faults go on.
SUBMIT_SHARE: Final = 0.85
SIZE: Final = "64x64"
#: Denoising steps: mostly as few as may be, some jobs long enough to be under way when something happens.
STEPS: Final = (2, 4, 20, 60, 150)
STEPS_WEIGHTS: Final = (35, 40, 15, 6, 4)


class Path(StrEnum):
    """How a client talks to the gateway."""

    SOCKET = "WebSocket"
    HTTP = "HTTP"


class JobPlan(msgspec.Struct, frozen=True):
    """One job: who submits it when and how, and what happens to it.

    `cuts_after_submit`: the client's connection breaks before the answer.  `repeats`: the submit is sent so often
    again after it was acknowledged.  `conflicts`: its key is used once more with another body.  `cancel_after_s`
    counts from the acknowledgement.  `polls`: the client asks for it over HTTP until it is over.  `not_before` and
    `start_by` are in seconds since the epoch.
    """

    number: int
    client: int
    at_s: float
    path: Path
    key: str
    prompt: str
    seed: int
    steps: int
    lane: int
    cuts_after_submit: bool = False
    repeats: int = 0
    conflicts: bool = False
    cancel_after_s: float | None = None
    cancel_path: Path = Path.SOCKET
    polls: bool = False
    not_before: float | None = None
    start_by: float | None = None


def plan_jobs(*, seed: int, count: int, span_s: float, clients: int, prompt_chars: int = 0) -> list[JobPlan]:
    """`count` jobs over the first part of `span_s`, in order of time; their prompts have `prompt_chars` or more."""
    rng = random.Random(f"jobs {seed}")
    times = sorted(rng.uniform(0.0, SUBMIT_SHARE) * span_s for _ in range(count))
    return [
        _job(rng, number, at_s, seed=seed, clients=clients, prompt_chars=prompt_chars)
        for number, at_s in enumerate(times)
    ]


def _job(
    rng: random.Random, number: int, at_s: float, *, seed: int, clients: int, prompt_chars: int
) -> JobPlan:
    return JobPlan(
        number=number,
        client=rng.randrange(clients),
        at_s=round(at_s, 3),
        path=rng.choice((Path.SOCKET, Path.SOCKET, Path.HTTP)),
        key=f"chaos-{seed}-{number}",
        prompt=f"a circle, chaos {seed} job {number}".ljust(prompt_chars, "."),
        seed=rng.getrandbits(32),
        steps=rng.choices(STEPS, weights=STEPS_WEIGHTS)[0],
        lane=rng.choices((0, 1, 2, 3), weights=(1, 6, 2, 1))[0],
        cuts_after_submit=rng.random() < 0.08,
        repeats=rng.choices((0, 1, 2), weights=(80, 15, 5))[0],
        conflicts=rng.random() < 0.03,
        cancel_after_s=round(rng.uniform(0.0, 1.5), 3) if rng.random() < 0.12 else None,
        cancel_path=rng.choice(tuple(Path)),
        polls=rng.random() < 0.25,
    )
