// A mesh in memory, to test services without one: an in-memory sidecar beside each, real sockets, the real protocol.
import { mkdtemp, rm } from "node:fs/promises";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { status as Status } from "@grpc/grpc-js";
import { answerer, type Route } from "./answer.js";
import { Activity } from "./activity.js";
import { Client } from "./client.js";
import { SynegoError } from "./errors.js";
import type { FetchOptions } from "./fetch.js";
import { type Applied, DrainCause as WireCause, Phase, type Settings } from "./gen/synego/v1/sidecar.js";
import { Protocol } from "./gen/synego/v1/common.js";
import { rpcPattern } from "./hello.js";
import { mount, type FetchHandler } from "./listen.js";
import { newLogger } from "./log.js";
import { parsePattern, Router } from "./pattern.js";
import type { DrainCause, Service } from "./service.js";
import { Outbound, type Destination } from "./testing/outbound.js";
import { type Seen, TestSidecar } from "./testing/sidecar.js";

export { type Applied, type Hello, type Load, Phase, type Settings, type State } from "./gen/synego/v1/sidecar.js";
export { type Seen } from "./testing/sidecar.js";

/** Stands in for a service: calls by name, or a fetch handler for all of its requests. */
export type Stub = Readonly<Record<string, (input: never) => unknown>> | FetchHandler;

/** What a test mesh has besides its services. */
export interface TestMeshOptions {
  /** Stand-ins by the name of the service. */
  readonly stubs?: Readonly<Record<string, Stub>>;
}

interface Member {
  readonly service: Service;
  readonly sidecar: TestSidecar;
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

const causes: Readonly<Record<DrainCause, WireCause>> = {
  stop: WireCause.DRAIN_CAUSE_STOP,
  reload: WireCause.DRAIN_CAUSE_RELOAD,
  scale_down: WireCause.DRAIN_CAUSE_SCALE_DOWN,
  operator: WireCause.DRAIN_CAUSE_OPERATOR,
};

/** A mesh for one test. */
export class TestMesh {
  /** Calls the services and stubs of this mesh, from outside of any request. */
  readonly client: Client;
  readonly #members = new Map<string, Member>();
  readonly #stubs = new Map<string, RequestListener>();
  readonly #outbound: Outbound;
  readonly #folder: string;

  private constructor(folder: string, outbound: Outbound, url: string, route: { find: TestMesh["find"] | undefined }) {
    this.#folder = folder;
    this.#outbound = outbound;
    route.find = this.find.bind(this);
    const env = { SYNEGO_OUTBOUND: url };
    this.client = new Client({
      env: () => env,
      link: () => ({ state: "off", outbound: url, mesh: "test" }),
      callTimeoutMs: undefined,
    });
  }

  /** Starts services, each beside a sidecar of its own; resolves once all are ready. */
  static async start(services: Service | readonly Service[], options: TestMeshOptions = {}): Promise<TestMesh> {
    const route: { find: TestMesh["find"] | undefined } = { find: undefined };
    const outbound = new Outbound((service, protocol) => route.find?.(service, protocol) ?? unknownService(service));
    const url = await outbound.listen();
    const mesh = new TestMesh(await mkdtemp(join(tmpdir(), "synego-test-")), outbound, url, route);
    try {
      for (const [name, stub] of Object.entries(options.stubs ?? {})) mesh.#stubs.set(name, await stubListener(stub));
      for (const service of [services].flat() as Service[]) await mesh.#add(service, url);
    } catch (failure) {
      await mesh.close();
      throw failure;
    }
    return mesh;
  }

  /** Calls a service from outside: `mesh.fetch("http://users/users/42")`. */
  fetch(input: string | URL, options?: FetchOptions): Promise<Response> {
    return this.client.fetch(input, options);
  }

  /** What a service told its sidecar so far. */
  seen(service: string): Seen {
    return this.#member(service).sidecar;
  }

  /** Resolves once `condition` holds for what a service told. */
  async until(service: string, condition: (seen: Seen) => boolean): Promise<void> {
    const { sidecar } = this.#member(service);
    await sidecar.until(() => condition(sidecar));
  }

  /** Drains a service; resolves once its `run` ended. */
  async drain(service: string, cause: DrainCause = "stop", deadlineMs = 5_000): Promise<void> {
    const member = this.#member(service);
    member.sidecar.drain(causes[cause], deadlineMs);
    await member.done;
  }

  /** Breaks the link as a crash of the sidecar does; resolves once the service attached again. */
  async dropLink(service: string): Promise<void> {
    await this.#member(service).sidecar.drop();
  }

  /** Lets the service move to the sidecar's successor; resolves once it attached again. */
  async move(service: string): Promise<void> {
    await this.#member(service).sidecar.move();
  }

  /** Ends the link and refuses it from now on, with a gRPC status. */
  refuse(service: string, code: Status, details: string): void {
    this.#member(service).sidecar.refuse(code, details);
  }

  /** Sends changed settings; resolves with what became of them. */
  async push(service: string, settings: Partial<Omit<Settings, "revision">>): Promise<Applied> {
    return this.#member(service).sidecar.push(settings);
  }

  /** Drains all services and removes all that the mesh made. */
  async close(): Promise<void> {
    for (const { stop } of this.#members.values()) stop.abort();
    await Promise.allSettled([...this.#members.values()].map(({ done }) => done));
    for (const { sidecar } of this.#members.values()) sidecar.close();
    this.client.close();
    this.#outbound.close();
    await rm(this.#folder, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Where a request to `service` goes. */
  private find(service: string, protocol: "http1" | "grpc"): Destination {
    const stub = this.#stubs.get(service);
    if (stub !== undefined) return { stub };
    const member = this.#members.get(service);
    if (member === undefined) return unknownService(service);
    const address = member.sidecar.listener(protocol === "grpc" ? Protocol.PROTOCOL_GRPC : Protocol.PROTOCOL_HTTP1);
    if (address !== undefined) return { address };
    const message = `no ready endpoint for ${service}, 1 known`;
    return { refusal: new SynegoError("unavailable", message, { reason: "no_ready_endpoint", fromMesh: true }) };
  }

  async #add(service: Service, outbound: string): Promise<void> {
    const instance = `${service.name}-1`;
    const sidecar = new TestSidecar(outbound, instance);
    const address = `unix:${join(this.#folder, `${service.name}.sock`)}`;
    await sidecar.listen(address);
    const stop = new AbortController();
    const env = { PORT: "0", SYNEGO_SERVICE: service.name, SYNEGO_INSTANCE: instance, SYNEGO_SIDECAR: address, SYNEGO_OUTBOUND: outbound };
    const done = service.run({ env, signal: stop.signal, signals: false });
    this.#members.set(service.name, { service, sidecar, stop, done });
    const settled = [Phase.PHASE_READY, Phase.PHASE_DEGRADED, Phase.PHASE_UNHEALTHY];
    // Its first `Applied` shows that the service has taken the `Welcome` too.
    const ready = sidecar.until(() => sidecar.applied.length > 0 && sidecar.phase !== undefined && settled.includes(sidecar.phase));
    await Promise.race([ready, done]);
  }

  #member(service: string): Member {
    const member = this.#members.get(service);
    if (member === undefined) throw new TypeError(`no service ${JSON.stringify(service)} in this mesh`);
    return member;
  }
}

function unknownService(service: string): Destination {
  const error = new SynegoError("not_found", `no service ${JSON.stringify(service)}`, { reason: "unknown_service", fromMesh: true });
  return { refusal: error };
}

/** Answers for a stub, with the same code that answers for a service. */
async function stubListener(stub: Stub): Promise<RequestListener> {
  if (typeof stub === "function") {
    const { listener } = await mount({ fetch: stub as FetchHandler });
    return (request: IncomingMessage, response: ServerResponse) => {
      Promise.resolve(listener(request, response)).catch(() => response.destroy());
    };
  }
  const router = new Router<Route>();
  for (const [name, run] of Object.entries(stub)) {
    const pattern = parsePattern(rpcPattern(name));
    const answer: Route["run"] = ({ body }) => run((body ?? {}) as never);
    router.add(pattern, { pattern, options: {}, run: answer, protocol: "connect", counts: { running: 0, timedOut: 0 } });
  }
  return answerer({
    activity: new Activity(),
    log: newLogger(() => ({ service: "stub" }), "error"),
    bodyLimit: 10 * 1024 * 1024,
    find: (method, target) => router.find(method, target),
    app: undefined,
    health: () => undefined,
    isDraining: () => false,
  });
}
