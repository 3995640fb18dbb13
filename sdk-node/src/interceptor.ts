// gRPC on both sides: an incoming call gets its context and its errors their form; an outgoing one carries the context.
import {
  type CallOptions,
  type Client as GrpcClient,
  type ClientUnaryCall,
  type Deadline,
  InterceptingCall,
  type Interceptor,
  type handleUnaryCall,
  Metadata,
  type Server,
  type ServerInterceptor,
  ServerInterceptingCall,
  type ServerListener,
  type ServerUnaryCall,
  type ServiceDefinition,
  type ServiceError,
  status as Status,
  type StatusObject,
} from "@grpc/grpc-js";
import type { Logger } from "pino";
import { Activity } from "./activity.js";
import { codes } from "./codes.js";
import { carry, ctx, type Ctx, readContext, runWith } from "./context.js";
import { leftForCall } from "./deadline.js";
import { meshError, readGrpc, SynegoError } from "./errors.js";
import { readFault } from "./fault.js";
import { newLogger } from "./log.js";

/** What the interceptor of a server tells the service that took the server over. */
export class GrpcHost {
  activity = new Activity();
  #log: Logger | undefined;

  /** The service's log; before a service took the server over, one of its own. */
  get log(): Logger {
    return (this.#log ??= newLogger(() => ({ service: "grpc" }), "info"));
  }

  set log(log: Logger) {
    this.#log = log;
  }
}

const hosts = new WeakMap<ServerInterceptor, GrpcHost>();

/** Options for `new grpc.Server(serverOptions())`: context, errors and counting for all of its methods. */
export function serverOptions(): { interceptors: ServerInterceptor[] } {
  const host = new GrpcHost();
  const interceptor = incoming(host);
  hosts.set(interceptor, host);
  return { interceptors: [interceptor] };
}

/** The host behind a server that was made with `serverOptions()`; undefined for others. */
export function hostOf(server: Server): GrpcHost | undefined {
  // grpc-js gives no public way to ask a server for its interceptors. Should the field go, calls still pass and keep
  // their context; only counting and the service's own log are lost.
  const interceptors: unknown = Reflect.get(server, "interceptors");
  if (!Array.isArray(interceptors)) return undefined;
  return interceptors.map((interceptor: ServerInterceptor) => hosts.get(interceptor)).find((host) => host !== undefined);
}

function incoming(host: GrpcHost): ServerInterceptor {
  return (method, call) => {
    const abort = new AbortController();
    const streaming = method.requestStream || method.responseStream;
    const ended = host.activity.begin();
    // Streams learn of a drain by their signal and end themselves: cutting them would lose what is under way.
    const offStream = streaming
      ? host.activity.stream(() => abort.abort(new SynegoError("unavailable", "the service drains", { reason: "draining" })))
      : () => undefined;
    const finish = (): void => {
      ended();
      offStream();
    };
    let context: Ctx | undefined;
    const within = (fn: () => void): void => (context === undefined ? fn() : runWith(context, fn));
    const listener: ServerListener = {
      onReceiveMetadata: (metadata, next) => {
        const deadline = call.getDeadline();
        context = readContext((name) => metadata.get(name)[0]?.toString(), {
          protocol: "grpc",
          handler: method.path,
          signal: abort.signal,
          log: host.log,
          limitMs: leftUntil(deadline),
        });
        within(() => next(metadata));
      },
      onReceiveMessage: (message, next) => within(() => next(message)),
      onReceiveHalfClose: (next) => within(next),
      onCancel: () => {
        finish();
        abort.abort(new SynegoError("cancelled", "the caller gave the call up"));
      },
    };
    return new ServerInterceptingCall(call, {
      start: (next) => next(listener),
      sendStatus: (status, next) => {
        finish();
        within(() => next(formStatus(status, method.path, host.log)));
      },
    });
  };
}

type Ending = Parameters<ServerInterceptingCall["sendStatus"]>[0];

/** The status as it leaves: an error of ours with its own code, a foreign one with a fixed text. */
function formStatus(status: Ending, path: string, log: Logger): Ending {
  if (status.code === Status.OK) return status;
  const fault = readFault(status.metadata);
  if (fault !== undefined) return { ...status, code: fault.number, details: fault.message ?? status.details };
  // grpc-js reports whatever a handler threw as UNKNOWN with the text of the error, which may hold secrets.
  if (status.code !== Status.UNKNOWN) return status;
  log.error({ handler: path, cause: status.details }, "a handler failed");
  const error = new SynegoError("internal", "internal error");
  return { ...status, code: Status.INTERNAL, details: error.message, metadata: error.metadata };
}

function leftUntil(deadline: Deadline): number | undefined {
  const at = deadline instanceof Date ? deadline.getTime() : deadline;
  return Number.isFinite(at) ? Math.max(0, at - Date.now()) : undefined;
}

/** An async function as a unary handler of grpc-js; what it throws leaves as an error of this package. */
export function unary<Request, Result>(
  fn: (request: Request, call: ServerUnaryCall<Request, Result>) => Result | Promise<Result>,
): handleUnaryCall<Request, Result> {
  return (call, callback) => {
    Promise.resolve()
      .then(() => fn(call.request, call))
      .then(
        (result) => callback(null, result),
        (failure: unknown) => {
          if (!(failure instanceof SynegoError)) ctx()?.log.error({ err: failure }, "a handler failed");
          const error = failure instanceof SynegoError ? failure : new SynegoError("internal", "internal error");
          callback({ code: codes[error.code].number, details: error.message, metadata: error.metadata });
        },
      );
  };
}

/** Carries context and deadline into the calls of a stub. `defaultMs` bounds unary calls that set no deadline. */
export function outgoing(defaultMs: number): Interceptor {
  return (options, nextCall) => {
    const around = ctx();
    const { requestStream, responseStream } = options.method_definition;
    const own = options.deadline === undefined ? undefined : leftUntil(options.deadline);
    const limit = own ?? (requestStream || responseStream ? undefined : defaultMs);
    const leftMs = leftForCall(around?.timeLeftMs(), limit);
    const deadline = leftMs === undefined ? {} : { deadline: Date.now() + leftMs };
    const next = nextCall({ ...options, ...deadline });
    const cancel = (): void => next.cancelWithStatus(Status.CANCELLED, "the request around this call ended");
    return new InterceptingCall(next, {
      start: (metadata, listener, start) => {
        for (const [name, value] of Object.entries(carry(around))) metadata.set(name, value);
        around?.signal.addEventListener("abort", cancel, { once: true });
        if (around?.signal.aborted === true) queueMicrotask(cancel);
        start(metadata, {
          onReceiveMetadata: (received, pass) => pass(received),
          onReceiveMessage: (message, pass) => pass(message),
          onReceiveStatus: (received: StatusObject, pass) => {
            around?.signal.removeEventListener("abort", cancel);
            pass(received);
          },
          ...(listener as object),
        });
      },
    });
  };
}

/** A stub whose unary methods give a promise when they are called without a callback. */
export type Promised<Stub> = {
  [Name in keyof Stub]: Stub[Name] extends (
    request: infer Request,
    metadata: Metadata,
    options: Partial<CallOptions>,
    callback: (error: ServiceError | null, response: infer Result) => void,
  ) => ClientUnaryCall
    ? Stub[Name] & ((request: Request, metadata?: Metadata, options?: Partial<CallOptions>) => Promise<Result>)
    : Stub[Name];
};

type RawUnary = (request: unknown, metadata: Metadata, options: object, callback: UnaryCallback) => ClientUnaryCall;
type UnaryCallback = (error: ServiceError | null, response: unknown) => void;

/** Wraps a stub of `service`. */
export function promised<Stub extends GrpcClient>(
  stub: Stub,
  definition: ServiceDefinition,
  service: string,
  throughSidecar: boolean,
): Promised<Stub> {
  return new Proxy(stub, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      const method = typeof name === "string" ? definition[name] : undefined;
      if (method === undefined || method.requestStream || method.responseStream) return value.bind(target) as unknown;
      return (request: unknown, ...rest: unknown[]) => {
        if (typeof rest.at(-1) === "function") return (value as (...args: unknown[]) => unknown).call(target, request, ...rest);
        const metadata = rest[0] instanceof Metadata ? rest[0] : new Metadata();
        const options = (rest[0] instanceof Metadata ? rest[1] : rest[0]) ?? {};
        return new Promise((resolve, reject) => {
          (value as RawUnary).call(target, request, metadata, options, (error, response) => {
            if (error === null) resolve(response);
            else reject(readFailure(service, error, throughSidecar));
          });
        });
      };
    },
  }) as Promised<Stub>;
}

/** The error of a failed call; grpc-js words for "nothing answers there" become the mesh's reason for it. */
function readFailure(service: string, error: ServiceError, throughSidecar: boolean): SynegoError {
  const nobody = error.code === Status.UNAVAILABLE && /^(No connection established|Failed to connect)/.test(error.details);
  if (!nobody || !throughSidecar) return readGrpc(service, error);
  const message = `the sidecar's outbound did not answer a call of ${service}: ${error.details}`;
  return meshError("sidecar_unreachable", message, { cause: error, service });
}
