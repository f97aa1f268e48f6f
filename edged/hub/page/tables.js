// What differs between boards, and what was refused, as tables.

import { clock, count, keep, make, setText, show } from "./words.js";

const MOST_NAMES = 6;

// A table whose rows are [key, [text, ...]], or a sentence where there are none.
export class Table {
  constructor(id) {
    const section = document.getElementById(id);
    this.none = section.querySelector(".none");
    this.table = section.querySelector("table");
    this.rows = section.querySelector("tbody");
    this.names = [...section.querySelectorAll("th")].map((cell) => cell.textContent);
    this.kept = new Map();
  }

  update(rows) {
    show(this.none, rows.length === 0);
    show(this.table, rows.length > 0);
    keep(this.rows, this.kept, rows, ([key]) => key, () => this.makeRow(), (row, [, texts]) =>
      texts.forEach((text, at) => setText(row.cells[at], text)),
    );
  }

  makeRow() {
    const cells = this.names.map((name, at) => {
      const cell = make(at === 0 ? "th" : "td");
      if (at === 0) cell.scope = "row";
      cell.setAttribute("role", at === 0 ? "rowheader" : "cell");
      cell.dataset.name = name; // shown beside it where the table is too wide
      return cell;
    });
    const node = make("tr", {}, ...cells);
    node.setAttribute("role", "row");
    return { node, cells };
  }
}

function listOf(names) {
  if (names.length > MOST_NAMES) return `${names.slice(0, MOST_NAMES).join(", ")} and ${names.length - MOST_NAMES} more`;
  return names.join(", ");
}

// One row for each version in use of each model, but for models that have one version only and nothing newer waiting.
export function versionRows(boards) {
  const models = new Map();
  for (const board of boards) {
    for (const model of board.models) {
      const versions = models.get(model.model) ?? new Map();
      models.set(model.model, versions);
      const found = versions.get(model.version) ?? { boards: new Set(), trial: new Set(), waits: new Map() };
      versions.set(model.version, found);
      found.boards.add(board.device);
      if (model.trial) found.trial.add(board.device);
      if (model.installed > model.version) {
        found.waits.set(model.installed, (found.waits.get(model.installed) ?? new Set()).add(board.device));
      }
    }
  }
  const rows = [];
  for (const [name, versions] of [...models].sort(([one], [other]) => one.localeCompare(other))) {
    const isQuiet = versions.size === 1 && [...versions.values()].every((found) => !found.trial.size && !found.waits.size);
    if (isQuiet) continue;
    for (const [version, found] of [...versions].sort(([one], [other]) => other - one)) {
      rows.push([`${name} ${version}`, [name, String(version), listOf([...found.boards]), underWay(found)]]);
    }
  }
  return rows;
}

function underWay({ boards, trial, waits }) {
  const parts = [...waits].map(([version, some]) => [`${version} waits`, some]);
  if (trial.size) parts.unshift(["on trial", trial]);
  const texts = parts.map(([what, some]) => (some.size < boards.size ? `${what} on ${listOf([...some])}` : what));
  return texts.join("; ") || "–";
}

// One row for each reason, the most frequent first.
export function refusedRows(hub) {
  const last = new Map(hub.refused_lately.map((one) => [one.kind, one]));
  const kinds = Object.entries(hub.counts.refused).sort(([, one], [, other]) => other - one);
  return kinds.map(([kind, number]) => {
    const { time, topic, message } = last.get(kind) ?? {};
    return [kind, [kind, count(number), time ? clock(time, hub.time) : "–", topic ?? "–", message ?? "–"]];
  });
}
