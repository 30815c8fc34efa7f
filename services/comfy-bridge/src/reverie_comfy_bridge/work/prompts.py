"""Which prompts are ours: their ids and marks, which say the job without any table of ours; pure."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from reverie_comfy_bridge.wire.queue import Mark

_NAMESPACE: Final = uuid.UUID("5f0f3a52-6f2e-4b6e-9d5a-9a1f6f0c7e11")
#: Attempts back for whose prompts the history is asked, and how often each may have been made to work anew.
ATTEMPTS_BACK: Final = 4
MOST_RUNS: Final = 3


class PromptName(msgspec.Struct, frozen=True):
    """One prompt of a job: of which attempt, and its how many-th try within it (0 unless a file was gone).

    `platform` tells our prompts from those of another installation that uses the same ComfyUI.
    """

    platform: str
    job: str
    attempt: int
    run: int = 0

    @property
    def prompt_id(self) -> str:
        """Follows from the name, so that the claim alone says what was sent; a canonical UUID."""
        name = f"{self.platform}.{self.job}.{self.attempt}.{self.run}"
        return str(uuid.uuid5(_NAMESPACE, name))

    @property
    def mark(self) -> dict[str, object]:
        """What stands in the prompt's `extra_data`, where every version gives it back."""
        return {"platform": self.platform, "job": self.job, "attempt": self.attempt, "run": self.run}

    def earlier(self) -> Iterator[PromptName]:
        """This and the prompts before it that may still be known, latest first."""
        for attempt in range(self.attempt, max(0, self.attempt - ATTEMPTS_BACK), -1):
            for run in reversed(range(MOST_RUNS)):
                yield PromptName(self.platform, self.job, attempt, run)


def read_mark(mark: Mark | None, *, platform: str) -> PromptName | None:
    """The prompt's name if it is one of this platform's."""
    if not isinstance(mark, Mapping) or mark.get("platform") != platform:
        return None
    job, attempt, run = mark.get("job"), mark.get("attempt"), mark.get("run")
    if not isinstance(job, str) or not isinstance(attempt, int) or not isinstance(run, int):
        return None
    return PromptName(platform, job, attempt, run)


def platform_of(epoch: str) -> str:
    """A platform's name, from the epoch of its bucket of jobs."""
    return hashlib.sha256(epoch.encode()).hexdigest()[:16]
