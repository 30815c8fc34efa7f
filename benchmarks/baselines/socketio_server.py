"""A broadcast server on python-socketio: what comes in as `publish` goes to the room of all clients."""

import socket

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi")


@server.on("publish")
async def publish(sid, data):
    await server.emit("event", data, skip_sid=sid)


listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(listener.getsockname()[1], flush=True)
app = socketio.ASGIApp(server)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
