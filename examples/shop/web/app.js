// The page of the shop: loads what the services have, sends what the visitor does, and shows which instance answered.
import { ask, note, onNote, services } from "./api.js";
import { followTicker, joinChat } from "./live.js";
import { $, chip, el, money, trouble } from "./view.js";

/** What the board knows of each service. */
const board = Object.fromEntries(Object.keys(services).map((name) => [name, { counts: new Map(), last: undefined }]));

function drawBoard() {
  const tiles = Object.entries(board).map(([name, { counts, last }]) => {
    const state = last === undefined ? "unknown" : last.ok ? "ok" : "bad";
    const total = Math.max(1, [...counts.values()].reduce((sum, count) => sum + count, 0));
    const bars = [...counts].sort().map(([instance, count]) => {
      const bar = chip(instance);
      bar.className = "share";
      bar.style.flexGrow = count / total;
      bar.replaceChildren(el("b", {}, instance.replace(/@.*$/, "")), ` ${count}`);
      return bar;
    });
    const words = state === "bad" ? el("code", {}, last.reason) : services[name].language;
    return el(
      "article",
      { className: "tile", dataset: { state } },
      el("h3", {}, el("i", { className: "dot" }), name),
      el("p", {}, words),
      el("div", { className: "shares" }, ...bars),
    );
  });
  $("board").replaceChildren(...tiles);
}

onNote((entry) => {
  const service = board[entry.service];
  if (entry.passing !== true) service.last = entry;
  if (entry.instance) service.counts.set(entry.instance, (service.counts.get(entry.instance) ?? 0) + 1);
  drawBoard();
  const status = el("td", { className: entry.ok ? (entry.reason ? "warn" : "good") : "bad" }, String(entry.status));
  if (entry.reason) status.append(" ", el("code", { title: entry.message ?? "" }, entry.reason));
  const row = el(
    "tr",
    {},
    el("td", {}, entry.label),
    status,
    el("td", {}, entry.instance ? chip(entry.instance) : "–"),
    el("td", { className: "num" }, entry.ms === undefined ? "–" : `${entry.ms.toFixed(entry.ms < 10 ? 1 : 0)} ms`),
    el("td", { className: "id" }, entry.requestId ?? "–"),
  );
  $("journal").prepend(row);
  while ($("journal").childElementCount > 60) $("journal").lastElementChild.remove();
});

async function loadUsers() {
  const answer = await ask("users", "GET", "/api/users");
  trouble($("users-trouble"), answer.ok ? undefined : answer);
  if (!answer.ok) return;
  const { users, instance } = answer.data;
  $("users-by").replaceChildren(chip(instance));
  $("people").replaceChildren(
    ...users.map(({ id, name, city }) => {
      const initials = name.split(" ").map((word) => word[0]).slice(0, 2).join("");
      const button = el("button", { type: "button", className: "person" }, el("i", {}, initials), el("span", {}, name, el("small", {}, city)));
      button.addEventListener("click", () => showUser(id));
      return el("li", {}, button);
    }),
  );
  const chosen = $("customer").value;
  const nobody = el("option", { value: 999 }, "user 999 (there is none)");
  $("customer").replaceChildren(...users.map(({ id, name }) => el("option", { value: id }, name)), nobody);
  if (chosen !== "") $("customer").value = chosen;
}

async function showUser(id) {
  const answer = await ask("users", "GET", `/api/users/${id}`);
  trouble($("users-trouble"), answer.ok ? undefined : answer);
  if (answer.ok) $("customer").value = id;
}

async function loadStock() {
  const answer = await ask("inventory", "GET", "/api/stock");
  trouble($("shelf-trouble"), answer.ok ? undefined : answer);
  if (!answer.ok) return;
  const stock = answer.data;
  $("shelf-by").replaceChildren(chip(stock[0]?.instance ?? "inventory"));
  $("shelf").replaceChildren(...stock.map(drawTea));
  const chosen = $("sku").value;
  $("sku").replaceChildren(...stock.map(({ sku }) => el("option", { value: sku }, nameOf(sku))));
  if (chosen !== "") $("sku").value = chosen;
  markChosen();
}

const nameOf = (sku) => sku.split("-").reverse().join(" ").replace(/^./, (letter) => letter.toUpperCase());

function drawTea({ sku, left, price_cents }) {
  const button = el(
    "button",
    { type: "button", className: "tea", dataset: { sku, left: left === 0 ? "none" : left < 20 ? "few" : "many" } },
    el("b", {}, nameOf(sku)),
    el("span", { className: "price" }, money(price_cents)),
    el("span", { className: "left" }, left === 0 ? "sold out" : `${left} left`),
  );
  button.setAttribute("role", "radio");
  button.addEventListener("click", () => chooseTea(sku));
  return button;
}

async function chooseTea(sku) {
  $("sku").value = sku;
  markChosen();
  const answer = await ask("inventory", "GET", `/api/stock/${sku}`);
  trouble($("shelf-trouble"), answer.ok ? undefined : answer);
  if (!answer.ok) return;
  $("shelf-by").replaceChildren(chip(answer.data.instance));
  document.querySelector(`.tea[data-sku="${CSS.escape(sku)}"]`)?.replaceWith(drawTea(answer.data));
  markChosen();
}

function markChosen() {
  for (const tea of document.querySelectorAll(".tea")) tea.setAttribute("aria-checked", String(tea.dataset.sku === $("sku").value));
}

$("sku").addEventListener("change", markChosen);

$("order").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { user_id, sku, quantity } = event.target.elements;
  const body = { user_id: Number(user_id.value), sku: sku.value, quantity: Number(quantity.value) };
  const answer = await ask("orders", "POST", "/api/orders", body);
  showReceipt(answer);
  if (answer.ok) {
    noteHelper(answer.data, answer.requestId);
    await loadStock();
  }
});

function showReceipt(answer) {
  const id = answer.requestId === undefined ? [] : [el("small", {}, `request ${answer.requestId}`)];
  if (!answer.ok) {
    addReceipt(el("p", { className: "refused" }, el("code", {}, answer.reason), ` ${answer.message}`), ...id);
    return;
  }
  const { id: number, user_name, sku, quantity, total_cents, instance, reserved_by } = answer.data;
  const path = el("p", { className: "path" }, "you → ", chip(instance), " → users → ", chip(reserved_by));
  const words = el("p", {}, el("b", {}, `Order ${number}: `), `${quantity} × ${nameOf(sku)} for ${user_name}, ${money(total_cents)}`);
  addReceipt(words, path, ...id);
}

function addReceipt(...lines) {
  $("receipt").querySelector(".quiet")?.remove();
  $("receipt").prepend(el("div", {}, ...lines));
  while ($("receipt").childElementCount > 3) $("receipt").lastElementChild.remove();
}

/** An order is answered by `orders`, but `inventory` did its part too: the board counts it. */
function noteHelper({ reserved_by }, requestId) {
  note({ service: "inventory", label: "gRPC shop.v1.Inventory/Reserve, by orders", status: "OK", instance: reserved_by, requestId });
}

$("new-user").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, city } = event.target.elements;
  const answer = await ask("users", "POST", "/api/users", { name: name.value, city: city.value });
  trouble($("users-trouble"), answer.ok ? undefined : answer);
  if (!answer.ok) return;
  event.target.reset();
  await loadUsers();
  $("customer").value = answer.data.id;
});

async function askLegacy() {
  const answer = await fetch("/legacy/", { method: "HEAD", cache: "no-store" }).catch(() => undefined);
  const reason = answer?.headers.get("x-synego-reason") ?? (answer === undefined ? "no_answer" : `status_${answer.status}`);
  const requestId = answer?.headers.get("x-request-id") ?? undefined;
  const ok = answer?.ok === true;
  const instance = answer?.headers.get("server")?.startsWith("SimpleHTTP") ? "http.server" : undefined;
  note({ service: "legacy", label: "HEAD /legacy/", status: answer?.status ?? "–", instance, requestId, ok, ...(ok ? {} : { reason }) });
  $("legacy-state").replaceChildren(...(ok ? [] : [el("code", {}, reason)]));
}

/** Asks on and on while the switch is on; one round after the other, so that a slow answer slows the asking. */
async function pulse() {
  const rounds = [
    () => ask("users", "GET", `/api/users/${1 + Math.floor(Math.random() * 20)}`),
    () => ask("inventory", "GET", `/api/stock/${$("sku").value || "tea-green"}`),
    () => ask("orders", "GET", "/api/orders/1"),
    askLegacy,
  ];
  for (let round = 0; $("pulse").checked; round += 1) {
    await rounds[round % rounds.length]();
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

$("pulse").addEventListener("change", () => {
  if ($("pulse").checked) void pulse();
});

drawBoard();
await Promise.all([loadUsers(), loadStock(), askLegacy()]);
followTicker(() => void loadUsers());
joinChat(`visitor ${Math.floor(Math.random() * 900 + 100)}`);
// What could not be loaded is tried again, so that the page heals with the mesh.
setInterval(() => {
  if (!$("users-trouble").hidden) void loadUsers();
  if (!$("shelf-trouble").hidden) void loadStock();
}, 3_000);
