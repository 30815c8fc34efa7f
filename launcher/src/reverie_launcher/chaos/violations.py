"""The promises, and what breaking one of them looks like."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Promise(StrEnum):
    """What a violation breaks."""

    NO_JOB_LOST = "no acknowledged job is lost"
    ONE_JOB_PER_KEY = "an idempotency key makes one job"
    ONE_END = "a job ends once, and nothing is written after it"
    LEGAL_MOVES = "a job moves by the transition table, one attempt and one worker at a time"
    OUTPUT_THERE = "a completed job has its own output"
    CANCEL_HOLDS = "a cancel that was acknowledged holds"
    LOG_ONCE = "a client hears each transition once"
    LOG_ORDER = "a client hears transitions in order"
    LOG_WHOLE = "a client misses no transition"
    LOG_TRUE = "nobody is told what was not committed"
    BUS_WHOLE = "job.state.> brings every committed revision once and in order"
    NO_HOLE = "a gateway holds every revision that it claims"
    ALL_BACK = "every service comes back"
    PROPER_ANSWERS = "a client gets proper answers"


class Violation(msgspec.Struct, frozen=True):
    """One broken promise, with the job's history for a person."""

    promise: Promise
    job_id: str
    what: str
    history: tuple[str, ...] = ()
