// Calls by name on the serving side, after Connect's unary protocol: JSON, or protobuf where a codec is given.
import { meshError, SynegoError } from "./errors.js";
import { checkForm, type HandleOptions, type Handler, readBytes, reply } from "./handler.js";

/** Turns one type of message into bytes and back; the message objects of ts-proto are such. */
export interface MessageCodec<Value> {
  encode(value: Value): Uint8Array | { finish(): Uint8Array };
  decode(bytes: Uint8Array): Value;
  /** The JSON form of protobuf; without these two a message is its own JSON. */
  fromJSON?(value: unknown): Value;
  toJSON?(value: Value): unknown;
}

/** The messages of one method. */
export interface Codec<Value = unknown, Result = unknown> {
  readonly request: MessageCodec<Value>;
  readonly response: MessageCodec<Result>;
}

/** How a call by name is to be run. */
export interface RpcOptions<Value = unknown, Result = unknown> extends Omit<HandleOptions<Value>, "streaming"> {
  /** Takes protobuf too; JSON is always taken. */
  readonly codec?: Codec<Value, Result>;
}

/** The bytes of a message. */
export function encodeMessage<Value>(codec: MessageCodec<Value>, value: Value): Uint8Array {
  const encoded = codec.encode(value);
  return encoded instanceof Uint8Array ? encoded : encoded.finish();
}

/** A handler that reads a call, runs `fn` and answers in the encoding that was asked in. `limit`: bytes of a body. */
export function rpcHandler(fn: (input: unknown) => unknown, options: RpcOptions, limit: number): Handler {
  const { codec } = options;
  return async ({ raw, headers, body }) => {
    const type = (headers["content-type"] ?? "application/json").split(";", 1)[0]?.trim().toLowerCase();
    if (type === "application/json") {
      const value = codec?.request.fromJSON === undefined ? (body ?? {}) : decode(codec.request.fromJSON, body ?? {});
      const result = (await fn(options.body === undefined ? value : await checkForm(value, options.body))) ?? {};
      return codec?.response.toJSON === undefined ? result : codec.response.toJSON(result);
    }
    if (type !== "application/proto" || codec === undefined) {
      const wanted = codec === undefined ? "application/json" : "application/json or application/proto";
      throw new SynegoError("invalid_argument", `content-type is ${type}, expected ${wanted}`, { status: 415 });
    }
    const value = decode(codec.request.decode, await readBytes(raw, limit));
    const result = await fn(options.body === undefined ? value : await checkForm(value, options.body));
    return reply(200, encodeMessage(codec.response, result), { "content-type": "application/proto" });
  };
}

function decode<From>(read: (from: From) => unknown, from: From): unknown {
  try {
    return read(from);
  } catch (cause) {
    throw meshError("invalid_body", "the body is not the message of this call", { cause });
  }
}
