// Deadlines as headers: what is left of a request's time, and how a call tells it.

/** One day; no timeout on the wire is longer. */
const dayMs = 86_400_000;

const unitsPerMs: Readonly<Record<string, bigint>> = { m: 1n, u: 1_000n, n: 1_000_000n };
const msPerUnit: Readonly<Record<string, bigint>> = { H: 3_600_000n, M: 60_000n, S: 1_000n };

/** Gives a header by its lower-case name; undefined when it is missing. */
export type HeaderReader = (name: string) => string | undefined;

/** A `grpc-timeout` in whole milliseconds, rounded down, at most a day; undefined when it is malformed. */
export function parseGrpcTimeout(value: string): number | undefined {
  const [, digits, unit] = /^(\d{1,8})([HMSmun])$/.exec(value) ?? [];
  if (digits === undefined || unit === undefined) return undefined;
  const amount = BigInt(digits);
  const ms = amount * (msPerUnit[unit] ?? 1n) / (unitsPerMs[unit] ?? 1n);
  return Number(ms < dayMs ? ms : dayMs);
}

/** Milliseconds in `x-synego-timeout` or `connect-timeout-ms`; undefined when out of 1 to 86,400,000. */
function parseMs(value: string | undefined): number | undefined {
  if (value === undefined || !/^\d{1,8}$/.test(value)) return undefined;
  const ms = Number(value);
  return ms >= 1 && ms <= dayMs ? ms : undefined;
}

/** The time that a request may take; the smallest header wins. Milliseconds, undefined: no limit. */
export function timeoutOf(header: HeaderReader): number | undefined {
  const grpc = header("grpc-timeout");
  const all = [
    parseMs(header("x-synego-timeout")),
    parseMs(header("connect-timeout-ms")),
    grpc === undefined ? undefined : parseGrpcTimeout(grpc),
  ].filter((ms) => ms !== undefined);
  return all.length === 0 ? undefined : Math.min(...all);
}

/**
 * The time left for a call; it may be shorter than what the request has left, never longer.
 *
 * - `requestLeftMs`: what the surrounding request has left; undefined: no deadline.
 * - `callTimeoutMs`: the call's own limit; undefined: none.
 * - Returns whole milliseconds; 0: over, the call is not sent; undefined: no deadline at all.
 */
export function leftForCall(requestLeftMs: number | undefined, callTimeoutMs: number | undefined): number | undefined {
  const all = [requestLeftMs, callTimeoutMs].filter((ms) => ms !== undefined);
  return all.length === 0 ? undefined : Math.max(0, Math.floor(Math.min(...all)));
}

/** The headers that tell a call's time; Connect has one of its own besides the mesh's. */
export function timeoutHeaders(leftMs: number | undefined, transport: "http" | "connect"): Record<string, string> {
  if (leftMs === undefined) return {};
  const ms = String(Math.min(leftMs, dayMs));
  return transport === "http" ? { "x-synego-timeout": ms } : { "x-synego-timeout": ms, "connect-timeout-ms": ms };
}
