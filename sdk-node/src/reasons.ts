// The mesh's reasons that an SDK makes itself: a closed list, shared with all programs through reason.proto.
import type { Blame, Code, Retry } from "./codes.js";

/** What a reason implies. */
export interface ReasonMeaning {
  readonly code: Code;
  readonly status: number;
  readonly blame: Blame;
  readonly retry: Retry;
  /** Whether it also goes into `x-synego-reason`; a sidecar takes only these from its service. */
  readonly inHeader: boolean;
}

/** A reason that an SDK makes itself. */
export type Reason =
  | "invalid_body"
  | "queue_full"
  | "queue_timeout"
  | "handler_stuck"
  | "draining"
  | "handler_timeout"
  | "handler_crashed"
  | "no_handler"
  | "no_sidecar"
  | "sidecar_unreachable";

const shedding = { code: "unavailable", status: 503, blame: "upstream", inHeader: true } as const;
const unseen = { code: "unavailable", status: 503, blame: "local", inHeader: false } as const;

/** All of them. Those that callers alone see never leave the process, so they are in no header. */
export const reasons: Readonly<Record<Reason, ReasonMeaning>> = {
  invalid_body: { code: "invalid_argument", status: 400, blame: "caller", retry: "never", inHeader: true },
  queue_full: { ...shedding, retry: "later" },
  queue_timeout: { ...shedding, retry: "later" },
  handler_stuck: { ...shedding, retry: "other_endpoint" },
  draining: { ...shedding, retry: "other_endpoint" },
  handler_timeout: { code: "deadline_exceeded", status: 504, blame: "upstream", retry: "never", inHeader: true },
  handler_crashed: { code: "internal", status: 500, blame: "upstream", retry: "never", inHeader: true },
  no_handler: { code: "unimplemented", status: 404, blame: "caller", retry: "never", inHeader: false },
  no_sidecar: { ...unseen, retry: "never" },
  sidecar_unreachable: { ...unseen, retry: "later" },
};

/** Whether a word may be a reason. */
export function isReasonWord(word: string): boolean {
  return /^[a-z][a-z0-9_]{0,63}$/.test(word);
}
