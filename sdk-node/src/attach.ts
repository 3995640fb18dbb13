// The link to the sidecar: one stream for the life of the process, opened again whenever it ends.
// It carries knowledge alone; no request depends on it.
import { credentials, type ClientDuplexStream, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { Logger } from "pino";
import {
  type Drain,
  type FromService,
  type Hello,
  type Load,
  type Settings,
  SidecarClient,
  type State,
  type ToService,
  type Welcome,
} from "./gen/synego/v1/sidecar.js";

/** Where the link is: `off` without a sidecar, `refused` and `closed` are final. */
export type LinkState = "off" | "connecting" | "attached" | "refused" | "closed";

/** What the world may know of a link. */
export interface LinkStatus {
  readonly state: LinkState;
  /** Base URL of the outbound; undefined: not told yet. */
  readonly outbound: string | undefined;
  /** Name of the mesh; undefined: not told yet. */
  readonly mesh: string | undefined;
}

/** How a stream ended: by itself, after `Moved`, or with a gRPC status. */
export type StreamEnd = "closed" | "moved" | number;

/** What follows the end of a stream. */
export function afterEnd(end: StreamEnd): "wait" | "now" | "refused" {
  if (end === "moved") return "now";
  const final: readonly StreamEnd[] = [status.INVALID_ARGUMENT, status.FAILED_PRECONDITION, status.ALREADY_EXISTS];
  return final.includes(end) ? "refused" : "wait";
}

/** Milliseconds before the attempt after `failed` in a row (≥ 1) failed: 50 ms × 2 up to 1 s, ± 20 %. */
export function delayBefore(failed: number, random: () => number = Math.random): number {
  const middle = Math.min(1_000, 50 * 2 ** Math.min(failed - 1, 10));
  return middle * (0.8 + 0.4 * random());
}

/** Options of every channel to a sidecar. */
export const sidecarChannel = {
  "grpc.default_authority": "localhost", // a socket's path is no valid authority
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": 1024 * 1024,
  "grpc.enable_http_proxy": 0,
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1, // else a new attempt would wait out the back-off of the last one
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1_000,
} as const;

/** What a link tells and asks its service. */
export interface LinkOwner {
  readonly log: Logger;
  /** All that there is to say, as of now. */
  hello(attachmentId: string): Hello;
  load(): Load;
  /** Settings came; returns what is wrong with them, or nothing. */
  settings(settings: Settings): readonly { path: string; message: string }[];
  welcome(welcome: Welcome): void;
  drain(drain: Drain): void;
}

/** Milliseconds between two lines that say the sidecar cannot be reached. */
const complainEveryMs = 30_000;

/** Milliseconds of one attempt to connect; within it the channel tries again and again. */
const connectWithinMs = 1_000;

/** Milliseconds for a sidecar to answer `Hello`. */
const welcomeWithinMs = 5_000;

/** One service's link. */
export class Link implements LinkStatus {
  readonly #address: string;
  readonly #owner: LinkOwner;
  #state: LinkState = "connecting";
  #outbound: string | undefined;
  #mesh: string | undefined;
  #attachmentId = "";
  #failed = 0;
  #complainedAt = -Infinity;
  #client: SidecarClient | undefined;
  #stream: ClientDuplexStream<FromService, ToService> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reports: NodeJS.Timeout | undefined;
  readonly #waiting = new Set<() => void>();

  /** `address`: `unix:/path` or `IP:PORT`, as `SYNEGO_SIDECAR` says. */
  constructor(address: string, owner: LinkOwner) {
    this.#address = address;
    this.#owner = owner;
  }

  get state(): LinkState {
    return this.#state;
  }

  get outbound(): string | undefined {
    return this.#outbound;
  }

  get mesh(): string | undefined {
    return this.#mesh;
  }

  /** Attaches in the background, and again whenever the stream ends. */
  start(): void {
    this.#open();
  }

  /** Resolves with the state once it is `attached` or final, or as it is after `limitMs`. */
  async settled(limitMs: number): Promise<LinkState> {
    if (this.#state === "connecting") {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, limitMs);
        const waiting = this.#waiting;
        function done(): void {
          clearTimeout(timer);
          waiting.delete(done);
          resolve();
        }
        waiting.add(done);
      });
    }
    return this.#state;
  }

  /** Tells the state, if attached; otherwise the next `Hello` does. */
  tellState(state: State): void {
    if (this.#state === "attached") this.#send({ $case: "state", value: state });
  }

  /** Ends the link for good, after what was told has been sent. */
  async close(): Promise<void> {
    this.#become("closed");
    clearTimeout(this.#timer);
    clearInterval(this.#reports);
    const stream = this.#stream;
    if (stream !== undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 500); // a sidecar that hangs must not hold the exit
        stream.once("status", () => resolve(clearTimeout(timer)));
        stream.end();
      });
    }
    this.#client?.close();
  }

  #become(state: LinkState): void {
    this.#state = state;
    if (state !== "connecting") for (const wake of [...this.#waiting]) wake();
  }

  #send(is: NonNullable<FromService["is"]>): void {
    this.#stream?.write({ is });
  }

  /** Connects first and says hello then: what was true before the connection stood may not be so any more. */
  #open(): void {
    const client = new SidecarClient(this.#address, credentials.createInsecure(), sidecarChannel);
    this.#client = client;
    client.waitForReady(Date.now() + connectWithinMs, (failure) => {
      if (this.#state === "closed") return;
      if (failure === undefined) {
        this.#attach(client);
        return;
      }
      client.close();
      this.#ended(status.UNAVAILABLE, failure.message);
    });
  }

  #attach(client: SidecarClient): void {
    const stream = client.attach(new Metadata());
    this.#stream = stream;
    let end: StreamEnd = "closed";
    let cause: string | undefined;
    const welcomed = setTimeout(() => stream.cancel(), welcomeWithinMs).unref();
    stream.on("data", (message: ToService) => {
      clearTimeout(welcomed);
      if (message.is?.$case === "moved") {
        end = "moved";
        stream.cancel();
      } else {
        this.#take(message);
      }
    });
    stream.on("error", (failure: ServiceError) => (cause = failure.details));
    stream.once("status", ({ code }: { code: number }) => {
      clearTimeout(welcomed);
      clearInterval(this.#reports);
      client.close();
      if (end !== "moved" && code !== status.OK) end = code;
      if (this.#state !== "closed") this.#ended(end, cause);
    });
    this.#send({ $case: "hello", value: this.#owner.hello(this.#attachmentId) });
  }

  #take({ is }: ToService): void {
    switch (is?.$case) {
      case "welcome":
        this.#welcome(is.value);
        break;
      case "settings":
        this.#apply(is.value);
        break;
      case "drain":
        this.#owner.drain(is.value);
        break;
    }
  }

  #welcome(welcome: Welcome): void {
    const again = this.#attachmentId !== "";
    this.#attachmentId = welcome.attachmentId;
    this.#outbound = welcome.outbound || undefined;
    this.#mesh = welcome.mesh || undefined;
    this.#failed = 0;
    this.#complainedAt = -Infinity;
    if (this.#state === "closed") return;
    this.#become("attached");
    this.#owner.log.debug({ mesh: welcome.mesh, again }, "attached to the sidecar");
    this.#owner.welcome(welcome);
    if (welcome.settings !== undefined) this.#apply(welcome.settings);
    // What changed between Hello and Welcome was told nowhere else.
    const now = this.#owner.hello(this.#attachmentId).state;
    if (now !== undefined) this.tellState(now);
    const every = Math.min(10_000, Math.max(250, welcome.reportEveryMs || 1_000));
    clearInterval(this.#reports);
    this.#reports = setInterval(() => this.#send({ $case: "load", value: this.#owner.load() }), every);
    this.#reports.unref();
  }

  #apply(settings: Settings): void {
    const problem = this.#owner.settings(settings).slice(0, 100);
    this.#send({ $case: "applied", value: { revision: settings.revision, problem: [...problem] } });
  }

  #ended(end: StreamEnd, cause: string | undefined): void {
    this.#stream = undefined;
    const next = afterEnd(end);
    if (next === "refused") {
      this.#owner.log.error({ reason: cause }, "the sidecar refused this service, which runs on without it");
      this.#become("refused");
      return;
    }
    if (this.#state === "attached") this.#owner.log.debug({ end }, "the link to the sidecar ended");
    this.#become("connecting");
    if (next === "now") {
      this.#open();
      return;
    }
    this.#failed += 1;
    // The first miss after a good link is how an upgrade of the sidecar looks, and nothing to tell.
    const now = performance.now();
    if (this.#failed > 1 && now - this.#complainedAt >= complainEveryMs) {
      this.#complainedAt = now;
      this.#owner.log.warn({ sidecar: this.#address, cause }, "the sidecar cannot be reached, trying on");
    }
    this.#timer = setTimeout(() => this.#open(), delayBefore(this.#failed));
  }
}
