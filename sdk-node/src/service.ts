// A service: what it handles, and its life from listening to drained.
import type { Logger } from "pino";
import { Activity } from "./activity.js";
import { answerer, type Route } from "./answer.js";
import type { LinkStatus } from "./attach.js";
import { Client } from "./client.js";
import { type HandleOptions, type Handler } from "./handler.js";
import { type CheckFunction, type CheckOptions, Checks } from "./health.js";
import { rpcPattern } from "./hello.js";
import { type Drain, type DrainCause, type DrainHook, Life, type RunOptions, type StartHook, type StopHook } from "./life.js";
import { type LoadFunction, LoadMeter } from "./load.js";
import { newLogger } from "./log.js";
import { isServiceName, type ServiceOptions } from "./options.js";
import { type Params, parsePattern, Router } from "./pattern.js";
import { rpcHandler, type RpcOptions } from "./rpc.js";

export type { Drain, DrainCause, RpcOptions, RunOptions };

/** Largest body that is read unless the options say otherwise: 10 MiB. */
const bodyLimit = 10 * 1024 * 1024;

/** What answers: handlers under a name, with checks, load figures and hooks. */
export class Service {
  readonly name: string;
  /** Logs JSON lines, each with the ids of the request in whose course it is written. */
  readonly log: Logger;
  /** Calls other services, with what the request at hand knows. */
  readonly client: Client;
  readonly #options: ServiceOptions;
  readonly #router = new Router<Route>();
  readonly #routes: Route[] = [];
  readonly #checks = new Checks();
  readonly #load = new LoadMeter();
  readonly #hooks = { start: [] as StartHook[], drain: [] as DrainHook[], stop: [] as StopHook[] };
  #life: Life | undefined;

  /** @throws TypeError when the name is no DNS label that begins with a letter. */
  constructor(name: string, options: ServiceOptions = {}) {
    if (!isServiceName(name)) throw new TypeError(`${JSON.stringify(name)} is no name of a service, expected [a-z]([-a-z0-9]{0,61}[a-z0-9])?`);
    const env = options.env ?? process.env;
    this.name = name;
    this.#options = options;
    const owner = (): { service: string; instance: string | undefined } => ({ service: name, instance: this.instance });
    this.log = newLogger(owner, options.logLevel ?? env["LOG_LEVEL"] ?? "info", options.logTo);
    this.client = new Client({
      env: () => this.#life?.env ?? env,
      link: () => this.#life?.link ?? { state: "off", outbound: undefined, mesh: undefined },
      callTimeoutMs: options.callTimeoutMs,
    });
  }

  /** Name of this instance, such as `users-1`; undefined without a sidecar. */
  get instance(): string | undefined {
    return this.#life === undefined ? (this.#options.env ?? process.env)["SYNEGO_INSTANCE"] || undefined : this.#life.instance;
  }

  /** The link to the sidecar. */
  get link(): LinkStatus {
    return this.client.link;
  }

  /**
   * Answers the requests that fit a pattern such as `GET /users/{id}`; see `Handler` for what a handler may give back.
   *
   * @throws TypeError when the pattern is malformed or equals one that is there already.
   */
  handle<const Text extends string>(pattern: Text, fn: Handler<Params<Text>>): this;
  handle<const Text extends string, Body = unknown>(
    pattern: Text,
    options: HandleOptions<Body>,
    fn: Handler<Params<Text>, Body>,
  ): this;
  handle(pattern: string, options: HandleOptions | Handler, fn?: Handler): this {
    return typeof options === "function"
      ? this.#add(pattern, {}, options, "http")
      : this.#add(pattern, options, fn as Handler, "http");
  }

  /**
   * Answers calls by name: `client.call("prices", "quote", input)`, or `POST /rpc/quote` with JSON from anywhere. A name
   * that begins with a slash is a path, such as `/shop.v1.Orders/Get`.
   */
  rpc<Value = unknown, Result = unknown>(name: string, fn: (input: Value) => Result | Promise<Result>): this;
  rpc<Value = unknown, Result = unknown>(
    name: string,
    options: RpcOptions<Value, Result>,
    fn: (input: Value) => Result | Promise<Result>,
  ): this;
  rpc(name: string, options: RpcOptions | ((input: unknown) => unknown), fn?: (input: unknown) => unknown): this {
    const [how, run] = typeof options === "function" ? [{}, options] : [options, fn as (input: unknown) => unknown];
    const timeout = how.timeoutMs === undefined ? {} : { timeoutMs: how.timeoutMs };
    return this.#add(rpcPattern(name), timeout, rpcHandler(run, how, this.#options.bodyLimit ?? bodyLimit), "connect");
  }

  /** Checks something the service needs, every 5 s with a limit of 1 s; a failed one makes it degraded or unhealthy. */
  check(name: string, fn: CheckFunction, options: CheckOptions = {}): this {
    this.#checks.add(name, fn, options);
    return this;
  }

  /** Reports a figure of its own, 0 to 1; the largest figure counts as how busy the service is. */
  load(name: string, fn: LoadFunction): this {
    this.#load.add(name, fn);
    return this;
  }

  /** Runs before the service is ready; one that fails ends `run` with its error. */
  onStart(fn: StartHook): this {
    this.#hooks.start.push(fn);
    return this;
  }

  /** Runs when a drain begins, to stop taking work from elsewhere; bounded by the drain's deadline. */
  onDrain(fn: DrainHook): this {
    this.#hooks.drain.push(fn);
    return this;
  }

  /** Runs when all is done, to close what is open; bounded by the drain's deadline. */
  onStop(fn: StopHook): this {
    this.#hooks.stop.push(fn);
    return this;
  }

  /**
   * Listens, attaches, becomes ready, serves and drains; resolves when drained. TERM and INT begin a drain, a second one
   * ends the process at once.
   *
   * Rejects when it cannot listen, a start hook fails, or a required sidecar does not answer.
   */
  async run(options: RunOptions = {}): Promise<void> {
    if (this.#life !== undefined) throw new TypeError(`service ${this.name} runs already, or did`);
    const activity = new Activity();
    this.#life = new Life({
      name: this.name,
      options: this.#options,
      env: options.env ?? this.#options.env ?? process.env,
      log: this.log,
      activity,
      checks: this.#checks,
      load: this.#load,
      routes: this.#routes,
      hooks: this.#hooks,
      answerer: (app, health, isDraining) =>
        answerer({
          activity,
          log: this.log,
          bodyLimit: this.#options.bodyLimit ?? bodyLimit,
          find: (method, target) => this.#router.find(method, target),
          app,
          health,
          isDraining,
        }),
    });
    try {
      await this.#life.run(options);
    } finally {
      this.client.close();
    }
  }

  #add(text: string, options: HandleOptions, run: Handler, protocol: Route["protocol"]): this {
    const pattern = parsePattern(text);
    if (this.#routes.length >= 1_000) throw new TypeError(`pattern ${JSON.stringify(text)}: at most 1000 handlers`);
    const route: Route = { pattern, options, run, protocol, counts: { running: 0, timedOut: 0 } };
    this.#router.add(pattern, route);
    this.#routes.push(route);
    return this;
  }
}
