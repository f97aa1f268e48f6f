// The boards: a card each, or a row each that unfolds where there are many.

import { Chart, colourOf, scoreText, valueText } from "./chart.js";
import { ago, count, duration, keep, make, pace, plural, setMark, setText, show, size } from "./words.js";

const MOST_CARDS = 8;
const LONG_LABEL = 14; // characters
const RANK = { offline: 0, silent: 1, degraded: 2, unknown: 3, online: 4 };
const MARK = { offline: "bad", silent: "warn", degraded: "warn", unknown: "wait", online: "good" };

// How a board is, in one word: its state, or "degraded" where it is online and says that something does not work.
export function conditionOf(board) {
  return board.state === "online" && troublesOf(board).length > 0 ? "degraded" : board.state;
}

// The places of a board's results, each with what is known of its model; a model without results is one place.
function placesOf(board) {
  return board.models.flatMap((model) =>
    (model.results.length ? model.results : [{ place: model.channel, last: null }]).map((result) => ({ ...model, ...result })),
  );
}

function troublesOf(board) {
  if (!board.report) return [];
  const slow = (board.report.throttled ?? []).map((why) => `runs slower than it could: ${why}`);
  return [...(board.report.degraded ?? []), ...slow];
}

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

class ModelView {
  constructor() {
    this.node = clone("model-template");
    const find = (selector) => this.node.querySelector(selector);
    this.name = find("h4");
    this.version = find(".version > span");
    this.trial = find(".trial");
    this.waits = find(".waits");
    this.swatch = find(".swatch");
    this.answer = find(".answer");
    this.label = find(".label");
    this.score = find(".score");
    this.age = find(".age");
    this.chart = new Chart(find(".chart"));
  }

  update(model, points, now) {
    const { last, installed, version } = model;
    setText(this.name, model.name);
    const named = model.name === model.model ? `version ${version}` : `${model.model} ${version}`;
    setText(this.version, `${named} on ${model.channel}`);
    show(this.trial, model.trial);
    show(this.waits, installed > version);
    setText(this.waits, `${version} → ${installed} waits`);
    const label = last?.label ?? null;
    show(this.swatch, label !== null);
    if (label !== null) this.swatch.setAttribute("class", `swatch colour-${colourOf(model.labels, label)}`);
    this.node.classList.toggle("silent", !last);
    setText(this.label, last ? (label ?? valueText(last.value, model)) : "no result yet");
    this.answer.classList.toggle("long", this.label.textContent.length > LONG_LABEL);
    setText(this.score, label === null ? "" : scoreText(last.score, model));
    this.time = points.at(-1)?.[0] ?? last?.time; // by the hub's clock, where it is known
    this.chart.update(points, model, now);
    this.tick(now);
  }

  tick(now) {
    setText(this.age, this.time ? ago(now - this.time) : "");
  }
}

class BoardView {
  constructor(device, number, onFold) {
    this.node = clone("board-template");
    const find = (selector) => this.node.querySelector(selector);
    this.button = find(".fold");
    this.mark = find(".mark");
    this.word = find(".word");
    this.seen = find(".seen");
    this.brief = find(".brief");
    this.body = find(".body");
    this.troubles = find(".troubles");
    this.models = find(".models");
    this.none = find(".none");
    this.health = find(".health");
    this.error = find(".error");
    this.modelsKept = new Map();
    this.healthKept = new Map();
    this.troublesKept = new Map();
    this.body.id = `board-${number}`;
    this.button.setAttribute("aria-controls", this.body.id);
    this.button.addEventListener("click", onFold);
    setText(find(".device"), device);
  }

  update(board, history, now, isOpen) {
    this.board = board;
    this.isOpen = isOpen;
    const condition = conditionOf(board);
    this.node.dataset.condition = condition;
    setMark(this.mark, MARK[condition] ?? "wait");
    setText(this.word, condition);
    this.button.setAttribute("aria-expanded", String(isOpen));
    show(this.body, isOpen);
    show(this.brief, !isOpen);
    if (isOpen) this.updateBody(board, history, now);
    else setText(this.brief, briefOf(board));
    this.tick(now);
  }

  updateBody(board, history, now) {
    const troubles = troublesOf(board);
    show(this.troubles, troubles.length > 0);
    keepTexts(this.troubles, this.troublesKept, troubles);
    show(this.none, board.models.length === 0);
    keep(this.models, this.modelsKept, placesOf(board), (one) => one.place, () => new ModelView(), (view, one) =>
      view.update(one, history[one.place] ?? [], now),
    );
    this.updateHealth(now);
    show(this.error, Boolean(board.report?.error));
    setText(this.error, `Last problem: ${board.report?.error ?? "none"}`);
  }

  updateHealth(now) {
    keep(this.health, this.healthKept, healthOf(this.board, now), ([name]) => name, makePair, (pair, [, text]) => setText(pair.value, text));
  }

  tick(now) {
    const seen = this.board.last_seen;
    setText(this.seen, seen === null ? "never seen" : `seen ${ago(now - seen)}`);
    if (!this.isOpen) return;
    for (const view of this.modelsKept.values()) view.tick(now);
    if (this.board.state !== "online") this.updateHealth(now);
  }
}

function briefOf(board) {
  const answers = placesOf(board).map(({ last, ...model }) => {
    if (!last) return "–";
    return last.label === undefined ? valueText(last.value, model) : `${last.label} ${scoreText(last.score, model)}`;
  });
  const trial = board.models.some((model) => model.trial) ? ["on trial"] : [];
  return [...answers, ...trial].join(" · ");
}

// What a board says of itself, in plain words: [[name, text], ...].
function healthOf(board, now) {
  const { report } = board;
  const refused = Object.values(board.refused).reduce((sum, number) => sum + number, 0);
  const here = [["Refused here", refused ? plural(refused, "message") : "none"]];
  if (!report) return here;
  const stored = report.stored ? `, ${size(report.stored)} stored` : "";
  const pairs = [
    ["Readings", pace(report.rate)],
    ["Temperature", typeof report.temperature === "number" ? `${report.temperature.toFixed(0)} °C` : "not known"],
    ["Waiting", report.waiting ? `${plural(report.waiting, "result")}${stored}` : "none"],
    ["Dropped", report.dropped ? plural(report.dropped, "result") : "none"],
    ...here,
    ["Running for", duration(report.uptime)],
  ];
  if (report.lost) pairs.push(["Lost by crashes", plural(report.lost, "window")]);
  if (report.set_aside) pairs.push(["Set aside", plural(report.set_aside, "reading")]);
  if (board.state !== "online") pairs.push(["As of", ago(now - (board.last_seen ?? report.time))]);
  return pairs;
}

function makePair([name]) {
  const value = make("dd");
  return { node: make("div", {}, make("dt", { textContent: name }), value), value };
}

export function keepTexts(list, kept, texts) {
  const items = texts.map((text, at) => ({ at, text }));
  keep(list, kept, items, (item) => item.at, () => ({ node: make("li") }), (child, item) => setText(child.node, item.text));
}

export class Boards {
  constructor() {
    this.list = document.getElementById("board-list");
    this.none = document.getElementById("boards-none");
    this.filter = document.getElementById("filter");
    this.filterText = document.getElementById("filter-text");
    this.filterCount = document.getElementById("filter-count");
    this.kept = new Map();
    this.folded = new Map(); // what a person chose, by board
    this.number = 0;
    this.filterText.addEventListener("input", () => this.redraw());
  }

  // `history`: {device: {place: points}}; `now`: Unix seconds.
  update(boards, history, now) {
    this.boards = [...boards].sort(
      (one, other) =>
        RANK[conditionOf(one)] - RANK[conditionOf(other)] ||
        one.device.localeCompare(other.device, "en", { numeric: true }),
    );
    this.history = history;
    this.now = now;
    for (const device of this.folded.keys()) {
      if (!boards.some((board) => board.device === device)) this.folded.delete(device);
    }
    this.redraw();
  }

  redraw() {
    const isCompact = this.boards.length > MOST_CARDS;
    if (!isCompact) this.filterText.value = "";
    const words = this.filterText.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = new Set(this.boards.filter((board) => matches(board, words)));
    show(this.none, this.boards.length === 0);
    show(this.filter, isCompact);
    show(this.filterCount, words.length > 0);
    setText(this.filterCount, words.length ? `${count(chosen.size)} of ${count(this.boards.length)}` : "");
    this.list.classList.toggle("compact", isCompact);
    keep(
      this.list,
      this.kept,
      this.boards,
      (board) => board.device,
      (board) => new BoardView(board.device, (this.number += 1), () => this.fold(board.device)),
      (view, board) => {
        show(view.node, chosen.has(board));
        const isOpen = !(this.folded.get(board.device) ?? isCompact);
        view.update(board, this.history[board.device] ?? {}, this.now, isOpen && chosen.has(board));
      },
    );
  }

  fold(device) {
    this.folded.set(device, this.kept.get(device).isOpen);
    this.redraw();
  }

  tick(now) {
    this.now = now;
    for (const view of this.kept.values()) if (!view.node.hidden) view.tick(now);
  }
}

function matches(board, words) {
  const said = placesOf(board).flatMap((one) => [one.name, one.model, one.channel, one.last?.label ?? ""]);
  const text = [board.device, conditionOf(board), ...said].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}
