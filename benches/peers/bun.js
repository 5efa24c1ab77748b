// Bun, whose server is uWebSockets: its topics for the broadcast, a send for each client in the market.

const { Peer } = require("./peer.js");

const peer = new Peer(
  (client, text) => client.send(text),
  (_, text) => server.publish("all", text),
);
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: peer.port,
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("", { status: 426 })),
  websocket: {
    message: (client, command) => {
      client.subscribe("all");
      peer.join(client, command);
    },
    close: (client) => peer.leave(client),
  },
});
