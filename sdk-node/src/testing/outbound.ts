// The outbound of the test mesh: one port for HTTP/1 and gRPC, where the host of a request names its service.
import { randomUUID } from "node:crypto";
import { Agent, createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from "node:http";
import { connect as connectHttp2, constants, createServer as createHttp2, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, createServer as createTcp, type Server as TcpServer, type Socket } from "node:net";
import { pipeline } from "node:stream";
import { httpAnswer, SynegoError } from "../errors.js";
import { writeError } from "../handler.js";

/** Where a request to a service goes. */
export type Destination =
  | { readonly address: string }
  | { readonly stub: (request: IncomingMessage, response: ServerResponse) => void }
  | { readonly refusal: SynegoError };

/** Finds the destination of a request; `protocol` is what it speaks. */
export type Route = (service: string, protocol: "http1" | "grpc") => Destination;

/** One outbound. */
export class Outbound {
  readonly #route: Route;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sockets = new Set<Socket>();
  readonly #http1 = createServer((request, response) => this.#forward(request, response));
  readonly #http2 = createHttp2();
  readonly #door = createTcp((socket) => this.#accept(socket));

  constructor(route: Route) {
    this.#route = route;
    this.#http2.on("stream", (stream, headers) => this.#forwardGrpc(stream, headers));
  }

  /** Listens on a free port; gives the base URL. */
  async listen(): Promise<string> {
    const servers: TcpServer[] = [this.#http1, this.#http2 as unknown as TcpServer, this.#door];
    await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))));
    return `http://127.0.0.1:${portOf(this.#door)}`;
  }

  /** Ends all connections and listens no more. */
  close(): void {
    for (const server of [this.#http1, this.#http2, this.#door]) server.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
  }

  /** Gives a connection to the server whose protocol its first bytes speak. */
  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.once("data", (first: Buffer) => {
      const server = first.subarray(0, 3).toString() === "PRI" ? (this.#http2 as unknown as TcpServer) : this.#http1;
      const inner = connect(portOf(server), "127.0.0.1");
      this.#sockets.add(inner);
      inner.once("close", () => this.#sockets.delete(inner));
      inner.write(first);
      pipeline(socket, inner, socket, () => undefined);
    });
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    const service = (request.headers.host ?? "").split(":", 1)[0] ?? "";
    request.headers["x-request-id"] ??= randomUUID();
    const destination = this.#route(service, "http1");
    if ("refusal" in destination) {
      const answer = httpAnswer(destination.refusal, String(request.headers["x-request-id"]));
      writeError(response, answer, { "x-synego-reason": destination.refusal.reason });
    } else if ("stub" in destination) {
      destination.stub(request, response);
    } else {
      const { hostname, port } = new URL(`http://${destination.address}`);
      const forward = httpRequest({
        host: hostname,
        port,
        agent: this.#agent,
        method: request.method ?? "GET",
        path: request.url ?? "/",
        headers: request.headers,
      });
      forward.on("response", (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        pipeline(answer, response, () => undefined);
      });
      forward.on("error", () => response.destroy());
      response.on("close", () => forward.destroy());
      request.pipe(forward);
    }
  }

  #forwardGrpc(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const service = String(headers[":authority"] ?? "").split(":", 1)[0] ?? "";
    const destination = this.#route(service, "grpc");
    stream.on("error", () => undefined);
    if (!("address" in destination)) {
      const message = "refusal" in destination ? destination.refusal.message : `the stub ${service} speaks no gRPC`;
      stream.respond({ ":status": 200, "content-type": "application/grpc", "grpc-status": "14", "grpc-message": message }, { endStream: true });
      return;
    }
    const session = connectHttp2(`http://${destination.address}`);
    session.on("error", () => stream.destroy());
    const forward = session.request({ ...headers, "x-request-id": headers["x-request-id"] ?? randomUUID() });
    forward.on("response", (answer, flags) => {
      const trailersOnly = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      stream.respond(answer, trailersOnly ? { endStream: true } : { waitForTrailers: true });
    });
    forward.on("trailers", (trailers) => {
      stream.once("wantTrailers", () => stream.sendTrailers(withoutPseudo(trailers)));
    });
    forward.on("error", () => stream.destroy());
    forward.on("close", () => session.close());
    stream.on("close", () => forward.close());
    stream.pipe(forward);
    forward.pipe(stream);
  }
}

function withoutPseudo(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(":")));
}

function portOf(server: TcpServer): number {
  return (server.address() as AddressInfo).port;
}
