"""Recording aids: a pack of nodes for a real ComfyUI (copy this folder into its `custom_nodes`).

They give, without any model, what the conformance suite needs: a loop with progress and previews, a failure, a node
that becomes others, one that runs beside others, and one that ends ComfyUI's worker.
"""

# ruff: noqa: D102, N802, PLR0917 -- ComfyUI's conventions: names, and inputs as arguments

from __future__ import annotations

import asyncio
import time
from typing import Any

import comfy.utils
import torch
from PIL import Image
from server import PromptServer

Inputs = dict[str, dict[str, Any]]


class RecLoop:
    """Steps that take their time, and a picture of noise."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "rec"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "steps": ("INT", {"default": 10, "min": 1, "max": 100000}),
                "delay_ms": ("INT", {"default": 100, "min": 0, "max": 60000}),
                "size": ("INT", {"default": 64, "min": 8, "max": 4096}),
                "preview": (["none", "JPEG", "PNG"],),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63}),
            },
            "optional": {
                "fail_at": ("INT", {"default": 0, "min": 0, "max": 100000}),
                "text": ("BOOLEAN", {"default": False}),
                # progress as the time of day, to measure latencies
                "clock": ("BOOLEAN", {"default": False}),
                # no progress at all: cannot be interrupted
                "deaf": ("BOOLEAN", {"default": False}),
                # previews that do not compress
                "noise": ("BOOLEAN", {"default": False}),
                "image": ("IMAGE",),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def run(
        self,
        steps: int,
        delay_ms: int,
        size: int,
        preview: str,
        seed: int,
        fail_at: int = 0,
        text: bool = False,
        clock: bool = False,
        deaf: bool = False,
        noise: bool = False,
        image: Any = None,
        unique_id: str | None = None,
    ) -> tuple[Any]:
        bar = comfy.utils.ProgressBar(steps)
        for step in range(1, steps + 1):
            time.sleep(delay_ms / 1000)
            if fail_at and step == fail_at:
                raise ValueError(f"RecLoop fails at step {step} on request")
            if deaf:
                continue
            shown = None
            if preview != "none":
                picture = Image.new("RGB", (size, size), (255 * step // steps, seed % 256, 128))
                if noise:
                    picture = Image.effect_noise((size, size), 200).convert("RGB")
                shown = (preview, picture, None)
            if text:
                server = PromptServer.instance
                server.send_progress_text(f"step {step}/{steps}", unique_id, server.client_id)
            if clock:
                bar.update_absolute(time.time(), 4e9, shown)
            else:
                bar.update_absolute(step, steps, shown)
        generator = torch.Generator().manual_seed(seed)
        return (torch.rand((1, size, size, 3), generator=generator),)


class RecFail:
    """A failure."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "rec"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"image": ("IMAGE",), "message": ("STRING", {"default": "boom"})}}

    def run(self, image: Any, message: str) -> tuple[Any]:
        raise RuntimeError(message)


class RecExit(RecFail):
    """Leaves the executor and ends ComfyUI's worker thread: nothing runs any more until a restart."""

    def run(self, image: Any, message: str) -> tuple[Any]:
        raise SystemExit(message)


class RecExpand:
    """Becomes a RecLoop and an ImageInvert while it runs."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "rec"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"steps": ("INT", {"default": 3}), "seed": ("INT", {"default": 0})}}

    def run(self, steps: int, seed: int) -> dict[str, Any]:
        from comfy_execution.graph_utils import GraphBuilder  # absent before August 2024

        graph = GraphBuilder()
        loop = graph.node("RecLoop", steps=steps, delay_ms=50, size=32, preview="JPEG", seed=seed)
        inverted = graph.node("ImageInvert", image=loop.out(0))
        return {"result": (inverted.out(0),), "expand": graph.finalize()}


class RecAsync:
    """Steps that leave room for other nodes at the same time."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "rec"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {
            "required": {
                "steps": ("INT", {"default": 5}),
                "delay_ms": ("INT", {"default": 50}),
                "seed": ("INT", {"default": 0}),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    async def run(self, steps: int, delay_ms: int, seed: int, unique_id: str) -> tuple[Any]:
        bar = comfy.utils.ProgressBar(steps, node_id=unique_id)
        for step in range(1, steps + 1):
            await asyncio.sleep(delay_ms / 1000)
            bar.update_absolute(step, steps)
        return (torch.full((1, 32, 32, 3), (seed % 7) / 7),)


#: What ComfyUI asks of a pack.
NODE_CLASS_MAPPINGS = {node.__name__: node for node in (RecLoop, RecFail, RecExit, RecExpand, RecAsync)}
