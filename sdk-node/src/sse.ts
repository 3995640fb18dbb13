// Server-sent events: an async iterable as a `text/event-stream`, ended politely when the service drains.
import type { ServerResponse } from "node:http";

/** One event. */
export interface SseEvent {
  /** A string goes out as it is, anything else as JSON. */
  readonly data: unknown;
  /** Its type; default: `message`, which is not sent. */
  readonly event?: string;
  /** What a browser sends back as `last-event-id` when it connects again. */
  readonly id?: string;
}

/** How a stream behaves. */
export interface SseOptions {
  /** Milliseconds after which a browser connects again; default 1,000. */
  readonly retryMs?: number;
  /** Milliseconds between comments that keep an idle stream open; default 15,000. */
  readonly keepAliveMs?: number;
}

/** What a handler returns to answer with a stream of events. */
export class EventStream {
  constructor(
    readonly events: AsyncIterable<SseEvent>,
    readonly options: SseOptions,
  ) {}
}

/** Answers with these events; the handler should declare `streaming: true`, so that no total time limit applies. */
export function sse(events: AsyncIterable<SseEvent>, options: SseOptions = {}): EventStream {
  return new EventStream(events, options);
}

/** One event in the form of the wire; line breaks in names cannot forge a second event. */
export function formatEvent({ data, event, id }: SseEvent): string {
  const text = typeof data === "string" ? data : JSON.stringify(data) ?? "null";
  const oneLine = (value: string): string => value.replace(/[\r\n\0]/g, " ");
  const head = (event === undefined ? "" : `event: ${oneLine(event)}\n`) + (id === undefined ? "" : `id: ${oneLine(id)}\n`);
  return `${head}${text.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`).join("")}\n`;
}

/** Writes a stream until its events end, the client goes, or `stop` aborts (a drain). */
export async function writeEvents(response: ServerResponse, stream: EventStream, stop: AbortSignal): Promise<void> {
  const retry = `retry: ${Math.max(0, Math.floor(stream.options.retryMs ?? 1_000))}\n\n`;
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
  });
  response.write(retry);
  const keepAlive = setInterval(() => response.write(": still here\n\n"), stream.options.keepAliveMs ?? 15_000);
  const iterator = stream.events[Symbol.asyncIterator]();
  const ended = new Promise<{ done: true; value: undefined }>((resolve) => {
    const end = (): void => resolve({ done: true, value: undefined });
    response.once("close", end);
    if (stop.aborted) end();
    else stop.addEventListener("abort", end, { once: true });
  });
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), ended]);
      if (next.done === true) break;
      if (!response.write(formatEvent(next.value))) await Promise.race([drained(response), ended]);
    }
  } finally {
    clearInterval(keepAlive);
    // Not awaited: a generator that sleeps on something else ends when that does, the client should not wait for it.
    iterator.return?.()?.then(undefined, () => undefined);
    if (!response.destroyed) response.end(stop.aborted ? retry : undefined);
  }
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => response.once("drain", resolve));
}
