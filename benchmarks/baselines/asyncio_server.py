"""The least that asyncio can do: whatever comes in on /publish, prepared bytes go to all other clients.

The bytes, a WebSocket frame, are read from standard input.  The handshake is answered with a constant.
"""

import asyncio
import sys

FRAME = sys.stdin.buffer.read()
HELLO = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
clients = set()


class Client(asyncio.Protocol):
    publishes = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.publishes is None:
            self.publishes = data.startswith(b"GET /publish ")
            if not self.publishes:
                clients.add(self.transport)
            self.transport.write(HELLO)
        elif self.publishes:
            for client in clients:
                client.write(FRAME)

    def connection_lost(self, error):
        clients.discard(self.transport)


async def main():
    server = await asyncio.get_running_loop().create_server(Client, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
