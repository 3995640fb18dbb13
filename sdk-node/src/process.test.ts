// Real processes: signals and exit codes of a service, and the launcher of the `synego` program.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const packageRoot = join(fileURLToPath(import.meta.url), "../..");
const folder = mkdtempSync(join(tmpdir(), "synego-process-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

interface Program {
  readonly child: ChildProcess;
  readonly lines: string[];
  readonly ended: Promise<unknown[]>;
  line(match: RegExp): Promise<string>;
}

/** Runs a program of Node and collects its lines. */
function run(args: string[], env: NodeJS.ProcessEnv = {}): Program {
  const child = spawn(process.execPath, args, { env: { PATH: process.env["PATH"], ...env }, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  for (const output of [child.stdout, child.stderr]) {
    createInterface({ input: output as NodeJS.ReadableStream }).on("line", (line) => {
      lines.push(line);
      for (const wake of waiting) wake();
    });
  }
  const line = async (match: RegExp): Promise<string> => {
    for (;;) {
      const found = lines.find((text) => match.test(text));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => waiting.add(resolve));
    }
  };
  return { child, lines, line, ended: once(child, "close") };
}

/** A program that serves one handler. */
function program(name: string, more: string): string {
  const file = join(folder, `${name}.mjs`);
  const index = pathToFileURL(join(packageRoot, "dist/index.js")).href;
  writeFileSync(file, `import { Service } from "${index}";\nconst service = new Service("one");\n${more}\nawait service.run();\nconsole.log("after run");\n`);
  return file;
}

test("TERM drains and the process ends with 0, although a timer was forgotten", async () => {
  const one = run([program("term", 'service.handle("GET /", () => "ok").onStop(() => console.log("stopped")); setInterval(() => {}, 1000);')]);
  await one.line(/"msg":"ready/);
  one.child.kill("SIGTERM");
  const [code, signal] = await one.ended;
  assert.deepEqual([code, signal], [0, null]);
  for (const words of [/"msg":"drained"/, /^stopped$/, /^after run$/, /something is still open/]) await one.line(words);
});

test("a second TERM ends the process at once", async () => {
  const one = run([program("twice", "service.onDrain(() => new Promise(() => {}));")]);
  await one.line(/"msg":"ready/);
  one.child.kill("SIGTERM");
  await one.line(/"msg":"draining"/);
  one.child.kill("SIGTERM");
  assert.deepEqual((await one.ended)[0], 143);
});

test("a start hook that fails ends the process with 1", async () => {
  const one = run([program("fails", 'service.onStart(() => { throw new Error("no data"); });')]);
  assert.equal((await one.ended)[0], 1);
  assert.ok(one.lines.some((line) => line.includes("no data")));
});

/** A checkout with the launcher in it, and what was built. */
function checkout(name: string, built: Record<string, string>): string {
  const root = join(folder, name);
  mkdirSync(join(root, "sdk-node/bin"), { recursive: true });
  copyFileSync(join(packageRoot, "bin/synego.js"), join(root, "sdk-node/bin/synego.js"));
  writeFileSync(join(root, "sdk-node/package.json"), '{"type":"module"}');
  for (const [profile, word] of Object.entries(built)) programFile(join(root, "target", profile), word);
  return join(root, "sdk-node/bin/synego.js");
}

/** A program file that is no script: this machine's `echo`, as a stand-in for what the compiler makes. */
function programFile(target: string, kind: string): void {
  mkdirSync(target, { recursive: true });
  copyFileSync(`/bin/${kind}`, join(target, "synego"));
  chmodSync(join(target, "synego"), 0o755);
}

test("the launcher runs what is built, release before debug, and passes arguments and exit code on", async () => {
  const both = run([checkout("both", { release: "echo", debug: "false" }), "start", "--now"]);
  assert.deepEqual([(await both.ended)[0], both.lines], [0, ["start --now"]]);
  const debug = run([checkout("debug", { debug: "false" }), "start"]);
  assert.equal((await debug.ended)[0], 1);
});

test("SYNEGO_BIN wins, and a wrong one is named", async () => {
  const launcher = checkout("env", { release: "false" });
  const one = run([launcher, "x"], { SYNEGO_BIN: "/bin/echo" });
  assert.deepEqual([(await one.ended)[0], one.lines], [0, ["x"]]);
  const wrong = run([launcher], { SYNEGO_BIN: "/nowhere/synego" });
  assert.deepEqual([(await wrong.ended)[0], wrong.lines], [127, ['synego: SYNEGO_BIN is "/nowhere/synego", which is no program that can be run']]);
});

test("the launcher takes a program on the path, but never itself", async () => {
  const launcher = checkout("path", {});
  const bin = join(folder, "path-bin");
  mkdirSync(bin);
  symlinkSync(launcher, join(bin, "synego"));
  chmodSync(launcher, 0o755);
  const none = run([launcher], { PATH: bin });
  assert.deepEqual([(await none.ended)[0], none.lines], [127, ["synego: the program synego is not built: run `make build` in the checkout, or set SYNEGO_BIN to it"]]);
  programFile(join(folder, "other-bin"), "echo");
  const other = run([launcher, "y"], { PATH: `${bin}:${join(folder, "other-bin")}` });
  assert.deepEqual([(await other.ended)[0], other.lines], [0, ["y"]]);
});

test("signals reach the program, and its end by one is told as shells do", async () => {
  const launcher = checkout("signals", { release: "sleep" });
  const one = run([launcher, "60"]);
  const pid = one.child.pid as number;
  // The child exists once the launcher has one; only then is there something to pass the signal on to.
  const { readFileSync } = await import("node:fs");
  while (readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim() === "") await new Promise((resolve) => setTimeout(resolve, 10));
  one.child.kill("SIGTERM");
  assert.equal((await one.ended)[0], 143);
});
