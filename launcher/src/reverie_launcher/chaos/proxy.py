"""A TCP proxy that delays, cuts, half-opens and garbles the connections through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
LOOPBACK: Final = "127.0.0.1"
RESET: Final = struct.pack("ii", 1, 0)  # linger on, 0 s: the other side sees RST instead of an orderly end
#: No valid WebSocket frame and no valid request begins with it.
GARBAGE: Final = b"\xff\x00\xff\x13chaos\x00" * 8


class FaultProxy:
    """Listens on `port` and passes everything on to `target`; a method per fault."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._refusing = False
        self._delay_s = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pairs: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; OSError if the port is taken."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def stop(self) -> None:
        """End everything; idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Connections through it now."""
        return len(self._pairs)

    def cut(self) -> None:
        """Break every connection at once (RST)."""
        for ends in tuple(self._pairs.items()):
            for writer in ends:
                with contextlib.suppress(OSError):  # closed already, and about to be forgotten here
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()

    def refuse(self) -> None:
        """Break every connection, and each new one until `heal`."""
        self._refusing = True
        self.cut()

    def delay(self, seconds: float) -> None:
        """Hold each piece of data back for so long, in both directions, until `heal`."""
        self._delay_s = seconds

    def stall(self) -> None:
        """Connections stay open, new ones are taken, and nothing comes through, until `heal`."""
        self._flowing.clear()

    def garble(self) -> None:
        """Put garbage into what goes to the target."""
        for upstream in tuple(self._pairs.values()):
            if not upstream.is_closing():
                upstream.write(GARBAGE)

    def heal(self) -> None:
        """As it should be; what was held back goes through."""
        self._refusing = False
        self._delay_s = 0.0
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._refusing:
                return
            await self._flowing.wait()
            await self._join(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(LOOPBACK, self._target)
        self._pairs[writer] = upstream_writer
        ways = (
            asyncio.create_task(self._pass(reader, upstream_writer)),
            asyncio.create_task(self._pass(upstream_reader, writer)),
        )
        try:
            # One side ended: a half-closed connection is of no use to any protocol spoken here.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._pairs[writer]
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            upstream_writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await upstream_writer.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                if writer.is_closing():
                    return
                writer.write(data)
                await writer.drain()
