// What is in flight: counted for the load report, waited for by the drain.

/** Counts requests and streams of one service. */
export class Activity {
  #inFlight = 0;
  readonly #streams = new Set<() => void>();
  readonly #waiting = new Set<() => void>();
  #stopping = false;

  /** Requests and streams that have begun and not ended. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Streams that are open: WebSockets, event streams, streaming calls. */
  get openStreams(): number {
    return this.#streams.size;
  }

  /** Whether streams were told to end. */
  get stopping(): boolean {
    return this.#stopping;
  }

  /** Counts one more; the function that is returned, called once or more, counts it as ended. */
  begin(): () => void {
    this.#inFlight += 1;
    let open = true;
    return () => {
      if (!open) return;
      open = false;
      this.#inFlight -= 1;
      if (this.#inFlight === 0) for (const wake of this.#waiting) wake();
    };
  }

  /** Counts an open stream; `stop` is called when a drain begins (at once when it began). Returns how to count it off. */
  stream(stop: () => void): () => void {
    this.#streams.add(stop);
    if (this.#stopping) stop();
    return () => void this.#streams.delete(stop);
  }

  /** Tells all streams, and those that come, to end. */
  stopStreams(): void {
    this.#stopping = true;
    for (const stop of [...this.#streams]) stop();
  }

  /** Resolves once nothing was in flight for `quietMs`, or when `limit` aborts. Returns whether it is idle. */
  async idle(quietMs: number, limit: AbortSignal): Promise<boolean> {
    while (!limit.aborted) {
      if (this.#inFlight > 0) {
        await this.#next(limit, undefined);
        continue;
      }
      if (quietMs === 0 || !(await this.#begins(quietMs, limit))) return this.#inFlight === 0;
    }
    return this.#inFlight === 0;
  }

  /** Whether something began within `quietMs`. */
  async #begins(quietMs: number, limit: AbortSignal): Promise<boolean> {
    await this.#next(limit, quietMs);
    return this.#inFlight > 0;
  }

  /** Waits for the count to fall to zero, for `ms` to pass (undefined: not waited for), or for the limit. */
  #next(limit: AbortSignal, ms: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(done, ms);
      const waiting = this.#waiting;
      function done(): void {
        clearTimeout(timer);
        waiting.delete(done);
        limit.removeEventListener("abort", done);
        resolve();
      }
      if (ms === undefined) waiting.add(done);
      limit.addEventListener("abort", done);
    });
  }
}
