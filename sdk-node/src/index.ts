// All that this package exports; the test mesh is at `synegobase/testing`.
export { type LinkState, type LinkStatus } from "./attach.js";
export { Client, dial, type DialOptions, type RpcCallOptions, type StubClass } from "./client.js";
export { type Blame, type Code, type Retry } from "./codes.js";
export { ctx, type Ctx, type Priority } from "./context.js";
export { SynegoError, type SynegoErrorOptions } from "./errors.js";
export { type CallBody, type CallOptions, type FetchOptions } from "./fetch.js";
export {
  type HandleOptions,
  type Handler,
  type Input,
  reply,
  type Reply,
  type SchemaIssue,
  type SchemaResult,
  type StandardSchema,
} from "./handler.js";
export { type CheckFunction, type CheckOptions } from "./health.js";
export { type Promised, serverOptions, unary } from "./interceptor.js";
export { type App, type FastifyLike, type FetchHandler } from "./listen.js";
export { type LoadFunction } from "./load.js";
export { type ClientOptions, type Environment, type ServiceOptions } from "./options.js";
export { type Params } from "./pattern.js";
export { type Reason } from "./reasons.js";
export { type Codec, type MessageCodec, type RpcOptions } from "./rpc.js";
export { serve, type ServeOptions, wrap } from "./serve.js";
export { type Drain, type DrainCause, type RunOptions, Service } from "./service.js";
export { type EventStream, sse, type SseEvent, type SseOptions } from "./sse.js";
export { type Trace } from "./trace.js";
