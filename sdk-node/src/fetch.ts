// One HTTP call, shaped like fetch but made with node:http: the built-in fetch may drop `Host`, which names the service.
import { type Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { carry, ctx, type Priority } from "./context.js";
import { leftForCall, timeoutHeaders } from "./deadline.js";
import { meshError, SynegoError } from "./errors.js";

/** What a call may send. */
export type CallBody = NonNullable<ConstructorParameters<typeof Response>[0]> | AsyncIterable<Uint8Array>;

/** How a call is made. */
export interface CallOptions {
  /** Milliseconds from the call to the end of the answer (of an event stream: to its head); default 10,000. */
  readonly timeoutMs?: number;
  /** Gives the call up. */
  readonly signal?: AbortSignal;
  /** Lowers the priority of what the call causes. */
  readonly priority?: Priority;
}

/** What `fetch` takes besides the URL. */
export interface FetchOptions extends CallOptions {
  /** Default `GET`. */
  readonly method?: string;
  readonly headers?: ConstructorParameters<typeof Headers>[0];
  readonly body?: CallBody | undefined;
}

/** Where a call goes. */
export interface Target {
  readonly service: string;
  /** Address to connect to. */
  readonly host: string;
  readonly port: number;
  /** Value of the `Host` header. */
  readonly authority: string;
  /** Whether that address is the sidecar's outbound. */
  readonly throughSidecar: boolean;
}

/** A call that is about to be made. */
export interface Call extends FetchOptions {
  readonly target: Target;
  /** Path and query. */
  readonly path: string;
  readonly transport: "http" | "connect";
  readonly defaultTimeoutMs: number;
  readonly agent: Agent;
}

/** Methods whose requests have no body unless one is given. */
const bodyless = new Set(["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]);

/** Makes one call. Rejects with a `SynegoError`, or with the reason of the caller's own signal. */
export async function send(call: Call): Promise<Response> {
  const around = ctx();
  const leftMs = leftForCall(around?.timeLeftMs(), call.timeoutMs ?? call.defaultTimeoutMs);
  call.signal?.throwIfAborted();
  if (leftMs === 0) throw overdue(call.target.service, 0);
  const headers = new Headers(call.headers);
  for (const [name, value] of Object.entries(carry(around, call.priority))) headers.set(name, value);
  for (const [name, value] of Object.entries(timeoutHeaders(leftMs, call.transport))) headers.set(name, value);
  const body = openBody(call.body, headers);
  if (body instanceof Readable) headers.set("transfer-encoding", "chunked");
  else if (body === undefined && !bodyless.has(call.method ?? "GET")) headers.set("content-length", "0");

  const request = httpRequest({
    host: call.target.host,
    port: call.target.port,
    agent: call.agent,
    method: call.method ?? "GET",
    path: call.path,
    // An array keeps `Host` first and every name as it is.
    headers: [["host", call.target.authority], ...headers].flat(),
    setHost: false,
  });
  const stop = watch(request, [call.signal, around?.signal], leftMs, call.target.service);
  try {
    const answered = head(request, call);
    // A body that fails fails the request; a service may also answer before it has read all of it.
    if (body instanceof Readable) pipeline(body, request).catch((failure: unknown) => request.destroy(asError(failure)));
    else request.end(body);
    const answer = await answered;
    if (isEventStream(answer)) stop.timer();
    answer.once("close", stop.all);
    return toResponse(answer, request.method);
  } catch (failure) {
    stop.all();
    throw failure;
  }
}

/** The body in a form that node:http takes; sets its type and length where they are known. */
function openBody(body: CallBody | undefined, headers: Headers): Uint8Array | Readable | undefined {
  if (body === undefined) return undefined;
  if (body instanceof Uint8Array) {
    headers.set("content-length", String(body.length));
    return body;
  }
  if (typeof body === "string") {
    if (!headers.has("content-type")) headers.set("content-type", "text/plain;charset=UTF-8");
    return openBody(Buffer.from(body), headers);
  }
  if (Symbol.asyncIterator in (body as object)) return Readable.from(body as AsyncIterable<Uint8Array>, { objectMode: false });
  const read = new Response(body as ConstructorParameters<typeof Response>[0]);
  const type = read.headers.get("content-type");
  if (type !== null && !headers.has("content-type")) headers.set("content-type", type);
  return read.body === null ? undefined : Readable.fromWeb(read.body as Parameters<typeof Readable.fromWeb>[0]);
}

/** Ends the request when time is over or a signal aborts. */
function watch(
  request: ClientRequest,
  signals: readonly (AbortSignal | undefined)[],
  leftMs: number | undefined,
  service: string,
): { timer: () => void; all: () => void } {
  const given = signals.filter((signal) => signal !== undefined);
  const abort = (event: Event): void => void request.destroy(asError((event.target as AbortSignal).reason));
  for (const signal of given) {
    if (signal.aborted) request.destroy(asError(signal.reason));
    signal.addEventListener("abort", abort, { once: true });
  }
  const timer = leftMs === undefined ? undefined : setTimeout(() => request.destroy(overdue(service, leftMs)), leftMs);
  const stopTimer = (): void => clearTimeout(timer);
  return {
    timer: stopTimer,
    all: () => {
      stopTimer();
      for (const signal of given) signal.removeEventListener("abort", abort);
    },
  };
}

/** The head of the answer. */
function head(request: ClientRequest, { target, signal }: Call): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let connected = false;
    request.once("socket", (socket) => {
      if (!socket.connecting) connected = true;
      else socket.once("connect", () => (connected = true));
    });
    request.once("response", (answer) => {
      // Destroying the request after its head destroys the answer with no cause: tell it why.
      request.once("error", (failure) => answer.destroy(failure));
      resolve(answer);
    });
    request.once("error", (failure) => {
      if (failure instanceof SynegoError || signal?.aborted === true) reject(failure);
      else reject(unreachable(target, request.method, connected, failure));
    });
  });
}

/** The error of a call that got no answer. A request that was sent may have been carried out. */
function unreachable(target: Target, method: string, connected: boolean, cause: Error): SynegoError {
  const safe = !connected || ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"].includes(method);
  const retry = safe ? "later" : "never";
  const where = `${target.host}:${target.port}`;
  if (target.throughSidecar) {
    const message = `the sidecar's outbound at ${where} did not answer a call of ${target.service}: ${cause.message}`;
    return meshError("sidecar_unreachable", message, { cause, retry, service: target.service });
  }
  const message = `${target.service} at ${where} did not answer: ${cause.message}`;
  return new SynegoError("unavailable", message, { cause, retry, blame: "upstream", service: target.service });
}

function overdue(service: string, ms: number): SynegoError {
  const message = ms === 0 ? `no time was left to call ${service}` : `${service} did not answer within ${ms} ms`;
  return new SynegoError("deadline_exceeded", message, { service, blame: ms === 0 ? "local" : "upstream" });
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new SynegoError("cancelled", "the call was given up", { cause: reason });
}

function isEventStream(answer: IncomingMessage): boolean {
  return /^text\/event-stream\b/i.test(answer.headers["content-type"] ?? "");
}

function toResponse(answer: IncomingMessage, method: string): Response {
  const status = answer.statusCode ?? 0;
  const headers = new Headers();
  for (let index = 0; index + 1 < answer.rawHeaders.length; index += 2) {
    headers.append(answer.rawHeaders[index] ?? "", answer.rawHeaders[index + 1] ?? "");
  }
  const empty = method === "HEAD" || [204, 205, 304].includes(status);
  if (empty) answer.resume();
  const body = empty ? null : (Readable.toWeb(answer) as unknown as ReadableStream<Uint8Array>);
  return new Response(body, { status, statusText: answer.statusMessage ?? "", headers });
}
