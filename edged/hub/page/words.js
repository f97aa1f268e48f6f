// How numbers and times read, and the few ways in which this page changes its document. Whatever comes from boards or
// brokers is set as text, never as markup.

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, wanted) {
  node.toggleAttribute("hidden", !wanted); // also of SVG
}

export function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function makeSvg(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// Keeps one child of `parent` for each item, in their order: makes those that are missing, removes those that are no
// longer wanted, and moves only what stands elsewhere. `kept` (a Map) remembers children by key.
export function keep(parent, kept, items, keyOf, makeOne, updateOne) {
  const wanted = new Set(items.map(keyOf));
  for (const [key, child] of kept) {
    if (!wanted.has(key)) {
      child.node.remove();
      kept.delete(key);
    }
  }
  const focused = document.activeElement;
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (!kept.has(key)) kept.set(key, makeOne(item));
    const child = kept.get(key);
    if (child.node === at) at = at.nextElementSibling;
    else parent.insertBefore(child.node, at);
    updateOne(child, item);
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

// Marks of a state, told apart by their shape as well as by their colour.
const MARKS = {
  good: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11Z",
  bad: "M3.5 3.5H12.5V12.5H3.5Z",
  warn: "M8 2L14.5 13.5H1.5Z",
  wait: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11ZM8 5a3 3 0 1 1 0 6a3 3 0 1 1 0-6Z",
};

export function setMark(svg, kind) {
  if (svg.dataset.kind === kind) return;
  svg.dataset.kind = kind;
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.replaceChildren(makeSvg("path", { d: MARKS[kind], "fill-rule": "evenodd" }));
}

const WHOLE = new Intl.NumberFormat("en");

export function count(number) {
  return WHOLE.format(number);
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

// Four digits, or as many as stand before the point.
export function measure(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  const size = Math.abs(number);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return minus(number.toExponential(2));
  if (size >= 1000) return minus(number.toFixed(size >= 10000 ? 0 : 1));
  return minus(number.toPrecision(4).replace(/^(-?0\.0*\d{3}).*$/, "$1"));
}

export function minus(text) {
  return text.replace(/-/g, "\u2212");
}

// A rate in words: so many a second, or a minute where that is less than one.
export function pace(rate) {
  if (!rate) return "none";
  const [number, unit] = rate < 1 ? [rate * 60, "minute"] : [rate, "second"];
  return `${number < 10 ? Number(number.toPrecision(2)) : number.toFixed(0)} a ${unit}`;
}

export function size(bytes) {
  if (bytes < 1000) return plural(bytes, "byte");
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 100) return `${whole} s`;
  if (whole < 100 * 60) return `${Math.floor(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

export function ago(seconds) {
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

// Hours, minutes and seconds here; with the day where that is not today's.
export function clock(seconds, now = Date.now() / 1000) {
  const time = new Date(seconds * 1000);
  const text = [time.getHours(), time.getMinutes(), time.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
  return time.toDateString() === new Date(now * 1000).toDateString() ? text : `${DAY.format(time)} ${text}`;
}
