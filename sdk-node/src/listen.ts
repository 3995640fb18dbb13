// Where a service listens: its own HTTP server, or one that the user made, and a gRPC server beside it.
import { chmod, lstat, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type RequestListener, Server } from "node:http";
import { connect, type Socket } from "node:net";
import { Readable } from "node:stream";
import { type Server as GrpcServer, ServerCredentials } from "@grpc/grpc-js";
import { writeResponse } from "./handler.js";
import type { DeclaredListener } from "./hello.js";

/** A fetch handler, or something that has one (Hono and others). */
export type FetchHandler = (request: Request) => Response | Promise<Response>;

/** What can be taken over: an Express app or any other request listener, a Fastify instance, a server, a fetch handler. */
export type App = RequestListener | Server | { fetch: FetchHandler } | FastifyLike;

/** The part of a Fastify instance that is used. */
export interface FastifyLike {
  readonly server: Server;
  ready(): PromiseLike<unknown>;
  close(): PromiseLike<unknown>;
}

/** An app that is ready to answer. */
export interface Mounted {
  /** The server that the user made; undefined: the app has none. */
  readonly server: Server | undefined;
  readonly listener: RequestListener;
  /** Ends what the app itself holds. */
  close(): Promise<void>;
}

/** Makes an app ready to answer; its routing stays its own. */
export async function mount(app: App): Promise<Mounted> {
  const close = async (): Promise<void> => undefined;
  if (app instanceof Server) return { server: app, listener: takeListeners(app), close };
  if (typeof app === "function") return { server: undefined, listener: app as RequestListener, close };
  if ("ready" in app) {
    await app.ready();
    const end = async (): Promise<void> => void (await app.close());
    return { server: app.server, listener: takeListeners(app.server), close: end };
  }
  return { server: undefined, listener: fetchListener(app.fetch.bind(app)), close };
}

/** Takes a server's own request listeners off it; they are called again by the one that is returned. */
function takeListeners(server: Server): RequestListener {
  const listeners = server.listeners("request") as RequestListener[];
  server.removeAllListeners("request");
  return (request, response) => {
    for (const listener of listeners) listener.call(server, request, response);
  };
}

function fetchListener(handler: FetchHandler): RequestListener {
  return async (request, response) => {
    const bodyless = request.method === "GET" || request.method === "HEAD";
    const url = new URL(request.url ?? "/", `http://${request.headers.host ?? "localhost"}`);
    const headers = new Headers();
    for (let index = 0; index + 1 < request.rawHeaders.length; index += 2) {
      headers.append(request.rawHeaders[index] ?? "", request.rawHeaders[index + 1] ?? "");
    }
    const init = bodyless ? {} : { body: Readable.toWeb(request) as ReadableStream<Uint8Array>, duplex: "half" as const };
    await writeResponse(response, await handler(new Request(url, { method: request.method ?? "GET", headers, ...init })));
  };
}

/** Milliseconds that an idle connection is kept: long, because the sidecar is the only client and pools them. */
const keepAliveMs = 65_000;

/** A server for handlers and for apps that bring none. The sidecar in front already bounds heads and slow bodies. */
export function newServer(): Server {
  return createServer({
    keepAliveTimeout: keepAliveMs,
    headersTimeout: keepAliveMs + 5_000, // a shorter one could end a connection that has just been used again
    requestTimeout: 0, // uploads of any length pass
    maxHeaderSize: 64 * 1024,
  });
}

/** Where to listen: a Unix socket, or a port, 0 for a free one. */
export type ListenAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Removes the socket that a killed predecessor left: one on which nobody accepts. What else is there stays, and
 * listening fails.
 */
export async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined); // what cannot be looked at is for `listen` to refuse
  if (found?.isSocket() !== true) return; // a connection to a plain file is refused too
  const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const socket = connect(path, () => resolve(void socket.destroy()));
    socket.once("error", resolve);
  });
  if (failure?.code === "ECONNREFUSED") await rm(path, { force: true });
}

/** Leaves a socket to its sidecar alone, which runs as the same user or as root. */
export async function keepPrivate(path: string): Promise<void> {
  await chmod(path, 0o600);
}

/** One address where a service listens. */
export interface Listening {
  readonly declared: DeclaredListener;
  /** Takes no new work; resolves once what was under way has ended. */
  drain(): Promise<void>;
  /** Ends whatever is left. */
  close(): void;
}

type UpgradeListener = (request: IncomingMessage, socket: Socket, head: Buffer) => void;

/** Begins to listen for HTTP; `answer` gets every request, `upgrade` every one that leaves HTTP, to run its listeners. */
export async function listenHttp(
  server: Server,
  at: ListenAddress,
  answer: RequestListener,
  upgrade: (request: IncomingMessage, socket: Socket, run: () => void) => void,
): Promise<Listening> {
  const upgraded = new Set<Socket>();
  server.on("request", answer);
  const listeners = server.listeners("upgrade") as UpgradeListener[];
  if (listeners.length > 0) {
    server.removeAllListeners("upgrade");
    server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      upgraded.add(socket);
      socket.once("close", () => upgraded.delete(socket));
      upgrade(request, socket, () => {
        for (const listener of listeners) listener.call(server, request, socket, head);
      });
    });
  }
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, () => resolve(void server.off("error", reject)));
  });
  const bound = server.address();
  if (bound === null) throw new TypeError("the server listens nowhere");
  return {
    declared: {
      protocol: "http1",
      address: reachable(at, typeof bound === "string" ? 0 : bound.port),
      keepAliveMs: server.keepAliveTimeout,
    },
    drain: () =>
      new Promise((resolve) => {
        // A connection whose last answer is out would otherwise stay until its keep-alive time is over.
        const idle = setInterval(() => server.closeIdleConnections(), 20);
        server.close(() => resolve(clearInterval(idle)));
        server.closeIdleConnections();
      }),
    close: () => {
      server.close();
      server.closeAllConnections();
      for (const socket of upgraded) socket.destroy();
    },
  };
}

/** Begins to listen for gRPC. */
export async function listenGrpc(server: GrpcServer, at: ListenAddress): Promise<Listening> {
  // With an empty authority grpc-js takes the path as it is.
  const target = "path" in at ? `unix://${at.path}` : joinAddress(at.host, at.port);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(target, ServerCredentials.createInsecure(), (failure, actual) =>
      failure === null ? resolve(actual) : reject(failure),
    );
  });
  return {
    declared: { protocol: "grpc", address: reachable(at, bound) },
    drain: () => new Promise((resolve) => server.tryShutdown(() => resolve())),
    close: () => server.forceShutdown(),
  };
}

/** Where the sidecar reaches a listener; a socket has no port. */
function reachable(at: ListenAddress, port: number): string {
  return "path" in at ? `unix:${at.path}` : joinAddress(at.host, port);
}

function joinAddress(host: string, port: number): string {
  // The sidecar is on this machine, wherever the service listens besides.
  const near = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return near.includes(":") ? `[${near}]:${port}` : `${near}:${port}`;
}
