// The inspector: sessions, a live conversation, its context and its usage, over the same agentspace.v2 frames as any
// client. It talks to its own origin only, and takes nothing from the address of the page.
"use strict";

const part = (id) => document.getElementById(id);
const dollars = (amount) => (amount ? amount.toFixed(6) : "0");
const count = (number) => number.toLocaleString("en");

let socket = null;
let session = "";
let position = {};
let blocks = new Map();
let wait = 500;
let requests = 0;

function send(type, fields = {}) {
  const id = `${type}-${++requests}`;
  socket.send(JSON.stringify({ type, id, ...fields }));
  return id;
}

function element(name, text, className = "") {
  const node = document.createElement(name);
  node.textContent = text;
  node.className = className;
  return node;
}

function rows(id, cells) {
  part(id).replaceChildren(...cells.map((line) => {
    const row = document.createElement("tr");
    row.append(...line.map((text) => element("td", text)));
    return row;
  }));
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/gateway`, "agentspace.v2");
  socket.onmessage = (event) => {
    const frame = JSON.parse(event.data);
    (handlers[frame.type] ?? (() => {}))(frame);
  };
  socket.onclose = (event) => {
    part("state").textContent = `disconnected (${event.code}${event.reason ? `: ${event.reason}` : ""})`;
    if (event.code === 4401) return;
    setTimeout(connect, wait * (0.5 + Math.random()));
    wait = Math.min(wait * 2, 10000);
  };
}

function refresh() {
  send("session.list", { pageSize: 200 });
  if (!session) return;
  send("context.inspect", { sessionId: session });
  send("usage.query", { sessionId: session });
}

function open(id) {
  if (session) send("session.unwatch", { sessionId: session });
  session = id;
  position = {};
  part("session").textContent = id;
  part("conversation").replaceChildren(element("p", "Loading…", "note"));
  send("session.watch", { sessionId: id });
  refresh();
}

function say(className, text) {
  const log = part("conversation");
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const node = element("div", text, className);
  log.append(node);
  if (follow) log.scrollTop = log.scrollHeight;
  return node;
}

function show(message) {
  for (const block of message.blocks) {
    say(`message ${message.role} ${block.kind}`, block.text || block.toolName || block.kind);
  }
}

// Every watched frame carries the session's position; after a lost connection the watch goes on from there.
function watched(frame) {
  if (frame.seq) position = { epoch: frame.epoch, afterSeq: frame.seq };
}

function append(kind) {
  return (frame) => {
    watched(frame);
    const key = `${frame.turnId}/${frame.block}`;
    if (!blocks.has(key)) blocks.set(key, say(`message assistant ${kind}`, ""));
    const log = part("conversation");
    const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    blocks.get(key).append(frame.delta);
    if (follow) log.scrollTop = log.scrollHeight;
  };
}

const handlers = {
  hello(frame) {
    wait = 500;
    part("state").textContent = `connected as ${frame.principal}, server ${frame.serverVersion}`;
    if (session) send("session.watch", { sessionId: session, ...position });
    refresh();
  },
  "session.list"(frame) {
    part("sessions").replaceChildren(...frame.sessions.map((item) => {
      const button = element("button", item.title || item.sessionId);
      button.append(element("small", `${item.messageCount} messages, ${item.model}`));
      if (item.sessionId === session) button.setAttribute("aria-current", "true");
      button.onclick = () => open(item.sessionId);
      return button;
    }));
    if (!frame.sessions.length) part("sessions").replaceChildren(element("p", "None yet.", "note"));
  },
  "session.snapshot"(frame) {
    watched(frame);
    blocks = new Map();
    part("conversation").replaceChildren();
    if (frame.truncated) say("note", "Older messages are not shown.");
    frame.messages.forEach(show);
    (frame.activeTurn?.blocks ?? []).forEach((block, index) => {
      blocks.set(`${frame.activeTurn.turnId}/${index}`, say(`message assistant ${block.kind}`, block.text));
    });
  },
  "session.reset"() {
    position = {};
  },
  "chat.message"(frame) {
    watched(frame);
    show(frame.message);
  },
  "chat.stream.start": watched,
  "chat.stream.delta": append("text"),
  "chat.stream.thinking": append("thinking"),
  "chat.stream.tool": append("tool_use"),
  "chat.stream.end"(frame) {
    watched(frame);
    say("note", `${frame.state}: ${count(frame.usage.totalTokens)} tokens, $${dollars(frame.cost.totalCost)}`);
    refresh();
  },
  error(frame) {
    watched(frame);
    say("note", `${frame.code}: ${frame.message}`);
    if (frame.turnId) refresh();
  },
  "context.inspection"(frame) {
    const line = (name, item) => [name, count(item.byteCount), count(item.tokenEstimate), dollars(item.costEstimate)];
    rows("context", frame.sections.map((item) => line(item.name, item)));
    rows("totals", [line("total", frame.totals)]);
  },
  "usage.report"(frame) {
    const line = (name, item) => [name, count(item.requestCount), count(item.totalTokens), dollars(item.totalCost)];
    rows("usage", Object.entries(frame.perModel).map(([name, item]) => line(name, item)));
    rows("sum", [line("total", frame.grandTotal)]);
  },
};

connect();
