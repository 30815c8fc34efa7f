"""A broadcast server on picows: what comes in on /publish goes to all other clients."""

import asyncio

from picows import WSListener, WSMsgType, ws_create_server

clients = set()


class Client(WSListener):
    def on_ws_connected(self, transport):
        clients.add(transport)

    def on_ws_disconnected(self, transport):
        clients.discard(transport)


class Publisher(WSListener):
    def on_ws_frame(self, transport, frame):
        message = frame.get_payload_as_bytes()
        for client in clients:
            client.send(WSMsgType.TEXT, message)


async def main():
    server = await ws_create_server(
        lambda request: Publisher() if request.path == b"/publish" else Client(), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
