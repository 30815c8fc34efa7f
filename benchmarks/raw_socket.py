"""A WebSocket client that costs little: it counts the messages that hold a marker and looks at nothing else."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Sequence

HANDSHAKE_S = 20.0


class RawSocket:
    """One connection; `counted` messages with `marker` have arrived."""

    def __init__(
        self, port: int, path: str, *, marker: bytes, greeting: Sequence[bytes] = (), receive_buffer: int = 0
    ) -> None:
        self._marker = marker
        self._tail = b""
        self.counted = 0
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(HANDSHAKE_S)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._some()
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode(errors="replace"))
        self._early = head.partition(b"\r\n\r\n")[2]
        self._count(self._early)
        for message in greeting:
            self.send(message)

    def send(self, payload: bytes, *, times: int = 1) -> None:
        """A text message, masked with zeros; several at once go in one write."""
        self.socket.sendall(client_frame(payload) * times)

    def send_all(self, payloads: Sequence[bytes]) -> None:
        """Several text messages in one write."""
        self.socket.sendall(b"".join(map(client_frame, payloads)))

    def wait_for(self, text: bytes) -> None:
        """Read until `text` has come."""
        seen, self._early = self._early, b""
        while text not in seen:
            data = self._some()
            self._count(data)
            seen += data

    def _answer(self, data: bytes) -> None:
        """Say that we live, to a WebSocket ping of 4 bytes, to NATS and to Socket.IO."""
        at = data.find(b"\x89\x04")
        if at >= 0:
            self.socket.sendall(b"\x8a\x84" + bytes(4) + data[at + 2 : at + 6])
        if b"PING\r\n" in data:
            self.send(b"PONG\r\n")
        if b"\x81\x012" in data:
            self.send(b"3")

    def read(self) -> None:
        """Count what is there; the socket does not block any more."""
        try:
            data = self._some()
            self._count(data)
            self._answer(data)
        except BlockingIOError:
            return

    def close(self) -> None:
        """End without a word."""
        self.socket.close()

    def _some(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data

    def _count(self, data: bytes) -> None:
        data = self._tail + data
        self.counted += data.count(self._marker)
        self._tail = data[1 - len(self._marker) :]


class NatsPublisher:
    """A plain NATS connection that sends what it is given; it begins anew when the server found it too quiet."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        """Send protocol lines."""
        if self._socket is None or not self._alive(self._socket):
            self.close()
            self._socket = socket.create_connection(("127.0.0.1", self._port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        self._socket.sendall(data)

    def close(self) -> None:
        """End; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _alive(self, connection: socket.socket) -> bool:
        try:
            while data := connection.recv(4096, socket.MSG_DONTWAIT):
                if b"PING\r\n" in data:
                    connection.sendall(b"PONG\r\n")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class Crowd:
    """Many connections that are read together."""

    def __init__(self, members: Sequence[RawSocket]) -> None:
        self.members = members
        self._selector = selectors.DefaultSelector()
        for member in members:
            member.socket.setblocking(False)
            self._selector.register(member.socket, selectors.EVENT_READ, member)

    def read(self, timeout_s: float) -> list[RawSocket]:
        """Read what has arrived; the members that got something."""
        read: list[RawSocket] = []
        for key, _ in self._selector.select(timeout_s):
            key.data.read()
            read.append(key.data)
        return read

    def read_until(self, counted: int, *, within_s: float) -> bool:
        """Whether every member has counted that many messages in time."""
        late = {member for member in self.members if member.counted < counted}
        deadline = time.monotonic() + within_s
        while late and (left := deadline - time.monotonic()) > 0:
            late -= {member for member in self.read(left) if member.counted >= counted}
        return not late

    def read_for(self, seconds: float) -> None:
        """Read whatever comes for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.read(left)

    def close(self) -> None:
        """End all."""
        self._selector.close()
        for member in self.members:
            member.close()


def client_frame(payload: bytes) -> bytes:
    """A masked text frame; a mask of zeros leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        return struct.pack("!BB", 0x81, 0x80 | length) + bytes(4) + payload
    return struct.pack("!BBH", 0x81, 0x80 | 126, length) + bytes(4) + payload
