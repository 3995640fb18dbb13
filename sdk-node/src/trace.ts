// W3C trace context: which trace a request belongs to, and the parent that a call tells.
import { randomBytes } from "node:crypto";

/** The place of a request in a trace. */
export interface Trace {
  /** 32 lower-case hex digits, not all zero. */
  readonly traceId: string;
  /** 16 lower-case hex digits: the span that caused this request; undefined where the trace begins here. */
  readonly parentId: string | undefined;
  /** Whether spans of this trace are recorded. */
  readonly sampled: boolean;
  /** The vendors' `tracestate`, untouched; undefined: none. */
  readonly tracestate: string | undefined;
}

/** The trace that headers tell; undefined when there is none or it is malformed, and then its `tracestate` is void. */
export function readTrace(traceparent: string | undefined, tracestate: string | undefined): Trace | undefined {
  const form = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/s;
  const [, version, traceId, parentId, flags, more] = form.exec(traceparent ?? "") ?? [];
  if (version === undefined || traceId === undefined || parentId === undefined || flags === undefined) return undefined;
  if (version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(parentId)) return undefined;
  return { traceId, parentId, sampled: (parseInt(flags, 16) & 1) === 1, tracestate: tracestate || undefined };
}

/** A trace that begins here; sampled, so that whoever follows may still decide. */
export function newTrace(): Trace {
  return { traceId: nonZeroHex(16), parentId: undefined, sampled: true, tracestate: undefined };
}

/** The `traceparent` of a call: the same trace, a new parent. */
export function traceparentOf(trace: Trace): string {
  return `00-${trace.traceId}-${nonZeroHex(8)}-${trace.sampled ? "01" : "00"}`;
}

function nonZeroHex(bytes: number): string {
  const hex = randomBytes(bytes).toString("hex");
  return /^0+$/.test(hex) ? nonZeroHex(bytes) : hex;
}
