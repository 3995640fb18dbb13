// The one error: how it is made, how it leaves on each transport, and how a caller gets it back.
import { Metadata } from "@grpc/grpc-js";
import { type Blame, type Code, codeOfNumber, codeOfStatus, codes, isCode, type Retry } from "./codes.js";
import { type Reason, reasons, isReasonWord } from "./reasons.js";
import { faultOf, readFault } from "./fault.js";

/** What is known of a failure besides its code and message; everything has a default. */
export interface SynegoErrorOptions extends ErrorOptions {
  /** A word of the service, `[a-z][a-z0-9_]{0,63}`, or one of the mesh's; default: the code. */
  readonly reason?: Reason | (string & {});
  /** HTTP status where the code's own does not fit; 400 to 599. */
  readonly status?: number | undefined;
  /** Whose fault; default: the code's. */
  readonly blame?: Blame;
  /** Whether a repeat helps; default: the reason's, else the code's. */
  readonly retry?: Retry;
  /** Milliseconds to wait before a repeat; ≥ 0. */
  readonly retryAfterMs?: number | undefined;
  /** Id of the request that failed; default: none. */
  readonly requestId?: string | undefined;
  /** The service that failed; default: none. */
  readonly service?: string | undefined;
  /** Whether the mesh made this failure, and not the service; default false. */
  readonly fromMesh?: boolean;
}

/** The one error class of this package: narrow on `code`, `reason` or `retry`, never on `message`. */
export class SynegoError extends Error {
  override readonly name = "SynegoError";
  readonly code: Code;
  readonly status: number;
  readonly reason: string;
  readonly blame: Blame;
  readonly retry: Retry;
  readonly retryAfterMs: number | undefined;
  readonly requestId: string | undefined;
  readonly service: string | undefined;
  readonly fromMesh: boolean;

  /** @throws TypeError when `reason` is no word or `status` is no status of a failure. */
  constructor(code: Code, message: string, options: SynegoErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const reason = options.reason ?? code;
    if (!isReasonWord(reason)) throw new TypeError(`reason ${JSON.stringify(reason)} is not [a-z][a-z0-9_]{0,63}`);
    const status = options.status ?? codes[code].status;
    if (!(Number.isInteger(status) && status >= 400 && status <= 599)) {
      throw new TypeError(`status ${status} is not 400 to 599`);
    }
    const known = reasons[reason as Reason];
    this.code = code;
    this.status = status;
    this.reason = reason;
    this.blame = options.blame ?? known?.blame ?? codes[code].blame;
    this.retry = options.retry ?? known?.retry ?? codes[code].retry;
    this.retryAfterMs = options.retryAfterMs;
    this.requestId = options.requestId;
    this.service = options.service;
    this.fromMesh = options.fromMesh ?? false;
  }

  /** gRPC trailers with this error as a `Fault`; grpc-js sends them when a handler ends with this error. */
  get metadata(): Metadata {
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", faultOf(this));
    if (reasons[this.reason as Reason]?.inHeader === true) metadata.set("x-synego-reason", this.reason);
    return metadata;
  }

  /** The failure with which a service answered over HTTP; reads the body. `service` is the name that was called. */
  static async fromResponse(response: Response, service = "the service"): Promise<SynegoError> {
    return readHttp(service, response.status, (name) => response.headers.get(name), await response.text());
  }

  /** The failure that a gRPC stub of `service` reported, in a callback or an `error` event. */
  static fromGrpc(failure: GrpcFailure, service: string): SynegoError {
    return readGrpc(service, failure);
  }
}

/** The error of a mesh reason that an SDK makes itself, with the code and status of that reason. */
export function meshError(reason: Reason, message: string, options: SynegoErrorOptions = {}): SynegoError {
  const known = reasons[reason];
  return new SynegoError(known.code, message, { fromMesh: true, ...options, reason, status: known.status });
}

/** Any failure as a `SynegoError`: a foreign one becomes `internal` with a fixed text, the original as its cause. */
export function toSynegoError(failure: unknown): SynegoError {
  if (failure instanceof SynegoError) return failure;
  return new SynegoError("internal", "internal error", { cause: failure });
}

/** An error on its way out over HTTP. */
export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Readonly<Record<string, string | number>>;
}

/** How an error leaves over HTTP. `requestId` stands in where the error has none. */
export function httpAnswer(failure: unknown, requestId?: string): ErrorAnswer {
  const error = toSynegoError(failure);
  const body = { code: error.status, msg: error.message, reason: error.reason };
  return { status: error.status, headers: headersOf(error), body: withRequestId(body, error.requestId ?? requestId) };
}

/** How an error leaves from a call by name (Connect's form). */
export function connectAnswer(failure: unknown, requestId?: string): ErrorAnswer {
  const error = toSynegoError(failure);
  const body = { code: error.code, message: error.message, reason: error.reason };
  return { status: error.status, headers: headersOf(error), body: withRequestId(body, error.requestId ?? requestId) };
}

function withRequestId(body: Record<string, string | number>, requestId: string | undefined): ErrorAnswer["body"] {
  return requestId === undefined ? body : { ...body, request_id: requestId };
}

function headersOf(error: SynegoError): Record<string, string> {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (error.retryAfterMs !== undefined) headers["retry-after"] = String(Math.ceil(error.retryAfterMs / 1000));
  if (reasons[error.reason as Reason]?.inHeader === true) headers["x-synego-reason"] = error.reason;
  return headers;
}

/** The error that a caller gets from an HTTP answer. `header` gives a header by its lower-case name, or null. */
export function readHttp(
  service: string,
  status: number,
  header: (name: string) => string | null,
  text: string,
): SynegoError {
  const body = parseObject(header("content-type"), text);
  const meshReason = header("x-synego-reason");
  const code = isCode(body["code"]) ? body["code"] : codeOfStatus(status);
  const reason = [meshReason, body["reason"]].find((word) => typeof word === "string" && isReasonWord(word));
  const message = [body["msg"], body["message"]].find((words) => typeof words === "string");
  const retryAfter = /^\d{1,7}$/.exec(header("retry-after") ?? "")?.[0];
  const requestId = body["request_id"] ?? header("x-request-id");
  return new SynegoError(code, (message as string | undefined) ?? `${service} answered with status ${status}`, {
    reason: (reason as string | undefined) ?? code,
    status: status >= 400 && status <= 599 ? status : undefined,
    blame: codes[code].blame === "local" ? "upstream" : codes[code].blame,
    retryAfterMs: retryAfter === undefined ? undefined : Number(retryAfter) * 1000,
    requestId: typeof requestId === "string" && requestId !== "" ? requestId : undefined,
    service,
    fromMesh: meshReason !== null,
  });
}

function parseObject(contentType: string | null, text: string): Record<string, unknown> {
  if (!/^application\/(.+\+)?json\b/i.test(contentType ?? "")) return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {}; // a broken body tells nothing; the status alone speaks
  }
}

/** The failure of a gRPC call as grpc-js reports it. */
export interface GrpcFailure {
  readonly code: number;
  readonly details: string;
  readonly metadata?: Metadata | undefined;
}

/** The error that a caller gets from a failed gRPC call to `service`. */
export function readGrpc(service: string, failure: GrpcFailure): SynegoError {
  const code = codeOfNumber(failure.code);
  const fault = readFault(failure.metadata);
  const meshReason = failure.metadata?.get("x-synego-reason")[0];
  const reason = [meshReason, fault?.reason].find((word) => typeof word === "string" && isReasonWord(word));
  const blame = fault?.blame ?? codes[code].blame;
  return new SynegoError(code, fault?.message ?? failure.details, {
    cause: failure,
    reason: (reason as string | undefined) ?? code,
    blame: blame === "local" ? "upstream" : blame,
    ...(fault?.retry === undefined ? {} : { retry: fault.retry }),
    retryAfterMs: fault?.retryAfterMs,
    requestId: fault?.requestId,
    service: fault?.service ?? service,
    fromMesh: typeof meshReason === "string" || (fault?.fromMesh ?? false),
  });
}
