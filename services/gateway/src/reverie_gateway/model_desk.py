"""Modes and models as clients see and change them: what the workers offer, a switch, a file read again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from reverie_gateway.audit import Auditor
from reverie_gateway.identity import Action, Identity, require_administrator
from reverie_gateway.jobs import Jobs
from reverie_gateway.reach import reachable
from reverie_gateway.status import StatusBoard
from reverie_jobs.admission import having_mode
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import JobType, ModeInfo, Vram, Worker
from reverie_protocol.model_bodies import (
    LoraView,
    ModelView,
    ModesReread,
    ModesView,
    ModeSwitched,
    ModeView,
    VramView,
)
from reverie_protocol.subjects import ModesReloaded, worker_key, worker_modes
from reverie_runtime.bus.port import Bus, BusError

#: Longest wait for one worker to read its file, in seconds; it is within `BUS_TIMEOUT_S`.
RELOAD_S: Final = 1.5


class ModelDesk:
    """Answers from the workers' records, and passes commands on to them."""

    def __init__(self, bus: Bus, jobs: Jobs, board: StatusBoard, auditor: Auditor) -> None:
        self._bus = bus
        self._jobs = jobs
        self._board = board
        self._auditor = auditor

    def modes(self) -> ModesView:
        """Every mode that some worker has, also those that none can use now."""
        workers = self._board.serving()
        unavailable = {name: why for worker in workers for name, why in worker.unavailable.items()}
        views = {name: ModeView(model="", available=False, detail=why) for name, why in unavailable.items()}
        for worker in workers:
            for name, info in worker.modes.items():
                if not (name in views and views[name].loaded):
                    views[name] = _mode_view(info)
        default = next((worker.default_mode for worker in workers if worker.default_mode), None)
        return ModesView(default_mode=default, modes=dict(sorted(views.items())))

    def vram(self) -> VramView:
        """Accelerator memory, and what lies in it."""
        models = tuple(_models(self._board.serving()))
        vram = self._board.vram
        return VramView(**msgspec.structs.asdict(vram), models_loaded=len(models), models=models)

    async def switch(self, mode: str, *, by: Identity) -> ModeSwitched:
        """Make a mode that of jobs that name none, on every worker that has it.

        `mode_not_found`, `no_worker` where nobody could know it, `forbidden`.
        """
        self._require(by, "mode.switch", mode)
        having = having_mode(mode, self._workers())
        others = [worker for worker in having if worker.mode != mode or not worker.modes[mode].loaded]
        if not others:
            return ModeSwitched(status="already_loaded", mode=mode)
        jobs = [await self._jobs.switch(mode, worker=worker.name, by=by) for worker in others]
        self._auditor.note("mode.switch", by, target=mode)
        ids = tuple(job.id for job in jobs)
        return ModeSwitched(status="queued", mode=mode, job_id=ids[0], job_ids=ids)

    async def reload(self, *, by: Identity) -> ModesReread:
        """Have every worker read its `modes.yml`; `invalid_modes` if one cannot, and then it stays as it was."""
        self._require(by, "mode.reload", "")
        workers = [worker for worker in self._workers() if JobType.GENERATE in worker.job_types]
        async with reachable(self._bus):
            answers = await asyncio.gather(*map(self._reload_one, workers))
        broken = [
            f"{worker.name}: {answer.error}"
            for worker, answer in zip(workers, answers, strict=True)
            if answer.error
        ]
        if broken:
            raise ReverieError(ErrorCode.INVALID_MODES, "; ".join(broken))
        self._auditor.note("mode.reload", by)
        names = tuple(dict.fromkeys(name for answer in answers for name in answer.modes))
        default = next((answer.default_mode for answer in answers if answer.default_mode), None)
        return ModesReread(modes_count=len(names), modes=names, default_mode=default)

    def _workers(self) -> list[Worker]:
        workers = self._board.serving()
        if not workers:
            raise ReverieError(ErrorCode.NO_WORKER, "no worker takes jobs now", retry_after=2)
        return workers

    async def _reload_one(self, worker: Worker) -> ModesReloaded:
        subject = worker_modes(worker_key(worker.name, worker.incarnation))
        try:
            reply = await self._bus.request(subject, b"", timeout=RELOAD_S)
        except BusError:
            return ModesReloaded(error="the worker did not answer")
        return msgspec.json.decode(reply.data, type=ModesReloaded)

    def _require(self, by: Identity, action: str, target: str) -> None:
        try:
            require_administrator(by, Action.MANAGE_MODELS)
        except ReverieError:
            self._auditor.note(action, by, target=target, allowed=False)
            raise


def _mode_view(info: ModeInfo) -> ModeView:
    return ModeView(
        model=info.model,
        loras=tuple(LoraView(lora.path, lora.strength, lora.adapter_name) for lora in info.loras),
        default_size=info.default_size,
        default_steps=info.default_steps,
        default_guidance=info.default_guidance,
        scheduler=info.scheduler,
        styles=info.styles,
        loaded=info.loaded,
    )


def _models(workers: Sequence[Worker]) -> Iterable[ModelView]:
    for worker in workers:
        for model in worker.models:
            yield ModelView(
                name=", ".join(model.modes) or model.model,
                model_path=model.model,
                vram_gb=model.gb if worker.vram != Vram() else 0.0,
                loras=model.loras,
                worker=worker.name,
            )
