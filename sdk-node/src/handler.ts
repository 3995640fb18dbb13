// Handlers: what one gets, what it may give back, and how that becomes an HTTP answer.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Ctx } from "./context.js";
import { type ErrorAnswer, meshError, SynegoError } from "./errors.js";
import { EventStream, writeEvents } from "./sse.js";

/** The part of the Standard Schema interface (version 1) that is used: zod, valibot, arktype and others have it. */
export interface StandardSchema<Output = unknown> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
  };
}

/** What a schema says of a value. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** One mistake that a schema found. */
export interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** How a handler is to be run. */
export interface HandleOptions<Body = unknown> {
  /** Form of the JSON body; one that does not fit is answered 400 `invalid_body`, with every mistake. */
  readonly body?: StandardSchema<Body>;
  /** Milliseconds for one run, then 504 `handler_timeout`; default: the request's own deadline alone. */
  readonly timeoutMs?: number;
  /** The answer is a stream: no total time limit, and `signal` aborts when a drain begins. Default false. */
  readonly streaming?: boolean;
}

/** What a handler gets. */
export interface Input<Params = Readonly<Record<string, string>>, Body = unknown> {
  readonly method: string;
  /** The path without its query, not decoded. */
  readonly path: string;
  readonly params: Params;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** The body as the schema gives it; without a schema a JSON body as it was sent, else undefined (read `raw`). */
  readonly body: Body;
  /** The request itself, to read a body as a stream. */
  readonly raw: IncomingMessage;
  readonly signal: AbortSignal;
  readonly ctx: Ctx;
}

/**
 * Answers a request. It may give back a value (200 as JSON), a string (200 as text), bytes, a stream of bytes,
 * `reply(…)`, `sse(…)`, a `Response`, or nothing (204).
 */
export type Handler<Params = Readonly<Record<string, string>>, Body = unknown> = (input: Input<Params, Body>) => unknown;

/** An answer with a status and headers of its own. */
export class Reply {
  constructor(
    readonly status: number,
    readonly body: unknown,
    readonly headers: Readonly<Record<string, string>>,
  ) {}
}

/** Answers with this status; `body` is written as any other value of a handler. */
export function reply(status: number, body?: unknown, headers: Readonly<Record<string, string>> = {}): Reply {
  return new Reply(status, body, headers);
}

/**
 * Reads the JSON body of a request and checks its form.
 *
 * - `limit`: bytes; a longer body is refused before it is held in memory.
 * - Errors: `invalid_body` when it is no JSON or does not fit, 413 `body_too_large`.
 */
export async function readBody(
  request: IncomingMessage,
  schema: StandardSchema | undefined,
  limit: number,
): Promise<unknown> {
  const isJson = /^application\/(.+\+)?json\b/i.test(request.headers["content-type"] ?? "");
  if (schema === undefined && !isJson) return undefined;
  const text = (await readBytes(request, limit)).toString("utf8");
  let value: unknown;
  try {
    value = text === "" ? undefined : JSON.parse(text);
  } catch (cause) {
    throw meshError("invalid_body", "the body is not JSON", { cause });
  }
  return schema === undefined ? value : checkForm(value, schema);
}

/** A value as the schema gives it, or `invalid_body` with every mistake. */
export async function checkForm(value: unknown, schema: StandardSchema): Promise<unknown> {
  const result = await schema["~standard"].validate(value);
  if (result.issues === undefined) return result.value;
  throw meshError("invalid_body", result.issues.map(describeIssue).join("; ") || "the body does not fit");
}

function describeIssue({ message, path }: SchemaIssue): string {
  const keys = (path ?? []).map((part) => String(typeof part === "object" ? part.key : part));
  return keys.length === 0 ? message : `${keys.join(".")}: ${message}`;
}

/** All bytes of a body; more than `limit` are refused before they are held in memory. */
export async function readBytes(request: IncomingMessage, limit: number): Promise<Buffer> {
  const tooLarge = (): SynegoError =>
    new SynegoError("resource_exhausted", `the body is larger than ${limit} bytes`, {
      reason: "body_too_large",
      status: 413,
      blame: "caller",
      retry: "never",
    });
  if (Number(request.headers["content-length"] ?? 0) > limit) throw tooLarge();
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > limit) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (failure) {
    if (failure instanceof SynegoError) throw failure;
    throw new SynegoError("cancelled", "the body was cut short", { cause: failure });
  }
  return Buffer.concat(chunks);
}

/** Writes what a handler gave back. `stop` aborts when a drain begins. */
export async function writeResult(response: ServerResponse, result: unknown, stop: AbortSignal): Promise<void> {
  if (result instanceof EventStream) return writeEvents(response, result, stop);
  if (result instanceof Response) return writeResponse(response, result);
  const { status, body, headers } = result instanceof Reply ? result : reply(result === undefined ? 204 : 200, result);
  if (body instanceof Readable) {
    response.writeHead(status, { "content-type": "application/octet-stream", ...headers });
    return pipeline(body, response);
  }
  const [type, bytes] = encode(body);
  response.writeHead(status, {
    ...(type === undefined ? {} : { "content-type": type }),
    ...(status === 204 || status === 304 ? {} : { "content-length": String(bytes.length) }),
    ...headers,
  });
  response.end(bytes);
}

function encode(body: unknown): [type: string | undefined, bytes: Uint8Array] {
  if (body === undefined) return [undefined, new Uint8Array()];
  if (typeof body === "string") return ["text/plain; charset=utf-8", Buffer.from(body)];
  if (body instanceof Uint8Array) return ["application/octet-stream", body];
  return ["application/json", Buffer.from(JSON.stringify(body))];
}

/** Writes a `Response` of the web's kind. */
export async function writeResponse(response: ServerResponse, from: Response): Promise<void> {
  for (const [name, value] of from.headers) if (name !== "set-cookie") response.setHeader(name, value);
  const cookies = from.headers.getSetCookie();
  if (cookies.length > 0) response.setHeader("set-cookie", cookies);
  response.writeHead(from.status);
  if (from.body === null) response.end();
  else await pipeline(Readable.fromWeb(from.body as Parameters<typeof Readable.fromWeb>[0]), response);
}

/** Writes an error, or breaks the answer off where its head is out already. */
export function writeError(response: ServerResponse, answer: ErrorAnswer, headers: Record<string, string> = {}): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const bytes = Buffer.from(JSON.stringify(answer.body));
  response.writeHead(answer.status, { ...answer.headers, ...headers, "content-length": String(bytes.length) });
  response.end(bytes);
}
