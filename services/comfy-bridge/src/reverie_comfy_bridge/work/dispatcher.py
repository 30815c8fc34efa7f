"""Which instance takes which job: the least loaded of those that can run it.

Each instance's worker claims for itself, by the rule of `reverie_jobs`.  What only the bridge can say comes from
here: whether an instance could run a job's graph, and whether another one of this bridge should have it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from reverie_comfy_bridge.instance.actor import Instance
from reverie_comfy_bridge.workflows.catalogue import Catalogue
from reverie_comfy_bridge.workflows.offers import require_workflow, verdict
from reverie_protocol.errors import ReverieError
from reverie_protocol.instances import ComfyInstance
from reverie_protocol.jobs import ComfyParams, Job
from reverie_runtime.clock import Clock

#: How long a job waits for the instance that may still have its prompt, in seconds: until it is back, and until one
#: that is there has been asked.
FORMER_S: Final = 5.0
ASKED_S: Final = 20.0
#: Verdicts that are remembered.
MAX_VERDICTS: Final = 20_000


class Candidate(Protocol):
    """An instance as the dispatcher sees it.

    `name` is that of its worker, `wish` what its record wants of it, `wanted` whether it is to be served.
    """

    name: str
    wish: ComfyInstance
    instance: Instance
    wanted: bool

    @property
    def free(self) -> bool:
        """Whether it takes work now: connected, not draining, with room."""

    @property
    def load(self) -> int:
        """Prompts that it has to do, ours and others'."""

    @property
    def leftovers(self) -> frozenset[str]:
        """Ids of waiting jobs whose former prompt is still inside it, or has ended there and can be fetched."""

    def follows(self, prompt_id: str) -> bool:
        """Whether it has a job whose prompt this is."""

    def unsure_of(self, job: Job) -> bool:
        """Whether its history was not yet searched for what a waiting job's former attempts left."""

    def wake(self) -> None:
        """Something changed that may let it claim."""


class Dispatcher:
    """Looks over all of the bridge's instances."""

    def __init__(
        self, catalogue: Callable[[], Catalogue], *, allowed_nodes: tuple[str, ...], clock: Clock
    ) -> None:
        self._catalogue = catalogue
        self._allowed = frozenset(allowed_nodes)
        self._clock = clock
        self._verdicts: OrderedDict[tuple[str, str, int, tuple[str, ...]], bool] = OrderedDict()
        self.candidates: Callable[[], Sequence[Candidate]] = tuple
        #: Whether other bridges have instances, of which we cannot say what they could run.
        self.elsewhere: Callable[[], bool] = lambda: False

    def claimed(self, candidate: Candidate) -> None:
        """An instance has taken a job: what it left may be for others now."""
        for each in self.candidates():
            if each is not candidate:
                each.wake()

    def follows(self, prompt_id: str) -> bool:
        """Whether an instance of this bridge has a job whose prompt this is."""
        return any(each.follows(prompt_id) for each in self.candidates())

    def forget_verdicts(self) -> None:
        """The workflows have changed."""
        self._verdicts.clear()

    def takes(self, candidate: Candidate, job: Job) -> bool:
        """Whether this instance is the one to take a job now."""
        others = [each for each in self.candidates() if each is not candidate and each.wanted]
        if any(job.id in other.leftovers for other in others if other.instance.usable):
            return False
        if job.id in candidate.leftovers:
            return True
        if self._is_awaited_elsewhere(job, others):
            return False
        if not self.fits(candidate, job):
            return self._is_for_nobody(candidate, job, others)
        rivals = (other for other in others if other.free and other.load < candidate.load)
        return not any(self.fits(rival, job) for rival in rivals)

    def fits(self, candidate: Candidate, job: Job) -> bool:
        """Whether an instance could run a job, by the nodes and models that it has."""
        instance = candidate.instance
        if instance.classes is None or not isinstance(job.params, ComfyParams):
            return False
        key = (job.id, instance.name, instance.edition, candidate.wish.tags)
        known = self._verdicts.get(key)
        if known is None:
            known = self._judge(job.params, candidate)
            self._verdicts[key] = known
            while len(self._verdicts) > MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        return known

    def _judge(self, params: ComfyParams, candidate: Candidate) -> bool:
        classes = candidate.instance.classes
        try:
            workflow = require_workflow(params, self._catalogue())
        except ReverieError:
            return False
        assert classes is not None
        if workflow is not None and not workflow.tags.issubset(candidate.wish.tags):
            return False
        return not verdict(params, workflow, classes=classes, allowed=self._allowed).code

    def _is_awaited_elsewhere(self, job: Job, others: list[Candidate]) -> bool:
        """Whether another instance may still have the job's former prompt, and has not looked yet."""
        if job.attempt == 0:
            return False
        if any(not other.instance.tried.is_set() for other in others):
            return True
        waited_s = self._clock.time() - job.enqueued_at
        asked = [other for other in others if other.instance.usable or other.instance.starting]
        if waited_s <= ASKED_S and any(other.unsure_of(job) for other in asked):
            return True
        former = {worker.rpartition(".")[0] for worker in job.lost_workers[-1:]}
        return waited_s <= FORMER_S and any(
            other.name in former and not other.instance.usable for other in others
        )

    def _is_for_nobody(self, candidate: Candidate, job: Job, others: list[Candidate]) -> bool:
        """Whether no instance can run it although all can be asked: then it is taken, and fails with the reason."""
        if (
            self.elsewhere()
            or not candidate.instance.usable
            or not all(other.instance.usable for other in others)
        ):
            return False
        if any(self.fits(other, job) for other in others):
            return False
        return candidate.name <= min((other.name for other in others), default=candidate.name)
