// Existing servers taken over: Express, Fastify, http.Server with WebSocket upgrades, fetch handlers, gRPC beside them.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { afterEach, test } from "node:test";
import { Server as GrpcServer } from "@grpc/grpc-js";
import express from "express";
import fastify from "fastify";
import { type App, ctx, serve, serverOptions, type Service, SynegoError, wrap } from "./index.js";
import { logLines } from "./testing/lines.js";
import { Phase, TestMesh } from "./testing.js";

let mesh: TestMesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

async function start(app: App, grpc?: GrpcServer): Promise<{ mesh: TestMesh; service: Service }> {
  const service = wrap(app, grpc, { name: "app", env: {}, logTo: logLines().logTo });
  mesh = await TestMesh.start(service);
  return { mesh, service };
}

const asked = { headers: { "x-request-id": "r-1" } };

test("an Express app keeps its routing and gets the context", async () => {
  const app = express();
  app.get("/users/:id", (request, response) => void response.json({ id: request.params.id, request: ctx()?.requestId }));
  const { mesh: m } = await start(app);
  assert.deepEqual(await (await m.fetch("http://app/users/7", asked)).json(), { id: "7", request: "r-1" });
  assert.equal((await m.fetch("http://app/other")).status, 404);
});

test("a Fastify instance keeps its routing and gets the context", async () => {
  const app = fastify();
  app.get("/users/:id", async (request) => ({ id: (request.params as { id: string }).id, request: ctx()?.requestId }));
  const { mesh: m } = await start(app);
  assert.deepEqual(await (await m.fetch("http://app/users/7", asked)).json(), { id: "7", request: "r-1" });
  await m.drain("app");
});

test("an http.Server keeps its listeners and its upgrades, and a drain waits for an open one", async () => {
  const server = createServer((request, response) => response.end(`${request.url} ${ctx()?.requestId}`));
  const contexts: (string | undefined)[] = [];
  server.on("upgrade", (_request, socket) => {
    contexts.push(ctx()?.requestId);
    ctx()?.signal.addEventListener("abort", () => contexts.push("drains"));
    socket.on("data", () => contexts.push(ctx()?.requestId));
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    socket.pipe(socket);
  });
  const { mesh: m } = await start(server);
  assert.equal(await (await m.fetch("http://app/x", asked)).text(), "/x r-1");
  const address = m.seen("app").hellos[0]?.listeners[0]?.address ?? "";
  const socket = connect(Number(address.split(":")[1]), "127.0.0.1");
  socket.write("GET /ws HTTP/1.1\r\nhost: app\r\nx-request-id: r-2\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
  await once(socket, "data");
  await m.until("app", ({ loads }) => loads.at(-1)?.openStreams === 1);
  socket.write("hello");
  assert.equal(String((await once(socket, "data"))[0]), "hello");
  const drained = m.drain("app", "stop", 3_000);
  await m.until("app", ({ states }) => states.at(-1)?.phase === Phase.PHASE_DRAINING);
  socket.write("still here");
  assert.equal(String((await once(socket, "data"))[0]), "still here");
  socket.end();
  await drained;
  assert.deepEqual(contexts, ["r-2", "r-2", "drains", "r-2"]);
});

test("a fetch handler gets a Request and gives a Response, cookies apart", async () => {
  const handler = {
    async fetch(request: Request): Promise<Response> {
      const headers = new Headers([["set-cookie", "a=1"], ["set-cookie", "b=2"]]);
      return new Response(`${request.method} ${new URL(request.url).pathname} ${await request.text()}`, { status: 202, headers });
    },
  };
  const { mesh: m } = await start(handler);
  const answer = await m.fetch("http://app/in", { method: "PUT", body: "text" });
  assert.deepEqual([answer.status, await answer.text(), answer.headers.getSetCookie()], [202, "PUT /in text", ["a=1", "b=2"]]);
});

test("an app that throws answers 500 with a fixed text", async () => {
  const { mesh: m } = await start({ fetch: () => Promise.reject(new Error("secret")) });
  const error = await SynegoError.fromResponse(await m.fetch("http://app/"), "app");
  assert.deepEqual([error.status, error.message], [500, "internal error"]);
});

test("HTTP and gRPC get a listener each", async () => {
  const { mesh: m } = await start(express(), new GrpcServer(serverOptions()));
  const listeners = m.seen("app").hellos[0]?.listeners ?? [];
  assert.deepEqual(listeners.map(({ protocol }) => protocol), [1, 3]);
  assert.notEqual(listeners[0]?.address, listeners[1]?.address);
});

test("serve listens on PORT, is named by its parent and ends when told", async () => {
  const { lines, logTo } = logLines();
  const end = new AbortController();
  const done = serve(express(), undefined, { env: { PORT: "0", SYNEGO_SERVICE: "named" }, logTo, signals: false, signal: end.signal });
  const line = await lines.until(({ listens }) => listens !== undefined);
  assert.equal(line["service"], "named");
  const taken = Number(line.listens?.[0]?.split(":")[1]);
  await assert.rejects(serve(express(), undefined, { env: { PORT: String(taken) }, logTo, signals: false }), { code: "EADDRINUSE" });
  end.abort();
  await done;
});
