// What comes by itself: the ticker (server-sent events) and the chat (WebSocket). Both come back after a failure.
import { note } from "./api.js";
import { $, chip, el } from "./view.js";

/** Follows the ticker; `onAdded` is called with each user that appeared. `lost`: whether it was lost before. */
export function followTicker(onAdded, lost = false) {
  const beats = [];
  const source = new EventSource("/api/ticker");
  source.addEventListener("tick", (event) => {
    const data = JSON.parse(event.data);
    if (lost || data.tick === 1) note({ service: "users", label: "SSE /api/ticker", status: "open", instance: data.instance });
    lost = false;
    $("ticker-by").replaceChildren(chip(data.instance));
    $("ticker-count").textContent = data.users;
    $("ticker-text").textContent = `users · ${data.answered} requests answered by this instance`;
    drawBeats(beats, data);
  });
  source.addEventListener("added", (event) => onAdded(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (!lost) note({ service: "users", label: "SSE /api/ticker", status: "lost", reason: "stream_ended", passing: true });
    lost = true;
    $("ticker-text").textContent = "the stream ended, connecting again";
    // A browser gives up for good when the answer is an error: begin anew.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => followTicker(onAdded, true), 1_000);
  });
}

/** A line of how many requests the instance answered between two ticks. */
function drawBeats(beats, { answered, instance }) {
  const last = beats.at(-1);
  const count = last?.instance === instance ? Math.max(0, answered - last.answered) : 0;
  beats.push({ answered, instance, count });
  if (beats.length > 40) beats.shift();
  const most = Math.max(4, ...beats.map((beat) => beat.count));
  const points = beats.map((beat, index) => `${(index / 39) * 200},${30 - (beat.count / most) * 28}`);
  $("beat").firstElementChild.setAttribute("points", points.join(" "));
}

/** Joins the lobby and stays there. */
export function joinChat(name) {
  let socket;
  let wait = 500;
  let joined;
  const open = () => {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}/ws/chat?room=lobby&name=${encodeURIComponent(name)}`);
    socket.addEventListener("message", (event) => {
      wait = 500;
      joined = true;
      show(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => {
      $("chat-by").replaceChildren(el("span", { className: "bad" }, "not connected"));
      if (joined !== false) note({ service: "chat", label: "WS /ws/chat", status: "closed", reason: "socket_closed", ok: false });
      joined = false;
      setTimeout(open, wait);
      wait = Math.min(5_000, wait * 2);
    });
  };
  open();
  $("say").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = event.target.elements.text;
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(field.value);
    field.value = "";
  });
}

function show(message) {
  const line = el("li", { dataset: { type: message.type } });
  if (message.type === "welcome") {
    $("chat-by").replaceChildren(chip(message.instance));
    note({ service: "chat", label: "WS /ws/chat", status: "open", instance: message.instance, requestId: message.request_id });
    line.append(`You are ${message.name}`);
  } else if (message.type === "said") {
    line.append(el("b", {}, message.name), ` ${message.text}`);
  } else {
    line.append(`${message.name} ${message.type}, ${message.members} here`);
  }
  $("chat").append(line);
  while ($("chat").childElementCount > 100) $("chat").firstElementChild.remove();
  $("chat").scrollTop = $("chat").scrollHeight;
}
