// What a service says of itself when it attaches: all of it, so that attaching again is only a repeat.
import {
  Feature,
  Handler,
  Hello,
  Isolation,
  Model,
  type Check,
  type Handlers,
  type Listener,
} from "./gen/synego/v1/sidecar.js";
import { Protocol } from "./gen/synego/v1/common.js";
import { type LifePhase, phaseOf } from "./health.js";

/** Name and version of this SDK, as told to sidecars. */
export const sdkVersion = "node/0.1.0";

/** A handler as it was declared. */
export interface DeclaredHandler {
  readonly pattern: string;
  /** Milliseconds for one run; undefined: the request's own deadline alone. */
  readonly timeoutMs?: number | undefined;
  readonly streaming?: boolean | undefined;
}

/** An address where the service listens. */
export interface DeclaredListener {
  readonly protocol: "http1" | "http2" | "grpc" | "tcp";
  readonly address: string;
  /** Milliseconds that an idle connection is kept; undefined: not known. */
  readonly keepAliveMs?: number | undefined;
}

/** All that there is to say. */
export interface Declaration {
  readonly service: string;
  readonly instance: string | undefined;
  readonly version: string | undefined;
  readonly generation: number;
  readonly attachmentId: string;
  readonly listeners: readonly DeclaredListener[];
  readonly handlers: readonly DeclaredHandler[];
  readonly routes: readonly string[];
  readonly checks: readonly Check[];
  readonly life: LifePhase;
}

const protocols: Readonly<Record<DeclaredListener["protocol"], Protocol>> = {
  http1: Protocol.PROTOCOL_HTTP1,
  http2: Protocol.PROTOCOL_HTTP2,
  grpc: Protocol.PROTOCOL_GRPC,
  tcp: Protocol.PROTOCOL_TCP,
};

/** The pattern of a call by name. */
export function rpcPattern(name: string): string {
  return name.startsWith("/") ? `POST ${name}` : `POST /rpc/${name}`;
}

/** The first message of an attachment. */
export function buildHello(declaration: Declaration): Hello {
  return {
    protocolMin: 1,
    protocolMax: 1,
    features: [Feature.FEATURE_LIVE_CONFIG, Feature.FEATURE_IN_PLACE_DRAIN],
    service: declaration.service,
    instance: declaration.instance ?? "",
    version: declaration.version ?? "",
    sdk: sdkVersion,
    attachmentId: declaration.attachmentId,
    pid: process.pid,
    generation: declaration.generation,
    listeners: declaration.listeners.map(buildListener),
    handlers: buildHandlers(declaration.handlers, declaration.routes),
    state: { phase: phaseOf(declaration.life, declaration.checks), check: [...declaration.checks] },
  };
}

function buildListener({ protocol, address, keepAliveMs }: DeclaredListener): Listener {
  return { protocol: protocols[protocol], address, keepAliveMs: keepAliveMs ?? 0 };
}

function buildHandlers(handlers: readonly DeclaredHandler[], routes: readonly string[]): Handlers {
  const handler = handlers.map(({ pattern, timeoutMs, streaming }) =>
    Handler.fromPartial({
      pattern,
      model: Model.MODEL_INLINE,
      isolation: Isolation.ISOLATION_SHARED,
      timeoutMs: timeoutMs ?? 0,
      streaming: streaming ?? false,
    }),
  );
  return { handler, metricsPath: "", route: [...routes] };
}
