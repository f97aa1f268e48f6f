// A chart of the last hour of one channel: its score or value as a line, its labels as a band below.

import { ago, clock, make, makeSvg, measure, minus, setText, show } from "/words.js";

const SPAN = 3600;
const WIDTH = 360;
const TOP = 4;
const BOTTOM = 56;
const BAND_TOP = 64;
const BAND_HEIGHT = 8;
const LEAST_PAUSE = 120; // seconds without a point that break the line; more where points are rare
const COLOURS = 8;
const MOST_IN_LEGEND = 5;

// The number of a label's colour, the same wherever the label stands: the first one is quiet.
export function colourOf(labels, label) {
  const at = labels.indexOf(label);
  if (at >= 0) return at === 0 ? 0 : 1 + ((at - 1) % (COLOURS - 1));
  let sum = 0;
  for (const character of label) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return 1 + (sum % (COLOURS - 1));
}

export function pointText(point, model) {
  const [, value, label] = point;
  if (label === null) return `${measure(value)} ${model.unit}`.trim();
  return `${label} ${scoreText(value, model)}`;
}

export function scoreText(value, model) {
  if (value === null || value === undefined) return "";
  return model.kind === "classifier" ? minus(value.toFixed(2)) : measure(value);
}

export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".plot");
    this.find = (name) => figure.querySelector(name);
    this.points = [];
    this.shape = "";
    this.at = null; // what the cursor stands on
    const toPointer = (event) => this.pick(this.nearest(event));
    this.plot.addEventListener("pointermove", toPointer);
    this.plot.addEventListener("pointerdown", toPointer);
    this.plot.addEventListener("pointerleave", () => this.pick(null));
    this.plot.addEventListener("blur", () => this.pick(null));
    this.plot.addEventListener("focus", () => this.pick(this.at ?? this.points.at(-1) ?? null));
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
  }

  // Draws anew what has changed. `points`: [[time, value, label], ...], oldest first; `now`: Unix seconds.
  update(points, model, now) {
    this.model = model;
    this.now = now;
    this.points = points.filter(([time]) => time > now - SPAN && time <= now + 1);
    show(this.figure, this.points.length > 0);
    if (this.points.length === 0) return;
    const last = this.points.at(-1);
    const shape = `${Math.floor(now / 10)} ${last.join(" ")} ${this.points.length}`; // ten seconds are one unit of width
    if (shape === this.shape) return;
    this.shape = shape;
    this.scale();
    const runs = this.runs();
    this.find(".line").setAttribute("d", runs.map((run) => this.trace(run)).join(""));
    this.drawBands(runs);
    this.drawLegend();
    this.plot.setAttribute("aria-label", `${model.name} over the last hour, from ${setText(this.find(".low"), this.text(this.low)) ?? this.text(this.low)} to ${this.text(this.high)}`);
    setText(this.find(".high"), this.text(this.high));
    this.plot.setAttribute("aria-valuemin", 0);
    this.plot.setAttribute("aria-valuemax", this.points.length - 1);
    this.pick(this.at === null ? null : this.points.find(([time]) => time >= this.at[0]) ?? last);
  }
}
