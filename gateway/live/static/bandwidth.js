// Five minutes of bandwidth, and the totals since the start.

import { Chart } from "./chart.js";
import { byId, children, make, setAttribute, setText, themed } from "./dom.js";
import { bitRate, bytes, clock, NONE } from "./format.js";
import { store } from "./store.js";

const SPAN_S = 300;
const ROWS = [
  ["mqtt", "Sent", "PUBLISH packets, topic in full"],
  ["raw12", "Raw 12-bit", "the same values at 12 bits"],
  ["float32", "float32", "the same values at 32 bits"],
  ["json", "JSON", "the same values as text"],
];

export class Bandwidth {
  #chart = null;
  #drawn = null;
  #hovered = null;

  /** Another history: draw it whatever its end. */
  restart() {
    this.#drawn = null;
  }

  draw() {
    const { bandwidth } = store.state;
    this.#totals(bandwidth.bytes);
    if (this.#hovered === null) this.#read(bandwidth.rate.mqtt, bandwidth.rate.raw12, "last 10 s");
    if (this.#drawn === bandwidth.history.end_ms && this.#chart !== null) return;
    this.#drawn = bandwidth.history.end_ms;
    const data = series(bandwidth.history);
    if (this.#chart === null) this.#chart = this.#make(data);
    else this.#chart.set(data);
    const now = `sent ${bitRate(bandwidth.rate.mqtt)}, raw 12-bit ${bitRate(bandwidth.rate.raw12)}`;
    setAttribute(byId("bandwidth-chart"), "aria-label", `Bandwidth over five minutes; now ${now}`);
  }

  #make(data) {
    return new Chart(
      byId("bandwidth-chart"),
      {
        cursor: { show: true, y: false, points: { size: 7 }, drag: { x: false, y: false } },
        scales: {
          x: { time: true, range: (_, min, max) => span(min ?? 0, max ?? SPAN_S) },
          y: { range: (_, __, max) => [0, Math.max(1, (max ?? 0) * 1.1)] },
        },
        series: [
          {},
          { stroke: () => themed("--rival"), width: 1.5, points: { show: false } },
          {
            stroke: () => themed("--accent"),
            fill: () => themed("--accent-wash"),
            width: 2,
            points: { show: false },
          },
        ],
        axes: [
          { size: 28, space: 80, values: (_, ticks) => ticks.map((tick) => clock(1000 * tick)), grid: { show: false } },
          { size: 76, space: 40, values: (_, ticks) => ticks.map((tick) => bitRate(tick / 8)) },
        ],
        hooks: { setCursor: [(plot) => this.#hover(plot.cursor.idx, plot.data)] },
      },
      data,
    );
  }

  #hover(at, [times, raw12, sent]) {
    this.#hovered = at ?? null;
    if (at == null) return;
    this.#read(sent[at] / 8, raw12[at] / 8, clock(1000 * times[at]));
  }

  #read(sent, raw12, when) {
    setText(byId("rate-mqtt"), bitRate(sent));
    setText(byId("rate-raw12"), bitRate(raw12));
    setText(byId("bandwidth-when"), when);
  }

  #totals(totals) {
    const most = Math.max(1, ...ROWS.map(([key]) => totals[key]));
    const rows = children(byId("totals"), ROWS.length, (at) =>
      make(
        "tr",
        { "data-key": ROWS[at][0], title: ROWS[at][2] },
        make("th", { scope: "row", text: ROWS[at][1] }),
        make("td", { class: "bar" }, make("i")),
        make("td"),
        make("td"),
      ),
    );
    ROWS.forEach(([key], at) => {
      const [, bar, size, factor] = rows[at].children;
      bar.firstChild.style.width = `${Math.max(0.5, (100 * totals[key]) / most)}%`;
      setText(size, bytes(totals[key]));
      setText(factor, totals.mqtt > 0 ? `${(totals[key] / totals.mqtt).toFixed(1)}×` : NONE);
    });
  }
}

/** Five minutes, or as many as there are yet; at least one. */
function span(min, max) {
  return [max - Math.min(SPAN_S, Math.max(60, max - min)), max];
}

/** Seconds and bits a second, as uPlot takes them. */
function series({ step_s: step, end_ms: end, mqtt, raw12 }) {
  const times = mqtt.map((_, at) => end / 1000 - step * (mqtt.length - 1 - at));
  return [times, raw12.map((rate) => 8 * rate), mqtt.map((rate) => 8 * rate)];
}
