// Taking over a server that exists: one line beside it, its routing untouched.
import type { Server as GrpcServer } from "@grpc/grpc-js";
import type { App } from "./listen.js";
import type { RunOptions } from "./life.js";
import { readEnvironment, type ServiceOptions } from "./options.js";
import { Service } from "./service.js";

/** How a server is taken over. */
export interface ServeOptions extends ServiceOptions, RunOptions {
  /** Name of the service; default `SYNEGO_SERVICE`, else `service`. */
  readonly name?: string;
}

/**
 * A service that answers with an existing app: an Express app, a Fastify instance, an `http.Server`, a fetch handler
 * (`{ fetch }`, such as Hono), and a gRPC server beside it. For hooks and checks; otherwise see `serve`.
 */
export function wrap(app: App | undefined, grpc?: GrpcServer, options: ServeOptions = {}): Service {
  const told = readEnvironment(options.env ?? process.env);
  return new Service(options.name ?? told.service ?? "service", {
    ...options,
    ...(app === undefined ? {} : { app }),
    ...(grpc === undefined ? {} : { grpc }),
  });
}

/**
 * Takes over where an existing app listens: address, link, context, health and drain. Resolves when drained.
 * Use it instead of the app's own `listen`.
 */
export async function serve(app: App | undefined, grpc?: GrpcServer, options: ServeOptions = {}): Promise<void> {
  await wrap(app, grpc, options).run(options);
}
