// Node with `ws`.

const { WebSocketServer } = require("ws");
const { Peer } = require("./peer.js");

const toEach = (client, text) => client.send(text);

// The text becomes bytes once, not once for each client.
function toAll(clients, text) {
  const bytes = Buffer.from(text);
  for (const client of clients) client.send(bytes, { binary: false });
}

const peer = new Peer(toEach, toAll);
const server = new WebSocketServer({ host: "127.0.0.1", port: peer.port, backlog: 4096 });
server.on("connection", (client) => {
  client.on("message", (command) => peer.join(client, command));
  client.on("close", () => peer.leave(client));
  client.on("error", () => {});
});
