"""One WebSocket to one ComfyUI, from its opening to its end.

What it says goes to a plain function that returns at once: whoever reads too slowly here would hold up ComfyUI's
events for all of its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidURI

from reverie_comfy_bridge.instance.address import socket_url
from reverie_comfy_bridge.instance.client import Unreachable
from reverie_comfy_bridge.instance.reasons import Reason, close_reason
from reverie_comfy_bridge.wire.frames import Frame, read_frame

#: Largest message that is taken, in bytes: a picture that a node sends, uncompressed at worst.
MAX_MESSAGE_BYTES: Final = 128 << 20
CLOSE_TIMEOUT_S: Final = 2.0
#: The first text of a client; a server that knows it answers with its own and then says whose a preview is.
FLAGS: Final = msgspec.json.encode(
    {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
).decode()


class _Straight(connect):
    """Goes to the address that an administrator named, and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception:
        """A redirect is an error like any other."""
        return exc


class InstanceSocket:
    """An open socket.  Close it fully before another one of its client id is opened: that one would be deaf."""

    def __init__(self, connection: ClientConnection, client_id: str) -> None:
        self._connection = connection
        self.client_id = client_id
        self._closed_by_us: Reason | None = None

    @classmethod
    async def open(cls, url: str, client_id: str, *, timeout_s: float) -> InstanceSocket:
        """Open one and say our feature flags; Unreachable."""
        try:
            connection = await _Straight(
                socket_url(url, client_id),
                # Deflating previews costs ComfyUI's one event loop tens of milliseconds each.
                compression=None,
                origin=None,
                proxy=None,
                user_agent_header="reverie-comfy-bridge",
                open_timeout=timeout_s,
                close_timeout=CLOSE_TIMEOUT_S,
                # We ping ourselves: a late pong is a finding, not the end.
                ping_interval=None,
                max_size=MAX_MESSAGE_BYTES,
            )
            await connection.send(FLAGS)
        except TimeoutError:
            raise Unreachable(Reason.TIMEOUT, f"no socket within {timeout_s:g} s") from None
        except ConnectionRefusedError:
            raise Unreachable(Reason.REFUSED, "nobody listens there") from None
        except socket.gaierror:
            raise Unreachable(Reason.NAME_UNKNOWN, "its host's name is not known") from None
        except (InvalidHandshake, InvalidMessage, InvalidURI) as error:
            raise Unreachable(Reason.HANDSHAKE_FAILED, f"no WebSocket: {type(error).__name__}") from None
        except (OSError, ConnectionClosed, EOFError) as error:
            raise Unreachable(Reason.CONNECTION_LOST, f"no socket: {error}") from None
        return cls(connection, client_id)

    async def read(self, hear: Callable[[Frame], None]) -> Reason:
        """Pass on every frame until the socket ends; why it did."""
        try:
            while True:
                frame = read_frame(await self._connection.recv())
                if frame is not None:
                    hear(frame)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else None
            return self._closed_by_us or close_reason(code)

    async def ping(self, ponged: Callable[[], None]) -> None:
        """Send a ping; `ponged` is called when its answer comes, if ever."""
        with contextlib.suppress(ConnectionClosed):
            waiter = asyncio.ensure_future(await self._connection.ping())
            waiter.add_done_callback(
                lambda answer: None if answer.cancelled() or answer.exception() else ponged()
            )

    async def close(self, reason: Reason) -> None:
        """Close it fully: when this returns, ComfyUI's end is told or the connection is torn down."""
        self._closed_by_us = self._closed_by_us or reason
        await self._connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.wait_closed()
        self._connection.transport.abort()
