// gRPC through the mesh: all four kinds of calls, context, deadlines, errors, drain.
import assert from "node:assert/strict";
import { once } from "node:events";
import { afterEach, test } from "node:test";
import {
  type Client as GrpcClient,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ClientWritableStream,
  makeGenericClientConstructor,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  status as Status,
  type CallOptions,
} from "@grpc/grpc-js";
import { ctx, type Promised, Service, serverOptions, SynegoError, unary, wrap } from "./index.js";
import type { StubClass } from "./client.js";
import { logLines } from "./testing/lines.js";
import { TestMesh } from "./testing.js";

type Value = Record<string, unknown>;
type Callback = (error: ServiceError | null, response: Value) => void;

/** A stub as ts-proto writes it, with JSON for bytes so that no generator is needed. */
interface ThingsClient extends GrpcClient {
  get(request: Value, callback: Callback): ClientUnaryCall;
  get(request: Value, metadata: Metadata, callback: Callback): ClientUnaryCall;
  get(request: Value, metadata: Metadata, options: Partial<CallOptions>, callback: Callback): ClientUnaryCall;
  watch(request: Value, options?: Partial<CallOptions>): ClientReadableStream<Value>;
  sum(callback: Callback): ClientWritableStream<Value>;
  chat(): ClientDuplexStream<Value, Value>;
}

const json = { serialize: (value: Value) => Buffer.from(JSON.stringify(value)), deserialize: (bytes: Buffer) => JSON.parse(bytes.toString()) as Value };
const method = (path: string, requestStream: boolean, responseStream: boolean): ServiceDefinition[string] => ({
  path: `/test.Things/${path}`,
  requestStream,
  responseStream,
  requestSerialize: json.serialize,
  requestDeserialize: json.deserialize,
  responseSerialize: json.serialize,
  responseDeserialize: json.deserialize,
});
const things: ServiceDefinition = {
  get: method("Get", false, false),
  watch: method("Watch", false, true),
  sum: method("Sum", true, false),
  chat: method("Chat", true, true),
};
const ThingsStub = makeGenericClientConstructor(things, "test.Things") as unknown as StubClass<ThingsClient>;

const heard: { requestId: string | undefined; traceId: string | undefined; left: number | undefined; handler: string | undefined }[] = [];
const note = (): void => {
  const context = ctx();
  heard.push({
    requestId: context?.requestId,
    traceId: context?.trace.traceId,
    left: context?.timeLeftMs(),
    handler: context?.handler,
  });
};

function newServer(): Server {
  const server = new Server(serverOptions());
  server.addService(things, {
    get: unary<Value, Value>(async ({ id }, call: ServerUnaryCall<Value, Value>) => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      note();
      if (id === 404) throw new SynegoError("not_found", "no thing 404", { reason: "no_thing", retryAfterMs: 1_200 });
      if (id === 500) throw new Error("secret");
      if (id === 0) await new Promise(() => undefined);
      call.sendMetadata(call.metadata);
      return { id };
    }),
    watch: (call: ServerWritableStream<Value, Value>) => {
      note();
      if (call.request["fail"] === true) {
        call.emit("error", new SynegoError("failed_precondition", "not now", { reason: "not_now" }));
        return;
      }
      for (let n = 1; n <= 3; n += 1) call.write({ n });
      if (call.request["wait"] !== true) call.end();
      else ctx()?.signal.addEventListener("abort", () => call.end());
    },
    sum: (call: ServerReadableStream<Value, Value>, callback: (error: Error | null, value?: Value) => void) => {
      let sum = 0;
      call.on("data", ({ n }: { n: number }) => (sum += n));
      call.on("end", () => {
        note();
        if (sum === 0) callback(new SynegoError("invalid_argument", "nothing to add", { reason: "empty" }));
        else callback(null, { sum });
      });
    },
    chat: (call: ServerDuplexStream<Value, Value>) => {
      call.on("data", (value: Value) => {
        note();
        call.write({ echo: value["n"] });
      });
      call.on("end", () => call.end());
    },
  });
  return server;
}

let mesh: TestMesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
  heard.length = 0;
});

async function start(others: Service[] = []): Promise<{ stub: Promised<ThingsClient>; lines: ReturnType<typeof logLines>["lines"]; mesh: TestMesh }> {
  const { lines, logTo } = logLines();
  const made = wrap(undefined, newServer(), { name: "things", env: {}, logTo });
  mesh = await TestMesh.start([made, ...others]);
  return { stub: mesh.client.grpc(ThingsStub, "things"), lines, mesh };
}

test("a server that speaks gRPC alone takes the port and is told as such", async () => {
  const { mesh: m } = await start();
  assert.deepEqual(m.seen("things").hellos[0]?.listeners.map(({ protocol }) => protocol), [3]);
});

test("all four kinds of calls pass, with the context in their handlers", async () => {
  const { stub } = await start();
  assert.deepEqual(await stub.get({ id: 1 }), { id: 1 });
  const watched: unknown[] = [];
  for await (const value of stub.watch({})) watched.push(value);
  assert.deepEqual(watched, [{ n: 1 }, { n: 2 }, { n: 3 }]);
  const sum = await new Promise((resolve, reject) => {
    const call = stub.sum((error, value) => (error === null ? resolve(value) : reject(error)));
    for (const n of [1, 2, 3]) call.write({ n });
    call.end();
  });
  assert.deepEqual(sum, { sum: 6 });
  const chat = stub.chat();
  for (const n of [1, 2]) {
    chat.write({ n });
    assert.deepEqual((await once(chat, "data"))[0], { echo: n });
  }
  chat.end();
  await once(chat, "status");
  assert.deepEqual(
    heard.map(({ handler, requestId, traceId }) => [handler, requestId !== undefined, traceId?.length]),
    ["Get", "Watch", "Sum", "Chat", "Chat"].map((name) => [`/test.Things/${name}`, true, 32]),
  );
});

test("a callback still works, and metadata goes both ways", async () => {
  const { stub } = await start();
  const metadata = new Metadata();
  metadata.set("x-note", "hello");
  const answer = await new Promise<Metadata>((resolve, reject) => {
    const call = stub.get({ id: 2 }, metadata, (error) => error && reject(error));
    call.on("metadata", resolve);
  });
  assert.deepEqual(answer.get("x-note"), ["hello"]);
  assert.deepEqual(await stub.get({ id: 2 }, metadata, { deadline: Date.now() + 1_000 }), { id: 2 });
});

test("an error arrives as it was thrown, in unary and streaming calls", async () => {
  const { stub } = await start();
  await assert.rejects(stub.get({ id: 404 }), (error: SynegoError) => {
    assert.ok(error instanceof SynegoError);
    assert.deepEqual(
      [error.code, error.reason, error.message, error.blame, error.retry, error.retryAfterMs, error.service],
      ["not_found", "no_thing", "no thing 404", "caller", "never", 1_200, "things"],
    );
    return true;
  });
  const [streamed] = (await once(stub.watch({ fail: true }), "error")) as [ServiceError];
  assert.equal(streamed.code, Status.FAILED_PRECONDITION);
  assert.equal(SynegoError.fromGrpc(streamed, "things").reason, "not_now");
  const summed = await new Promise<ServiceError>((resolve) => stub.sum((error) => error && resolve(error)).end());
  assert.deepEqual([summed.code, SynegoError.fromGrpc(summed, "things").reason], [Status.INVALID_ARGUMENT, "empty"]);
});

test("the text of a foreign error stays here and in the log", async () => {
  const { stub, lines } = await start();
  await assert.rejects(stub.get({ id: 500 }), { code: "internal", message: "internal error" });
  assert.match(JSON.stringify(lines.find((line) => line.msg === "a handler failed")), /secret/);
});

test("the request around a call shortens its deadline and carries its id", async () => {
  const front = new Service("front", { env: {}, logTo: logLines().logTo });
  front.handle("GET /{id}", async ({ params }) => front.client.grpc(ThingsStub, "things").get({ id: Number(params.id) }));
  const { mesh: m } = await start([front]);
  const answer = await m.fetch("http://front/7", { headers: { "x-request-id": "r-7" }, timeoutMs: 2_000 });
  assert.deepEqual(await answer.json(), { id: 7 });
  assert.equal(heard[0]?.requestId, "r-7");
  assert.ok((heard[0]?.left ?? Infinity) <= 2_000);
  const began = performance.now();
  await assert.rejects(m.fetch("http://front/0", { timeoutMs: 150 }), { code: "deadline_exceeded" });
  assert.ok(performance.now() - began < 1_500);
});

test("a drain lets streams end themselves", async () => {
  const { stub, mesh: m } = await start();
  const watched = stub.watch({ wait: true });
  let count = 0;
  watched.on("data", () => (count += 1));
  while (count < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  await m.until("things", ({ loads }) => loads.at(-1)?.openStreams === 1);
  const ended = once(watched, "end");
  await m.drain("things", "scale_down", 2_000);
  await ended;
  assert.equal(count, 3);
});

test("without an interceptor of ours a server is served all the same", async () => {
  const server = new Server();
  server.addService({ get: things["get"] as ServiceDefinition[string] }, { get: unary<Value, Value>(({ id }) => ({ id })) });
  mesh = await TestMesh.start(wrap(undefined, server, { name: "plain", env: {}, logTo: logLines().logTo }));
  assert.deepEqual(await mesh.client.grpc(ThingsStub, "plain").get({ id: 3 }), { id: 3 });
});

test("nobody at the outbound is sidecar_unreachable", async () => {
  const lonely = new Service("lonely", { env: { SYNEGO_OUTBOUND: "http://127.0.0.1:9" } });
  await assert.rejects(lonely.client.grpc(ThingsStub, "things").get({ id: 1 }), { reason: "sidecar_unreachable", retry: "later" });
  lonely.client.close();
});

test("without a sidecar a stub dials the address told for its service", async () => {
  const server = newServer();
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  const alone = new Service("alone", { env: { SYNEGO_URL_THINGS: `http://127.0.0.1:${port}` } });
  assert.deepEqual(await alone.client.grpc(ThingsStub, "things").get({ id: 5 }), { id: 5 });
  alone.client.close();
  server.forceShutdown();
});
