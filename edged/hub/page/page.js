// Asks the hub again and again, and shows what it says.

import { Boards, conditionOf, keepTexts } from "./boards.js";
import { Table, refusedRows, versionRows } from "./tables.js";
import { clock, count, keep, make, plural, setMark, setText, show } from "./words.js";

const EVERY = 2000; // milliseconds
const LONGEST = 30_000;
const TIMEOUT = 10_000;
const SOON = 400;
const PATIENCE = 5000; // the hub prepares nothing while nobody looks: what it says first may be old
const FRESH = 10; // seconds
const STEP = 10; // seconds in which the newest points of the history may still change
const OVERLAP = 3 * STEP;
const SPAN = 3600;

const find = (id) => document.getElementById(id);
const main = document.querySelector("main");
const boards = new Boards();
const versions = new Table("versions");
const refused = new Table("refused");
const kept = { connections: new Map(), counts: new Map(), notices: new Map() };

let history = {}; // device: place: points
let since = 0;
let conditions = null; // of each board, as it was shown last
let hubTime = 0;
let askedAt = 0; // performance.now() when `hubTime` was
let missingSince = null;
let wait = EVERY;
let timer = null;
let isAsking = false;
let patientUntil = performance.now() + PATIENCE;

function now() {
  return hubTime + (performance.now() - askedAt) / 1000;
}

async function ask() {
  const from = since;
  const response = await fetch(`data.json?since=${from}`, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
  if (!response.ok) throw Object.assign(new Error(), { status: response.status });
  const data = await response.json();
  hubTime = data.now;
  askedAt = performance.now();
  addHistory(data.history, from);
  since = Math.floor((data.now - OVERLAP) / STEP) * STEP;
  return data;
}

// Puts new points in the place of those that were known from that time on.
function addHistory(news, from) {
  const oldest = hubTime - SPAN;
  const merged = {};
  for (const device of new Set([...Object.keys(history), ...Object.keys(news)])) {
    const before = history[device] ?? {};
    const after = news[device] ?? {};
    for (const place of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const old = (before[place] ?? []).filter(([time]) => time >= oldest && time < from);
      const points = old.concat(after[place] ?? []);
      if (points.length) (merged[device] ??= {})[place] = points;
    }
  }
  history = merged;
}

async function turn() {
  if (isAsking) return;
  isAsking = true;
  clearTimeout(timer);
  try {
    const { hub } = await ask();
    wait = EVERY;
    missingSince = null;
    if (hubTime - hub.time < FRESH) {
      patientUntil = 0;
      showHub(hub);
      showLink("good", "live");
    } else if (performance.now() < patientUntil) {
      wait = SOON;
    } else if (hub.time) {
      showHub(hub);
      showLink("warn", `the hub has said nothing new since ${clock(hub.time, hubTime)}`);
    }
  } catch (error) {
    wait = Math.min(wait * 2, LONGEST);
    if (missingSince === null) {
      missingSince = Date.now() / 1000;
      announce("The hub is not reached.");
    }
    const isUnknown = error.status === 401;
    showLink("bad", isUnknown ? "the hub wants its token: open /?token=… again" : `not reached since ${clock(missingSince)}`);
  } finally {
    isAsking = false;
  }
  if (!document.hidden) timer = setTimeout(turn, wait);
}

function showLink(kind, text) {
  const link = find("link");
  link.dataset.kind = kind;
  setMark(link.firstElementChild, kind);
  setText(link.lastElementChild, text);
  document.body.classList.toggle("away", kind === "bad");
}

function showHub(hub) {
  setText(find("hub-name"), hub.hub);
  showConnections(hub);
  boards.update(hub.boards, history, now());
  versions.update(versionRows(hub.boards));
  refused.update(refusedRows(hub));
  showStrangers(hub);
  showSummary(hub);
  setText(find("footer"), `edged ${hub.version}, running since ${clock(hub.started, hub.time)}. This page shows, and changes nothing.`);
  show(find("hub"), true);
  show(main, true);
}

function showConnections(hub) {
  const brokers = [
    ...hub.upstreams.map(({ name, ...one }) => ({ name: `Upstream ${name}`, ...one })),
    { name: "Local broker", ...hub.local },
  ];
  keep(find("connections"), kept.connections, brokers, (one) => one.name, makeConnection, ({ mark, word, state }, one) => {
    setMark(mark, one.up ? "good" : "bad");
    setText(word, one.up ? "up" : "down");
    setText(state, one.queued ? `${one.state}; ${plural(one.queued, "message")} waiting` : one.state);
  });
  const { opened, published, repeated, refused: kinds, held, dropped } = hub.counts;
  const numbers = [
    ["opened", opened],
    ["republished", published],
    ["repeated", repeated],
    ["refused", Object.values(kinds).reduce((sum, number) => sum + number, 0)],
    ...(held ? [["held", held]] : []),
    ...(dropped ? [["dropped", dropped]] : []),
  ];
  keep(find("counts"), kept.counts, numbers, ([name]) => name, makeCount, ({ value }, [, number]) => setText(value, count(number)));
  const down = brokers.filter((one) => !one.up).map((one) => `${one.name}: ${one.state}`);
  const problems = Object.entries(hub.problems ?? {}).map(([what, why]) => `${what}: ${why}`);
  show(find("notices"), down.length + problems.length > 0);
  keepTexts(find("notices"), kept.notices, [...down, ...problems]);
}

function makeConnection({ name }) {
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  mark.setAttribute("class", "mark");
  mark.setAttribute("aria-hidden", "true");
  const word = make("span", { className: "word" });
  const state = make("span", { className: "detail" });
  return { node: make("li", {}, mark, make("span", { className: "name", textContent: name }), " ", word, " ", state), mark, word, state };
}

function makeCount([name]) {
  const value = make("dd");
  return { node: make("div", {}, make("dt", { textContent: name }), value), value };
}

function showStrangers(hub) {
  const names = Object.entries(hub.strangers ?? {}).map(([device, time]) => `${device} (${clock(time, hub.time)})`);
  show(find("strangers"), names.length > 0);
  setText(find("strangers"), `Announced, but not enrolled here: ${names.join(", ")}.`);
}

function showSummary(hub) {
  const found = new Map(hub.boards.map((board) => [board.device, conditionOf(board)]));
  const parts = ["offline", "silent", "degraded", "unknown", "online"].flatMap((condition) => {
    const number = [...found.values()].filter((one) => one === condition).length;
    return number ? [`${count(number)} ${condition}`] : [];
  });
  setText(find("summary"), `${plural(hub.boards.length, "board")}${parts.length ? `: ${parts.join(", ")}` : ""}`);
  const troubled = [...found.values()].filter((one) => one !== "online" && one !== "unknown").length;
  document.title = `${troubled ? `(${troubled}) ` : ""}${hub.hub} – edged hub`;
  if (conditions) {
    const changes = [...found].filter(([device, condition]) => conditions.get(device) !== condition);
    if (changes.length > 3) announce(`${changes.length} boards changed: ${parts.join(", ")}.`);
    else if (changes.length) announce(changes.map(([device, condition]) => `${device} is ${condition}.`).join(" "));
  }
  conditions = found;
}

function announce(text) {
  setText(find("news"), text);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) return;
  patientUntil = performance.now() + PATIENCE;
  turn();
});
window.addEventListener("online", turn);
setInterval(() => {
  if (!document.hidden && hubTime) boards.tick(now());
}, 1000);

showLink("wait", "asking the hub");
turn();
