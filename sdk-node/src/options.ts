// What a program is told: by its author in options, by its parent in the environment.
import { isAbsolute } from "node:path";
import type { Server as GrpcServer } from "@grpc/grpc-js";
import type { DestinationStream } from "pino";
import type { App } from "./listen.js";

/** The environment as a program sees it. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What every client has. */
export interface ClientOptions {
  /** Milliseconds for one outgoing call; default 10,000; 1 to 86,400,000. A request's own deadline still shortens it. */
  readonly callTimeoutMs?: number;
  /** Default: `process.env`. */
  readonly env?: Environment;
}

/** What a service may say of itself. */
export interface ServiceOptions extends ClientOptions {
  /** Version for people, at most 64 bytes; default: none. */
  readonly version?: string;
  /** Places (`[host]/path`) that the mesh should route here unless the manifest says otherwise; at most 256. */
  readonly routes?: readonly string[];
  /** Address to listen on; default `127.0.0.1`: the sidecar is on the same machine. It goes before `SOCKET`. */
  readonly host?: string;
  /** Port to listen on; default `PORT`, else a free one. It goes before `SOCKET`. */
  readonly port?: number;
  /** Largest JSON body that is read for a handler; bytes, default 10 MiB. */
  readonly bodyLimit?: number;
  /** Fail `run` when no sidecar answers within 10 s, instead of serving without one; default false. */
  readonly requireSidecar?: boolean;
  /** `trace debug info warn error`; default `LOG_LEVEL`, else `info`. The mesh may change it while running. */
  readonly logLevel?: string;
  /** Where log lines go; default stdout, which the sidecar collects. */
  readonly logTo?: DestinationStream;
  /** Answers what no handler of the service takes: an existing server or app, with its own routing. */
  readonly app?: App;
  /** A gRPC server, best made with `serverOptions()`; it gets a listener of its own. */
  readonly grpc?: GrpcServer;
  /** Milliseconds for the whole drain after TERM; default 25,000. */
  readonly drainMs?: number;
}

/** What the environment says. */
export interface Told {
  readonly port: number | undefined;
  /** Path of the Unix socket to listen on instead of a port. */
  readonly socket: string | undefined;
  readonly service: string | undefined;
  readonly instance: string | undefined;
  readonly generation: number;
  /** `unix:/path` or `IP:PORT`; undefined: there is no sidecar. */
  readonly sidecar: string | undefined;
  /** Base URL of the outbound; undefined: not told. */
  readonly outbound: string | undefined;
}

/** Longest path of a Unix socket, in bytes: what the kernel takes. */
const maxSocket = 107;

/** @throws TypeError that names every variable that is wrong. */
export function readEnvironment(env: Environment): Told {
  const problems: string[] = [];
  const whole = (name: string, most: number): number | undefined => {
    const value = env[name];
    if (value === undefined || value === "") return undefined;
    if (/^\d{1,10}$/.test(value) && Number(value) <= most) return Number(value);
    problems.push(`${name} is ${JSON.stringify(value)}, expected 0 to ${most}`);
    return undefined;
  };
  const socket = (name: string): string | undefined => {
    const value = env[name];
    if (value === undefined || (isAbsolute(value) && Buffer.byteLength(value) <= maxSocket)) return value;
    problems.push(`${name} is ${JSON.stringify(value)}, expected an absolute path of at most ${maxSocket} bytes`);
    return undefined;
  };
  const told: Told = {
    port: whole("PORT", 65_535),
    socket: socket("SOCKET"),
    service: env["SYNEGO_SERVICE"] || undefined,
    instance: env["SYNEGO_INSTANCE"] || undefined,
    generation: whole("SYNEGO_GENERATION", 4_294_967_295) ?? 0,
    sidecar: env["SYNEGO_SIDECAR"] === "off" ? undefined : env["SYNEGO_SIDECAR"] || undefined,
    outbound: env["SYNEGO_OUTBOUND"] || undefined,
  };
  if (problems.length > 0) throw new TypeError(problems.join("; "));
  return told;
}

/** The variable that holds the base URL of a service. */
export function urlVariable(service: string): string {
  return `SYNEGO_URL_${service.toUpperCase().replaceAll("-", "_")}`;
}

/** Whether a service may be called so: a DNS label that begins with a letter. */
export function isServiceName(name: string): boolean {
  return /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name);
}

/** @throws TypeError when `ms` is no timeout. */
export function checkTimeout(ms: number, what: string): number {
  if (!(Number.isFinite(ms) && ms >= 1 && ms <= 86_400_000)) {
    throw new TypeError(`${what} is ${ms}, expected 1 to 86400000 milliseconds`);
  }
  return ms;
}
