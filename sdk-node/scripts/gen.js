// Generates src/gen from proto/: `npm run gen`, or `npm run gen -- FOLDER` to compare a fresh generation with it.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)));
const proto = resolve(packageRoot, "../proto");
const out = process.argv[2] === undefined ? join(packageRoot, "src/gen") : resolve(process.argv[2]);

rmSync(join(out, "synego"), { recursive: true, force: true }); // a file whose proto is gone must go too
const files = ["sidecar", "common", "reason"].flatMap((name) => ["--path", join(proto, `synego/v1/${name}.proto`)]);
const template = join(packageRoot, "buf.gen.yaml");
const run = spawnSync("buf", ["generate", proto, "--template", template, "--output", out, ...files], { stdio: "inherit" });
if (run.error !== undefined) console.error(`cannot run buf, is everything installed (npm ci)? ${run.error.message}`);
process.exit(run.status ?? 1);
