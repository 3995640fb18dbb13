// How much is going on, measured for the sidecar: the event loop, the handlers, and the service's own figures.
import { type EventLoopUtilization, monitorEventLoopDelay, performance } from "node:perf_hooks";
import type { Activity } from "./activity.js";
import type { HandlerLoad, Load } from "./gen/synego/v1/sidecar.js";

/** A share of what something can do, 0 to 1. */
export type LoadFunction = () => number;

/** What one handler does at the moment. */
export interface HandlerCounts {
  running: number;
  timedOut: number;
}

/** Milliseconds between two looks at the event loop; also the smallest lag that can be seen. */
const resolution = 10;

/** Measures one service. */
export class LoadMeter {
  readonly #named = new Map<string, LoadFunction>();
  readonly #delay = monitorEventLoopDelay({ resolution });
  #last: EventLoopUtilization | undefined;
  #sequence = 0n;

  /** @throws TypeError when the name is taken or there are 16 figures already. */
  add(name: string, figure: LoadFunction): void {
    if (name === "" || this.#named.has(name)) throw new TypeError(`load ${JSON.stringify(name)} is empty or there already`);
    if (this.#named.size >= 16) throw new TypeError(`load ${JSON.stringify(name)}: at most 16 figures`);
    this.#named.set(name, figure);
  }

  /** Begins a period. */
  start(): void {
    this.#delay.enable();
    this.#last = performance.eventLoopUtilization();
  }

  /** Ends the measuring. */
  stop(): void {
    this.#delay.disable();
  }

  /** The load since the last report; begins the next period. */
  report(activity: Activity, handlers: readonly HandlerCounts[]): Load {
    const now = performance.eventLoopUtilization();
    const busy = performance.eventLoopUtilization(now, this.#last).utilization;
    this.#last = now;
    const p99 = this.#delay.percentile(99) / 1e6;
    this.#delay.reset();
    const named: Record<string, number> = {};
    for (const [name, figure] of this.#named) named[name] = share(figure);
    this.#sequence += 1n;
    return {
      sequence: this.#sequence,
      utilization: Math.max(clamp(busy), ...Object.values(named)),
      loopLagMs: Math.max(0, Math.round(p99 - resolution)) || 0,
      stuck: 0,
      openStreams: activity.openStreams,
      background: 0,
      handler: handlers.flatMap(handlerLoad),
      named,
    };
  }
}

function handlerLoad({ running, timedOut }: HandlerCounts, index: number): HandlerLoad[] {
  if (running === 0 && timedOut === 0) return [];
  return [{ index, running, waiting: 0, saturated: false, killedTotal: 0n, timedOutTotal: BigInt(timedOut) }];
}

/** A figure that throws or is no number says nothing, and must not take the report with it. */
function share(figure: LoadFunction): number {
  try {
    return clamp(figure());
  } catch {
    return 0;
  }
}

function clamp(value: number): number {
  return Number.isNaN(value) ? 0 : Math.min(1, Math.max(0, value));
}
