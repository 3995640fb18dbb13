// The examples of the README compile, under the same strict options as the package.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const packageRoot = join(fileURLToPath(import.meta.url), "../..");

test("every example of the README compiles", () => {
  const blocks = [...readFileSync(join(packageRoot, "README.md"), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code ?? "");
  assert.ok(blocks.length >= 8);
  // Inside the package, because only there does its own name resolve to it.
  const folder = join(packageRoot, "dist/readme");
  mkdirSync(folder, { recursive: true });
  try {
    blocks.forEach((code, index) => writeFileSync(join(folder, `example${index + 1}.ts`), code));
    const options = { extends: "../../tsconfig.json", compilerOptions: { rootDir: ".", noEmit: true }, include: ["."], exclude: [] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(options));
    const tsc = join(createRequire(import.meta.url).resolve("typescript/package.json"), "../bin/tsc");
    const run = spawnSync(process.execPath, [tsc, "--project", folder], { encoding: "utf8" });
    assert.equal(run.stdout, "");
    assert.equal(run.status, 0, run.stderr);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
