"""Says which promises were broken.  Pure: evidence in, violations out; `logs` judges what clients were told."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from reverie_jobs.transitions import TRANSITIONS
from reverie_launcher.chaos.evidence import Evidence, History, Revision
from reverie_launcher.chaos.logs import judge_logs
from reverie_launcher.chaos.violations import Promise, Violation
from reverie_protocol.jobs import Job, JobState

_FOLLOWS = {(before, after) for (before, _), after in TRANSITIONS.items()}


def judge(evidence: Evidence) -> list[Violation]:
    """Every violation in the evidence."""
    found = itertools.chain(
        judge_history(evidence.history),
        _judge_acknowledged(evidence),
        _judge_cancels(evidence),
        _judge_outputs(evidence),
        _judge_workers(evidence),
        _judge_answers(evidence),
        judge_logs(evidence),
    )
    return [
        msgspec.structs.replace(violation, history=describe(evidence.history.get(violation.job_id, [])))
        for violation in found
    ]


def describe(revisions: list[Revision]) -> tuple[str, ...]:
    """A job's history in lines, times relative to its first revision."""
    start = revisions[0].at if revisions else 0.0
    return tuple(
        f"{revision.seq} +{revision.at - start:.3f}s {revision.job.state} attempt {revision.job.attempt} "
        f"worker {revision.job.worker} cancel {revision.job.cancel} crashes {revision.job.crashes} "
        f"jobSeq {revision.job.job_seq} op {revision.job.op}"
        for revision in revisions
    )


def judge_history(history: History) -> Iterator[Violation]:
    """Each job's revisions against the transition table."""
    for job_id, revisions in history.items():
        first = revisions[0].job
        if first.state is not JobState.QUEUED or first.attempt or first.job_seq != 1:
            yield _illegal(job_id, f"begins as {first.state}, attempt {first.attempt}")
        for before, after in itertools.pairwise(revisions):
            yield from _judge_move(before.job, after.job, after.seq)


def _judge_move(before: Job, after: Job, seq: int) -> Iterator[Violation]:
    where = f"revision {seq}"
    if before.state.terminal:
        what = f"{where} writes {after.state} over {before.state}"
        yield Violation(Promise.ONE_END, after.id, what)
        return
    if (before.state, after.state) not in _FOLLOWS:
        yield _illegal(after.id, f"{where} moves {before.state} to {after.state}")
    if after.job_seq != before.job_seq + 1:
        yield _illegal(after.id, f"{where} has jobSeq {after.job_seq} after {before.job_seq}")
    claims = before.state is JobState.QUEUED and after.state is JobState.RUNNING
    if after.attempt != before.attempt + claims:
        yield _illegal(after.id, f"{where} has attempt {after.attempt} after {before.attempt}")
    if after.state is JobState.RUNNING and not after.worker:
        yield _illegal(after.id, f"{where} runs without a worker")
    kept = before.state is JobState.RUNNING and after.state is not JobState.QUEUED
    if kept and after.worker != before.worker:
        yield _illegal(after.id, f"{where} changes the worker of a running attempt to {after.worker}")
    if (before.params, before.owner, before.created_at) != (after.params, after.owner, after.created_at):
        yield _illegal(after.id, f"{where} changes what was asked for")


def _illegal(job_id: str, what: str) -> Violation:
    return Violation(Promise.LEGAL_MOVES, job_id, what)


def _judge_acknowledged(evidence: Evidence) -> Iterator[Violation]:
    jobs_of_key: dict[str, set[str]] = {}
    for ack in evidence.acknowledged:
        jobs_of_key.setdefault(ack.key, set()).add(ack.job_id)
    for key, jobs in jobs_of_key.items():
        if len(jobs) > 1:
            yield Violation(Promise.ONE_JOB_PER_KEY, min(jobs), f"key {key} made {sorted(jobs)}")
    for job_id in sorted(set().union(*jobs_of_key.values())):
        revisions = evidence.history.get(job_id)
        if not revisions:
            yield Violation(Promise.NO_JOB_LOST, job_id, "was acknowledged and has no record")
        elif not revisions[-1].job.state.terminal:
            state = revisions[-1].job.state
            yield Violation(Promise.NO_JOB_LOST, job_id, f"was acknowledged and is still {state}")
    for ack in evidence.acknowledged:
        if ack.seq not in {revision.seq for revision in evidence.history.get(ack.job_id, ())}:
            what = f"was acknowledged with revision {ack.seq}, which is none of its own"
            yield Violation(Promise.LOG_TRUE, ack.job_id, what)


def _judge_cancels(evidence: Evidence) -> Iterator[Violation]:
    for cancel in evidence.cancelled:
        revisions = evidence.history.get(cancel.job_id)
        if not revisions:
            continue  # lost, and reported as that
        end = revisions[-1].job.state
        expected = cancel.state if cancel.state.terminal else JobState.CANCELLED
        if end is not expected:
            what = f"its cancel was acknowledged while {cancel.state}, and it ended as {end}"
            yield Violation(Promise.CANCEL_HOLDS, cancel.job_id, what)


def _judge_outputs(evidence: Evidence) -> Iterator[Violation]:
    for job_id, revisions in evidence.history.items():
        job = revisions[-1].job
        if job.state is JobState.COMPLETED and not job.outputs:
            yield Violation(Promise.OUTPUT_THERE, job_id, "is completed without an output")
        for output in job.outputs:
            wrong = _wrong_output(job, output.key, evidence)
            if wrong:
                yield Violation(Promise.OUTPUT_THERE, job_id, f"output {output.key} {wrong}")


def _wrong_output(job: Job, key: str, evidence: Evidence) -> str:
    read = evidence.outputs.get(key)
    if read is None:
        return "cannot be read"
    if read.sha256 != key.partition(".")[0]:
        return f"has the hash {read.sha256}"
    prompt = getattr(job.params, "prompt", "")
    seed = f"Seed: {job.meta.seed}," if job.meta else ""
    if not read.text.startswith(prompt) or seed not in read.text:
        return f"was made for something else: {read.text[:80]!r}"
    return ""


def _judge_workers(evidence: Evidence) -> Iterator[Violation]:
    """A worker that says it completed a job must be the one, and the attempt, that the record names."""
    for said in evidence.said:
        revisions = evidence.history.get(said.job_id)
        if said.state != JobState.COMPLETED or not revisions:
            continue
        job = revisions[-1].job
        if not job.state.terminal:
            continue  # reported as lost; and it may have moved since
        if (job.state, job.attempt) != (said.state, said.attempt) or not (job.worker or "").startswith(
            f"{said.worker}."
        ):
            what = f"{said.worker} says that it completed attempt {said.attempt}"
            yield Violation(Promise.LEGAL_MOVES, said.job_id, what)


def _may_be_purged(revisions: list[Revision], ended_before: float) -> bool:
    return bool(revisions) and revisions[-1].job.state.terminal and revisions[-1].at <= ended_before


def _judge_answers(evidence: Evidence) -> Iterator[Violation]:
    for member in evidence.not_back:
        yield Violation(Promise.ALL_BACK, "", f"{member} was not ready again in the end")
    for hole in evidence.holes:
        yield Violation(Promise.NO_HOLE, "", hole)
    for unexpected in evidence.unexpected:
        yield Violation(Promise.PROPER_ANSWERS, unexpected.job_id, unexpected.what)
    acknowledged = {ack.job_id for ack in evidence.acknowledged}
    for polled in evidence.polled:
        revisions = evidence.history.get(polled.job_id, [])
        if polled.seq is None:
            if polled.job_id in acknowledged and not _may_be_purged(
                revisions, polled.at - evidence.retention_s
            ):
                yield Violation(Promise.PROPER_ANSWERS, polled.job_id, "was acknowledged, then not found")
        elif (polled.seq, polled.state) not in {(revision.seq, revision.job.state) for revision in revisions}:
            what = f"a poll told {polled.state} at revision {polled.seq}"
            yield Violation(Promise.LOG_TRUE, polled.job_id, what)
