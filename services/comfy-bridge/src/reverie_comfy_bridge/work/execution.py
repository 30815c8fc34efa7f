"""One attempt of one job on one instance, from the claim to the terminal write.

It takes over the prompt of an earlier attempt where the instance still has one, else sends its own; follows it;
removes it where the job is to stop; keeps what it made; and says in the job's record how it ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from reverie_comfy_bridge.instance.actor import Instance
from reverie_comfy_bridge.instance.client import Unreachable
from reverie_comfy_bridge.instance.findings import Finding, Remedy
from reverie_comfy_bridge.run.again import with_changed_inputs
from reverie_comfy_bridge.run.events import (
    Ended,
    EndReason,
    Event,
    ImageSent,
    Outcome,
    PreviewShown,
    Progressed,
    Started,
    Taken,
)
from reverie_comfy_bridge.run.graph import Graph
from reverie_comfy_bridge.run.prompt_run import Look, PromptRun
from reverie_comfy_bridge.run.weights import NodeTimes
from reverie_comfy_bridge.settings import ComfySettings
from reverie_comfy_bridge.wire.queue import MARK_KEY, History, HistoryStatus, Queue
from reverie_comfy_bridge.work.assignment import PromptAssignment
from reverie_comfy_bridge.work.delivery import PromptDelivery
from reverie_comfy_bridge.work.inputs import Inputs
from reverie_comfy_bridge.work.outputs import MAX_SENT_BYTES, Kept, Outputs
from reverie_comfy_bridge.work.previews import Previews
from reverie_comfy_bridge.work.prompts import MOST_RUNS, PromptName, read_mark
from reverie_comfy_bridge.workflows.building import Built, build
from reverie_comfy_bridge.workflows.catalogue import Catalogue
from reverie_comfy_bridge.workflows.manifest import Workflow
from reverie_comfy_bridge.workflows.node_classes import NodeClasses
from reverie_comfy_bridge.workflows.offers import require_workflow, verdict
from reverie_comfy_bridge.workflows.parameters import image_keys
from reverie_protocol.errors import ErrorCode, ReverieError
from reverie_protocol.jobs import ComfyNodeError, ComfyParams, JobMeta, Phase
from reverie_runtime.bus.port import Bus
from reverie_runtime.clock import Clock
from reverie_runtime.crash_points import crash_point
from reverie_storage.port import StorageUnavailable
from reverie_worker.assignment import StopReason
from reverie_worker.patience import wait_up_to
from reverie_worker.telling import tell

BACKEND: Final = "comfyui"
#: How often it is looked whether to wait on, and a prompt that is to go is asked to, in seconds.
WAIT_S: Final = 1.0
#: Times that a prompt is asked to go for a job that is no longer ours.
MOST_REMOVALS: Final = 5
#: Attempts after which a job that ComfyUI never took fails.
MOST_ATTEMPTS: Final = 20
#: A pause before what the instance did not answer is asked again, in seconds.
RETRY_S: Final = 0.5

log = structlog.get_logger(__name__)


class Means(msgspec.Struct, frozen=True):
    """What executions work with, the same for all."""

    bus: Bus
    settings: ComfySettings
    catalogue: Callable[[], Catalogue]
    inputs: Inputs
    outputs: Outputs
    delivery: PromptDelivery
    previews: Previews
    times: NodeTimes
    platform: str
    clock: Clock


class Lost(Exception):
    """The instance has not the prompt any more, or cannot be worked with; one sentence why."""


class Invalid(Exception):
    """The workflow cannot run there."""

    def __init__(self, code: ErrorCode, message: str, node_errors: tuple[ComfyNodeError, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.node_errors = node_errors


class Execution:
    """Follows one prompt, and if need be the one that replaces it."""

    run: PromptRun

    def __init__(
        self, assignment: PromptAssignment, instance: Instance, means: Means, *, tags: Collection[str]
    ) -> None:
        params = assignment.job.params
        if not isinstance(params, ComfyParams):
            raise TypeError(f"claimed a {assignment.job.type} job without its parameters")
        self._assignment = assignment
        self._params = params
        self._instance = instance
        self._means = means
        self._tags = tags
        self._clock = means.clock
        self._graph = Graph({})
        self._built: Built | None = None
        self._name = PromptName(means.platform, assignment.job.id, assignment.job.attempt)
        self._ended: Ended | None = None
        self._sent: list[ImageSent] = []
        self._sent_bytes = 0
        self._finding: Finding | None = None
        self._removals = 0
        #: Under which id ComfyUI has the prompt, once that is certain.
        self.taken_id = ""

    # --- what the instance says ---

    def take(self, events: Sequence[Event]) -> None:
        """See `Follower.take`."""
        assignment = self._assignment
        for event in events:
            match event:
                case Taken():
                    self.taken_id = event.prompt_id
                case Started():
                    assignment.progress.enter(Phase.EXECUTING)
                    assignment.changed.set()
                case Progressed():
                    assignment.progress.executing(event)
                    assignment.changed.set()
                case PreviewShown():
                    self._means.previews.show(assignment, event)
                case ImageSent() if self._sent_bytes + len(event.image) <= MAX_SENT_BYTES:
                    self._sent.append(event)
                    self._sent_bytes += len(event.image)
                case Ended():
                    self._ended = event
                    assignment.news.set()

    def doubt(self, finding: Finding) -> None:
        """See `Follower.doubt`."""
        self._finding = finding
        self._assignment.news.set()

    # --- the work ---

    async def work(self) -> str:
        """The job's state in the end, or `superseded`."""
        assignment, delivery = self._assignment, self._means.delivery
        try:
            return await self._execute()
        except Invalid as invalid:
            return await delivery.fail(
                assignment, invalid.code, invalid.message, node_errors=invalid.node_errors
            )
        except StorageUnavailable as error:
            log.error("output not stored", reason=str(error))
            await self._tidy()
            return await delivery.fail(
                assignment, ErrorCode.STORAGE_UNAVAILABLE, "The outputs could not be stored."
            )
        except Lost as lost:
            if assignment.stop_reason is StopReason.SUPERSEDED:
                return StopReason.SUPERSEDED
            return await delivery.lose(assignment, str(lost))

    async def _execute(self) -> str:
        classes = await self._classes()
        workflow = self._workflow()
        found = None if self._assignment.fresh else await self._find_earlier()
        if found is None and self._assignment.stop_reason is None:
            self._built = await self._build(workflow, classes)
        else:
            self._built = self._checked(workflow, classes)
        self._graph = Graph.read(self._built.graph)
        if found is not None:
            return await self._follow(found)
        if self._assignment.stop_reason is not None:
            return await self._conclude_unsent()
        return await self._follow(None)

    async def _conclude_unsent(self) -> str:
        """It is to stop before anything was sent."""
        if self._assignment.stop_reason is StopReason.CANCELLED:
            return await self._means.delivery.cancel(self._assignment, (), None)
        return await self._means.delivery.give_back(self._assignment)

    async def _follow(self, found: _Found | None) -> str:
        """Follow a prompt to its end, and one more for as long as its files are gone."""
        while True:
            self._ended = None
            self.taken_id = ""
            self.run = self._new_run(found)
            with self._instance.following(self):
                if found is not None:
                    log.info("prompt taken over", comfy_id=found.prompt_id)
                    self.take(self.run.looked(found.look, self._clock.monotonic()))
                    self._instance.look_soon()
                else:
                    await self._post()
                ended = await self._end()
            if ended is None:
                return await self._means.delivery.give_back(self._assignment)
            state = await self._conclude(ended)
            if state is not None:
                return state
            found = None

    def _new_run(self, found: _Found | None) -> PromptRun:
        workflow = self._params.workflowId or ""
        if found is not None:
            self._name = found.name
        return PromptRun(
            instance=self._instance.name,
            prompt_id=self._name.prompt_id if found is None else found.prompt_id,
            client_id=self._instance.client_id if found is None else found.client_id,
            graph=self._graph,
            mark=self._name.mark,
            weights=self._means.times.weights(workflow, self._graph) if workflow else None,
        )

    async def _post(self) -> None:
        assert self._built is not None
        extra: dict[str, object] = {MARK_KEY: self._name.mark}
        if self._instance.features.preview_method:
            extra["preview_method"] = self._params.preview or self._means.settings.preview_method
        body: dict[str, object] = {
            "prompt": self._built.graph,
            "client_id": self._instance.client_id,
            "extra_data": extra,
        }
        if self._instance.features.own_prompt_id:
            body["prompt_id"] = self._name.prompt_id
        crash_point("before.comfy-post")
        await self._instance.post(self, body)
        crash_point("after.comfy-post")

    # --- waiting for the end ---

    async def _end(self) -> Ended | None:
        """The prompt's end; None if it goes on without us.  Lost where the instance cannot be worked with."""
        assignment = self._assignment
        while self._ended is None:
            if assignment.stop_reason is StopReason.SUPERSEDED:
                return None  # by the job's record, its worker decides what becomes of the prompt
            if assignment.stop_reason is StopReason.DRAINED and not assignment.retired:
                return None
            if assignment.stop_reason is not None and await self._remove():
                return None
            self._require_reachable()
            if self._ended is None:
                await wait_up_to(assignment.news, WAIT_S, self._clock)
                assignment.news.clear()
                await self._heed_finding()
        return self._ended

    async def _remove(self) -> bool:
        """Ask ComfyUI to take the prompt out; whether that is all that can be done."""
        self.take(self.run.cancelling(self._clock.monotonic()))
        self._removals += 1
        crash_point("before.comfy-remove")
        try:
            await self._instance.remove(self.run.prompt_id)
        except Unreachable as error:
            log.info("a prompt cannot be removed now", reason=error.detail)
        crash_point("after.comfy-remove")
        self._instance.look_soon()
        return self._assignment.stop_reason is not StopReason.CANCELLED and self._removals >= MOST_REMOVALS

    def _require_reachable(self) -> None:
        """Lost where the instance is away for too long; for less long where nobody listens at its port."""
        observation, limits = self._instance.observation, self._instance.limits
        if observation.away_since is None:
            return
        away_s = self._clock.monotonic() - observation.away_since
        longest_s = limits.refused_s if observation.refused else limits.unreachable_s
        if away_s > longest_s:
            raise Lost(f"The instance {self._instance.name} cannot be reached since {away_s:.0f} s.")

    def _require_answer(self, since: float) -> None:
        """Lost where the instance can be reached and yet has refused the same for as long, say with 500s."""
        self._require_reachable()
        asked_s = self._clock.monotonic() - since
        if asked_s > self._instance.limits.unreachable_s:
            raise Lost(f"The instance {self._instance.name} gives no usable answer since {asked_s:.0f} s.")

    async def _heed_finding(self) -> None:
        finding, self._finding = self._finding, None
        if finding is None or self._ended is not None:
            return
        if finding.remedy is Remedy.UNHEALTHY:
            with contextlib.suppress(Unreachable):
                await self._instance.remove(self.run.prompt_id)
            raise Lost(finding.detail)
        with contextlib.suppress(Unreachable):
            await self._instance.remove(self.run.prompt_id)

    # --- after the end ---

    async def _conclude(self, ended: Ended) -> str | None:
        """Keep what was made and write how it ended; None if it has to run once more."""
        assignment, delivery = self._assignment, self._means.delivery
        stop = assignment.stop_reason
        if stop is StopReason.SUPERSEDED:
            return StopReason.SUPERSEDED
        if ended.outcome is Outcome.REFUSED:
            return await delivery.fail(
                assignment, ErrorCode.WORKFLOW_INVALID, _refusal(ended), node_errors=ended.node_errors
            )
        if ended.outcome is Outcome.LOST:
            if ended.reason in (EndReason.DENIED, EndReason.NEVER_QUEUED):
                return await self._give_back_unsent(ended)
            raise Lost(ended.message)
        if stop is StopReason.DRAINED and ended.outcome is Outcome.INTERRUPTED:
            return await delivery.give_back(assignment)
        assignment.progress.enter(Phase.STORING)
        assignment.changed.set()
        kept = await self._keep(ended)
        if ended.outcome is Outcome.SUCCESS and self._runs_again(ended, kept):
            await self._forget()
            return None
        crash_point("before.comfy-end")
        state = await self._write(ended, kept)
        crash_point("after.comfy-end")
        if state != StopReason.SUPERSEDED:  # then whoever has the job now finds it in the history
            await self._forget()
        crash_point("after.comfy-forget")
        return state

    async def _give_back_unsent(self, ended: Ended) -> str:
        """ComfyUI has nothing of it, so nothing is lost; but it is not offered for ever."""
        delivery = self._means.delivery
        if self._assignment.job.attempt < MOST_ATTEMPTS:
            await self._clock.sleep(RETRY_S)
            return await delivery.give_back(self._assignment)
        message = f"ComfyUI took this in none of {MOST_ATTEMPTS} attempts: {ended.message}"
        return await delivery.fail(self._assignment, ErrorCode.WORKFLOW_FAILED, message)

    async def _write(self, ended: Ended, kept: Kept) -> str:
        assignment, delivery = self._assignment, self._means.delivery
        meta = self._meta(ended)
        if ended.outcome is Outcome.INTERRUPTED and assignment.stop_reason is StopReason.CANCELLED:
            return await delivery.cancel(assignment, kept.outputs, meta)
        fail = partial(delivery.fail, assignment, outputs=kept.outputs, meta=meta)
        if ended.outcome is Outcome.INTERRUPTED:
            return await fail(
                ErrorCode.WORKFLOW_FAILED, "The workflow was interrupted in ComfyUI, by somebody else."
            )
        if ended.outcome is Outcome.FAILED:
            return await fail(
                ErrorCode.WORKFLOW_FAILED, ended.message or "A node failed.", node_errors=ended.node_errors
            )
        if ended.node_errors:
            return await fail(
                ErrorCode.WORKFLOW_INVALID,
                "ComfyUI refused a part of the workflow and ran the rest.",
                node_errors=ended.node_errors,
            )
        if kept.gone or ended.missing or kept.dropped:
            return await fail(ErrorCode.WORKFLOW_FAILED, _incomplete(ended, kept))
        if self._params.workflowId:
            self._means.times.learn(self._params.workflowId, self._graph, ended.run)
        assignment.progress.done()
        await tell(assignment, self._means.bus)
        return await delivery.complete(assignment, kept.outputs, meta)

    async def _keep(self, ended: Ended) -> Kept:
        """The outputs, however long the instance takes to be back; what it lost meanwhile is gone."""
        nodes = self._built.outputs if self._built is not None else frozenset()
        failing_since: float | None = None
        while True:
            try:
                return await self._means.outputs.keep(
                    self._instance.client, ended.outputs, self._sent, nodes=nodes
                )
            except Unreachable as error:
                log.info("outputs wait for their instance", reason=error.detail)
                if self._assignment.stop_reason is StopReason.DRAINED:
                    raise Lost("The bridge ended before the outputs were fetched.") from None
                failing_since = self._clock.monotonic() if failing_since is None else failing_since
                self._require_answer(failing_since)
                await self._clock.sleep(RETRY_S)

    def _runs_again(self, ended: Ended, kept: Kept) -> bool:
        """Whether the prompt is to be made to work once more, and then prepare that."""
        nodes = {self._graph.fold(file.node) for file in kept.gone} | set(ended.missing)
        if not nodes or self._name.run + 1 >= MOST_RUNS or self._assignment.stop_reason is not None:
            return False
        log.info("outputs are gone, the prompt runs again", nodes=sorted(nodes))
        name = PromptName(
            self._name.platform, self._name.job, self._assignment.job.attempt, self._name.run + 1
        )
        assert self._built is not None
        graph = with_changed_inputs(self._built.graph, nodes, name.prompt_id)
        self._name = name
        self._built = msgspec.structs.replace(self._built, graph=graph)
        self._sent, self._sent_bytes = [], 0
        return True

    async def _forget(self) -> None:
        """Leave no history behind; one that stays is found at the next connect."""
        with contextlib.suppress(Unreachable):
            await self._instance.client.forget(self.run.prompt_id)

    async def _tidy(self) -> None:
        if self._ended is not None:
            await self._forget()

    def _meta(self, ended: Ended) -> JobMeta:
        built = self._built
        return JobMeta(
            seed=built.seed or 0 if built is not None else 0,
            backend=BACKEND,
            workflow=self._params.workflowId or "",
            run_seconds=round(ended.seconds or 0.0, 3),
            comfy=ended.run,
        )

    # --- before the start ---

    async def _classes(self) -> NodeClasses:
        """The instance's nodes; a worker that has just begun may have a job before it knows them."""
        limit_at = self._clock.monotonic() + self._instance.limits.timeouts.object_info_s
        while self._instance.classes is None:
            if self._assignment.stop_reason is not None:
                raise Lost("The job was stopped before its instance was known.")
            self._require_answer(limit_at)
            await self._clock.sleep(RETRY_S)
        return self._instance.classes

    def _workflow(self) -> Workflow | None:
        try:
            return require_workflow(self._params, self._means.catalogue())
        except ReverieError as error:
            raise Invalid(error.code, error.message) from None

    async def _build(self, workflow: Workflow | None, classes: NodeClasses) -> Built:
        """The graph with its pictures brought, checked against the instance."""
        self._check(workflow, classes)
        keys = image_keys(self._params, workflow)
        failing_since: float | None = None
        while True:
            try:
                files = await self._means.inputs.bring(keys, self._instance.client)
                break
            except ReverieError as error:
                raise Invalid(error.code, error.message) from None
            except Unreachable:
                failing_since = self._clock.monotonic() if failing_since is None else failing_since
                self._require_answer(failing_since)
                if self._assignment.stop_reason is not None:
                    return self._checked(workflow, classes)
                await self._clock.sleep(RETRY_S)
        return self._made(workflow, classes, files)

    def _check(self, workflow: Workflow | None, classes: NodeClasses) -> None:
        lacking = sorted(workflow.tags.difference(self._tags)) if workflow is not None else []
        if lacking:
            raise Invalid(
                ErrorCode.WORKFLOW_INVALID, f"No instance has what this workflow wants: {', '.join(lacking)}."
            )
        found = verdict(self._params, workflow, classes=classes, allowed=self._means.settings.nodes)
        if found.code:
            code = ErrorCode(found.code)
            raise Invalid(code, found.message, found.node_errors)

    def _checked(self, workflow: Workflow | None, classes: NodeClasses) -> Built:
        """The graph as far as it can be known without bringing pictures."""
        return self._made(workflow, classes, None)

    def _made(self, workflow: Workflow | None, classes: NodeClasses, files: dict[str, str] | None) -> Built:
        try:
            return build(
                self._params, workflow, classes=classes, seed_from=self._assignment.job.id, files=files
            )
        except ReverieError as error:
            raise Invalid(error.code, error.message) from None

    async def _find_earlier(self) -> _Found | None:
        """A prompt that this or an earlier attempt sent to this instance; queue first, then history."""
        failing_since: float | None = None
        while True:
            try:
                began = self._clock.monotonic()
                queue = await self._instance.client.queue()
                found = _in_queue(queue, self._name, began) if queue is not None else None
                return found or await self._in_history(queue, began)
            except Unreachable as error:
                log.info("it waits to see whether its prompt is there", reason=error.detail)
                if self._assignment.stop_reason in (StopReason.DRAINED, StopReason.SUPERSEDED):
                    return None
                failing_since = self._clock.monotonic() if failing_since is None else failing_since
                self._require_answer(failing_since)
                await self._clock.sleep(RETRY_S)

    async def _in_history(self, queue: Queue | None, began: float) -> _Found | None:
        client = self._instance.client
        if not self._instance.features.own_prompt_id:
            return _ended_well(await client.recent_history(), self._name, Look(began, queue, None))
        for name in self._name.earlier():
            history = await client.history(name.prompt_id)
            found = _ended_well(history, self._name, Look(began, queue, None))
            if found is not None:
                return found
        return None


class _Found(msgspec.Struct, frozen=True):
    """A prompt of the same job, and the look that found it."""

    name: PromptName
    prompt_id: str
    client_id: str
    look: Look


def _in_queue(queue: Queue, name: PromptName, began: float) -> _Found | None:
    for prompt in (*queue.running, *queue.pending):
        theirs = read_mark(prompt.mark, platform=name.platform)
        if theirs is not None and theirs.job == name.job and prompt.prompt_id:
            return _Found(theirs, prompt.prompt_id, prompt.client_id, Look(began, queue, None))
    return None


def _ended_well(history: History | None, name: PromptName, look: Look) -> _Found | None:
    """The latest prompt of the job that ran to an end of its own; one that was stopped is nobody's result."""
    entries = history.entries if history is not None else ()
    for entry in reversed(entries):
        theirs = read_mark(entry.mark, platform=name.platform)
        if theirs is None or theirs.job != name.job or entry.status is HistoryStatus.INTERRUPTED:
            continue
        seen = msgspec.structs.replace(look, history=history)
        return _Found(theirs, entry.prompt_id, entry.prompt.client_id, seen)
    return None


def _refusal(ended: Ended) -> str:
    if ended.message:
        return ended.message
    return ended.node_errors[0].message if ended.node_errors else "ComfyUI refused the workflow."


def _incomplete(ended: Ended, kept: Kept) -> str:
    if kept.dropped:
        return f"{kept.dropped} outputs were too many or too large to be kept."
    if kept.gone:
        return f"{len(kept.gone)} output files were gone before they could be fetched."
    return f"The pictures of node {', '.join(ended.missing)} came while nobody listened."
