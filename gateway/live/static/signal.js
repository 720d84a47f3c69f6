// The signal of the watched device, sensor by sensor, with the learned curve beside it.

import { Chart } from "./chart.js";
import { make, setAttribute, setText, themed } from "./dom.js";
import { fixed } from "./format.js";

const SPAN_S = 10;
const AXIS_COLOURS = ["--axis-1", "--axis-2", "--axis-3"];

export class Signal {
  #host;
  #panels = [];
  #shape = "";
  #samples = [];
  #raw = [];

  constructor(host) {
    this.#host = host;
  }

  /** Another device: forget everything. */
  clear() {
    for (const { charts } of this.#panels) for (const chart of charts) chart.end();
    this.#panels = [];
    this.#shape = "";
    this.#samples = [];
    this.#raw = [];
    this.#host.replaceChildren(
      make("p", { class: "empty waiting" }, make("span", { text: "Waiting for the signal…" })),
    );
  }

  /** Take a `device` event. */
  take(event) {
    const shape = `${event.channels} ${event.rate_hz} ${event.bits}`;
    if (event.curve) {
      if (shape !== this.#shape) this.#samples = [];
      this.#shape = shape;
      this.#build(event);
    }
    if (!this.#panels.length) return;
    const step = 1000 / event.rate_hz;
    event.new.forEach((levels, at) => this.#samples.push([event.from_ms + at * step, levels]));
    const end = this.#samples.at(-1)?.[0] ?? 0;
    this.#samples = this.#samples.filter(([ms]) => ms > end - 1000 * SPAN_S);
    if (event.raw) {
      const { new: values, until_ms: until } = event.raw;
      values.forEach((row, at) => this.#raw.push([until - (values.length - 1 - at) * step, row]));
    }
    this.#raw = this.#raw.filter(([ms]) => ms > end - 1000 * SPAN_S);
  }

  draw() {
    if (!this.#samples.length) return;
    const end = this.#samples.at(-1)[0];
    const rows = merged(this.#samples, this.#raw);
    const times = rows.map(([ms]) => (ms - end) / 1000);
    for (const panel of this.#panels) {
      const column = (at, which) => rows.map((row) => row[which]?.[at] ?? null);
      const raw = panel.channels.map((at) => column(at, 2));
      panel.signal.set([times, ...raw, ...panel.channels.map((at) => column(at, 1))]);
      show(panel, this.#samples.at(-1)[1], raw.some((values) => values.some((value) => value !== null)));
    }
  }

  #build(event) {
    for (const { charts } of this.#panels) for (const chart of charts) chart.end();
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
    const rawKey = make("span", {}, make("i", { class: "key dotted" }), "raw, 12 bits or more");
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

function show(panel, levels, raw) {
  panel.channels.forEach((at, order) => {
    const level = levels[at];
    setText(panel.keys[order].value, level === null ? "–" : fixed(level, Math.abs(level) >= 100 ? 0 : 2));
  });
  panel.rawKey.hidden = !raw;
}

/** Samples and raw samples by time: [ms, levels or undefined, raw or undefined]. */
function merged(samples, raw) {
  if (!raw.length) return samples;
  const rows = new Map(samples.map(([ms, levels]) => [Math.round(ms), [ms, levels, undefined]]));
  for (const [ms, values] of raw) {
    const row = rows.get(Math.round(ms));
    if (row) row[2] = values;
    else rows.set(Math.round(ms), [ms, undefined, values]);
  }
  return [...rows.values()].sort((a, b) => a[0] - b[0]);
}

function signalChart(host, count, curves) {
  const levels = curves.flatMap((curve) => curve.levels);
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  const lines = (more) =>
    Array.from({ length: count }, (_, at) => ({
      stroke: () => themed(AXIS_COLOURS[at % 3]),
      points: { show: false },
      ...more,
    }));
  const raw = lines({ width: 1, alpha: 0.55, dash: [3, 3], spanGaps: true });
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
  const chart = new Chart(
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
  setAttribute(host, "data-levels", curves[0].levels.length);
  return chart;
}
