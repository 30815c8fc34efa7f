// A broadcast server on node's `ws`: what comes in on /publish goes to all other clients.
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () => console.log(server.address().port));
const clients = new Set();
server.on("connection", (socket, request) => {
  if (request.url !== "/publish") {
    clients.add(socket);
    socket.on("close", () => clients.delete(socket));
    return;
  }
  socket.on("message", (data) => {
    for (const client of clients) client.send(data, { binary: false });
  });
});
