#!/usr/bin/env node
// `npx synego …`: finds the built `synego` program and becomes it, as far as a Node process can.
import { spawn } from "node:child_process";
import { accessSync, constants, openSync, readSync, closeSync, realpathSync, statSync } from "node:fs";
import { constants as os } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const self = realpathSync(fileURLToPath(import.meta.url));
const packageRoot = dirname(dirname(self));

/** Whether a file can be run. */
function canRun(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Whether a file is a script: a launcher like this one, which would look for the program in a circle. */
function isScript(path) {
  const start = Buffer.alloc(2);
  const file = openSync(path, "r");
  try {
    return readSync(file, start, 0, 2, 0) === 2 && start.toString() === "#!";
  } finally {
    closeSync(file);
  }
}

/** The program: named by SYNEGO_BIN, else built in this checkout, else on the path. */
function findProgram(env) {
  if (env.SYNEGO_BIN) {
    if (canRun(env.SYNEGO_BIN)) return resolve(env.SYNEGO_BIN);
    return fail(`SYNEGO_BIN is ${JSON.stringify(env.SYNEGO_BIN)}, which is no program that can be run`);
  }
  const built = ["release", "debug"].map((profile) => join(packageRoot, "../target", profile, "synego"));
  const onPath = (env.PATH ?? "").split(delimiter).filter(Boolean).map((folder) => join(folder, "synego"));
  const found = built.find(canRun) ?? onPath.find((path) => canRun(path) && realpathSync(path) !== self && !isScript(path));
  return found ?? fail("the program synego is not built: run `make build` in the checkout, or set SYNEGO_BIN to it");
}

function fail(message) {
  console.error(`synego: ${message}`);
  process.exit(127);
}

// Handlers stand before the program does, so that no signal in between ends this process alone; they run after this
// script, when there is a child.
// The terminal sends INT and QUIT to both processes: this one only has to outlive them. The others are passed on.
for (const signal of ["SIGINT", "SIGQUIT"]) process.on(signal, () => undefined);
for (const signal of ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"]) process.on(signal, () => child.kill(signal));

const child = spawn(findProgram(process.env), process.argv.slice(2), { stdio: "inherit" });
child.on("error", (failure) => fail(failure.message));

child.on("exit", (code, signal) => {
  if (signal === null) process.exit(code ?? 1);
  process.exit(128 + (os.signals[signal] ?? 0));
});
