// Services beside in-memory sidecars: attach, calls by name, settings, lost links, refusals and drains.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { status as Status } from "@grpc/grpc-js";
import { ctx, dial, Service, SynegoError } from "./index.js";
import { DrainCause, Feature, Handler, Problem } from "./gen/synego/v1/sidecar.js";
import { LogLevel } from "./gen/synego/v1/common.js";
import { type Lines, logLines } from "./testing/lines.js";
import { Phase, TestMesh, type TestMeshOptions } from "./testing.js";
import { TestSidecar } from "./testing/sidecar.js";

let mesh: TestMesh | undefined;

afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

async function start(services: Service | Service[], options?: TestMeshOptions): Promise<TestMesh> {
  return (mesh = await TestMesh.start(services, options));
}

function service(name: string, options = {}): { made: Service; lines: Lines } {
  const { lines, logTo } = logLines();
  return { made: new Service(name, { env: {}, logTo, ...options }), lines };
}

test("a service says all of itself in its Hello, and later that it is ready", async () => {
  const { made, lines } = service("users", { version: "1.4.2", routes: ["/users"] });
  const attached = async (): Promise<void> => {
    while (made.link.state !== "attached") await new Promise((resolve) => setTimeout(resolve, 5));
  };
  made.onStart(attached);
  made.handle("GET /users/:id", () => 1).rpc("quote", () => 2);
  const { seen, instance } = { seen: (await start(made)).seen("users"), instance: made.instance };
  const [hello] = seen.hellos;
  assert.deepEqual(
    [hello?.service, hello?.version, hello?.pid, hello?.features, hello?.handlers?.route, instance],
    ["users", "1.4.2", process.pid, [Feature.FEATURE_LIVE_CONFIG, Feature.FEATURE_IN_PLACE_DRAIN], ["/users"], "users-1"],
  );
  assert.deepEqual(hello?.handlers?.handler.map(({ pattern }) => pattern), ["GET /users/{id}", "POST /rpc/quote"]);
  assert.match(hello?.listeners[0]?.address ?? "", /^127\.0\.0\.1:[1-9]\d*$/);
  assert.equal(hello?.state?.phase, Phase.PHASE_STARTING);
  assert.equal(seen.states.at(-1)?.phase, Phase.PHASE_READY);
  assert.ok(!lines.some((line) => line.msg?.includes("alone")));
  assert.deepEqual([made.link.state, made.link.mesh], ["attached", "test"]);
});

test("a call by name reaches the service with the context of the request that caused it", async () => {
  const heard: Record<string, unknown>[] = [];
  const users = service("users").made.handle("GET /users/{id}", ({ params, headers, ctx: context }) => {
    heard.push({ ...headers, trace: context.trace.traceId, left: context.timeLeftMs() });
    return { id: params.id };
  });
  const orders = service("orders").made;
  orders.handle("POST /orders", async () => (await orders.client.fetch("http://users/users/42?full=1")).json());
  const { fetch } = await start([users, orders]).then((m) => ({ fetch: m.fetch.bind(m) }));
  const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
  const answer = await fetch("http://orders/orders", {
    method: "POST",
    headers: {
      "x-request-id": "r-1",
      "x-synego-priority": "background",
      authorization: "Bearer t",
    },
    timeoutMs: 3_000,
  });
  assert.deepEqual(await answer.json(), { id: "42" });
  const [headers] = heard;
  assert.equal(headers?.["x-request-id"], "r-1");
  assert.equal(headers?.["x-synego-priority"], "background");
  assert.equal(headers?.["authorization"], undefined);
  assert.notEqual(headers?.["trace"], traceId);
  assert.ok(Number(headers?.["x-synego-timeout"]) <= 3_000);
  assert.ok((headers?.["left"] as number) > 0);
});

test("one trace goes through two services, with a new parent at each hop", async () => {
  const parents: string[] = [];
  const note = (): string => {
    parents.push(`${ctx()?.trace.traceId} ${ctx()?.trace.parentId}`);
    return "ok";
  };
  const last = service("last").made.handle("GET /", note);
  const middle = service("middle").made;
  middle.handle("GET /", async () => {
    note();
    return (await middle.client.fetch("http://last/")).text();
  });
  const m = await start([last, middle]);
  assert.equal(await (await m.fetch("http://middle/")).text(), "ok");
  const [[traceA, parentA], [traceB, parentB]] = parents.map((line) => line.split(" ")) as [string[], string[]];
  assert.equal(traceA, traceB);
  assert.notEqual(parentA, parentB);
});

test("a call cannot outlive the request around it", async () => {
  const slow = service("slow").made.handle("GET /", ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)));
  const front = service("front").made;
  let failure: SynegoError | undefined;
  front.handle("GET /", { timeoutMs: 10_000 }, async () => {
    try {
      return await (await front.client.fetch("http://slow/", { timeoutMs: 9_000 })).text();
    } catch (error) {
      failure = error as SynegoError;
      throw error;
    }
  });
  const m = await start([slow, front]);
  const answer = await m.fetch("http://front/", { headers: { "x-synego-timeout": "100" }, timeoutMs: 100 }).catch((e: unknown) => e);
  assert.ok(answer instanceof SynegoError && answer.code === "deadline_exceeded");
  await m.drain("front");
  assert.ok(failure instanceof SynegoError);
  assert.ok(["deadline_exceeded", "cancelled"].includes(failure.code), failure.code);
});

test("an RPC by name gives its value, or the error with which the other side refused", async () => {
  const prices = service("prices").made.rpc("quote", ({ sku }: { sku?: string }) => {
    if (sku === undefined) throw new SynegoError("invalid_argument", "sku: missing", { reason: "no_sku" });
    return { sku, cents: 900 };
  });
  const m = await start(prices);
  assert.deepEqual(await m.client.call("prices", "quote", { sku: "tea" }), { sku: "tea", cents: 900 });
  await assert.rejects(m.client.call("prices", "quote", {}), (error: SynegoError) => {
    assert.deepEqual(
      [error.code, error.status, error.reason, error.message, error.service, error.fromMesh],
      ["invalid_argument", 400, "no_sku", "sku: missing", "prices", false],
    );
    assert.match(error.requestId ?? "", /^[0-9a-f-]{36}$/);
    return true;
  });
  await assert.rejects(m.client.call("prices", "unknown"), { status: 404, reason: "no_handler" });
});

test("an RPC by name speaks protobuf where both sides have the messages, and JSON all the same", async () => {
  const codec = { request: Handler, response: Problem };
  const prices = service("prices").made.rpc("/shop.v1.Prices/Check", { codec }, ({ pattern, limit }) => Problem.create({ path: pattern, message: `limit ${limit}` }));
  const m = await start(prices);
  const input = Handler.create({ pattern: "GET /", limit: 7 });
  assert.deepEqual(await m.client.call("prices", "/shop.v1.Prices/Check", input, { codec }), { path: "GET /", message: "limit 7" });
  assert.deepEqual(await m.client.call("prices", "/shop.v1.Prices/Check", { pattern: "x", timeoutMs: 1 }), { path: "x", message: "limit 0" });
  const send = (type: string, body: string): Promise<Response> =>
    m.fetch("http://prices/shop.v1.Prices/Check", { method: "POST", headers: { "content-type": type }, body });
  assert.equal((await send("application/proto", "\xff\xff")).status, 400);
  const other = await send("text/xml", "<a/>");
  assert.deepEqual([other.status, ((await other.json()) as { code: string }).code], [415, "invalid_argument"]);
});

test("stubs stand in for services that are not under test", async () => {
  const shop = service("shop").made;
  shop.handle("GET /price", () => shop.client.call("prices", "quote", { sku: "tea" }));
  shop.handle("GET /page", async () => (await shop.client.fetch("http://legacy/index.html?x=1")).text());
  const m = await start(shop, {
    stubs: {
      prices: { quote: ({ sku }: { sku: string }) => ({ sku, cents: 900 }) },
      legacy: (request) => new Response(`${request.method} ${new URL(request.url).pathname}`),
    },
  });
  assert.deepEqual(await (await m.fetch("http://shop/price")).json(), { sku: "tea", cents: 900 });
  assert.equal(await (await m.fetch("http://shop/page")).text(), "GET /index.html");
});

test("an unknown service is refused by the mesh, and the error says so", async () => {
  const m = await start(service("users").made);
  const answer = await m.fetch("http://nobody/");
  const error = await SynegoError.fromResponse(answer, "nobody");
  assert.deepEqual([error.code, error.reason, error.fromMesh], ["not_found", "unknown_service", true]);
});

test("large bodies stream in both directions", async () => {
  const size = 8 * 1024 * 1024;
  const echo = service("echo").made.handle("POST /", ({ raw }) => raw);
  const m = await start(echo);
  async function* body(): AsyncGenerator<Uint8Array> {
    for (let sent = 0; sent < size; sent += 64 * 1024) yield Buffer.alloc(64 * 1024, sent / 65_536);
  }
  const answer = await m.fetch("http://echo/", { method: "POST", body: body() });
  let received = 0;
  for await (const chunk of answer.body as ReadableStream<Uint8Array>) received += chunk.length;
  assert.equal(received, size);
});

test("a lost link loses no request, and the next Hello names the attachment", async () => {
  const users = service("users").made.handle("GET /", () => "ok");
  const m = await start(users);
  let going = true;
  const failures: unknown[] = [];
  let calls = 0;
  const caller = (async () => {
    while (going) {
      calls += 1;
      await m.fetch("http://users/").then((answer) => answer.text(), (failure: unknown) => failures.push(failure));
    }
  })();
  await m.dropLink("users");
  await m.dropLink("users");
  going = false;
  await caller;
  assert.ok(calls > 0);
  assert.deepEqual(failures, []);
  assert.deepEqual(m.seen("users").hellos.map((hello) => hello.attachmentId), ["", "test-1", "test-1"]);
  assert.equal(m.seen("users").hellos.at(-1)?.state?.phase, Phase.PHASE_READY);
});

test("after Moved it attaches again at once", async () => {
  const m = await start(service("users").made);
  const began = performance.now();
  await m.move("users");
  assert.ok(performance.now() - began < 1_000);
  assert.equal(m.seen("users").hellos.length, 2);
});

test("a refusal is final, told once, and the service serves on", async () => {
  const { made, lines } = service("users");
  made.handle("GET /", () => "ok");
  const m = await start(made);
  const address = m.seen("users").hellos[0]?.listeners[0]?.address;
  m.refuse("users", Status.ALREADY_EXISTS, "instance_taken: users-1 lives in process 7");
  await lines.until((line) => line.level === "error");
  assert.equal(made.link.state, "refused");
  assert.equal(await (await fetch(`http://${address}/`)).text(), "ok");
  assert.equal(lines.filter((line) => line.level === "error").length, 1);
  assert.match(JSON.stringify(lines.find((line) => line.level === "error")), /instance_taken: users-1 lives in process 7/);
});

test("a changed log level is taken while running, and confirmed", async () => {
  const { made } = service("users");
  const m = await start(made);
  assert.equal(made.log.level, "info");
  const applied = await m.push("users", { logLevel: LogLevel.LOG_LEVEL_DEBUG });
  assert.deepEqual(applied.problem, []);
  assert.equal(made.log.level, "debug");
});

test("load is reported again and again, with running handlers, streams and own figures", async () => {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const users = service("users").made
    .handle("GET /fast", () => "ok")
    .handle("GET /slow", () => released)
    .load("gpu", () => 0.75)
    .load("broken", () => {
      throw new Error("no gauge");
    })
    .load("wild", () => Number.NaN);
  const m = await start(users);
  const slow = m.fetch("http://users/slow");
  await m.until("users", ({ loads }) => loads.some(({ handler }) => handler.some(({ running }) => running === 1)));
  release();
  await slow;
  await m.until("users", ({ loads }) => loads.at(-1)?.handler.length === 0);
  const { loads } = m.seen("users");
  assert.deepEqual(loads.map(({ sequence }) => sequence), loads.map((_, index) => BigInt(index + 1)));
  assert.ok(loads.every(({ utilization }) => utilization >= 0.75 && utilization <= 1));
  assert.deepEqual(loads[0]?.named, { gpu: 0.75, broken: 0, wild: 0 });
  assert.equal(loads.flatMap(({ handler }) => handler)[0]?.index, 1);
});

test("a drain is told in its steps, runs the hooks with its cause and ends run", async () => {
  const order: string[] = [];
  const users = service("users").made
    .handle("GET /", () => "ok")
    .onDrain(({ cause, deadlineMs }) => order.push(`drain ${cause} ${deadlineMs}`))
    .onStop(() => order.push("stop"));
  const m = await start(users);
  assert.equal((await m.fetch("http://users/")).status, 200);
  await m.drain("users", "reload", 2_000);
  assert.deepEqual(order, ["drain reload 2000", "stop"]);
  const phases = m.seen("users").states.map(({ phase }) => phase);
  assert.deepEqual(phases.slice(-3), [Phase.PHASE_READY, Phase.PHASE_DRAINING, Phase.PHASE_DRAINED]);
  const refused = await SynegoError.fromResponse(await m.fetch("http://users/"), "users");
  assert.equal(refused.reason, "no_ready_endpoint");
});

test("requests that still arrive while it drains are answered", async () => {
  const users = service("users").made.handle("GET /", () => "ok").onDrain(() => new Promise((resolve) => setTimeout(resolve, 50)));
  const m = await start(users);
  const address = m.seen("users").hellos[0]?.listeners[0]?.address;
  const drained = m.drain("users", "stop", 2_000);
  for (let n = 0; n < 20; n += 1) assert.equal(await (await fetch(`http://${address}/`)).text(), "ok");
  await drained;
});

test("a sidecar that comes later is found, and its outbound is learned from it", async () => {
  const { made, lines } = service("users");
  made.handle("GET /", () => "ok");
  const socket = `unix:/tmp/synego-late-${process.pid}.sock`;
  const end = new AbortController();
  const done = made.run({ env: { SYNEGO_SIDECAR: socket }, signals: false, signal: end.signal });
  await lines.until((line) => line.msg === "ready");
  assert.equal(made.link.state, "connecting");
  await assert.rejects(made.client.fetch("http://orders/"), { reason: "sidecar_unreachable" });
  const sidecar = new TestSidecar("http://127.0.0.1:9", "users-7");
  await sidecar.listen(socket);
  await sidecar.until(() => sidecar.phase === Phase.PHASE_READY && sidecar.applied.length > 0);
  assert.deepEqual([made.link.state, made.link.outbound, made.instance], ["attached", "http://127.0.0.1:9", "users-7"]);
  await assert.rejects(made.client.fetch("http://orders/"), { reason: "sidecar_unreachable", retry: "later" });
  const client = await dial({ env: { SYNEGO_SIDECAR: socket } });
  assert.equal(client.link.outbound, "http://127.0.0.1:9");
  client.close();
  sidecar.drain(DrainCause.DRAIN_CAUSE_STOP, 1_000);
  await done;
  sidecar.close();
});

test("a required sidecar that never answers fails run", { timeout: 20_000 }, async () => {
  const { made } = service("users", { requireSidecar: true });
  await assert.rejects(made.run({ env: { SYNEGO_SIDECAR: "unix:/nowhere/s.sock" }, signals: false }), { reason: "sidecar_unreachable" });
});

test("without a sidecar a service is reached at its own address, by whatever Host", async () => {
  const { made, lines } = service("users");
  made.handle("GET /", ({ headers }) => headers.host);
  const end = new AbortController();
  const done = made.run({ signals: false, signal: end.signal });
  const line = await lines.until(({ listens }) => listens !== undefined);
  const address = line.listens?.[0]?.split(" ")[1];
  const client = await dial({ env: { SYNEGO_URL_MY_USERS: `http://${address}` } });
  assert.equal(await (await client.fetch("http://my-users/")).text(), address);
  client.close();
  end.abort();
  await done;
});
