// Calls to other services by their names: HTTP, calls by name, and gRPC with the user's stubs.
import { Agent } from "node:http";
import { type Client as GrpcClient, credentials, type ServiceDefinition } from "@grpc/grpc-js";
import { type LinkStatus, sidecarChannel } from "./attach.js";
import { meshError, SynegoError } from "./errors.js";
import { type CallOptions, type FetchOptions, send, type Target } from "./fetch.js";
import { DescribeRequest, type Description, SidecarClient } from "./gen/synego/v1/sidecar.js";
import { rpcPattern } from "./hello.js";
import { outgoing, type Promised, promised } from "./interceptor.js";
import {
  checkTimeout,
  type ClientOptions,
  type Environment,
  isServiceName,
  readEnvironment,
  urlVariable,
} from "./options.js";
import { type Codec, encodeMessage } from "./rpc.js";

/** A class of stubs, as ts-proto and grpc-js make them. */
export interface StubClass<Stub extends GrpcClient> {
  new (address: string, creds: ReturnType<typeof credentials.createInsecure>, options?: object): Stub;
  readonly service: ServiceDefinition;
}

/** How a call by name is made. */
export interface RpcCallOptions<Value = unknown, Result = unknown> extends CallOptions {
  /** Speaks protobuf instead of JSON. */
  readonly codec?: Codec<Value, Result>;
}

/** What a client is made of; services and `dial` make them. */
export interface ClientParts {
  readonly env: () => Environment;
  readonly link: () => LinkStatus;
  readonly callTimeoutMs: number | undefined;
}

/** Calls services by name. It is cheap to keep and meant to be shared. */
export class Client {
  readonly #parts: ClientParts;
  readonly #callTimeoutMs: number;
  // Sockets that the other side may soon close are not used again; the outbound keeps idle ones for 75 s.
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 256, scheduling: "lifo", timeout: 30_000 });
  readonly #stubs = new Map<string, { readonly raw: GrpcClient; readonly stub: unknown }>();
  readonly #stubIds = new WeakMap<object, number>();
  #nextStubId = 0;

  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#callTimeoutMs = checkTimeout(parts.callTimeoutMs ?? 10_000, "callTimeoutMs");
  }

  /** The link to the sidecar beside this process. */
  get link(): LinkStatus {
    return this.#parts.link();
  }

  /**
   * Like the global `fetch`, but the host of the URL is a service: `client.fetch("http://users/users/42")`.
   * An answer of any status resolves; `SynegoError.fromResponse` turns a failed one into an error.
   */
  async fetch(input: string | URL, options: FetchOptions = {}): Promise<Response> {
    const url = new URL(input);
    if (url.protocol !== "http:" || url.port !== "" || !isServiceName(url.hostname)) {
      throw new TypeError(`${JSON.stringify(String(input))} is not http://SERVICE/path`);
    }
    return this.#send(url.hostname, url.pathname + url.search, "http", options);
  }

  /**
   * Calls a service's `rpc(name, …)` with a JSON value, or with protobuf where a codec is given, and gives its answer. A
   * name that begins with a slash is a path, such as `/shop.v1.Orders/Get`. Rejects with a `SynegoError` when refused.
   */
  async call<Result = unknown, Value = unknown>(
    service: string,
    name: string,
    input: Value = {} as Value,
    options: RpcCallOptions<Value, Result> = {},
  ): Promise<Result> {
    if (!isServiceName(service)) throw new TypeError(`${JSON.stringify(service)} is no name of a service`);
    const { codec, ...rest } = options;
    const response = await this.#send(service, rpcPattern(name).slice("POST ".length), "connect", {
      ...rest,
      method: "POST",
      headers: { "content-type": codec === undefined ? "application/json" : "application/proto", "connect-protocol-version": "1" },
      body: codec === undefined ? JSON.stringify(input) : encodeMessage(codec.request, input),
    });
    if (!response.ok) throw await SynegoError.fromResponse(response, service);
    if (codec !== undefined) return codec.response.decode(new Uint8Array(await response.arrayBuffer()));
    return (await response.json()) as Result;
  }

  /**
   * The stub of a gRPC service: `client.grpc(UsersClient, "users").get({ id: 42 })`. A unary method that is called
   * without a callback gives a promise, rejected with a `SynegoError`; everything else is as grpc-js has it.
   */
  grpc<Stub extends GrpcClient>(stubClass: StubClass<Stub>, service: string): Promised<Stub> {
    const target = this.#target(service);
    let id = this.#stubIds.get(stubClass);
    if (id === undefined) this.#stubIds.set(stubClass, (id = this.#nextStubId += 1));
    const key = `${id} ${service} ${target.host}:${target.port}`;
    const kept = this.#stubs.get(key);
    if (kept !== undefined) return kept.stub as Promised<Stub>;
    const raw = new stubClass(`${target.host}:${target.port}`, credentials.createInsecure(), {
      "grpc.default_authority": target.authority,
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0, // retries are the sidecar's: two layers of them multiply
      "grpc.initial_reconnect_backoff_ms": 50,
      "grpc.max_reconnect_backoff_ms": 1_000,
      interceptors: [outgoing(this.#callTimeoutMs)],
    });
    const stub = promised(raw, stubClass.service, service, target.throughSidecar);
    this.#stubs.set(key, { raw, stub });
    return stub;
  }

  /** Closes idle connections and stubs; calls that run go on. */
  close(): void {
    this.#agent.destroy();
    for (const { raw } of this.#stubs.values()) raw.close();
    this.#stubs.clear();
  }

  async #send(service: string, path: string, transport: "http" | "connect", options: FetchOptions): Promise<Response> {
    if (options.timeoutMs !== undefined) checkTimeout(options.timeoutMs, "timeoutMs");
    const target = this.#target(service);
    return send({ ...options, target, path, transport, defaultTimeoutMs: this.#callTimeoutMs, agent: this.#agent });
  }

  /** Where a service is reached: at the sidecar's outbound, else at the address told for it. */
  #target(service: string): Target {
    const env = this.#parts.env();
    const told = readEnvironment(env);
    const outbound = this.#parts.link().outbound ?? told.outbound;
    if (outbound !== undefined) return toTarget(service, outbound, service, true);
    const own = env[urlVariable(service)];
    if (own !== undefined && own !== "") return toTarget(service, own, undefined, false);
    if (told.sidecar !== undefined) {
      const message = `the sidecar has not told yet where calls such as to ${service} go`;
      throw meshError("sidecar_unreachable", message, { service });
    }
    const message = `there is no sidecar to find ${service}, and ${urlVariable(service)} is not set`;
    throw meshError("no_sidecar", message, { service });
  }
}

function toTarget(service: string, base: string, authority: string | undefined, throughSidecar: boolean): Target {
  const url = new URL(base);
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const port = url.port === "" ? 80 : Number(url.port);
  return { service, host, port, authority: authority ?? url.host, throughSidecar };
}

/** How `dial` finds its sidecar. */
export interface DialOptions extends ClientOptions {
  /** Gives up; default: it tries for ever. */
  readonly signal?: AbortSignal;
}

/**
 * A client for a program that serves nothing. Resolves once the sidecar answered; at once where there is none, and then
 * only services with a `SYNEGO_URL_<SERVICE>` can be called.
 */
export async function dial(options: DialOptions = {}): Promise<Client> {
  const env = options.env ?? process.env;
  const { sidecar, outbound } = readEnvironment(env);
  let link: LinkStatus = { state: "off", outbound, mesh: undefined };
  if (sidecar !== undefined) {
    const description = await describe(sidecar, options.signal);
    link = { state: "attached", outbound: description.outbound || outbound, mesh: description.mesh || undefined };
  }
  return new Client({ env: () => env, link: () => link, callTimeoutMs: options.callTimeoutMs });
}

/** What the sidecar is; asks until it answers or `signal` aborts. */
async function describe(address: string, signal: AbortSignal | undefined): Promise<Description> {
  const client = new SidecarClient(address, credentials.createInsecure(), sidecarChannel);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const answer = await new Promise<Description | undefined>((resolve) => {
        client.waitForReady(Date.now() + 1_000, (failure) => {
          if (failure !== undefined) resolve(undefined);
          else client.describe(DescribeRequest.create(), (error, description) => resolve(error ? undefined : description));
        });
      });
      if (answer !== undefined) return answer;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } finally {
    client.close();
  }
}
