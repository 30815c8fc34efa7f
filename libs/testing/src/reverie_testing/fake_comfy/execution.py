"""One prompt's run: its nodes in their order, the events on the way, and what the history keeps of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from reverie_testing.fake_comfy.cache import Cache, signatures
from reverie_testing.fake_comfy.features import Features
from reverie_testing.fake_comfy.files import Files
from reverie_testing.fake_comfy.hub import Hub
from reverie_testing.fake_comfy.nodes import NodeClass, NodeFailure, Result
from reverie_testing.fake_comfy.order import Graph, chosen, distances, is_link, links, reached, recursive
from reverie_testing.fake_comfy.progress import Progress
from reverie_testing.fake_comfy.queue import Item
from reverie_testing.fake_comfy.task import NodeTask


class Interrupted(Exception):
    """Somebody asked the running prompt to end."""


class Host(Protocol):
    """What a run needs of its server."""

    features: Features
    files: Files
    hub: Hub
    cache: Cache
    classes: dict[str, NodeClass]
    pace: float
    preview_method: str
    interrupted: bool
    last_node: str | None


@dataclass
class Run:
    """One prompt while it runs."""

    host: Host
    item: Item
    graph: Graph = field(init=False)
    #: What each finished node gave.
    results: dict[str, Result] = field(default_factory=dict)
    #: Nodes that have become other nodes, whose ends they wait for.
    expanded: dict[str, Result] = field(default_factory=dict)
    #: The node of the submitted graph that a node belongs to; itself, unless it came from an expansion.
    display: dict[str, str] = field(default_factory=dict)
    parent: dict[str, str] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    messages: list[list[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = dict(self.item[2])
        self.prompt_id = self.item[1]
        self.client = self.item[3].get("client_id")
        self.progress = Progress(self)
        self.signatures = signatures(self.graph, self.host.files)
        self._tasks: dict[asyncio.Task[Result], str] = {}

    async def run(self) -> str:
        """Run to the end; "success", "error" or "interrupted". WorkerExit as a node raises it."""
        self.host.interrupted = False
        self.message("execution_start", {})
        cached = [node_id for node_id in self.graph if self.signatures[node_id] in self.host.cache]
        self.message("execution_cached", {"nodes": cached})
        try:
            await self._nodes(cached)
        except Interrupted:
            outcome = "interrupted"
        except NodeFailure as error:
            self._failed(error)
            outcome = "error"
        else:
            outcome = "success"
            if self.host.features.numbered:
                self.message("execution_success", {})
        finally:
            for task in self._tasks:
                task.cancel()
            self.host.cache.keep(set(self.signatures.values()), plenty=self.host.features.cache_by_memory)
            self.host.last_node = None
        return outcome

    def entry(self, outcome: str) -> dict[str, Any]:
        """What the history says of it."""
        success = outcome == "success"
        status = {
            "status_str": "success" if success else "error",
            "completed": success,
            "messages": self.messages,
        }
        entry: dict[str, Any] = {"outputs": self.outputs, "status": status}
        return entry | {"meta": self.meta} if self.host.features.numbered else entry

    def message(self, kind: str, data: dict[str, Any], *, everybody: bool = False) -> None:
        """An event that the history keeps; told to the owner, if there is one."""
        told = {"prompt_id": self.prompt_id, **data} if kind != "execution_cached" else data
        if kind == "execution_cached":
            told = {**data, "prompt_id": self.prompt_id}
        if self.host.features.numbered:
            told["timestamp"] = int(time.time() * 1000)
        self.messages.append([kind, told])
        if self.client is not None or everybody:
            self.host.hub.tell(kind, told, self.client)

    def check(self, node_id: str) -> None:
        """Interrupted, with its message, if somebody asked."""
        if self.host.interrupted:
            self.host.interrupted = False
            shown = self.display.get(node_id, node_id)
            data = {"node_id": shown, "node_type": self.graph[shown]["class_type"], "executed": self.executed}
            self.message("execution_interrupted", data, everybody=True)
            raise Interrupted

    async def _nodes(self, cached: list[str]) -> None:
        outputs = self.item[4]
        far = distances(self.graph, outputs)
        wanted = reached(self.graph, outputs, cached)
        legacy = [] if self.host.features.numbered else recursive(self.graph, outputs)
        for node_id in wanted:
            if node_id in cached:
                self._reuse(node_id, self.host.cache[self.signatures[node_id]], node_id in outputs)
        while waiting := [node_id for node_id in wanted if node_id not in self.results]:
            ready = [node_id for node_id in waiting if self._ready(node_id)]
            if not ready:
                await self._wait()
                continue
            node_id = next(n for n in legacy if n in ready) if legacy else chosen(ready, far)
            if node_id in self.expanded:
                self._collect(node_id)
                continue
            await self._start(node_id)
            wanted += [new for new in self.graph if self.parent.get(new) == node_id]

    def _ready(self, node_id: str) -> bool:
        if node_id in self._tasks.values():
            return False
        if node_id in self.expanded:
            return all(v[0] in self.results for v in self.expanded[node_id].values if is_link(v))
        return all(source in self.results for source in links(self.graph[node_id]))

    async def _start(self, node_id: str) -> None:
        node = self.host.classes[self.graph[node_id]["class_type"]]
        self.progress.start(node_id)
        self.host.last_node = self.display.get(node_id, node_id)
        if self.client is not None:
            self.host.hub.tell("executing", self._about(node_id), self.client)
        self.check(node_id)
        inputs = {
            name: self.results[value[0]].values[int(value[1])] if is_link(value) else value
            for name, value in self.graph[node_id].get("inputs", {}).items()
            if name in node.inputs()
        }
        call = NodeTask(self, node_id)
        if node.asynchronous:
            self._tasks[asyncio.ensure_future(node.run(call, **inputs))] = node_id
            return
        try:
            result = await node.run(call, **inputs)
        except (NodeFailure, Interrupted) as error:
            error.args = (*error.args, node_id)
            raise
        self._finish(node_id, result)

    async def _wait(self) -> None:
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            node_id = self._tasks.pop(task)
            try:
                result = task.result()
            except (NodeFailure, Interrupted) as error:
                error.args = (*error.args, node_id)
                raise
            self._finish(node_id, result)

    def _finish(self, node_id: str, result: Result) -> None:
        if result.expand is not None:
            self._expand(node_id, result)
            return
        self.results[node_id] = result
        if self.host.classes[self.graph[node_id]["class_type"]].cacheable:
            self.host.cache[self.signatures[node_id]] = result
        self.executed.append(node_id)
        if result.ui is not None:
            self._show(node_id, result.ui)
        self.progress.finish(node_id)

    def _expand(self, node_id: str, result: Result) -> None:
        prefix = f"{node_id}.0.0."

        def renamed(value: Any) -> Any:
            return [prefix + value[0], value[1]] if is_link(value) else value

        for name, node in (result.expand or {}).items():
            inputs = {key: renamed(value) for key, value in node["inputs"].items()}
            self.graph[prefix + name] = {**node, "inputs": inputs}
            self.display[prefix + name] = self.display.get(node_id, node_id)
            self.parent[prefix + name] = node_id
        self.signatures.update(signatures(self.graph, self.host.files))
        self.expanded[node_id] = Result(tuple(renamed(value) for value in result.values))

    def _collect(self, node_id: str) -> None:
        links_ = self.expanded.pop(node_id).values
        values = tuple(self.results[v[0]].values[int(v[1])] if is_link(v) else v for v in links_)
        self._finish(node_id, Result(values))

    def _reuse(self, node_id: str, result: Result, output: bool) -> None:
        self.results[node_id] = result
        if output and result.ui is not None:
            self._show(node_id, result.ui, cached=True)
            self.progress.reuse(node_id)

    def _show(self, node_id: str, ui: dict[str, Any], *, cached: bool = False) -> None:
        features = self.host.features
        if not cached or self.client is not None or features.outputs_without_client:
            self.outputs[node_id] = ui
            display = self.display.get(node_id, node_id)
            parent = self.parent.get(node_id)
            self.meta[node_id] = {
                "node_id": node_id,
                "display_node": display,
                "parent_node": parent,
                "real_node_id": display,
            }
        if self.client is not None and (features.numbered or not cached):
            about = self._about(node_id)
            about["output"] = ui
            about["prompt_id"] = about.pop("prompt_id")
            self.host.hub.tell("executed", about, self.client)

    def _about(self, node_id: str) -> dict[str, Any]:
        about = {"node": node_id}
        if self.host.features.numbered:
            about["display_node"] = self.display.get(node_id, node_id)
        return about | {"prompt_id": self.prompt_id}

    def _failed(self, error: NodeFailure) -> None:
        node_id = self.display.get(error.args[-1], error.args[-1])
        numbered = self.host.features.numbered
        inputs = self.graph[node_id].get("inputs", {})
        finished = list(self.results)
        data = {
            "node_id": node_id,
            "node_type": self.graph[node_id]["class_type"],
            "executed": self.executed,
            "exception_message": f"{error.args[0]}\n" if numbered else error.args[0],
            "exception_type": error.kind,
            "traceback": [f'  File "fake.py", line 1, in {node_id}\n'],
            "current_inputs": {name: [str(value)] for name, value in inputs.items()},
            "current_outputs": list(self.graph) if numbered else {name: [] for name in finished},
        }
        self.message("execution_error", data)
