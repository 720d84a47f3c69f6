// One device in full.

import { Actions } from "./actions.js";
import { Chart } from "./chart.js";
import { colourOf } from "./colours.js";
import { byId, children, make, setAttribute, setText, show, themed } from "./dom.js";
import { ago, clock, count, current, fixed, NONE, percent, whole, words } from "./format.js";
import { Signal } from "./signal.js";
import { store, UNKNOWN } from "./store.js";

export class Detail {
  #closed;
  #id = null;
  #dialog = byId("detail");
  #signal = new Signal(byId("detail-signal"));
  #actions = new Actions();
  #confidence = null;
  #activities = []; // of the points of that chart
  #drawn = null; // the row that was drawn
  #event = null; // the newest `device` event: a row is renewed less often
  #fresh = false;

  /** `closed` is called when somebody has closed it. */
  constructor({ closed }) {
    this.#closed = closed;
    byId("detail-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside it
    });
    this.#dialog.addEventListener("close", () => {
      this.#id = null;
      this.#signal.clear();
      this.#closed();
    });
  }

  open(id) {
    this.#id = id;
    this.#drawn = null;
    this.#event = null;
    this.#signal.clear();
    this.#actions.open(id);
    setText(byId("detail-name"), id);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
    byId("detail-name").focus({ preventScroll: true });
    if (store.state !== null) this.draw();
  }

  close() {
    this.#dialog.close();
  }

  setStale(stale) {
    show(byId("detail-stale"), stale);
  }

  take(event) {
    if (event.device !== this.#id) return;
    this.#signal.take(event);
    this.#event = event;
    this.#fresh = true;
  }

  draw() {
    if (this.#id === null) return;
    const row = store.devices.get(this.#id);
    const fresh = this.#fresh;
    this.#fresh = false;
    if (fresh) this.#signal.draw();
    this.#actions.draw();
    if (row === undefined) {
      setText(byId("detail-what"), "The gateway knows no device of this name.");
      return;
    }
    this.#what(row);
    if (fresh || row !== this.#drawn) {
      this.#activity(row);
      this.#bars(row);
    }
    if (row === this.#drawn) return;
    this.#drawn = row;
    this.#chart(row.confidence);
    ledger(row);
    traffic(row);
    show(byId("detail-error"), Boolean(row.error));
    setText(byId("detail-error"), row.error ?? "");
  }

  #what(row) {
    const parts = [row.source, row.sensor, row.model, row.bridge && `bridge ${row.bridge}`];
    const seen = row.online === false ? "offline" : `seen ${ago(row.last_seen_ms, store.state.time_ms)}`;
    setText(byId("detail-what"), [...parts, seen].filter(Boolean).join(" · "));
  }

  #activity(row) {
    const { activity, truth, probabilities } = this.#event ?? row;
    const probability = probabilities ? Math.max(...Object.values(probabilities)) : row.probability;
    byId("detail-dot").style.background = colourOf(activity);
    setText(byId("detail-activity"), activity === null ? "waiting" : words(activity));
    setText(byId("detail-probability"), percent(probability));
    setText(byId("detail-truth"), truth === null ? "no label" : `truth: ${words(truth)}`);
    const same = row.activity === activity && row.truth === truth;
    const judged = same && row.truth_is_of_answer && activity !== UNKNOWN;
    setAttribute(byId("detail-truth"), "data-judged", judged ? (activity === truth ? "right" : "wrong") : "no");
  }

  #bars(row) {
    const probabilities = this.#event?.probabilities ?? {};
    const labels = store.state.models[row.model]?.labels ?? Object.keys(probabilities);
    const items = children(byId("detail-probabilities"), labels.length, () =>
      make("li", {}, make("span"), make("i"), make("b")),
    );
    labels.forEach((label, at) => {
      const [name, bar, figure] = items[at].children;
      setText(name, words(label));
      bar.style.setProperty("--share", probabilities[label] ?? 0);
      bar.style.setProperty("--colour", colourOf(label));
      setText(figure, percent(probabilities[label]));
    });
  }

  #chart(points) {
    const data = [points.map(([ms]) => ms / 1000), points.map(([, probability]) => probability)];
    this.#activities = points.map(([, , activity]) => activity);
    if (this.#confidence === null) this.#confidence = confidenceChart(data, (plot) => bands(plot, this.#activities));
    else this.#confidence.set(data);
  }
}

function confidenceChart(data, behind) {
  return new Chart(
    byId("detail-confidence"),
    {
      scales: { x: { time: true, range: (_, __, max) => [(max ?? 60) - 60, max ?? 60] }, y: { range: () => [0, 1] } },
      series: [{}, { stroke: () => themed("--text"), width: 1.75, points: { show: false } }],
      axes: [
        { size: 28, space: 90, values: (_, ticks) => ticks.map((tick) => clock(1000 * tick)), grid: { show: false } },
        { size: 44, space: 30, values: (_, ticks) => ticks.map((tick) => percent(tick)) },
      ],
      hooks: { drawClear: [behind] },
    },
    data,
  );
}

/** Behind the line: what was recognised, each stretch in the colour of its activity. */
function bands(plot, activities) {
  const { ctx: paint, bbox: box, data } = plot;
  const [times] = data;
  paint.save();
  paint.beginPath();
  paint.rect(box.left, box.top, box.width, box.height);
  paint.clip();
  paint.globalAlpha = 0.28;
  for (let at = 1; at < times.length; at += 1) {
    if (times[at] - times[at - 1] > 10) continue;
    const [left, right] = [times[at - 1], times[at]].map((time) => Math.round(plot.valToPos(time, "x", true)));
    paint.fillStyle = colourOf(activities[at]);
    paint.fillRect(left, box.top, right - left, box.height);
  }
  paint.restore();
}

function table(body, rows) {
  const lines = children(body, rows.length, () => make("tr", {}, make("th", { scope: "row" }), make("td"), make("td")));
  rows.forEach((texts, at) => texts.forEach((text, column) => setText(lines[at].children[column], text)));
}

function ledger(row) {
  const body = byId("detail-ledger");
  if (!row.ledger) {
    table(body, [["No packet yet", "", ""]]);
    setText(byId("detail-link"), "\u00a0");
    return;
  }
  const { parts, raw12_parts: raw12 = {}, ...link } = row.ledger;
  const lines = Object.entries(parts).map(([part, ours]) => [part, `${current(ours)} µA`, raw12[part] === undefined ? "" : `${current(raw12[part])} µA`]);
  table(body, [
    ["part", "sent", "12-bit"],
    ...lines,
    ["radio", `${current(row.radio_ua)} µA`, `${current(row.radio_raw12_ua)} µA`],
    ["whole", whole(row) === null ? "sensor not known" : `${current(row.whole_ua)} µA`, ""],
  ]);
  const timing = `a packet each ${fixed(link.packet_s, 2)} s, connection interval ${link.connection_interval_ms} ms`;
  setText(byId("detail-link"), `Computed for Bluetooth LE at ${link.phy}: ${timing}.`);
}

function traffic(row) {
  table(byId("detail-traffic"), [
    ["bits per value", fixed(row.bits_per_value), "bit"],
    ["packets", fixed(row.bytes_per_s, 0), "B/s"],
    ["over MQTT", fixed(row.mqtt_bytes_per_s, 0), "B/s"],
    ["12-bit over MQTT", fixed(row.raw12_bytes_per_s, 0), "B/s"],
    ["saved", row.raw12_bytes_per_s ? percent(1 - row.mqtt_bytes_per_s / row.raw12_bytes_per_s) : NONE, ""],
    ["packets received", count(row.packets), ""],
    ["lost", count(row.lost), ""],
  ]);
}
