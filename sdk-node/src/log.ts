// Logs: JSON lines on stdout, each with the ids of the request in whose course it is written.
import pino, { type DestinationStream, type Logger } from "pino";
import { ctx } from "./context.js";
import { LogLevel } from "./gen/synego/v1/common.js";

/** Who writes the lines. */
export interface LogOwner {
  readonly service: string;
  readonly instance?: string | undefined;
}

/**
 * A logger of this form: `level ts service instance request_id trace_id handler`, the caller's fields, then `msg`.
 * `owner` is asked at each line, because the instance may be known only once the sidecar told it.
 */
export function newLogger(owner: () => LogOwner, level: string, destination?: DestinationStream): Logger {
  return pino(
    {
      level: readLevel(level),
      base: null,
      messageKey: "msg",
      timestamp: () => `,"ts":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      mixin: () => {
        const { service, instance } = owner();
        const context = ctx();
        if (context === undefined) return { service, instance };
        const { requestId, trace, handler } = context;
        return { service, instance, request_id: requestId, trace_id: trace.traceId, handler };
      },
    },
    // Written at once: a line that still sits in memory when the process is killed explains nothing.
    destination ?? pino.destination({ fd: 1, sync: true }),
  );
}

/** A level by its word; `log` reads as `debug`, an unknown word as `info`. */
export function readLevel(word: string): string {
  const level = word.toLowerCase() === "log" ? "debug" : word.toLowerCase();
  return Object.hasOwn(pino.levels.values, level) ? level : "info";
}

/** The level that the mesh asks for; undefined: none in particular. */
export function levelOf(level: LogLevel): string | undefined {
  switch (level) {
    case LogLevel.LOG_LEVEL_TRACE:
      return "trace";
    case LogLevel.LOG_LEVEL_DEBUG:
      return "debug";
    case LogLevel.LOG_LEVEL_INFO:
      return "info";
    case LogLevel.LOG_LEVEL_WARN:
      return "warn";
    case LogLevel.LOG_LEVEL_ERROR:
      return "error";
    default:
      return undefined;
  }
}
