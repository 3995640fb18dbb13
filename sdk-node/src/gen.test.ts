// The generated code is what the protocol's files give today.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const packageRoot = join(fileURLToPath(import.meta.url), "../..");

test("generating the code anew changes nothing", () => {
  const folder = mkdtempSync(join(tmpdir(), "synego-gen-"));
  try {
    const PATH = [join(packageRoot, "node_modules/.bin"), join(packageRoot, "../node_modules/.bin"), process.env["PATH"]].join(delimiter);
    execFileSync(process.execPath, ["scripts/gen.js", folder], { cwd: packageRoot, env: { ...process.env, PATH } });
    const committed = join(packageRoot, "src/gen");
    assert.deepEqual(filesOf(folder), filesOf(committed));
    for (const file of filesOf(folder)) {
      assert.equal(readFileSync(join(folder, file), "utf8"), readFileSync(join(committed, file), "utf8"), `${file}: run npm run gen`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length))
    .sort();
}
