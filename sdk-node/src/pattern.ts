// Patterns of handlers: `METHOD /path` with `{name}` for one segment and `{name...}` for the rest, and who wins.

/** The methods that a pattern may begin with. */
const methods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]);

/** One part of a path between slashes. */
export type Segment = { readonly literal: string } | { readonly param: string } | { readonly rest: string };

/** A pattern in its parts. */
export interface Pattern {
  /** As it goes into `Hello` and into metrics, with `:name` written `{name}`. */
  readonly text: string;
  readonly method: string;
  readonly segments: readonly Segment[];
}

/** The names in a path as a type: `"/users/{id}/{path...}"` gives `"id" | "path"`. */
type Names<Path extends string> = Path extends `${string}{${infer Name}}${infer Rest}`
  ? (Name extends `${infer Plain}...` ? Plain : Name) | Names<Rest>
  : Path extends `${string}/:${infer Name}/${infer Rest}`
    ? Name | Names<`/${Rest}`>
    : Path extends `${string}/:${infer Name}`
      ? Name
      : never;

/** The parameters that a pattern gives its handler, percent-decoded. */
export type Params<Text extends string> = string extends Text
  ? Readonly<Record<string, string>>
  : Readonly<Record<Names<Text>, string>>;

/**
 * Reads a pattern; `:name` counts as `{name}`.
 *
 * @throws TypeError that names what is wrong.
 */
export function parsePattern(text: string): Pattern {
  const refuse = (why: string): never => {
    throw new TypeError(`pattern ${JSON.stringify(text)}: ${why}`);
  };
  if (Buffer.byteLength(text) > 256) refuse("longer than 256 bytes");
  const [, method, path] = /^([A-Z]+) (\/[^ ]*)$/.exec(text) ?? refuse("expected `METHOD /path`");
  if (method === undefined || path === undefined) return refuse("expected `METHOD /path`");
  if (!methods.has(method)) refuse(`unknown method ${method}, expected one of ${[...methods].join(" ")}`);
  const parts = path.slice(1).split("/");
  const segments = parts.map((part, index): Segment => {
    const last = index === parts.length - 1;
    const [, name, rest] = /^\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}$/.exec(part) ?? /^:([A-Za-z_][A-Za-z0-9_]*)$/.exec(part) ?? [];
    if (name !== undefined && rest === undefined) return { param: name };
    if (name !== undefined) return last ? { rest: name } : refuse(`{${name}...} must be the last segment`);
    if (part === "" && !last) refuse("empty segment");
    if (!/^[A-Za-z0-9._~!$&',;=:@%-]*$/.test(part)) refuse(`segment ${JSON.stringify(part)} is neither a literal nor {name}`);
    return { literal: part };
  });
  const names = segments.flatMap((segment) => ("param" in segment ? segment.param : "rest" in segment ? segment.rest : []));
  const double = names.find((name, index) => names.indexOf(name) !== index);
  if (double !== undefined) refuse(`the name ${double} is used twice`);
  const shown = segments.map((s) => ("literal" in s ? s.literal : "param" in s ? `{${s.param}}` : `{${s.rest}...}`));
  return { text: `${method} /${shown.join("/")}`, method, segments };
}

/** What a router found: a handler with its parameters, or the methods that the path has (none: unknown path). */
export type Found<T> =
  | { readonly value: T; readonly params: Readonly<Record<string, string>> }
  | { readonly allow: readonly string[] };

interface Leaf<T> {
  readonly value: T;
  readonly pattern: Pattern;
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>;
  param?: Node<T>;
  leaf?: Leaf<T>;
  rest?: Leaf<T>;
}

const emptyNode = <T>(): Node<T> => ({ literals: new Map() });

/** Finds the handler of a request: the more literal pattern wins, segment by segment from the left. */
export class Router<T> {
  readonly #roots = new Map<string, Node<T>>();

  /** @throws TypeError when an equal pattern (names of parameters apart) is there already. */
  add(pattern: Pattern, value: T): void {
    let node = this.#roots.get(pattern.method);
    if (node === undefined) this.#roots.set(pattern.method, (node = emptyNode()));
    const leaf = { value, pattern };
    for (const segment of pattern.segments) {
      if ("rest" in segment) {
        if (node.rest !== undefined) refuseEqual(pattern, node.rest.pattern);
        node.rest = leaf;
        return;
      }
      if ("param" in segment) {
        node = node.param ??= emptyNode();
      } else {
        const next: Node<T> = node.literals.get(segment.literal) ?? emptyNode();
        node.literals.set(segment.literal, next);
        node = next;
      }
    }
    if (node.leaf !== undefined) refuseEqual(pattern, node.leaf.pattern);
    node.leaf = leaf;
  }

  /** `target` is a request target in origin form; its query is left out. HEAD is answered by GET. */
  find(method: string, target: string): Found<T> {
    const path = target.split("?", 1)[0] ?? "";
    const segments = path.slice(1).split("/").map(decode);
    const leaf = this.#match(method, segments) ?? (method === "HEAD" ? this.#match("GET", segments) : undefined);
    if (leaf !== undefined) return { value: leaf.value, params: paramsOf(leaf.pattern, segments) };
    const allow = [...this.#roots.keys()].filter((other) => this.#match(other, segments) !== undefined);
    if (allow.includes("GET") && !allow.includes("HEAD")) allow.push("HEAD");
    return { allow: allow.sort() };
  }

  #match(method: string, segments: readonly string[]): Leaf<T> | undefined {
    const root = this.#roots.get(method);
    return root === undefined ? undefined : walk(root, segments, 0);
  }
}

function walk<T>(node: Node<T>, segments: readonly string[], index: number): Leaf<T> | undefined {
  const segment = segments[index];
  if (segment === undefined) return node.leaf;
  const literal = node.literals.get(segment);
  const found = literal === undefined ? undefined : walk(literal, segments, index + 1);
  if (found !== undefined) return found;
  if (segment === "") return undefined; // neither a parameter nor a rest begins with nothing
  const param = node.param === undefined ? undefined : walk(node.param, segments, index + 1);
  return param ?? node.rest;
}

function paramsOf(pattern: Pattern, segments: readonly string[]): Record<string, string> {
  const params: Record<string, string> = Object.create(null) as Record<string, string>; // a name may be `__proto__`
  for (const [index, segment] of pattern.segments.entries()) {
    if ("param" in segment) params[segment.param] = segments[index] ?? "";
    if ("rest" in segment) params[segment.rest] = segments.slice(index).join("/");
  }
  return params;
}

/** Percent-decoded once; what cannot be decoded stays as it came. */
function decode(segment: string): string {
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function refuseEqual(pattern: Pattern, other: Pattern): never {
  throw new TypeError(`pattern ${JSON.stringify(pattern.text)} equals ${JSON.stringify(other.text)}, which is there already`);
}
