// Requests to the shop's services, and the journal of who answered them.

/** The services of the shop, in the order in which the board shows them. */
export const services = {
  users: { language: "Node.js" },
  orders: { language: "Go" },
  inventory: { language: "Rust" },
  chat: { language: "Node.js, no SDK" },
  legacy: { language: "Python, no SDK" },
};

const listeners = new Set();

/**
 * Calls `listener` with each note: `{ service, label, status, instance, ms, requestId, reason, message, ok, passing }`.
 * A `passing` one says nothing of how the service is: a stream that ends is opened again, perhaps elsewhere.
 */
export function onNote(listener) {
  listeners.add(listener);
}

/** Notes that something happened with a service. */
export function note(entry) {
  for (const listener of listeners) listener({ at: Date.now(), ok: true, ...entry });
}

/**
 * Asks a service and notes the answer. Never rejects: gives `{ ok, data }`, or `{ ok: false, reason, message }` with the
 * reason that the mesh or the service gave.
 */
export async function ask(service, method, path, body) {
  const began = performance.now();
  const label = `${method} ${path}`;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    const failed = { ok: false, reason: "no_answer", message: "nothing answers; is the shop running?" };
    note({ service, label, status: "–", ms: performance.now() - began, ...failed });
    return failed;
  }
  const data = await readJson(answer);
  const ms = performance.now() - began;
  const requestId = answer.headers.get("x-request-id") ?? data?.request_id;
  const instance = data?.answered_by ?? data?.instance ?? data?.[0]?.instance;
  if (answer.ok) {
    note({ service, label, status: answer.status, instance, ms, requestId });
    return { ok: true, status: answer.status, data, requestId };
  }
  const reason = data?.reason ?? `status_${answer.status}`;
  const message = data?.msg ?? answer.statusText;
  // A refusal by the service itself (4xx) is a sound answer: only 5xx is trouble.
  const trouble = answer.status >= 500 || reason === "no_route";
  note({ service, label, status: answer.status, instance, ms, requestId, reason, message, ok: !trouble });
  return { ok: false, status: answer.status, reason, message, requestId };
}

async function readJson(answer) {
  try {
    return await answer.json();
  } catch {
    return undefined; // a page of another server; its status says enough
  }
}
