"""Whether a job can be served at all, said at submit: pure over the mirror of workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reverie_jobs.claiming import can_serve, takes_pictures
from reverie_protocol.errors import ErrorCode, FieldError, ReverieError, mode_not_found
from reverie_protocol.jobs import (
    ComfyParams,
    GenerateParams,
    Job,
    SuperResolutionParams,
    Worker,
    WorkerState,
)
from reverie_protocol.sizes import enlarged, parse_size


def require_servable(job: Job, workers: Iterable[Worker]) -> None:
    """Raise the ReverieError that says why no known worker can ever run this job, else return.

    With no worker at all nothing is known: `no_worker`, which a caller may choose to let wait.
    """
    serving = [worker for worker in workers if job.type in worker.job_types]
    if not serving:
        raise ReverieError(ErrorCode.NO_WORKER, f"no worker for {job.type} jobs is running", retry_after=2)
    if any(worker.state is WorkerState.STARTING for worker in serving):
        if not any(can_serve(job, worker) for worker in serving):
            raise ReverieError(
                ErrorCode.NO_WORKER,
                "a worker is starting and does not know yet what it can do",
                retry_after=2,
            )
        return
    if isinstance(job.params, GenerateParams):
        _require_generate(job.params, serving)
    if isinstance(job.params, SuperResolutionParams):
        _require_superres(serving)
    if isinstance(job.params, ComfyParams):
        _require_workflow(job.params, serving)
    if not any(can_serve(job, worker) for worker in serving):
        raise ReverieError(ErrorCode.NO_WORKER, "no single worker can serve this combination", retry_after=10)


def _require_generate(params: GenerateParams, workers: list[Worker]) -> None:
    modes = {name: info for worker in workers for name, info in worker.modes.items()}
    if params.mode is not None:
        having_mode(params.mode, workers)
    if params.superres:
        _require_superres(workers)
    if not any(takes_pictures(params, worker) for worker in workers if params.mode in (None, *worker.modes)):
        name = "initImage" if params.maskImage is None else "maskImage"
        message = f"no mode that is loaded takes it: {_listed(modes) if params.mode is None else params.mode}"
        fields = [FieldError((name,), message, "unsupported")]
        raise ReverieError(ErrorCode.INVALID_FIELD, f"{name}: {message}", fields=fields)
    if params.size is None and params.initImage is None:
        _require_default_size(params, workers)
    style = params.style_lora.style
    if style is not None and (style or params.style_lora.level > 0):  # an empty name at level 0 is none
        styles = {style for info in modes.values() for style in info.styles}
        if style not in styles:
            raise ReverieError(
                ErrorCode.STYLE_NOT_FOUND,
                f"there is no style {style!r}; there is {_listed(styles)}",
            )
    known = {name.lower(): name for worker in workers for name in worker.schedulers}
    if params.scheduler is not None and params.scheduler.lower() not in known:
        allowed = f"unknown scheduler; allowed: {_listed(known.values())}"
        raise ReverieError(
            ErrorCode.INVALID_FIELD,
            f"scheduler: {allowed}",
            fields=[FieldError(("scheduler",), allowed, "choice")],
        )


def having_mode(mode: str, workers: Sequence[Worker]) -> list[Worker]:
    """The workers that have a mode; `mode_not_found`, or `model_load_failed` where none of them can use it."""
    having = [worker for worker in workers if mode in worker.modes]
    if having:
        return having
    for worker in workers:
        if mode in worker.unavailable:
            reason = worker.unavailable[mode]
            raise ReverieError(ErrorCode.MODEL_LOAD_FAILED, f"the mode {mode!r} cannot be used: {reason}")
    raise mode_not_found(mode, {name for worker in workers for name in worker.modes})


def _require_workflow(params: ComfyParams, workers: list[Worker]) -> None:
    """Say why no instance runs a workflow now; others may come, so this is `no_worker`."""
    name = params.workflowId
    if name is None or any(name in worker.workflows for worker in workers):
        return
    reasons = dict.fromkeys(worker.unavailable[name] for worker in workers if name in worker.unavailable)
    why = f": {'; '.join(reasons)}" if reasons else ""
    raise ReverieError(
        ErrorCode.NO_WORKER, f"no ComfyUI instance can run the workflow {name!r}{why}", retry_after=10
    )


def _require_superres(workers: list[Worker]) -> None:
    if not any(worker.superres for worker in workers):
        raise ReverieError(ErrorCode.SUPERRES_DISABLED, "super-resolution is disabled here")


def require_result_size(params: GenerateParams, size: str) -> None:
    """Raise `invalid_field` where super-resolution of a picture of `size` would exceed what is made."""
    enlarged(
        parse_size(size), params.superres_magnitude if params.superres else 0, field="superres_magnitude"
    )


def _require_default_size(params: GenerateParams, workers: list[Worker]) -> None:
    """Refuse the default size where every worker has the same one."""
    sizes = {
        worker.modes[mode].default_size
        for worker in workers
        if (mode := params.mode or worker.mode) is not None and mode in worker.modes
    }
    if len(sizes) == 1:  # otherwise it depends on who claims it
        require_result_size(params, sizes.pop())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
