// Chat rooms over WebSocket, with nothing of Synego in it: it listens on PORT and ends on TERM, which is all it takes.
import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const instance = process.env.SYNEGO_INSTANCE ?? "chat";
const rooms = new Map(); // name → Set of sockets
const server = createServer((request, response) => {
  response.writeHead(426, { "content-type": "application/json", upgrade: "websocket" });
  response.end(JSON.stringify({ code: 426, msg: "this is a WebSocket endpoint", reason: "upgrade_required" }));
});
const sockets = new WebSocketServer({ noServer: true, maxPayload: 16 * 1024 });

server.on("upgrade", (request, socket, head) => {
  const url = new URL(request.url, "http://chat");
  const room = url.searchParams.get("room") ?? "lobby";
  if (url.pathname !== "/ws/chat" || !/^[a-z0-9-]{1,32}$/.test(room)) {
    socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    return;
  }
  sockets.handleUpgrade(request, socket, head, (client) => join(client, room, url.searchParams.get("name"), request));
});

/** Lets a client into a room until it leaves. */
function join(client, room, wanted, request) {
  const name = (wanted ?? "").trim().slice(0, 32) || "someone";
  const members = rooms.get(room) ?? new Set();
  rooms.set(room, members.add(client));
  log("joined", request, { room, name, members: members.size });
  client.send(JSON.stringify({ type: "welcome", room, name, members: members.size, instance, request_id: request.headers["x-request-id"] }));
  tell(room, { type: "joined", name, members: members.size });
  client.on("message", (data) => {
    const text = data.toString().trim().slice(0, 2_000);
    if (text !== "") tell(room, { type: "said", name, text });
  });
  client.on("error", () => client.terminate());
  client.on("close", () => {
    members.delete(client);
    if (members.size === 0) rooms.delete(room);
    log("left", request, { room, name, members: members.size });
    tell(room, { type: "left", name, members: members.size });
  });
}

/** Sends a message to everyone in a room. */
function tell(room, message) {
  const text = JSON.stringify({ ...message, room, instance, at: new Date().toISOString() });
  for (const member of rooms.get(room) ?? []) if (member.readyState === WebSocket.OPEN) member.send(text);
}

function log(msg, request, fields) {
  const { "x-request-id": request_id, traceparent } = request.headers;
  const trace_id = traceparent?.split("-")[1];
  console.log(JSON.stringify({ level: "info", ts: new Date().toISOString(), service: "chat", instance, request_id, trace_id, ...fields, msg }));
}

process.once("SIGTERM", () => {
  server.close();
  for (const client of sockets.clients) client.close(1001, "the service ends");
  setTimeout(() => process.exit(), 2_000).unref(); // a client that never answers the close does not hold the exit
});

server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  const { port } = server.address();
  console.log(JSON.stringify({ level: "info", ts: new Date().toISOString(), service: "chat", instance, port, msg: "listening" }));
});
