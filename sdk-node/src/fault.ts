// An error as it travels over gRPC: a `Fault` among the details of `google.rpc.Status`.
import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import type { Metadata } from "@grpc/grpc-js";
import { type Blame, codes, type Retry } from "./codes.js";
import type { SynegoError } from "./errors.js";
import { Blame as WireBlame, Fault, Retry as WireRetry } from "./gen/synego/v1/common.js";

const typeUrl = "type.googleapis.com/synego.v1.Fault";

/** Most bytes of a message in a `Fault`. */
const messageBytes = 1_024;

const blames: Readonly<Record<Blame, WireBlame>> = {
  caller: WireBlame.BLAME_CALLER,
  upstream: WireBlame.BLAME_UPSTREAM,
  local: WireBlame.BLAME_LOCAL,
};

const retries: Readonly<Record<Retry, WireRetry>> = {
  never: WireRetry.RETRY_NEVER,
  later: WireRetry.RETRY_LATER,
  other_endpoint: WireRetry.RETRY_OTHER_ENDPOINT,
};

/** An error as a message of the protocol. */
export function toFault(error: SynegoError): Fault {
  return Fault.fromPartial({
    code: codes[error.code].number,
    reason: error.reason,
    message: cut(error.message, messageBytes),
    blame: blames[error.blame],
    retry: retries[error.retry],
    retryAfterMs: Math.min(3_600_000, Math.ceil(error.retryAfterMs ?? 0)),
    requestId: error.requestId ?? "",
    service: error.service ?? "",
    fromMesh: error.fromMesh,
  });
}

/** The bytes of `grpc-status-details-bin`: `google.rpc.Status { code = 1, message = 2, details = 3 }`. */
export function faultOf(error: SynegoError): Buffer {
  const any = new BinaryWriter().uint32(10).string(typeUrl).uint32(18).bytes(Fault.encode(toFault(error)).finish());
  const status = new BinaryWriter().uint32(8).int32(codes[error.code].number);
  status.uint32(18).string(cut(error.message, messageBytes)).uint32(26).bytes(any.finish());
  return Buffer.from(status.finish());
}

/** What a peer told of its failure; what it left out is undefined. */
export interface ReceivedFault {
  readonly number: number;
  readonly reason: string | undefined;
  readonly message: string | undefined;
  readonly blame: Blame | undefined;
  readonly retry: Retry | undefined;
  readonly retryAfterMs: number | undefined;
  readonly requestId: string | undefined;
  readonly service: string | undefined;
  readonly fromMesh: boolean;
}

/** The `Fault` among trailers, or undefined when there is none that can be read. */
export function readFault(metadata: Metadata | undefined | null): ReceivedFault | undefined {
  const details = metadata?.get("grpc-status-details-bin")[0];
  if (!(details instanceof Uint8Array)) return undefined;
  try {
    const bytes = findField(details, 3, (any) => readAny(any));
    return bytes === undefined ? undefined : received(Fault.decode(bytes));
  } catch {
    return undefined; // details of another make: the code and the text still stand
  }
}

function received(fault: Fault): ReceivedFault {
  return {
    number: fault.code,
    reason: fault.reason || undefined,
    message: fault.message || undefined,
    blame: keyOf(blames, fault.blame),
    retry: keyOf(retries, fault.retry),
    retryAfterMs: fault.retryAfterMs || undefined,
    requestId: fault.requestId || undefined,
    service: fault.service || undefined,
    fromMesh: fault.fromMesh,
  };
}

/** The value inside an `Any` of our type, else undefined. */
function readAny(any: Uint8Array): Uint8Array | undefined {
  const url = findField(any, 1, (bytes) => Buffer.from(bytes).toString("utf8"));
  return url === typeUrl ? (findField(any, 2, (bytes) => bytes) ?? new Uint8Array()) : undefined;
}

/** What `take` makes of the first length-delimited field `number` that it wants. */
function findField<T>(message: Uint8Array, number: number, take: (bytes: Uint8Array) => T | undefined): T | undefined {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === number && wireType === 2) {
      const taken = take(reader.bytes());
      if (taken !== undefined) return taken;
    } else {
      reader.skip(wireType);
    }
  }
  return undefined;
}

function keyOf<K extends string>(table: Readonly<Record<K, number>>, value: number): K | undefined {
  return (Object.keys(table) as K[]).find((key) => table[key] === value);
}

/** A text of at most `limit` bytes of UTF-8, never cut inside a character. */
export function cut(text: string, limit: number): string {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length <= limit) return text;
  let end = limit;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end).toString("utf8");
}
