// A service without a sidecar: handlers, bodies, errors, limits, streams, health and drain over real HTTP.
import assert from "node:assert/strict";
import { once } from "node:events";
import { get, request as httpRequest } from "node:http";
import { afterEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ctx, reply, Service, sse, SynegoError, type StandardSchema } from "./index.js";
import { type Line, type Lines, logLines } from "./testing/lines.js";

interface Running {
  readonly url: string;
  readonly lines: Lines;
  readonly service: Service;
  readonly done: Promise<void>;
  stop(): Promise<void>;
}

const running: Running[] = [];

/** Runs a service alone on a free port. */
async function start(declare: (service: Service) => void, options = {}): Promise<Running> {
  const { lines, logTo } = logLines();
  const service = new Service("users", { env: {}, logTo, ...options });
  declare(service);
  const end = new AbortController();
  const done = service.run({ signal: end.signal, signals: false });
  await Promise.race([lines.until((line) => line.msg?.startsWith("ready") ?? false), done]);
  const address = (lines.find((line) => line.listens !== undefined)?.listens?.[0] ?? "").split(" ")[1];
  const one = { url: `http://${address}`, lines, service, done, stop: () => (end.abort(), done) };
  running.push(one);
  return one;
}

afterEach(async () => {
  for (const one of running.splice(0)) await one.stop().catch(() => undefined);
});

/** A schema that wants `{ name: string, age?: number }`, as a validator library would make it. */
const person: StandardSchema<{ name: string }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) => {
      const { name, age } = (value ?? {}) as { name?: unknown; age?: unknown };
      const issues = [
        ...(typeof name === "string" ? [] : [{ message: "expected a string", path: ["name"] }]),
        ...(age === undefined || typeof age === "number" ? [] : [{ message: "expected a number", path: [{ key: "age" }] }]),
      ];
      return issues.length > 0 ? { issues } : { value: { name: String(name) } };
    },
  },
};

test("a handler gets the parameters of its path and answers JSON", async () => {
  const { url } = await start((s) => s.handle("GET /users/{id}/posts/:post", ({ params, query }) => ({ ...params, all: query.get("all") })));
  const answer = await fetch(`${url}/users/a%20b/posts/7?all=1`);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), "application/json");
  assert.deepEqual(await answer.json(), { id: "a b", post: "7", all: "1" });
});

test("a handler may answer text, bytes, nothing, a status of its own or a web Response", async () => {
  const { url } = await start((s) =>
    s
      .handle("GET /text", () => "hello")
      .handle("GET /bytes", () => Buffer.from([1, 2, 3]))
      .handle("GET /nothing", () => undefined)
      .handle("GET /null", () => null)
      .handle("GET /reply", () => reply(201, { id: 1 }, { location: "/x/1" }))
      .handle("GET /response", () => new Response("teapot", { status: 418, headers: { "x-pot": "yes" } })),
  );
  assert.equal(await (await fetch(`${url}/text`)).text(), "hello");
  assert.deepEqual([...new Uint8Array(await (await fetch(`${url}/bytes`)).arrayBuffer())], [1, 2, 3]);
  assert.equal((await fetch(`${url}/nothing`)).status, 204);
  assert.equal(await (await fetch(`${url}/null`)).json(), null);
  const made = await fetch(`${url}/reply`);
  assert.deepEqual([made.status, made.headers.get("location"), await made.json()], [201, "/x/1", { id: 1 }]);
  const pot = await fetch(`${url}/response`);
  assert.deepEqual([pot.status, pot.headers.get("x-pot"), await pot.text()], [418, "yes", "teapot"]);
});

test("HEAD is answered by the GET handler without a body", async () => {
  const { url } = await start((s) => s.handle("GET /text", () => "hello"));
  const answer = await fetch(`${url}/text`, { method: "HEAD" });
  assert.deepEqual([answer.status, answer.headers.get("content-length"), await answer.text()], [200, "5", ""]);
});

test("an unknown path is 404 no_handler, a known one with another method 405 with its methods", async () => {
  const { url } = await start((s) => s.handle("GET /users", () => []).handle("POST /users", () => ({})));
  const unknown = await fetch(`${url}/nothing`);
  assert.equal(unknown.status, 404);
  assert.equal(((await unknown.json()) as Line)["reason"], "no_handler");
  assert.equal(unknown.headers.get("x-synego-reason"), null);
  const other = await fetch(`${url}/users`, { method: "DELETE" });
  assert.deepEqual([other.status, other.headers.get("allow")], [405, "GET, HEAD, POST"]);
});

test("a body that does not fit is 400 invalid_body with every mistake at once", async () => {
  const { url } = await start((s) => s.handle("POST /users", { body: person }, ({ body }) => reply(201, body)));
  const post = (body: string): Promise<Response> => fetch(`${url}/users`, { method: "POST", body, headers: { "x-request-id": "r-9" } });
  const bad = await post('{"age":"old"}');
  assert.deepEqual([bad.status, bad.headers.get("x-synego-reason")], [400, "invalid_body"]);
  assert.deepEqual(await bad.json(), {
    code: 400,
    msg: "name: expected a string; age: expected a number",
    reason: "invalid_body",
    request_id: "r-9",
  });
  assert.equal(((await (await post("{")).json()) as Line).msg, "the body is not JSON");
  assert.equal((await post("")).status, 400);
  const good = await post('{"name":"Ada","age":36}');
  assert.deepEqual([good.status, await good.json()], [201, { name: "Ada" }]);
});

test("a body beyond the limit is 413 and never held in memory, with and without a length", async () => {
  const { url } = await start((s) => s.handle("POST /users", { body: person }, () => ({})), { bodyLimit: 1_000 });
  const told = await fetch(`${url}/users`, { method: "POST", body: "x".repeat(1_001) });
  assert.deepEqual([told.status, ((await told.json()) as Line)["reason"]], [413, "body_too_large"]);
  const chunked = httpRequest(`${url}/users`, { method: "POST" });
  chunked.write("x".repeat(600));
  chunked.end("x".repeat(600));
  const [answer] = (await once(chunked, "response")) as [{ statusCode: number; resume(): void }];
  answer.resume();
  assert.equal(answer.statusCode, 413);
});

test("an error of the service leaves with its status and reason, a foreign one with a fixed text", async () => {
  const { url, lines } = await start((s) =>
    s
      .handle("GET /taken", () => {
        throw new SynegoError("already_exists", "name in use", { reason: "name_taken" });
      })
      .handle("GET /broken", async () => {
        throw new Error("secret at postgres://admin:pw@db");
      }),
  );
  const taken = await fetch(`${url}/taken`, { headers: { "x-request-id": "r-1" } });
  assert.equal(taken.status, 409);
  assert.deepEqual(await taken.json(), { code: 409, msg: "name in use", reason: "name_taken", request_id: "r-1" });
  const broken = await fetch(`${url}/broken`, { headers: { "x-request-id": "r-2" } });
  assert.deepEqual([broken.status, await broken.text()], [500, '{"code":500,"msg":"internal error","reason":"internal","request_id":"r-2"}']);
  const logged = lines.find((line) => line.msg === "a handler failed");
  assert.deepEqual([logged?.["request_id"], logged?.["handler"]], ["r-2", "GET /broken"]);
  assert.match(JSON.stringify(logged), /secret at/);
});

test("a run beyond its own limit is 504 handler_timeout at once, and its signal aborts", async () => {
  const reasons: unknown[] = [];
  const { url } = await start((s) =>
    s.handle("GET /slow", { timeoutMs: 50 }, async ({ signal }) => {
      await once(signal, "abort");
      reasons.push((signal.reason as SynegoError).reason);
    }),
  );
  const answer = await fetch(`${url}/slow`);
  assert.deepEqual([answer.status, answer.headers.get("x-synego-reason")], [504, "handler_timeout"]);
  assert.deepEqual(reasons, ["handler_timeout"]);
});

test("a request's deadline ends the run that is longer, and is told to the handler", async () => {
  let left: number | undefined;
  const { url } = await start((s) =>
    s.handle("GET /slow", async ({ ctx: context, signal }) => {
      left = context.timeLeftMs();
      await once(signal, "abort");
    }),
  );
  const answer = await fetch(`${url}/slow`, { headers: { "x-synego-timeout": "80" } });
  assert.deepEqual([answer.status, ((await answer.json()) as Line)["reason"]], [504, "deadline_exceeded"]);
  assert.ok(left !== undefined && left > 0 && left <= 80, `left ${left}`);
});

test("the context is there after awaits, in timers and in the events of the request", async () => {
  const seen: (string | undefined)[] = [];
  const { url } = await start((s) =>
    s.handle("POST /", async ({ raw }) => {
      await sleep(1);
      seen.push(ctx()?.requestId);
      await new Promise<void>((resolve) => raw.on("data", () => seen.push(ctx()?.requestId)).on("end", () => resolve()));
      seen.push(ctx()?.requestId);
    }),
  );
  const slow = httpRequest(`${url}/`, { method: "POST", headers: { "x-request-id": "r-3", "content-type": "text/plain" } });
  slow.write("one");
  await sleep(20);
  slow.end("two");
  const [answer] = (await once(slow, "response")) as [{ resume(): void }];
  answer.resume();
  assert.ok(seen.length >= 3);
  assert.deepEqual(new Set(seen), new Set(["r-3"]));
  assert.equal(ctx(), undefined);
});

test("when the client goes, the handler's signal aborts", async () => {
  const aborted: unknown[] = [];
  let entered = (): void => undefined;
  const inside = new Promise<void>((resolve) => (entered = resolve));
  const { url, service } = await start((s) =>
    s.handle("GET /wait", async ({ signal }) => {
      entered();
      await once(signal, "abort");
      aborted.push((signal.reason as SynegoError).code);
    }),
  );
  const call = get(`${url}/wait`);
  call.on("error", () => undefined);
  await inside;
  call.destroy();
  while (aborted.length === 0) await sleep(5);
  assert.deepEqual(aborted, ["cancelled"]);
  assert.equal(service.link.state, "off");
});

test("events are streamed as they come, and a drain ends the stream with a hint when to return", async () => {
  const { url, stop } = await start((s) =>
    s.handle("GET /feed", { streaming: true }, ({ signal }) =>
      sse(
        (async function* () {
          yield { data: { n: 1 }, event: "tick", id: "1" };
          yield { data: "two\nlines" };
          await once(signal, "abort");
        })(),
        { retryMs: 500 },
      ),
    ),
  );
  const answer = await fetch(`${url}/feed`);
  assert.match(answer.headers.get("content-type") ?? "", /^text\/event-stream/);
  const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
  let text = "";
  const read = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    text += Buffer.from(value ?? []).toString();
    return !done;
  };
  while (!text.includes("lines\n\n")) await read();
  assert.equal(text, 'retry: 500\n\nevent: tick\nid: 1\ndata: {"n":1}\n\ndata: two\ndata: lines\n\n');
  const stopped = stop();
  while (await read());
  assert.ok(text.endsWith("retry: 500\n\n"));
  await stopped;
});

test("a drain answers what is under way and then closes the door", async () => {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  let entered = (): void => undefined;
  const inside = new Promise<void>((resolve) => (entered = resolve));
  const order: string[] = [];
  const { url, stop, lines } = await start((s) =>
    s
      .handle("GET /slow", async () => {
        entered();
        await released;
        return "done";
      })
      .onDrain(({ cause, deadlineMs, deadline }) => order.push(`drain ${cause} ${deadlineMs} ${deadline.aborted}`))
      .onStop(() => order.push("stop")),
  );
  const answer = fetch(`${url}/slow`);
  await inside;
  const stopped = stop();
  await lines.until((line) => line.msg === "draining");
  release();
  assert.equal(await (await answer).text(), "done");
  await stopped;
  assert.deepEqual(order, ["drain stop 25000 false", "stop"]);
  await assert.rejects(fetch(`${url}/slow`));
});

test("what is not done when the time to drain is over is cut off", async () => {
  let entered = (): void => undefined;
  const inside = new Promise<void>((resolve) => (entered = resolve));
  const { url, stop, lines } = await start(
    (s) =>
      s.handle("GET /forever", () => {
        entered();
        return new Promise(() => undefined);
      }),
    { drainMs: 100 },
  );
  const answer = assert.rejects(fetch(`${url}/forever`));
  await inside;
  await stop();
  await answer;
  assert.ok(lines.some((line) => line.msg?.startsWith("the time to drain is over")));
});

test("alone, health is answered at its usual paths and says what fails", async () => {
  let well = true;
  const { url } = await start((s) =>
    s
      .check("ledger", () => {
        if (!well) throw new Error("no route to ledger");
      }, { required: true })
      .handle("GET /users", () => []),
  );
  const status = async (path: string): Promise<number> => (await fetch(`${url}${path}`)).status;
  assert.deepEqual(await Promise.all(["/livez", "/readyz", "/healthz", "/metrics"].map(status)), [200, 200, 200, 404]);
  well = false;
  assert.equal(await status("/readyz"), 200); // one verdict is not turned by what nobody has looked at yet
});

test("a required check that fails from the start makes the service unhealthy", async () => {
  const { url } = await start((s) => s.check("ledger", () => Promise.reject(new Error("down")), { required: true }));
  const answer = await fetch(`${url}/readyz`);
  assert.deepEqual([answer.status, await answer.json()], [503, { status: "unhealthy", failed: [{ name: "ledger", cause: "down" }] }]);
  assert.equal((await fetch(`${url}/livez`)).status, 200);
});

test("a start hook that fails ends run with its error, and nothing listens any more", async () => {
  const { lines, logTo } = logLines();
  const service = new Service("users", { env: {}, logTo }).onStart(() => Promise.reject(new Error("no data")));
  await assert.rejects(service.run({ signals: false }), /no data/);
  assert.ok(!lines.some((line) => line.msg?.startsWith("ready")));
});

test("it says once that it is alone, and a call by name answers no_sidecar", async () => {
  const { lines, service } = await start((s) => s.handle("GET /", () => ""));
  assert.equal(lines.filter((line) => line.msg?.includes("alone")).length, 1);
  await assert.rejects(service.client.fetch("http://orders/"), (error: SynegoError) => {
    assert.deepEqual([error.reason, error.code, error.retry, error.fromMesh], ["no_sidecar", "unavailable", "never", true]);
    assert.match(error.message, /SYNEGO_URL_ORDERS is not set/);
    return true;
  });
});

test("log lines have the fixed fields, and those of the request within one", async () => {
  const { url, lines } = await start(
    (s) => s.handle("GET /", () => void s.log.info({ order: 7 }, "paid")),
    { env: { SYNEGO_INSTANCE: "users-2" } },
  );
  await fetch(`${url}/`, {
    headers: { "x-request-id": "r-4", traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" },
  });
  const line = lines.find(({ msg }) => msg === "paid");
  const { ts, ...rest } = line ?? {};
  assert.match(String(ts), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(rest, {
    level: "info",
    service: "users",
    instance: "users-2",
    request_id: "r-4",
    trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
    handler: "GET /",
    order: 7,
    msg: "paid",
  });
});

test("equal patterns, bad names and bad variables are refused with what is wrong", async () => {
  const service = new Service("users", { env: {} }).handle("GET /users/{id}", () => 1);
  assert.throws(() => service.handle("GET /users/:name", () => 2), /"GET \/users\/\{name\}" equals "GET \/users\/\{id\}"/);
  assert.throws(() => new Service("Users"), /no name of a service/);
  await assert.rejects(new Service("users", { env: { PORT: "http" } }).run({ signals: false }), /PORT is "http", expected 0 to 65535/);
});
