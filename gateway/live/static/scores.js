// Confusion matrix, rolling score and drift of one model.

import { Chart } from "./chart.js";
import { byId, make, options, setAttribute, setText, show, themed } from "./dom.js";
import { clock, count, fixed, NONE, percent, words } from "./format.js";
import { store } from "./store.js";

const KEPT = 300; // seconds of rolling score since the page was opened

export class Scores {
  #chart = null;
  #shown = null;
  #windows = null;
  #drawnAt = 0;
  #history = new Map();
  #drift = null;
  #select = byId("model");

  constructor() {
    this.#select.addEventListener("change", () => this.draw());
  }

  draw() {
    const { models, summary, drift } = store.state;
    const names = working(models);
    options(this.#select, names, (name) => name);
    show(this.#select.parentElement, names.length > 1);
    if (this.#shown === null && summary.model) this.#select.value = summary.model;
    const name = names.length ? this.#select.value : null;
    const model = models[name];
    show(byId("confusion-empty"), !model?.windows);
    show(byId("confusion-scroll"), Boolean(model?.windows));
    if (model?.windows && (name !== this.#shown || model.windows !== this.#windows)) this.#confusion(name, model);
    this.#rolling(name, model);
    this.#drifted(drift);
  }

  #confusion(name, model) {
    const table = byId("confusion");
    const { labels, confusion } = model;
    if (name !== this.#shown) build(table, labels);
    if (model.windows) this.#shown = name;
    this.#windows = model.windows;
    confusion.forEach((row, truth) => {
      const sum = row.reduce((total, windows) => total + windows, 0);
      const cells = table.tBodies[0].rows[truth].cells;
      row.forEach((windows, guess) => {
        const cell = cells[guess + 1];
        setText(cell, windows ? count(windows) : "·");
        const share = sum ? windows / sum : 0;
        cell.style.setProperty("--share", share.toFixed(3));
        setAttribute(cell, "class", guess === truth ? "right" : "wrong");
      });
      setText(cells[row.length + 1], sum ? percent(row[truth] / sum) : NONE);
    });
  }

  #rolling(name, model) {
    setText(byId("rolling-f1"), fixed(model?.rolling_macro_f1, 3));
    setText(byId("rolling-accuracy"), fixed(model?.rolling_accuracy, 3));
    const known = typeof model?.rolling_macro_f1 === "number";
    const note = known ? `the last ${count(Math.min(model.windows, 500))} of ${count(model.windows)} scored windows, since this page was opened` : "no labels";
    setText(byId("accuracy-note"), note);
    const now = store.state.time_ms / 1000;
    for (const [one, { rolling_macro_f1: f1, rolling_accuracy: accuracy }] of Object.entries(store.state.models)) {
      if (f1 === null) continue;
      if (!this.#history.has(one)) this.#history.set(one, [[], [], []]);
      const columns = this.#history.get(one);
      if (columns[0].length && now - columns[0].at(-1) < 1) continue;
      [now, accuracy, f1].forEach((value, at) => columns[at].push(value));
      while (columns[0].length > KEPT) for (const column of columns) column.shift();
    }
    if (this.#chart !== null && Math.abs(now - this.#drawnAt) < 1) return;
    this.#drawnAt = now;
    const data = this.#history.get(name) ?? [[now], [null], [null]];
    if (this.#chart === null) this.#chart = newChart(data);
    else this.#chart.set(data);
  }

  #drifted(events) {
    if (events === this.#drift) return;
    this.#drift = events;
    show(byId("drift-empty"), events.length === 0);
    byId("drift").replaceChildren(
      ...events.map((one) =>
        make(
          "li",
          {},
          make("time", { text: clock(one.ms), datetime: new Date(one.ms).toISOString() }),
          make("span", { text: words(one.signal) }),
          make("span", { class: "faint", text: one.model }),
        ),
      ),
    );
  }
}

/** Models with a score, else those that devices speak to. */
function working(models) {
  const scored = Object.keys(models).filter((name) => models[name].windows);
  if (scored.length) return scored;
  const used = new Set(Array.from(store.devices.values(), (row) => row.model));
  return Object.keys(models).filter((name) => used.has(name));
}

function build(table, labels) {
  const head = make("tr", {}, make("th", { class: "corner", scope: "col", text: "truth ↓ likeliest →" }));
  for (const label of labels) head.append(make("th", { scope: "col" }, make("span", { text: words(label) })));
  head.append(make("th", { scope: "col" }, make("span", { text: "recall" })));
  const body = make("tbody");
  for (const label of labels) {
    const row = make("tr", {}, make("th", { scope: "row", text: words(label) }));
    for (let at = 0; at < labels.length; at += 1) row.append(make("td"));
    row.append(make("td", { class: "recall" }));
    body.append(row);
  }
  table.replaceChildren(
    make("caption", { class: "hidden", text: "Scored windows: rows are the truth, columns the likeliest activity" }),
    make("thead", {}, head),
    body,
  );
}

function newChart(data) {
  return new Chart(
    byId("accuracy-chart"),
    {
      scales: { x: { time: true, range: (_, min, max) => [Math.min(min ?? 0, (max ?? 0) - 60), max ?? 1] }, y: { range: () => [0, 1] } },
      series: [
        {},
        { stroke: () => themed("--rival"), width: 1.5, points: { show: false } },
        { stroke: () => themed("--accent"), width: 2, points: { show: false } },
      ],
      axes: [
        { size: 28, space: 80, values: (_, ticks) => ticks.map((tick) => clock(1000 * tick)), grid: { show: false } },
        { size: 34, space: 30 },
      ],
    },
    data,
  );
}
