// The users: the first ones from code, those that were added from a journal file that all instances of the service share.
import { appendFileSync, mkdirSync, openSync, readSync, closeSync, fstatSync } from "node:fs";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { firstUsers } from "./data.js";

/** Users in memory, never older than the journal. The place of a line in it gives the id, so no two get the same. */
export class UserStore {
  #users = new Map(firstUsers.map((user) => [user.id, user]));
  #journal;
  #readTo = 0;

  /** `folder`: where the journal is; made if need be. */
  constructor(folder) {
    mkdirSync(folder, { recursive: true });
    this.#journal = openSync(join(folder, "users.jsonl"), "a+", 0o600);
    this.#catchUp();
  }

  all() {
    this.#catchUp();
    return [...this.#users.values()];
  }

  get(id) {
    this.#catchUp();
    return this.#users.get(id);
  }

  /** Adds a user and gives it with its id. */
  add(fields) {
    const nonce = randomUUID();
    appendFileSync(this.#journal, `${JSON.stringify({ ...fields, nonce })}\n`); // one small append is never torn
    return this.#catchUp(nonce);
  }

  close() {
    closeSync(this.#journal);
  }

  /** Reads what was added since the last look, here or elsewhere; gives the user of `nonce`. */
  #catchUp(nonce) {
    const { size } = fstatSync(this.#journal);
    if (size === this.#readTo) return undefined;
    const bytes = Buffer.alloc(size - this.#readTo);
    const read = readSync(this.#journal, bytes, 0, bytes.length, this.#readTo);
    const whole = bytes.subarray(0, bytes.lastIndexOf("\n", read) + 1);
    this.#readTo += whole.length;
    let mine;
    for (const line of whole.toString().split("\n").filter(Boolean)) {
      const { nonce: its, ...fields } = JSON.parse(line);
      const user = { id: this.#users.size + 1, ...fields };
      this.#users.set(user.id, user);
      if (its === nonce) mine = user;
    }
    return mine;
  }
}
