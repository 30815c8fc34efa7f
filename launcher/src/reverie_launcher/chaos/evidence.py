"""What was seen during a run, by whom.  The oracle judges nothing else."""

from __future__ import annotations

from typing import Final

import msgspec

from reverie_protocol.jobs import Job, JobState

#: Jobs that are over may be purged after this long: else each start would read all that happened in a long run.
RETENTION_S: Final = 360.0


class Revision(msgspec.Struct, frozen=True):
    """One revision of the bucket `jobs` as nats-server kept it; `at` in seconds since the epoch, by its clock."""

    seq: int
    at: float
    job: Job


History = dict[str, list[Revision]]


class Transition(msgspec.Struct, frozen=True):
    """A state change that somebody was told."""

    job_id: str
    state: JobState
    seq: int
    job_seq: int


class Joined(msgspec.Struct, frozen=True):
    """From here on everything after `seq` is to be told."""

    seq: int


class Resumed(msgspec.Struct, frozen=True):
    """Answer to `resume` from `cursor`; `seq` is where the log stood."""

    recovered: bool
    cursor: int
    seq: int


class Retold(msgspec.Struct, frozen=True):
    """A repeated submit was answered: this job's events may come again."""

    job_id: str


LogEntry = Transition | Joined | Resumed | Retold


class Connection(msgspec.Struct):
    """What came in on one connection, in order; `who` and `where` for a person."""

    who: str
    where: str
    entries: list[LogEntry] = msgspec.field(default_factory=list)


class Acknowledged(msgspec.Struct, frozen=True):
    """A submit that was acknowledged."""

    key: str
    job_id: str
    seq: int
    existing: bool
    at: float


class CancelAcknowledged(msgspec.Struct, frozen=True):
    """A cancel that was acknowledged, and the state that the answer told."""

    job_id: str
    state: JobState
    at: float


class Polled(msgspec.Struct, frozen=True):
    """What a question over HTTP was answered, and when (epoch seconds); `seq` None is a 404."""

    job_id: str
    state: JobState | None
    seq: int | None
    at: float = 0.0


class Unexpected(msgspec.Struct, frozen=True):
    """An answer that no client should get, whatever goes wrong behind the gateway."""

    job_id: str
    what: str


class OutputRead(msgspec.Struct, frozen=True):
    """What `GET /storage/<key>` gave in the end: the hash of the bytes, and the text of the picture."""

    sha256: str
    text: str


class WorkerSaid(msgspec.Struct, frozen=True):
    """A worker's log: it ended this attempt of a job in this state."""

    worker: str
    job_id: str
    attempt: int
    state: str


class Evidence(msgspec.Struct):
    """All of it.

    `holes` are what gateways themselves said of revisions that they missed, `client_logs` are each client's
    connections in order, `bus_log` those of a plain subscriber, `not_back` the members that were not ready in the
    end.  Jobs that are over may be gone after `retention_s`.
    """

    history: History
    retention_s: float = RETENTION_S
    acknowledged: list[Acknowledged] = msgspec.field(default_factory=list)
    cancelled: list[CancelAcknowledged] = msgspec.field(default_factory=list)
    polled: list[Polled] = msgspec.field(default_factory=list)
    unexpected: list[Unexpected] = msgspec.field(default_factory=list)
    outputs: dict[str, OutputRead | None] = msgspec.field(default_factory=dict)
    not_back: list[str] = msgspec.field(default_factory=list)
    holes: list[str] = msgspec.field(default_factory=list)
    said: list[WorkerSaid] = msgspec.field(default_factory=list)
    client_logs: list[list[Connection]] = msgspec.field(default_factory=list)
    bus_log: list[Connection] = msgspec.field(default_factory=list)
