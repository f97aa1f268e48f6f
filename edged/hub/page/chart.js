// A chart of the last hour of one place: its score or value as a line, its labels as a band below that.

import { clock, keep, make, makeSvg, measure, minus, setText, show } from "./words.js";

const SPAN = 3600;
const WIDTH = 360;
const TOP = 4;
const BOTTOM = 56;
const BAND = { top: 64, height: 8, least: 1.2 };
const LEAST_PAUSE = 120; // seconds without a point that break the line; more where points are rare
const COLOURS = 8;
const MOST_IN_LEGEND = 5;

// The number of a label's colour, the same wherever the label stands; the first label's is a quiet one.
export function colourOf(labels, label) {
  const at = labels.indexOf(label);
  if (at >= 0) return at === 0 ? 0 : 1 + ((at - 1) % (COLOURS - 1));
  let sum = 0;
  for (const character of label) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return 1 + (sum % (COLOURS - 1));
}

export function scoreText(score, model) {
  if (typeof score !== "number") return "";
  return model.kind === "classifier" ? minus(score.toFixed(2)) : measure(score);
}

export function valueText(value, model) {
  return model.unit ? `${measure(value)} ${model.unit}` : measure(value);
}

export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".plot");
    this.svg = figure.querySelector("svg");
    this.line = figure.querySelector(".line");
    this.bands = figure.querySelector(".bands");
    this.cursor = figure.querySelector(".cursor");
    this.readout = figure.querySelector(".readout");
    this.legend = figure.querySelector(".legend");
    this.high = figure.querySelector(".high");
    this.low = figure.querySelector(".low");
    this.points = [];
    this.drawn = "";
    this.picked = null; // the point that the cursor stands on
    this.legendKept = new Map();
    const pickNearest = (event) => this.pick(this.nearest(event.clientX));
    this.plot.addEventListener("pointermove", pickNearest);
    this.plot.addEventListener("pointerdown", pickNearest);
    this.plot.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.pick(null));
    this.plot.addEventListener("focus", () => this.pick(this.picked ?? this.points.at(-1)));
    this.plot.addEventListener("blur", () => this.pick(null));
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
  }

  // Draws what has changed. `points`: [[time, value, label], ...], the oldest first; `now`: Unix seconds.
  update(points, model, now) {
    const shown = points.filter(([time]) => time > now - SPAN && time <= now + 1);
    show(this.figure, shown.length > 0);
    const drawn = JSON.stringify([Math.floor(now / 10), shown.length, shown.at(-1), model]); // 10 s are one unit of width
    if (shown.length === 0 || drawn === this.drawn) return;
    this.drawn = drawn;
    this.points = shown;
    this.model = model;
    this.now = now;
    this.range = rangeOf(shown, model);
    const runs = runsOf(shown);
    this.line.setAttribute("d", runs.map((run) => this.trace(run)).join(""));
    this.drawBands(runs);
    this.drawLegend();
    this.describe();
    if (this.picked) this.pick(shown.find(([time]) => time >= this.picked[0]) ?? shown.at(-1));
  }

  x(time) {
    return ((time - this.now + SPAN) / SPAN) * WIDTH;
  }

  y(value) {
    return BOTTOM - ((value - this.range.low) / (this.range.high - this.range.low)) * (BOTTOM - TOP);
  }

  trace(run) {
    const known = run.filter(([, value]) => value !== null);
    const steps = known.map(([time, value]) => `${this.x(time).toFixed(1)} ${this.y(value).toFixed(1)}`);
    return steps.length === 1 ? `M${steps[0]}h.1` : steps.length ? `M${steps.join("L")}` : "";
  }

  drawBands(runs) {
    const paths = Array(COLOURS).fill("");
    for (const run of runs) {
      run.forEach(([time, , label], at) => {
        if (label === null) return;
        const start = this.x(time);
        const end = at + 1 < run.length ? this.x(run[at + 1][0]) : start;
        const width = Math.max(end - start, BAND.least).toFixed(1);
        paths[colourOf(this.model.labels, label)] += `M${start.toFixed(1)} ${BAND.top}h${width}v${BAND.height}h-${width}Z`;
      });
    }
    const isBanded = paths.some(Boolean);
    this.plot.classList.toggle("banded", isBanded);
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${isBanded ? BAND.top + BAND.height : BOTTOM + TOP}`);
    paths.forEach((path, number) => {
      if (!this.bands.children[number]) this.bands.append(makeSvg("path", { class: `colour-${number}` }));
      this.bands.children[number].setAttribute("d", path);
    });
  }

  drawLegend() {
    const seen = [...new Set(this.points.map(([, , label]) => label))].filter((label) => label !== null);
    const place = (label) => (this.model.labels.indexOf(label) + 1 || this.model.labels.length + 1);
    seen.sort((one, other) => place(one) - place(other) || one.localeCompare(other));
    const items = seen.slice(0, MOST_IN_LEGEND).map((label) => ({ label, colour: colourOf(this.model.labels, label) }));
    if (seen.length > items.length) items.push({ label: `and ${seen.length - items.length} more`, colour: null });
    show(this.legend, seen.length > 1);
    keep(this.legend, this.legendKept, items, (item) => item.label, makeLegendItem, () => {});
  }

  describe() {
    const text = this.model.kind === "classifier" ? String : measure;
    setText(this.high, text(this.range.high));
    setText(this.low, text(this.range.low));
    const what = this.model.kind === "regressor" ? "value" : "score and label";
    this.plot.setAttribute("aria-label", `${this.model.name}: ${what} over the last hour`);
    this.plot.setAttribute("aria-valuemin", this.points[0][0]);
    this.plot.setAttribute("aria-valuemax", this.points.at(-1)[0]);
    if (!this.picked) this.say(this.points.at(-1));
  }

  // Tells assistive technology which point is meant.
  say(point) {
    this.plot.setAttribute("aria-valuenow", point[0]);
    this.plot.setAttribute("aria-valuetext", this.textOf(point));
  }

  textOf([time, value, label]) {
    const said = label === null ? valueText(value, this.model) : `${label} ${scoreText(value, this.model)}`;
    return `${clock(time, this.now)}  ${said}`;
  }

  // Puts the cursor onto a point; null takes it away.
  pick(point) {
    this.picked = point ?? null;
    this.figure.classList.toggle("picked", this.picked !== null);
    setText(this.readout, this.picked ? this.textOf(point) : "");
    if (!this.picked) return;
    this.cursor.setAttribute("d", `M${this.x(point[0]).toFixed(1)} 0V${BAND.top + BAND.height}`);
    this.say(point);
  }

  nearest(clientX) {
    const box = this.svg.getBoundingClientRect();
    const time = this.now - SPAN + ((clientX - box.left) / box.width) * SPAN;
    const distance = (point) => Math.abs(point[0] - time);
    return this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  }

  onKey(event) {
    const last = this.points.length - 1;
    const at = this.picked ? this.points.indexOf(this.picked) : last;
    const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.pick(this.points[Math.min(Math.max(moves[event.key], 0), last)]);
  }
}

// A classifier's scores are shares; anything else fills the height.
function rangeOf(points, model) {
  if (model.kind === "classifier") return { low: 0, high: 1 };
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  if (values.length === 0) return { low: 0, high: 1 };
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = low === high ? Math.abs(low) * 0.05 || 1 : 0;
  return { low: low - room, high: high + room };
}

// Parts the points where nothing came for much longer than usual.
function runsOf(points) {
  const steps = points.slice(1).map((point, at) => point[0] - points[at][0]);
  const usual = [...steps].sort((one, other) => one - other)[Math.floor(steps.length / 2)] ?? 0;
  const pause = Math.max(LEAST_PAUSE, 5 * usual);
  const runs = [[points[0]]];
  steps.forEach((step, at) => (step > pause ? runs.push([points[at + 1]]) : runs.at(-1).push(points[at + 1])));
  return runs;
}

function makeLegendItem({ label, colour }) {
  const node = make("li");
  if (colour !== null) {
    const swatch = makeSvg("svg", { viewBox: "0 0 10 10", class: `swatch colour-${colour}`, "aria-hidden": "true" });
    swatch.append(makeSvg("rect", { width: 10, height: 10, rx: 2.5 }));
    node.append(swatch);
  }
  node.append(make("span", { textContent: label }));
  return { node };
}
