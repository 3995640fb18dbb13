// Health checks: run side by side every five seconds, judged with some patience, told as the service's phase.
import { cut } from "./fault.js";
import { type Check, Phase } from "./gen/synego/v1/sidecar.js";

/** Looks at something the service needs; throws or rejects when it is not well. Ends when `signal` aborts. */
export type CheckFunction = (signal: AbortSignal) => unknown;

/** How a check counts. */
export interface CheckOptions {
  /** Whether the service is unhealthy without it (else only degraded); default false. */
  readonly required?: boolean;
}

/** Turns single results into a verdict: the first counts at once, then three failures or two passes in a row turn it. */
export class Verdict {
  #ok: boolean | undefined;
  #against = 0;

  /** Takes one result and returns the verdict after it. */
  push(result: boolean): boolean {
    if (this.#ok === undefined) return (this.#ok = result);
    this.#against = result === this.#ok ? 0 : this.#against + 1;
    if (this.#against >= (this.#ok ? 3 : 2)) {
      this.#ok = result;
      this.#against = 0;
    }
    return this.#ok;
  }
}

/** Where a service is in its life by its own doing. */
export type LifePhase = "starting" | "ready" | "draining" | "drained";

/** The phase that is told: checks count only while the service is ready, and the worse one wins. */
export function phaseOf(life: LifePhase, checks: readonly Pick<Check, "ok" | "required">[]): Phase {
  switch (life) {
    case "starting":
      return Phase.PHASE_STARTING;
    case "draining":
      return Phase.PHASE_DRAINING;
    case "drained":
      return Phase.PHASE_DRAINED;
    case "ready": {
      const failed = checks.filter((check) => !check.ok);
      if (failed.some((check) => check.required)) return Phase.PHASE_UNHEALTHY;
      return failed.length > 0 ? Phase.PHASE_DEGRADED : Phase.PHASE_READY;
    }
  }
}

interface Entry {
  readonly run: CheckFunction;
  readonly required: boolean;
  readonly verdict: Verdict;
  /** What was last told. */
  ok: boolean;
  cause: string;
}

/** All checks of one service. */
export class Checks {
  readonly #entries = new Map<string, Entry>();
  readonly #everyMs: number;
  readonly #limitMs: number;
  #timer: NodeJS.Timeout | undefined;

  /** `everyMs`: milliseconds between two runs; `limitMs`: for one run. */
  constructor(everyMs = 5_000, limitMs = 1_000) {
    this.#everyMs = everyMs;
    this.#limitMs = limitMs;
  }

  /** @throws TypeError when the name is taken or too long, or there are 32 checks already. */
  add(name: string, run: CheckFunction, options: CheckOptions): void {
    if (name === "" || Buffer.byteLength(name) > 64) throw new TypeError(`check ${JSON.stringify(name)}: 1 to 64 bytes`);
    if (this.#entries.has(name)) throw new TypeError(`check ${JSON.stringify(name)} is there already`);
    if (this.#entries.size >= 32) throw new TypeError(`check ${JSON.stringify(name)}: at most 32 checks`);
    this.#entries.set(name, { run, required: options.required ?? false, verdict: new Verdict(), ok: true, cause: "" });
  }

  /** The checks as they are told. */
  told(): Check[] {
    return [...this.#entries].map(([name, { ok, required, cause }]) => ({ name, ok, required, cause: ok ? "" : cause }));
  }

  /** Runs all once, then again and again; `changed` is called when a verdict turned. Resolves after the first run. */
  async start(changed: () => void): Promise<void> {
    if (this.#entries.size === 0) return;
    await this.#runAll(changed);
    const again = (): void => {
      this.#timer = setTimeout(() => void this.#runAll(changed).then(() => this.#timer && again()), this.#everyMs);
    };
    again();
  }

  /** Runs no more checks. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async #runAll(changed: () => void): Promise<void> {
    const before = JSON.stringify(this.told());
    await Promise.all([...this.#entries.values()].map((entry) => this.#runOne(entry)));
    if (JSON.stringify(this.told()) !== before) changed();
  }

  async #runOne(entry: Entry): Promise<void> {
    const cause = await causeOf(entry.run, this.#limitMs);
    if (cause !== undefined) entry.cause = cut(cause, 256);
    entry.ok = entry.verdict.push(cause === undefined);
  }
}

/** Why a check fails; undefined: it passes. */
async function causeOf(run: CheckFunction, limitMs: number): Promise<string | undefined> {
  const limit = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => {
      limit.abort();
      resolve(`no answer in ${limitMs} ms`);
    }, limitMs);
  });
  try {
    return await Promise.race([Promise.resolve(run(limit.signal)).then(() => undefined), late]);
  } catch (failure) {
    return failure instanceof Error ? failure.message : String(failure);
  } finally {
    clearTimeout(timer);
  }
}
