// The users of the shop: a list that can be read and added to, and a ticker of what happens to it.
import { setTimeout as sleep } from "node:timers/promises";
import { reply, Service, sse, SynegoError } from "synegobase";
import { UserStore } from "./store.js";

const users = new Service("users", { version: "1.0.0" });
const store = new UserStore(process.env.SHOP_DATA ?? ".synego/data");
let answered = 0;

/** Adds who answered, so that the page can show it. */
const told = (fields) => ({ ...fields, instance: users.instance });

/** The form of a new user, in the shape that validator libraries share (Standard Schema). */
const newUser = {
  "~standard": {
    version: 1,
    vendor: "shop",
    validate(value) {
      const name = typeof value?.name === "string" ? value.name.trim() : "";
      const city = typeof value?.city === "string" ? value.city.trim() : "";
      const issues = [];
      if (name.length < 1 || name.length > 80) issues.push({ message: "expected 1 to 80 characters", path: ["name"] });
      if (city.length > 80) issues.push({ message: "expected at most 80 characters", path: ["city"] });
      return issues.length > 0 ? { issues } : { value: { name, city } };
    },
  },
};

users.handle("GET /api/users", () => {
  answered += 1;
  const all = store.all();
  users.log.info({ users: all.length }, "listed users");
  return told({ users: all });
});

users.handle("GET /api/users/{id}", ({ params }) => {
  answered += 1;
  const user = store.get(Number(params.id));
  if (user === undefined) {
    users.log.info({ user_id: params.id }, "no such user");
    throw new SynegoError("not_found", `no user ${params.id}`, { reason: "unknown_user" });
  }
  users.log.info({ user_id: user.id }, "found user");
  return told(user);
});

users.handle("POST /api/users", { body: newUser }, ({ body }) => {
  answered += 1;
  const user = store.add(body);
  users.log.info({ user_id: user.id }, "added user");
  return reply(201, told(user), { location: `/api/users/${user.id}` });
});

users.handle("GET /api/ticker", { streaming: true }, ({ signal }) => {
  users.log.info("ticker opened");
  return sse(ticks(signal));
});

/** A heartbeat every second, and each user that was added meanwhile, by whichever instance. */
async function* ticks(signal) {
  let known = store.all().length;
  for (let tick = 1; !signal.aborted; tick += 1) {
    const all = store.all();
    for (const user of all.slice(known)) yield { event: "added", data: told(user) };
    known = all.length;
    yield { event: "tick", id: String(tick), data: told({ tick, users: known, answered, at: new Date().toISOString() }) };
    await sleep(1_000, undefined, { signal }).catch(() => undefined); // the client went, or the service drains
  }
}

users.onStop(() => store.close());

await users.run();
