// The way of one HTTP request through a service: count, context, route, time, run, write.
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Logger } from "pino";
import type { Activity } from "./activity.js";
import { bindEmitter, type Ctx, readContext, runWith } from "./context.js";
import { connectAnswer, httpAnswer, meshError, SynegoError } from "./errors.js";
import { type HandleOptions, type Handler, type Input, readBody, writeError, writeResult } from "./handler.js";
import type { HandlerCounts } from "./load.js";
import type { Found, Pattern } from "./pattern.js";
import { EventStream } from "./sse.js";

/** A handler with all that belongs to it. */
export interface Route {
  readonly pattern: Pattern;
  readonly options: HandleOptions;
  readonly run: Handler<Readonly<Record<string, string>>, never>;
  readonly protocol: "http" | "connect";
  readonly counts: HandlerCounts;
}

/** What answering needs of its service. */
export interface AnswerParts {
  readonly activity: Activity;
  readonly log: Logger;
  readonly bodyLimit: number;
  /** Finds the handler of a request. */
  find(method: string, target: string): Found<Route>;
  /** What takes over where no handler does; undefined: nothing. */
  readonly app: RequestListener | undefined;
  /** Answers `/livez` and its like; undefined: another path. */
  health(path: string): { status: number; body: unknown } | undefined;
  /** Whether answers should end their connections. */
  isDraining(): boolean;
}

/** The listener that answers all requests of a service. */
export function answerer(parts: AnswerParts): RequestListener {
  return (request, response) => {
    const found = parts.find(request.method ?? "GET", request.url ?? "/");
    if (!("value" in found) && answerHealth(request, response, parts)) return;
    const exchange = new Exchange(request, response, "value" in found ? found.value : undefined, parts);
    void exchange.run(found);
  };
}

/** Gives an upgraded connection (a WebSocket) its context, and counts it as a stream; its signal aborts at a drain. */
export function upgrader(activity: Activity, log: Logger): (request: IncomingMessage, socket: Socket, run: () => void) => void {
  return (request, socket, run) => {
    const abort = new AbortController();
    const ended = activity.begin();
    const off = activity.stream(() => abort.abort(meshError("draining", "the service drains")));
    socket.once("close", () => {
      off();
      ended();
      abort.abort(new SynegoError("cancelled", "the client went away"));
    });
    const context = readContext(headerOf(request, true), { protocol: "http", signal: abort.signal, log });
    bindEmitter(socket, context);
    runWith(context, run);
  };
}

function answerHealth(request: IncomingMessage, response: ServerResponse, parts: AnswerParts): boolean {
  if (request.method !== "GET" && request.method !== "HEAD") return false;
  const health = parts.health((request.url ?? "/").split("?", 1)[0] ?? "/");
  if (health === undefined) return false;
  response.writeHead(health.status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(health.body));
  return true;
}

/** One request and its answer. */
class Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #route: Route | undefined;
  readonly #parts: AnswerParts;
  readonly #abort = new AbortController();
  readonly #ctx: Ctx;
  readonly #came = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(request: IncomingMessage, response: ServerResponse, route: Route | undefined, parts: AnswerParts) {
    this.#request = request;
    this.#response = response;
    this.#route = route;
    this.#parts = parts;
    const streaming = route?.options.streaming ?? false;
    this.#ctx = readContext(headerOf(request, streaming), {
      protocol: route?.protocol ?? "http",
      handler: route?.pattern.text,
      signal: this.#abort.signal,
      log: parts.log,
      limitMs: streaming ? undefined : route?.options.timeoutMs,
    });
    bindEmitter(request, this.#ctx);
    bindEmitter(response, this.#ctx);
    const ended = parts.activity.begin();
    response.once("close", () => {
      clearTimeout(this.#timer);
      ended();
      if (!response.writableFinished) this.#abort.abort(new SynegoError("cancelled", "the client went away"));
    });
  }

  /** Answers; never rejects. */
  async run(found: Found<Route>): Promise<void> {
    await runWith(this.#ctx, async () => {
      if (this.#parts.isDraining()) this.#response.setHeader("connection", "close");
      try {
        if ("value" in found) await this.#handle(found.value, found.params);
        else if (this.#parts.app !== undefined) await this.#parts.app(this.#request, this.#response);
        else throw refusal(this.#request.method ?? "GET", this.#request.url ?? "/", found.allow);
      } catch (failure) {
        this.#fail(failure, "allow" in found ? found.allow : []);
      }
    });
  }

  async #handle(route: Route, params: Readonly<Record<string, string>>): Promise<void> {
    route.counts.running += 1;
    this.#response.once("close", () => (route.counts.running -= 1));
    // A stream learns of a drain before anything else, so that it ends itself.
    let stop = route.options.streaming === true ? this.#openStream(true) : undefined;
    const run = this.#runHandler(route, params);
    const over = this.#timeOver(route);
    const result = over === undefined ? await run : await Promise.race([run, over]);
    clearTimeout(this.#timer);
    if (result instanceof EventStream) stop ??= this.#openStream(false);
    await writeResult(this.#response, result, stop ?? this.#abort.signal);
  }

  async #runHandler(route: Route, params: Readonly<Record<string, string>>): Promise<unknown> {
    const [path = "/", query] = (this.#request.url ?? "/").split(/\?(.*)/s, 2);
    const body = await readBody(this.#request, route.options.body, this.#parts.bodyLimit);
    const input: Input = {
      method: this.#request.method ?? "GET",
      path,
      params,
      query: new URLSearchParams(query),
      headers: this.#request.headers,
      body,
      raw: this.#request,
      signal: this.#abort.signal,
      ctx: this.#ctx,
    };
    return (route.run as Handler)(input);
  }

  /** Rejects when the time of this run is over; undefined: it has no limit. */
  #timeOver(route: Route): Promise<never> | undefined {
    const leftMs = this.#ctx.timeLeftMs();
    if (leftMs === undefined) return undefined;
    return new Promise((_resolve, reject) => {
      this.#timer = setTimeout(() => {
        const own = route.options.timeoutMs;
        // The nearer of two limits was set: it is the handler's own if that much time has passed.
        const isOwn = own !== undefined && performance.now() - this.#came >= own - 1;
        const failure = isOwn
          ? meshError("handler_timeout", `${route.pattern.text} ran longer than ${own} ms`)
          : new SynegoError("deadline_exceeded", "the time of the request was over");
        if (isOwn) route.counts.timedOut += 1;
        this.#abort.abort(failure);
        reject(failure);
      }, leftMs);
    });
  }

  /** Counts the answer as an open stream. The signal aborts when a drain begins, the handler's too if it wants. */
  #openStream(withHandler: boolean): AbortSignal {
    const stop = new AbortController();
    const off = this.#parts.activity.stream(() => {
      const draining = meshError("draining", "the service drains");
      stop.abort(draining);
      if (withHandler) this.#abort.abort(draining);
    });
    this.#response.once("close", off);
    return stop.signal;
  }

  #fail(failure: unknown, allow: readonly string[]): void {
    clearTimeout(this.#timer);
    const gone = this.#abort.signal.aborted && this.#response.destroyed;
    if (!(failure instanceof SynegoError) && !gone) this.#parts.log.error({ err: failure }, "a handler failed");
    const form = this.#route?.protocol === "connect" ? connectAnswer : httpAnswer;
    writeError(this.#response, form(failure, this.#ctx.requestId), allow.length > 0 ? { allow: allow.join(", ") } : {});
  }
}

/** Headers that tell how long a request may take. */
const timeouts = new Set(["x-synego-timeout", "connect-timeout-ms", "grpc-timeout"]);

/** Reads headers; a stream has no total limit, so the time that a hop gave the request does not count for it. */
function headerOf(request: IncomingMessage, streaming: boolean): (name: string) => string | undefined {
  return (name) => {
    if (streaming && timeouts.has(name)) return undefined;
    const value = request.headers[name];
    return Array.isArray(value) ? value.join(",") : value;
  };
}

function refusal(method: string, target: string, allow: readonly string[]): SynegoError {
  const path = target.split("?", 1)[0] ?? "/";
  // A 404 or 405 is the service's own word, not the mesh's.
  if (allow.length === 0) return meshError("no_handler", `no handler takes ${path}`, { fromMesh: false });
  return new SynegoError("unimplemented", `${path} does not take ${method}`, { reason: "method_not_allowed", status: 405 });
}
