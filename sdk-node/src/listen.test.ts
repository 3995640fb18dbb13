// Where a service listens when its parent names a Unix socket.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, afterEach, test } from "node:test";
import { Server as GrpcServer } from "@grpc/grpc-js";
import { serverOptions, Service, type ServiceOptions, wrap } from "./index.js";
import { type Lines, logLines } from "./testing/lines.js";
import { TestSidecar } from "./testing/sidecar.js";

const folder = mkdtempSync(join(tmpdir(), "synego-listen-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

let sockets = 0;
/** A path for a socket, one per call. */
function newPath(): string {
  sockets += 1;
  return join(folder, `${sockets}.sock`);
}

interface Running {
  readonly sidecar: TestSidecar;
  readonly lines: Lines;
  stop(): Promise<void>;
}

/** Runs a service that answers `GET /`, beside a sidecar that names this socket; resolves once it is ready. */
async function start(socket: string, options: ServiceOptions = {}): Promise<Running> {
  const sidecar = new TestSidecar("http://127.0.0.1:1", "users-1");
  const address = `unix:${newPath()}`;
  await sidecar.listen(address);
  const { lines, logTo } = logLines();
  const service = new Service("users", { env: { SOCKET: socket, SYNEGO_SIDECAR: address }, logTo, ...options });
  service.handle("GET /", () => "hello");
  const end = new AbortController();
  const done = service.run({ signal: end.signal, signals: false });
  const stop = (): Promise<void> => (end.abort(), done);
  stops.push(() => sidecar.close(), () => stop().catch(() => undefined));
  await Promise.race([lines.until(({ msg }) => msg === "ready"), done]);
  await sidecar.until(() => sidecar.hellos.length > 0);
  return { sidecar, lines, stop };
}

/** Addresses that the service named in its first `Hello`. */
function addresses({ sidecar }: Running): (string | undefined)[] {
  return (sidecar.hellos[0]?.listeners ?? []).map(({ address }) => address);
}

async function ask(socketPath: string): Promise<string> {
  const [answer] = await once(request({ socketPath, path: "/" }).end(), "response");
  return text(answer);
}

test("a service listens on the socket that SOCKET names, tells it, and takes it away when it ends", async () => {
  const path = newPath();
  const one = await start(path);
  assert.equal(await ask(path), "hello");
  assert.deepEqual(addresses(one), [`unix:${path}`]);
  assert.deepEqual(one.lines.find(({ listens }) => listens !== undefined)?.listens, [`http1 unix:${path}`]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  await one.stop();
  assert.ok(!existsSync(path));
});

test("what the code says goes before SOCKET", async () => {
  const path = newPath();
  for (const options of [{ port: 0 }, { host: "127.0.0.1" }]) {
    assert.match(String(addresses(await start(path, options))), /^127\.0\.0\.1:\d+$/);
    assert.ok(!existsSync(path));
  }
});

test("gRPC beside HTTP keeps a port of its own, alone it takes the socket", async () => {
  const beside = newPath();
  const [http, grpc] = addresses(await start(beside, { grpc: new GrpcServer(serverOptions()) }));
  assert.equal(http, `unix:${beside}`);
  assert.match(String(grpc), /^127\.0\.0\.1:\d+$/);

  const alone = newPath();
  const { lines, logTo } = logLines();
  const end = new AbortController();
  const service = wrap(undefined, new GrpcServer(serverOptions()), { env: { SOCKET: alone }, logTo });
  const done = service.run({ signals: false, signal: end.signal });
  const line = await lines.until(({ listens }) => listens !== undefined);
  assert.deepEqual(line.listens, [`grpc unix:${alone}`]);
  assert.equal(statSync(alone).mode & 0o777, 0o600);
  end.abort();
  await done;
});

test("a socket that a killed predecessor left is replaced", async () => {
  const path = newPath();
  const program = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => console.log("listens"))`;
  const killed = spawn(process.execPath, ["--eval", program], { stdio: ["ignore", "pipe", "inherit"] });
  await once(killed.stdout, "data");
  killed.kill("SIGKILL");
  await once(killed, "close");
  assert.ok(statSync(path).isSocket());
  await start(path);
  assert.equal(await ask(path), "hello");
});

test("a socket on which somebody accepts, or a file that is none, is in use and stays", async () => {
  const env = (SOCKET: string): ServiceOptions => ({ env: { SOCKET }, logTo: logLines().logTo });
  const taken = newPath();
  const other = createServer().listen(taken);
  await once(other, "listening");
  await assert.rejects(new Service("users", env(taken)).run({ signals: false }), { code: "EADDRINUSE" });
  assert.ok(statSync(taken).isSocket());
  other.close();

  const plain = newPath();
  writeFileSync(plain, "");
  await assert.rejects(new Service("users", env(plain)).run({ signals: false }), { code: "EADDRINUSE" });
  assert.ok(statSync(plain).isFile());
});

test("a path that no socket can have is refused with what is wrong", async () => {
  for (const SOCKET of ["", "users.sock", `/${"x".repeat(107)}`, `/${"é".repeat(54)}`]) {
    const service = new Service("users", { env: { SOCKET } });
    await assert.rejects(service.run({ signals: false }), (error: TypeError) => {
      assert.equal(error.message, `SOCKET is ${JSON.stringify(SOCKET)}, expected an absolute path of at most 107 bytes`);
      return true;
    });
  }
});
