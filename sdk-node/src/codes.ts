// The sixteen codes: what each means on every transport, and what it implies where an error is made.

/** One of the sixteen words of gRPC's status codes; `ok` is no failure and therefore no `Code`. */
export type Code =
  | "cancelled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/** Whose fault a failure is, seen from where it is looked at. */
export type Blame = "caller" | "upstream" | "local";

/** Whether the same request may be sent again. */
export type Retry = "never" | "later" | "other_endpoint";

/** What a code stands for. */
export interface CodeMeaning {
  /** gRPC's number, 1 to 16. */
  readonly number: number;
  /** HTTP status of an answer with this code (Connect's table). */
  readonly status: number;
  /** Whose fault it is where the error is made. */
  readonly blame: Blame;
  /** Whether a repeat helps, unless the error says otherwise. */
  readonly retry: Retry;
}

/** All codes, in the order of their numbers. */
export const codes: Readonly<Record<Code, CodeMeaning>> = {
  cancelled: { number: 1, status: 499, blame: "caller", retry: "never" },
  unknown: { number: 2, status: 500, blame: "local", retry: "never" },
  invalid_argument: { number: 3, status: 400, blame: "caller", retry: "never" },
  deadline_exceeded: { number: 4, status: 504, blame: "local", retry: "never" },
  not_found: { number: 5, status: 404, blame: "caller", retry: "never" },
  already_exists: { number: 6, status: 409, blame: "caller", retry: "never" },
  permission_denied: { number: 7, status: 403, blame: "caller", retry: "never" },
  resource_exhausted: { number: 8, status: 429, blame: "caller", retry: "later" },
  failed_precondition: { number: 9, status: 400, blame: "caller", retry: "never" },
  aborted: { number: 10, status: 409, blame: "caller", retry: "never" },
  out_of_range: { number: 11, status: 400, blame: "caller", retry: "never" },
  unimplemented: { number: 12, status: 501, blame: "caller", retry: "never" },
  internal: { number: 13, status: 500, blame: "local", retry: "never" },
  unavailable: { number: 14, status: 503, blame: "local", retry: "later" },
  data_loss: { number: 15, status: 500, blame: "local", retry: "never" },
  unauthenticated: { number: 16, status: 401, blame: "caller", retry: "never" },
};

/** Statuses that mean one code; the rest of 4xx and 5xx falls back in `codeOfStatus`. */
const statuses: Readonly<Record<number, Code>> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "not_found",
  405: "unimplemented",
  408: "deadline_exceeded",
  409: "aborted",
  412: "failed_precondition",
  413: "resource_exhausted",
  416: "out_of_range",
  429: "resource_exhausted",
  431: "resource_exhausted",
  499: "cancelled",
  501: "unimplemented",
  502: "unavailable",
  503: "unavailable",
  504: "deadline_exceeded",
};

/** The code of an HTTP answer that names none. */
export function codeOfStatus(status: number): Code {
  const known = statuses[status];
  if (known !== undefined) return known;
  if (status >= 500 && status <= 599) return "internal";
  return status >= 400 && status <= 499 ? "failed_precondition" : "unknown";
}

/** The code of a gRPC status number; `unknown` for 0 and for numbers outside 1 to 16. */
export function codeOfNumber(number: number): Code {
  for (const code of Object.keys(codes) as Code[]) {
    if (codes[code].number === number) return code;
  }
  return "unknown";
}

/** Whether a word is one of the sixteen. */
export function isCode(word: unknown): word is Code {
  return typeof word === "string" && Object.hasOwn(codes, word);
}
