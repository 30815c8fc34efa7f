"""A real ComfyUI that a test may start and kill, by the command that the environment gives."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess

import httpx

#: A server needs up to a minute on a small machine.
START_TIMEOUT_S = 180.0


class ComfyProcess:
    """The server that a command starts at an address; its output is dropped: an unread pipe would block it."""

    def __init__(self, url: str, command: str) -> None:
        self.url = url
        self._command = shlex.split(command)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return when it answers; TimeoutError, or RuntimeError if it ended."""
        quiet = subprocess.DEVNULL
        # Of no event loop: it may outlive the one that started it.
        self._process = subprocess.Popen(  # noqa: ASYNC220 -- as said
            self._command, stdin=quiet, stdout=quiet, stderr=quiet
        )
        async with asyncio.timeout(START_TIMEOUT_S), httpx.AsyncClient(trust_env=False) as http:
            while not await self._answers(http):
                if self._process.poll() is not None:
                    raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}")
                await asyncio.sleep(0.2)

    async def kill(self) -> None:
        """SIGKILL; idempotent."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def _answers(self, http: httpx.AsyncClient) -> bool:
        try:
            return (await http.get(f"{self.url}/system_stats")).status_code == 200
        except httpx.TransportError:
            return False


def comfy_process() -> ComfyProcess | None:
    """The server of COMFYUI_URL and COMFYUI_COMMAND; None if one of them is missing."""
    url, command = os.environ.get("COMFYUI_URL"), os.environ.get("COMFYUI_COMMAND")
    return ComfyProcess(url.rstrip("/"), command) if url and command else None
