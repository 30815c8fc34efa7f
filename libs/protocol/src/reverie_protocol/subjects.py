"""Every NATS subject, KV bucket and stream of Reverie.  Any service may subscribe."""

from __future__ import annotations

from typing import Final

import msgspec

from reverie_protocol.comfy import ComfyCheck
from reverie_protocol.controls import QueueControl
from reverie_protocol.dream_control import DreamAnswer, DreamHost
from reverie_protocol.dream_log import DreamLogEntry
from reverie_protocol.dreams import DreamCandidateEvent, DreamSession, DreamStatusEvent
from reverie_protocol.instances import ActiveMode, AuditEvent, ComfyInstance, SystemAlert
from reverie_protocol.jobs import Job, JobId, Progress, Worker
from reverie_protocol.preview import PreviewHeader
from reverie_protocol.quantities import Count, StepIndex
from reverie_protocol.server_messages import QueueMirror, SystemBackends, SystemStatus

JOBS_BUCKET: Final = "jobs"
WORKERS_BUCKET: Final = "workers"
CONTROLS_BUCKET: Final = "controls"
QUEUE_CONTROL_KEY: Final = "queue"
WORKER_TTL_S: Final = 30.0
#: Checkpoints of jobs that nobody ended, in seconds.
CHECKPOINT_TTL_S: Final = 86_400.0
DREAMS_BUCKET: Final = "dreams"
COMFY_INSTANCES_BUCKET: Final = "comfy_instances"
MODES_BUCKET: Final = "modes"
CHECKPOINTS_BUCKET: Final = "checkpoints"
#: Who does in this round what one is enough for; entries expire.
LEASES_BUCKET: Final = "leases"
AUDIT_STREAM: Final = "AUDIT"
AUDIT_RETENTION_S: Final = 30 * 86_400.0

JOB_STATE: Final = "job.state.>"
JOB_PROGRESS: Final = "job.progress.*"
JOB_PREVIEW: Final = "job.preview.*"
JOB_WATCH: Final = "job.watch.*"
WATCH_REPEAT_S: Final = 2.0
WATCH_LEASE_S: Final = 5.0
WORKER_PING: Final = "worker.ping.>"
WORKER_CTL: Final = "worker.ctl.>"
SYSTEM_STATUS: Final = "system.status"
#: A monitor says the same again this often; one that is silent for `NODE_SILENT_S` is gone.
STATUS_REPEAT_S: Final = 5.0
NODE_SILENT_S: Final = 15.0
SYSTEM_BACKENDS: Final = "system.backends"
SYSTEM_ALERT: Final = "system.alert"
QUEUE_STATE: Final = "queue.state"
DREAM_STATUS: Final = "dream.status"
DREAM_STATUS_REPEAT_S: Final = 2.0
DREAM_CANDIDATE: Final = "dream.candidate.*"
#: Requests of gateways; any dreams process answers, and asks the session's own where it is another.
DREAM_CTL: Final = "dream.ctl"
DREAM_LOG_BUCKET: Final = "dream_log"
#: Revisions that a session's log may have; a longer one loses its beginning, and with it its replay.
DREAM_LOG_REVISIONS: Final = 1_000_000
DREAM_HOSTS_BUCKET: Final = "dream_hosts"
DREAM_HOST_TTL_S: Final = 6.0
COMFY_INSTANCE: Final = "comfy.instance.*"
COMFY_CHECK: Final = "comfy.check"
COMFY_WORKFLOWS: Final = "comfy.workflows"
AUDIT: Final = "audit.>"


class WorkerHint(msgspec.Struct, frozen=True, rename="camel"):
    """Asks a worker to look at a job's record now (it was cancelled or changed)."""

    job_id: JobId


class ModesReloaded(msgspec.Struct, frozen=True, rename="camel"):
    """A worker's answer to `worker.modes.<key>`: the modes it offers now, or why its file changes nothing."""

    modes: tuple[str, ...] = ()
    default_mode: str = ""
    error: str = ""


def job_state(job_id: str) -> str:
    """Subject on which committed revisions of one job appear."""
    return f"job.state.{job_id}"


def job_progress(job_id: str) -> str:
    """Subject of one job's progress; payload `Progress`."""
    return f"job.progress.{job_id}"


def job_preview(job_id: str) -> str:
    """Subject of one job's preview frames; payload `reverie_protocol.preview`."""
    return f"job.preview.{job_id}"


def job_watch(job_id: str) -> str:
    """Subject that keeps one job's previews flowing; empty payload."""
    return f"job.watch.{job_id}"


def worker_key(name: str, incarnation: str) -> str:
    """Key of a worker's record in the bucket `workers`."""
    return f"{name}.{incarnation}"


def worker_ping(worker: str) -> str:
    """Request/reply liveness of one worker by its key; an answer proves that it can receive work."""
    return f"worker.ping.{worker}"


def worker_ctl(worker: str) -> str:
    """Hints to one worker by its key; payload `WorkerHint`.  A lost hint only delays: the record is the truth."""
    return f"worker.ctl.{worker}"


def worker_modes(worker: str) -> str:
    """Request to one worker by its key: read `modes.yml` again; empty payload, reply `ModesReloaded`."""
    return f"worker.modes.{worker}"


def dream_candidate(session_id: str) -> str:
    """Subject of one session's finds; payload `DreamCandidateEvent`."""
    return f"dream.candidate.{session_id}"


def dream_host(host: str) -> str:
    """Requests to one dreams process by its key; what travels on `dream.ctl`."""
    return f"dream.host.{host}"


def comfy_instance(name: str) -> str:
    """Subject on which one ComfyUI instance's state is told; payload `ComfyInstance`."""
    return f"comfy.instance.{name}"


def audit(action: str) -> str:
    """Subject of one kind of audit event, such as `audit.mode.switch`; payload `AuditEvent`."""
    return f"audit.{action}"


class CheckpointHead(msgspec.Struct, frozen=True, rename="camel"):
    """A job's latest checkpoint, key `<jobId>` of the KV bucket `checkpoints`: after which step, and where."""

    step: StepIndex
    generation: Count
    parts: Count
    sha256: str


class Subject(msgspec.Struct, frozen=True):
    """A subject pattern: what travels on it, who publishes, and what it means.

    `parameter` names the pattern's wildcard.  `binary` marks a payload that is `reverie_protocol.preview`: the type
    of its header is given.  No payload type means an empty message.  `inbound` marks what anybody may publish.
    """

    pattern: str
    parameter: str
    payload: type[msgspec.Struct] | None
    publisher: str
    meaning: str
    binary: bool = False
    inbound: bool = False


class Bucket(msgspec.Struct, frozen=True):
    """A KV bucket: the record under each key, who writes it, and how long it stays (0 is for good)."""

    name: str
    key: str
    record: type[msgspec.Struct]
    writer: str
    meaning: str
    history: int = 1
    ttl_s: float = 0.0
    republish: str = ""


SUBJECTS: Final = (
    Subject(
        JOB_STATE,
        "jobId",
        Job,
        "nats-server, for each committed write to the bucket `jobs`",
        "committed revisions of job records, in order",
    ),
    Subject(
        JOB_PROGRESS,
        "jobId",
        Progress,
        "workers",
        "progress of running jobs, at least once a second; latest wins",
    ),
    Subject(
        JOB_PREVIEW,
        "jobId",
        PreviewHeader,
        "workers",
        "preview frames of running jobs, only while somebody watches",
        binary=True,
    ),
    Subject(
        JOB_WATCH,
        "jobId",
        None,
        "gateways, or anybody",
        "keeps a job's previews flowing; repeat every 2 seconds",
        inbound=True,
    ),
    Subject(
        WORKER_PING,
        "worker",
        None,
        "anybody, as a request",
        "liveness of one worker; any answer will do",
        inbound=True,
    ),
    Subject(
        WORKER_CTL,
        "worker",
        WorkerHint,
        "gateways",
        "asks a worker to look at a job's record now",
        inbound=True,
    ),
    Subject(
        SYSTEM_STATUS,
        "",
        SystemStatus,
        "monitors",
        "state of the platform with the monitor's own node, on change and every 5 seconds",
    ),
    Subject(SYSTEM_BACKENDS, "", SystemBackends, "monitors", "the workers there are, on change"),
    Subject(SYSTEM_ALERT, "", SystemAlert, "any service", "something an operator should know"),
    Subject(
        QUEUE_STATE,
        "",
        QueueMirror,
        "each gateway",
        "mirror of the queue, at most ten times a second, on change; latest wins",
    ),
    Subject(
        DREAM_STATUS, "", DreamStatusEvent, "dreams", "state of a dream session, every 2 seconds; latest wins"
    ),
    Subject(
        DREAM_CANDIDATE, "sessionId", DreamCandidateEvent, "dreams", "promising candidates as they are found"
    ),
    Subject(
        DREAM_CTL,
        "",
        DreamAnswer,
        "gateways, as a request",
        "a `DreamRequest` with its `verb`; answered with `DreamAnswer`",
        inbound=True,
    ),
    Subject(
        "dream.log.*",
        "sessionId",
        DreamLogEntry,
        "nats-server, for each committed write to the bucket `dream_log`",
        "what happens in dream sessions, in order",
    ),
    Subject(COMFY_INSTANCE, "name", ComfyInstance, "comfy-bridge", "state of a ComfyUI instance, on change"),
    Subject(
        COMFY_CHECK,
        "",
        ComfyCheck,
        "gateways, as a request",
        "could this ComfyUI job run?  Answered with `ComfyVerdict`",
        inbound=True,
    ),
    Subject(
        COMFY_WORKFLOWS,
        "",
        None,
        "gateways, as a request",
        "which workflows are there?  Answered with `ComfyWorkflows`",
        inbound=True,
    ),
    Subject(
        AUDIT,
        "action",
        AuditEvent,
        "any service",
        "administrative and security events, kept by the stream `AUDIT`",
    ),
)

BUCKETS: Final = (
    Bucket(
        JOBS_BUCKET,
        "<jobId>",
        Job,
        "gateways, workers, reapers: one compare-and-set per transition",
        "one record per job; its history is the event log that clients resume from",
        history=64,
        republish="job.state",
    ),
    Bucket(
        WORKERS_BUCKET,
        "<name>.<incarnation>",
        Worker,
        "each worker its own",
        "heartbeats",
        ttl_s=WORKER_TTL_S,
    ),
    Bucket(
        CONTROLS_BUCKET,
        "queue",
        QueueControl,
        "gateways: one compare-and-set per change",
        "which lanes and workers, or the whole queue, are paused or draining",
        history=16,
    ),
    Bucket(
        DREAMS_BUCKET,
        "<sessionId>",
        DreamSession,
        "dreams: one compare-and-set per change",
        "one record per dream session",
    ),
    Bucket(
        DREAM_LOG_BUCKET,
        "<sessionId>",
        DreamLogEntry,
        "the dreams process that has the session: one compare-and-set per entry",
        "the key's history is what happened in the session, in order",
        history=DREAM_LOG_REVISIONS,
        republish="dream.log",
    ),
    Bucket(
        DREAM_HOSTS_BUCKET,
        "<name>.<incarnation>",
        DreamHost,
        "each dreams process its own",
        "heartbeats of dreams processes",
        ttl_s=DREAM_HOST_TTL_S,
    ),
    Bucket(
        COMFY_INSTANCES_BUCKET,
        "<name>",
        ComfyInstance,
        "comfy-bridge; gateways for an administrator: one compare-and-set per change",
        "the ComfyUI instances",
    ),
    Bucket(MODES_BUCKET, "<worker>", ActiveMode, "each worker its own", "the mode each was switched to"),
    Bucket(
        CHECKPOINTS_BUCKET,
        "<jobId>",
        CheckpointHead,
        "the worker that runs the job",
        "where a running job is, so that another attempt goes on from there; the bytes lie beside, under "
        "`<jobId>.<generation>.<part>`",
        ttl_s=CHECKPOINT_TTL_S,
    ),
)
