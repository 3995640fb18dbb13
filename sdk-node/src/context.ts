// What one request knows, and how that reaches the calls it causes: kept by AsyncLocalStorage, sent as headers.
import { AsyncLocalStorage } from "node:async_hooks";
import type { EventEmitter } from "node:events";
import type { Logger } from "pino";
import { type HeaderReader, timeoutOf } from "./deadline.js";
import { newTrace, readTrace, type Trace, traceparentOf } from "./trace.js";

/** How important a request is; a service may lower it, never raise it. */
export type Priority = "critical" | "normal" | "background";

/** What one request knows. */
export interface Ctx {
  /** Id of the request, given by the mesh; undefined when none came. */
  readonly requestId: string | undefined;
  readonly trace: Trace;
  /** W3C baggage, untouched; undefined: none. */
  readonly baggage: string | undefined;
  /** Priority that came with the request; undefined: none, which counts as normal. */
  readonly priority: Priority | undefined;
  /** Who calls, as its sidecar proved it; undefined: not told. */
  readonly caller: string | undefined;
  readonly protocol: "http" | "connect" | "grpc";
  /** Pattern of the handler that answers; undefined under a server of the user's own. */
  readonly handler: string | undefined;
  /** Aborts when the deadline passes, the client goes, or (for streams) a drain begins. */
  readonly signal: AbortSignal;
  /** Logs with the ids of this request. */
  readonly log: Logger;
  /** Milliseconds until the deadline, ≥ 0; undefined: no deadline. */
  timeLeftMs(): number | undefined;
}

const storage = new AsyncLocalStorage<Ctx>();

/** The request in whose course this is called; undefined outside of any. */
export function ctx(): Ctx | undefined {
  return storage.getStore();
}

/** Runs `fn` in the course of a request. */
export function runWith<T>(context: Ctx, fn: () => T): T {
  return storage.run(context, fn);
}

/** Keeps the context in the listeners of an emitter whose events Node raises from elsewhere. */
export function bindEmitter(emitter: EventEmitter, context: Ctx): void {
  const emit = emitter.emit.bind(emitter);
  emitter.emit = (event, ...args: unknown[]) => storage.run(context, () => emit(event, ...args));
}

/** What a context is made of, besides the headers. */
export interface CtxParts {
  readonly protocol: Ctx["protocol"];
  readonly handler?: string | undefined;
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** Milliseconds that the handler itself allows; undefined: none. */
  readonly limitMs?: number | undefined;
}

/** The context of a request with these headers, which came now. */
export function readContext(header: HeaderReader, parts: CtxParts): Ctx {
  const came = performance.now();
  const headerMs = timeoutOf(header);
  const limits = [headerMs, parts.limitMs].filter((ms) => ms !== undefined);
  const endsAt = limits.length === 0 ? undefined : came + Math.min(...limits);
  return {
    requestId: readRequestId(header("x-request-id")),
    trace: readTrace(header("traceparent"), header("tracestate")) ?? newTrace(),
    baggage: header("baggage") || undefined,
    priority: readPriority(header("x-synego-priority")),
    caller: header("x-synego-caller") || undefined,
    protocol: parts.protocol,
    handler: parts.handler,
    signal: parts.signal,
    log: parts.log,
    timeLeftMs: () => (endsAt === undefined ? undefined : Math.max(0, endsAt - performance.now())),
  };
}

/** A request id is 1 to 128 visible ASCII characters; anything else is none. */
export function readRequestId(value: string | undefined): string | undefined {
  return value !== undefined && /^[\x21-\x7e]{1,128}$/.test(value) ? value : undefined;
}

function readPriority(value: string | undefined): Priority | undefined {
  return value === "critical" || value === "normal" || value === "background" ? value : undefined;
}

const ranks: Readonly<Record<Priority, number>> = { critical: 2, normal: 1, background: 0 };

/** The priority that a call says; undefined: no header. A request without one is normal and cannot be raised. */
export function priorityOfCall(incoming: Priority | undefined, asked: Priority | undefined): Priority | undefined {
  return asked !== undefined && ranks[asked] < ranks[incoming ?? "normal"] ? asked : incoming;
}

/** The headers that a call carries from the request around it; outside of one it starts a trace of its own. */
export function carry(context: Ctx | undefined, asked?: Priority): Record<string, string> {
  const trace = context?.trace ?? newTrace();
  const headers: Record<string, string> = { traceparent: traceparentOf(trace) };
  if (trace.tracestate !== undefined) headers["tracestate"] = trace.tracestate;
  if (context?.requestId !== undefined) headers["x-request-id"] = context.requestId;
  if (context?.baggage !== undefined) headers["baggage"] = context.baggage;
  // Outside of a request nobody set a priority that could be raised: what is asked is what counts.
  const priority = context === undefined ? asked : priorityOfCall(context.priority, asked);
  if (priority !== undefined) headers["x-synego-priority"] = priority;
  return headers;
}
