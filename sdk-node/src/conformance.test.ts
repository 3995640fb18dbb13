// Runs every case of tests/conformance/vectors: what the three SDKs promise alike.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import pino from "pino";
import { afterEnd, delayBefore } from "./attach.js";
import { type Code, codeOfStatus, codes } from "./codes.js";
import { carry, priorityOfCall, type Priority, readContext, readRequestId } from "./context.js";
import { leftForCall, parseGrpcTimeout, timeoutHeaders, timeoutOf } from "./deadline.js";
import { connectAnswer, httpAnswer, meshError, readHttp, SynegoError } from "./errors.js";
import { readFault, toFault } from "./fault.js";
import { Fault } from "./gen/synego/v1/common.js";
import { Hello, phaseToJSON } from "./gen/synego/v1/sidecar.js";
import { type LifePhase, phaseOf, Verdict } from "./health.js";
import { buildHello, rpcPattern } from "./hello.js";
import { isServiceName } from "./options.js";
import { parsePattern, Router } from "./pattern.js";
import { isReasonWord, reasons, type Reason } from "./reasons.js";
import { readTrace } from "./trace.js";

type Json = Record<string, any>;

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly in: Json;
  readonly out: Json;
}

const folder = join(fileURLToPath(import.meta.url), "../../../tests/conformance/vectors");

/** What a case of each kind gives, by file; compared with the case's `out`. */
const kinds: Record<string, Record<string, (given: Json, wanted: Json) => unknown>> = {
  "patterns.json": {
    parse: ({ pattern }) => {
      try {
        const { method, segments } = parsePattern(pattern);
        return { method, segments };
      } catch (failure) {
        assert.ok(failure instanceof TypeError);
        return { error: true };
      }
    },
    match: ({ patterns, request }) => {
      const [method, target] = (request as string).split(" ");
      const found = routerOf(patterns).find(method ?? "", target ?? "");
      if ("value" in found) return { pattern: found.value, params: { ...found.params } };
      return found.allow.length > 0 ? { pattern: null, status: 405, allow: found.allow } : { pattern: null, status: 404 };
    },
    conflict: ({ patterns }) => {
      try {
        routerOf(patterns);
        return { conflict: false };
      } catch {
        return { conflict: true };
      }
    },
  },
  "errors.json": {
    code: ({ code }) => codes[code as Code],
    status: ({ status }) => ({ code: codeOfStatus(status) }),
    reason: ({ reason }) => {
      const { inHeader, ...rest } = reasons[reason as Reason];
      const made = meshError(reason, "x");
      assert.deepEqual({ ...rest }, { code: made.code, status: made.status, blame: made.blame, retry: made.retry });
      return { ...rest, header: inHeader };
    },
    http: ({ error }) => httpAnswer(...failureOf(error)),
    connect: ({ error }) => connectAnswer(...failureOf(error)),
    grpc: ({ error }) => {
      const [failure] = failureOf(error);
      assert.ok(failure instanceof SynegoError);
      // What leaves in the trailers must be what a peer reads there again.
      assert.equal(readFault(failure.metadata)?.reason, failure.reason);
      return { number: codes[failure.code].number, message: failure.message, fault: Fault.toJSON(toFault(failure)) };
    },
    read: ({ service, status, headers, body }) => {
      const error = readHttp(service, status, (name) => (headers as Record<string, string>)[name] ?? null, body);
      return defined({
        code: error.code,
        status: error.status,
        reason: error.reason,
        message: error.message,
        blame: error.blame,
        retry: error.retry,
        retry_after_ms: error.retryAfterMs,
        request_id: error.requestId,
        service: error.service,
        from_mesh: error.fromMesh,
      });
    },
    word: ({ reason }) => ({ ok: isReasonWord(reason) }),
  },
  "deadline.json": {
    grpc_timeout: ({ value }) => ({ ms: parseGrpcTimeout(value) ?? null }),
    left: ({ headers, elapsed_ms, call_timeout_ms }) => {
      const came = timeoutOf((name) => (headers as Record<string, string>)[name]);
      return { left_ms: leftForCall(came === undefined ? undefined : came - elapsed_ms, call_timeout_ms) ?? null };
    },
    write: ({ left_ms, transport }) => ({ headers: timeoutHeaders(left_ms ?? undefined, transport) }),
  },
  "trace.json": {
    traceparent: ({ traceparent, tracestate }) => {
      const trace = readTrace(traceparent ?? undefined, tracestate ?? undefined);
      if (trace === undefined) return { kept: false, tracestate: null };
      return {
        kept: true,
        trace_id: trace.traceId,
        parent_id: trace.parentId,
        sampled: trace.sampled,
        tracestate: trace.tracestate ?? null,
      };
    },
    request_id: ({ value }) => ({ request_id: readRequestId(value ?? undefined) ?? null }),
    carry: ({ headers }, wanted) => {
      const context = contextOf(headers);
      const { traceparent = "", ...rest } = carry(context);
      const [, traceId, parentId, flags] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent) ?? [];
      assert.ok(parentId !== undefined && !/^0+$/.test(parentId) && !String(headers.traceparent).includes(parentId));
      return { headers: rest, trace_id: wanted["trace_id"] === null ? null : traceId, flags };
    },
    priority: ({ incoming, asked }) => {
      const came = contextOf(incoming === null ? {} : { "x-synego-priority": incoming }).priority;
      return { sent: priorityOfCall(came, (asked as Priority | null) ?? undefined) ?? null };
    },
  },
  "hello.json": {
    hello: (given) => {
      const { pid, sdk, ...said } = Hello.toJSON(helloOf(given)) as Json;
      assert.equal(pid, process.pid);
      assert.match(sdk, /^node\/\d+\.\d+\.\d+$/);
      return said;
    },
    phase: ({ phase, checks }) => ({ phase: phaseToJSON(phaseOf(phase as LifePhase, checks)) }),
    check: ({ results }) => {
      const verdict = new Verdict();
      return { ok: (results as boolean[]).map((result) => verdict.push(result)) };
    },
    name: ({ service }) => ({ ok: isServiceName(service) }),
  },
  "backoff.json": {
    delay: ({ attempt }, wanted) => {
      const some = Array.from({ length: 200 }, () => delayBefore(attempt));
      assert.ok(some.every((ms) => ms >= wanted["min_ms"] && ms <= wanted["max_ms"]), `${Math.min(...some)} to ${Math.max(...some)}`);
      return { min_ms: Math.round(delayBefore(attempt, () => 0)), max_ms: Math.round(delayBefore(attempt, () => 1)) };
    },
    end: ({ end, status }) => ({ next: afterEnd(end ?? status) }),
  },
};

test("every file of vectors is known, and none is missing", () => {
  const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
  assert.deepEqual(files.sort(), Object.keys(kinds).sort());
});

for (const [file, known] of Object.entries(kinds)) {
  const { cases } = JSON.parse(readFileSync(join(folder, file), "utf8")) as { cases: Case[] };
  test(`${file} has cases of all its kinds`, () => {
    assert.deepEqual([...new Set(cases.map(({ kind }) => kind))].sort(), Object.keys(known).sort());
  });
  for (const { name, kind, in: given, out } of cases) {
    test(`${file}: ${kind}: ${name}`, () => {
      const run = known[kind];
      assert.ok(run !== undefined, `unknown kind ${kind}`);
      assert.deepEqual(JSON.parse(JSON.stringify(run(given, out))), out);
    });
  }
}

function routerOf(patterns: string[]): Router<string> {
  const router = new Router<string>();
  for (const pattern of patterns) router.add(parsePattern(pattern), pattern);
  return router;
}

function failureOf(error: Json): [failure: unknown, requestId: string | undefined] {
  if (error["foreign"] !== undefined) return [new Error(error["foreign"]), error["request_id"]];
  const { code, message, request_id, retry_after_ms, ...rest } = error;
  return [new SynegoError(code, message, { ...rest, requestId: request_id, retryAfterMs: retry_after_ms }), undefined];
}

function contextOf(headers: Record<string, string>): ReturnType<typeof readContext> {
  const parts = { protocol: "http", signal: new AbortController().signal, log: pino({ enabled: false }) } as const;
  return readContext((name) => headers[name], parts);
}

function helloOf(given: Json): Hello {
  return buildHello({
    service: given["service"],
    instance: given["instance"],
    version: given["version"],
    generation: given["generation"] ?? 0,
    attachmentId: given["attachment_id"] ?? "",
    listeners: given["listeners"].map((l: Json) => ({ protocol: l["protocol"], address: l["address"], keepAliveMs: l["keep_alive_ms"] })),
    handlers: (given["handlers"] ?? []).map((h: Json) => ({
      pattern: h["pattern"] ?? rpcPattern(h["rpc"]),
      timeoutMs: h["timeout_ms"],
      streaming: h["streaming"],
    })),
    routes: given["routes"] ?? [],
    checks: (given["checks"] ?? []).map((c: Json) => ({ cause: "", ...c })),
    life: given["phase"] ?? "starting",
  });
}

function defined(object: Json): Json {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
