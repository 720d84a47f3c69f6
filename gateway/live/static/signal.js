// The signal of the watched device, sensor by sensor, with the learned curve beside it.

import { Chart } from "./chart.js";
import { make, setText, themed } from "./dom.js";
import { fixed, NONE } from "./format.js";

const SPAN_S = 10;
const AXIS_COLOURS = ["--axis-1", "--axis-2", "--axis-3"];

export class Signal {
  #host;
  #panels = [];
  #shown = ""; // what the panels were made for
  #step = 0; // seconds
  #samples = []; // [levels, raw values or null], evenly spaced: gaps have their nulls

  constructor(host) {
    this.#host = host;
  }

  /** Another device: forget everything. */
  clear() {
    this.#end();
    this.#shown = "";
    this.#host.replaceChildren(make("p", { class: "empty waiting", text: "Waiting for the signal…" }));
  }

  /** Take a `device` event; one with a curve begins anew. */
  take(event) {
    if (event.curve) {
      this.#samples = [];
      const shown = JSON.stringify([event.channels, event.units, event.curve]);
      if (shown !== this.#shown) this.#build(event);
      this.#shown = shown;
    }
    this.#step = 1 / event.rate_hz;
    event.new.forEach((levels, at) => this.#samples.push([levels, event.raw?.new[at] ?? null]));
    const most = Math.ceil(SPAN_S * event.rate_hz) + 1;
    if (this.#samples.length > most) this.#samples.splice(0, this.#samples.length - most);
  }

  draw() {
    if (!this.#panels.length || !this.#samples.length) return;
    const last = this.#samples.length - 1;
    const times = this.#samples.map((_, at) => (at - last) * this.#step);
    for (const panel of this.#panels) {
      const raw = panel.channels.map((at) => this.#samples.map(([, values]) => values?.[at] ?? null));
      const levels = panel.channels.map((at) => this.#samples.map(([values]) => values[at]));
      panel.signal.set([times, ...raw, ...levels]);
      panel.rawKey.hidden = raw.every((values) => values.every((value) => value === null));
      panel.keys.forEach(({ value }, order) => setText(value, figure(levels[order][last])));
    }
  }

  #end() {
    for (const { charts } of this.#panels) for (const chart of charts) chart.end();
    this.#panels = [];
    this.#samples = [];
  }

  #build(event) {
    this.#end();
    this.#host.replaceChildren();
    const sensors = new Map();
    event.channels.forEach((name, at) => {
      const sensor = name.split("_")[0];
      sensors.set(sensor, [...(sensors.get(sensor) ?? []), at]);
    });
    this.#panels = [...sensors].map(([sensor, channels]) => this.#panel(sensor, channels, event));
  }

  #panel(sensor, channels, { channels: names, units, curve, bits }) {
    const unit = units[channels[0]];
    const keys = channels.map((at, order) => {
      const key = make("i", { class: "key" });
      key.style.background = `var(${AXIS_COLOURS[order % 3]})`;
      const value = make("b", { text: "–" });
      return { value, root: make("span", {}, key, `${names[at].split("_").slice(1).join(" ") || names[at]} `, value) };
    });
    const rawKey = make("span", {}, make("i", { class: "key dotted" }), "raw");
    rawKey.hidden = true;
    const legend = make("p", { class: "legend" }, ...keys.map(({ root }) => root), rawKey);
    const title = { acc: "Acceleration", gyro: "Rotation", mag: "Magnetic field" }[sensor] ?? sensor;
    const plot = make("div", { class: "chart", role: "img", "aria-label": `${title}, reconstructed from ${bits}-bit codes` });
    const stairs = make("div", { class: "chart", role: "img", "aria-label": `The learned ${bits}-bit curve of ${title}` });
    this.#host.append(
      make(
        "div",
        { class: "signal" },
        make("section", {}, make("div", { class: "head" }, make("h3", { text: `${title}, ${unit}` }), legend), plot),
        make("section", {}, make("div", { class: "head" }, make("h3", { text: `Learned curve, ${2 ** bits} levels` })), stairs),
      ),
    );
    const curves = channels.map((at) => curve[names[at]]);
    const signal = signalChart(plot, channels.length, curves);
    return { channels, keys, rawKey, unit, signal, charts: [signal, curveChart(stairs, curves)] };
  }
}

const figure = (level) => (level === null ? NONE : fixed(level, Math.abs(level) >= 100 ? 0 : 2));

function signalChart(host, count, curves) {
  const levels = curves.flatMap((curve) => curve.levels);
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const lines = (more) =>
    Array.from({ length: count }, (_, at) => ({
      stroke: () => themed(AXIS_COLOURS[at % 3]),
      points: { show: false },
      ...more,
    }));
  const raw = lines({ width: 1, alpha: 0.8, dash: [3, 2] });
  const sent = lines({ width: 2, paths: globalThis.uPlot.paths.stepped({ align: 1 }) });
  return new Chart(
    host,
    {
      scales: {
        x: { time: false, range: () => [-SPAN_S, 0] },
        y: { range: (_, min, max) => around(min ?? low, max ?? high) },
      },
      series: [{}, ...raw, ...sent],
      axes: [
        { size: 28, space: 60, values: (_, ticks) => ticks.map((tick) => `${tick}\u202fs`), grid: { show: false } },
        { size: 44, space: 34 },
      ],
    },
    [[], ...Array.from({ length: 2 * count }, () => [])],
  );
}

/** A little more than the signal takes. */
function around(min, max) {
  const room = Math.max(0.08 * (max - min), 0.05);
  return [min - room, max + room];
}

function curveChart(host, curves) {
  const inputs = curves.flatMap((curve) => [...curve.thresholds, ...curve.levels]);
  const [low, high] = around(Math.min(...inputs), Math.max(...inputs));
  const at = [...new Set([low, ...curves.flatMap((curve) => curve.thresholds), high])].sort((a, b) => a - b);
  const stairs = curves.map(({ thresholds, levels }) =>
    at.map((input) => levels[thresholds.filter((threshold) => threshold <= input).length]),
  );
  const line = (stroke, more) => ({ stroke: () => themed(stroke), points: { show: false }, ...more });
  return new Chart(
    host,
    {
      scales: { x: { time: false, range: () => [low, high] }, y: { range: () => [low, high] } },
      series: [
        {},
        line("--faint", { width: 1, dash: [2, 4] }),
        ...curves.map((_, order) =>
          line(AXIS_COLOURS[order % 3], { width: 2, paths: globalThis.uPlot.paths.stepped({ align: 1 }) }),
        ),
      ],
      axes: [
        { size: 28, space: 50, grid: { show: false } },
        { size: 44, space: 34 },
      ],
    },
    [at, at, ...stairs],
  );
}
