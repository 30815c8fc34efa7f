"""The rows of `reverie status` about the machines that a monitor watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from reverie_protocol.nodes import Gpu, GpuState, NodeStatus

Row = tuple[str, Text]


def node_rows(nodes: Sequence[NodeStatus]) -> Iterator[Row]:
    """A row per node and per GPU, or one that says that nobody watches."""
    if not nodes:
        yield "monitor", Text("none is running", style="yellow")
    for node in nodes:
        yield "node", _node(node)
        for gpu in node.gpus:
            yield f"GPU {gpu.index}", _gpu(gpu)


def _node(node: NodeStatus) -> Text:
    parts = [node.node]
    if node.host is not None:
        used_gb = node.host.memory_total_gb - node.host.memory_available_gb
        parts.append(f"{used_gb:.1f} of {node.host.memory_total_gb:.1f} GB of memory")
    if node.disk is not None:
        parts.append(f"{node.disk.free_gb:.0f} GB free on the disk")
    text = Text(", ".join(parts))
    troubles = [node.driver_error] if node.driver_error else []
    troubles += [f"{service.name}: {service.reason}" for service in node.services if not service.ok]
    for trouble in troubles:
        text.append(f"  {trouble}", style="red")
    return text


def _gpu(gpu: Gpu) -> Text:
    if gpu.state is GpuState.LOST:
        return Text(f"{gpu.name}, lost: {gpu.detail}", style="red")
    figures = [gpu.name]
    if gpu.total_gb is not None and gpu.used_gb is not None:
        figures.append(f"{gpu.used_gb:.1f} of {gpu.total_gb:.1f} GB")
    for figure, unit in ((gpu.utilization_percent, "%"), (gpu.temperature_c, "°C"), (gpu.power_w, "W")):
        if figure is not None:
            figures.append(f"{figure:.0f} {unit}")
    text = Text(", ".join(figures))
    if gpu.throttled:
        text.append(f"  {', '.join(gpu.throttled)}", style="yellow")
    return text
