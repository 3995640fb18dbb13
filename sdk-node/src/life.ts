// The life of one running service: listen, attach, start, serve, drain, stop; in this order in the file too.
import type { RequestListener } from "node:http";
import type { Logger } from "pino";
import type { Activity } from "./activity.js";
import { type Route, upgrader } from "./answer.js";
import { Link, type LinkStatus } from "./attach.js";
import { meshError } from "./errors.js";
import { Phase, DrainCause as WireCause, type Drain as WireDrain, type Hello } from "./gen/synego/v1/sidecar.js";
import { type Checks, type LifePhase, phaseOf } from "./health.js";
import { buildHello } from "./hello.js";
import { hostOf } from "./interceptor.js";
import {
  keepPrivate,
  type ListenAddress,
  type Listening,
  listenGrpc,
  listenHttp,
  mount,
  type Mounted,
  newServer,
  removeStale,
} from "./listen.js";
import type { LoadMeter } from "./load.js";
import { levelOf } from "./log.js";
import { type Environment, readEnvironment, type ServiceOptions, type Told } from "./options.js";

/** Why a drain begins. */
export type DrainCause = "stop" | "reload" | "scale_down" | "operator";

/** What a drain hook gets. */
export interface Drain {
  readonly cause: DrainCause;
  /** Aborts when the time for the whole drain is over. */
  readonly deadline: AbortSignal;
  /** Milliseconds for the whole drain. */
  readonly deadlineMs: number;
}

export type StartHook = () => unknown;
export type DrainHook = (drain: Drain) => unknown;
export type StopHook = () => unknown;

/** How a service is run. */
export interface RunOptions {
  /** Begins a drain when it aborts, like TERM. */
  readonly signal?: AbortSignal;
  /** Whether TERM and INT are listened to; default true. */
  readonly signals?: boolean;
  /** Replaces the environment of the options. */
  readonly env?: Environment;
}

/** What a life is made of. */
export interface LifeParts {
  readonly name: string;
  readonly options: ServiceOptions;
  readonly env: Environment;
  readonly log: Logger;
  readonly activity: Activity;
  readonly checks: Checks;
  readonly load: LoadMeter;
  readonly routes: readonly Route[];
  readonly hooks: { readonly start: readonly StartHook[]; readonly drain: readonly DrainHook[]; readonly stop: readonly StopHook[] };
  /** The listener of all HTTP requests. */
  answerer(app: RequestListener | undefined, health: HealthAnswer, isDraining: () => boolean): RequestListener;
}

/** Answers the paths of health, undefined for others. */
export type HealthAnswer = (path: string) => { status: number; body: unknown } | undefined;

/** Milliseconds without a request that must pass, beside a sidecar, until nothing more can be on its way here. */
const quietMs = 100;

/** Where a service listens unless told otherwise: its sidecar is on the same machine. */
const loopback = "127.0.0.1";

/** One run of one service. */
export class Life {
  readonly #parts: LifeParts;
  readonly #told: Told;
  readonly #link: Link | undefined;
  #listening: Listening[] = [];
  #mounted: Mounted | undefined;
  #phase: LifePhase = "starting";
  #instance: string | undefined;
  /** Resolves `run` to begin the drain. */
  #stop: (drain: { cause: DrainCause; deadlineMs: number; told: boolean }) => void = () => undefined;

  constructor(parts: LifeParts) {
    this.#parts = parts;
    this.#told = readEnvironment(parts.env);
    this.#instance = this.#told.instance;
    if (this.#told.sidecar === undefined) return;
    this.#link = new Link(this.#told.sidecar, {
      log: parts.log,
      hello: (attachmentId) => this.#hello(attachmentId),
      load: () => parts.load.report(parts.activity, parts.routes.map((route) => route.counts)),
      settings: (settings) => {
        const level = parts.options.logLevel === undefined ? levelOf(settings.logLevel) : undefined;
        if (level !== undefined) parts.log.level = level;
        return [];
      },
      welcome: (welcome) => (this.#instance = welcome.instance || this.#instance),
      drain: (drain) => this.#stop({ ...readDrain(drain), told: true }),
    });
  }

  get env(): Environment {
    return this.#parts.env;
  }

  get instance(): string | undefined {
    return this.#instance;
  }

  get link(): LinkStatus {
    return this.#link ?? { state: "off", outbound: undefined, mesh: undefined };
  }

  /** The whole life; resolves when drained. */
  async run(options: RunOptions): Promise<void> {
    const drainMs = this.#parts.options.drainMs ?? 25_000;
    const stopped = new Promise<{ cause: DrainCause; deadlineMs: number; told: boolean }>((resolve) => (this.#stop = resolve));
    const stop = (): void => this.#stop({ cause: "stop", deadlineMs: drainMs, told: false });
    options.signal?.addEventListener("abort", stop, { once: true });
    if (options.signal?.aborted === true) stop();
    const offSignals = options.signals === false ? () => undefined : onSignals(stop, this.#parts.log);
    try {
      await this.#listen();
      await this.#attach();
      await this.#start();
      const { cause, deadlineMs, told } = await stopped;
      await this.#drain(cause, deadlineMs, told);
    } finally {
      options.signal?.removeEventListener("abort", stop);
      await this.#end();
      offSignals();
    }
    if (options.signals !== false) leaveSoon(this.#parts.log);
  }

  async #listen(): Promise<void> {
    const { options, activity, routes, log } = this.#parts;
    const address = this.#address();
    if ("path" in address) await removeStale(address.path);
    const onlyGrpc = options.grpc !== undefined && options.app === undefined && routes.length === 0;
    if (!onlyGrpc) {
      this.#mounted = options.app === undefined ? undefined : await mount(options.app);
      const answer = this.#parts.answerer(
        this.#mounted?.listener,
        (path) => this.#health(path),
        () => this.#phase === "draining",
      );
      this.#listening.push(await listenHttp(this.#mounted?.server ?? newServer(), address, answer, upgrader(activity, log)));
    }
    if (options.grpc !== undefined) {
      const grpcHost = hostOf(options.grpc);
      if (grpcHost !== undefined) Object.assign(grpcHost, { activity, log });
      this.#listening.push(await listenGrpc(options.grpc, onlyGrpc ? address : { host: options.host ?? loopback, port: 0 }));
    }
    if ("path" in address) await keepPrivate(address.path);
  }

  /** Where the first listener goes: what the author says, else what the parent says, else a free port. */
  #address(): ListenAddress {
    const { host, port } = this.#parts.options;
    const { socket, port: toldPort } = this.#told;
    if (socket !== undefined && host === undefined && port === undefined) return { path: socket };
    return { host: host ?? loopback, port: port ?? toldPort ?? 0 };
  }

  async #attach(): Promise<void> {
    this.#parts.load.start();
    if (this.#link === undefined) return;
    this.#link.start();
    if (this.#parts.options.requireSidecar !== true) return;
    const state = await this.#link.settled(10_000);
    if (state !== "attached") {
      throw meshError("sidecar_unreachable", `the sidecar at ${this.#told.sidecar} is required, but after 10 s the link is ${state}`);
    }
  }

  async #start(): Promise<void> {
    const { hooks, checks, log } = this.#parts;
    for (const hook of hooks.start) await hook();
    await checks.start(() => this.#tell());
    this.#phase = "ready";
    this.#tell();
    const addresses = this.#listening.map(({ declared }) => `${declared.protocol} ${declared.address}`);
    if (this.#link === undefined) log.info({ listens: addresses }, "ready, alone: there is no sidecar");
    else log.info({ listens: addresses }, "ready");
  }

  async #drain(cause: DrainCause, deadlineMs: number, told: boolean): Promise<void> {
    const { activity, hooks, log } = this.#parts;
    const began = performance.now();
    const deadline = AbortSignal.timeout(deadlineMs);
    log.info({ cause, deadline_ms: deadlineMs, in_flight: activity.inFlight }, "draining");
    const runHooks = (): Promise<void> =>
      bounded(hooks.drain.map((hook) => async () => hook({ cause, deadline, deadlineMs })), deadline, "a drain hook failed", log);
    // A sidecar that asked for the drain sends nothing new already; one that did not must learn of it first.
    if (told) await runHooks();
    this.#phase = "draining";
    this.#tell();
    if (!told) await runHooks();
    activity.stopStreams();
    // Beside a sidecar all requests are still answered: it sends no new ones, but some may be on their way. Alone,
    // whoever calls us learns of the drain only by finding the door closed.
    if (this.link.state === "attached") await activity.idle(quietMs, deadline);
    await Promise.race([Promise.all(this.#listening.map((listening) => listening.drain())), aborted(deadline)]);
    const idle = activity.inFlight === 0;
    this.#phase = "drained";
    this.#tell();
    const took = { took_ms: Math.round(performance.now() - began) };
    if (idle) log.info(took, "drained");
    else log.warn({ ...took, in_flight: activity.inFlight }, "the time to drain is over, cutting off what is left");
  }

  /** Closes all that is open, after a drain as after a start that failed. */
  async #end(): Promise<void> {
    const { hooks, checks, load, log } = this.#parts;
    checks.stop();
    load.stop();
    await bounded(hooks.stop.map((hook) => async () => hook()), AbortSignal.timeout(5_000), "a stop hook failed", log);
    await this.#link?.close();
    for (const listening of this.#listening) listening.close();
    await this.#mounted?.close();
    log.flush();
  }

  #hello(attachmentId: string): Hello {
    const { name, options, routes, checks } = this.#parts;
    return buildHello({
      service: name,
      instance: this.#told.instance,
      version: options.version,
      generation: this.#told.generation,
      attachmentId,
      listeners: this.#listening.map(({ declared }) => declared),
      handlers: routes.map(({ pattern, options: how }) => ({ pattern: pattern.text, ...how })),
      routes: options.routes ?? [],
      checks: checks.told(),
      life: this.#phase,
    });
  }

  #tell(): void {
    const check = this.#parts.checks.told();
    this.#link?.tellState({ phase: phaseOf(this.#phase, check), check });
  }

  #health(path: string): ReturnType<HealthAnswer> {
    if (path === "/livez") return { status: 200, body: { status: "alive" } };
    if (path !== "/readyz" && path !== "/healthz") return undefined;
    const checks = this.#parts.checks.told();
    const phase = phaseOf(this.#phase, checks);
    const ready = phase === Phase.PHASE_READY || phase === Phase.PHASE_DEGRADED;
    const failed = checks.filter(({ ok }) => !ok).map(({ name, cause }) => ({ name, cause }));
    return { status: ready ? 200 : 503, body: { status: Phase[phase]?.slice("PHASE_".length).toLowerCase(), failed } };
  }
}

function readDrain({ cause, deadlineMs }: WireDrain): { cause: DrainCause; deadlineMs: number } {
  const ms = Math.min(600_000, deadlineMs);
  switch (cause) {
    case WireCause.DRAIN_CAUSE_RELOAD:
      return { cause: "reload", deadlineMs: ms };
    case WireCause.DRAIN_CAUSE_SCALE_DOWN:
      return { cause: "scale_down", deadlineMs: ms };
    case WireCause.DRAIN_CAUSE_OPERATOR:
      return { cause: "operator", deadlineMs: ms };
    default:
      return { cause: "stop", deadlineMs: ms };
  }
}

/** Runs hooks side by side until all ended or the limit aborts; one that fails is logged and holds up nobody. */
async function bounded(hooks: (() => Promise<unknown>)[], limit: AbortSignal, words: string, log: Logger): Promise<void> {
  const all = hooks.map((hook) => hook().catch((failure: unknown) => log.error({ err: failure }, words)));
  await Promise.race([Promise.all(all), aborted(limit)]);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** The first TERM or INT calls `stop`, the second ends the process. Returns how to listen no more. */
function onSignals(stop: () => void, log: Logger): () => void {
  let first = true;
  const listener = (name: NodeJS.Signals): void => {
    if (!first) {
      log.warn({ signal: name }, "a second signal, ending now");
      process.exit(name === "SIGINT" ? 130 : 143);
    }
    first = false;
    stop();
  };
  process.on("SIGTERM", listener);
  process.on("SIGINT", listener);
  return () => {
    process.off("SIGTERM", listener);
    process.off("SIGINT", listener);
  };
}

/** A program whose service has ended should end too; a timer or socket that it forgot must not keep it. */
function leaveSoon(log: Logger): void {
  setTimeout(() => {
    log.warn({ open: process.getActiveResourcesInfo() }, "something is still open 1 s after the end, leaving it");
    process.exit();
  }, 1_000).unref();
}
