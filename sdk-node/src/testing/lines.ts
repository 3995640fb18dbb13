// Log lines as values, for the tests of this package.

/** One line. */
export type Line = { [field: string]: unknown; level?: string; msg?: string; listens?: string[] };

/** Lines that can be waited for. */
export type Lines = Line[] & { until(condition: (line: Line) => boolean): Promise<Line> };

/** A destination of a logger, and the lines that went there. */
export function logLines(): { lines: Lines; logTo: { write(text: string): void } } {
  const waiting = new Set<() => void>();
  const lines = Object.assign([] as Line[], {
    async until(condition: (line: Line) => boolean): Promise<Line> {
      for (;;) {
        const found = lines.find(condition);
        if (found !== undefined) return found;
        await new Promise<void>((resolve) => waiting.add(resolve));
      }
    },
  });
  const write = (text: string): void => {
    lines.push(JSON.parse(text) as Line);
    for (const wake of waiting) wake();
    waiting.clear();
  };
  return { lines, logTo: { write } };
}
