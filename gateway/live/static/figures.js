// The big figures at the top.

import { colourOf } from "./colours.js";
import { byId, children, make, setAttribute, setText } from "./dom.js";
import { count, fixed, NONE, percent, words } from "./format.js";
import { store } from "./store.js";

const SHOWN = 6; // activities by name; the others are summed up

export class Figures {
  #bar = byId("now-bar");
  #list = byId("now");

  draw() {
    const { summary, models } = store.state;
    this.#now();
    this.#score(summary, models);
    setText(byId("bits"), fixed(summary.bits_per_value));
    const payload = summary.payload_bits_per_value;
    setText(byId("bits-note"), payload === null ? "with our header" : `with our header; codes alone ${fixed(payload)}`);
    setText(byId("compression"), summary.compression === null ? NONE : `${fixed(summary.compression, 1)}×`);
    const latency = summary.latency_ms;
    setText(byId("latency"), latency === null ? NONE : fixed(latency[0], latency[0] < 10 ? 1 : 0));
    setText(byId("latency-note"), latency === null ? "no answer yet" : `median; p99 ${fixed(latency[2], 0)} ms`);
    setText(byId("streaming"), count(summary.streaming));
    const lost = summary.lost ? `, ${count(summary.lost)} packets lost` : ", none lost";
    setText(byId("streaming-note"), `of ${count(summary.devices)} devices${summary.packets ? lost : ""}`);
  }

  #now() {
    const tally = new Map();
    for (const row of store.devices.values()) {
      if (row.streaming && row.activity !== null) tally.set(row.activity, (tally.get(row.activity) ?? 0) + 1);
    }
    // By name among equals, so that neighbours do not swap places all the time.
    let ranked = [...tally].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const parts = ranked;
    if (ranked.length > SHOWN) {
      const others = ranked.slice(SHOWN - 1).reduce((sum, [, devices]) => sum + devices, 0);
      ranked = [...ranked.slice(0, SHOWN - 1), [null, others]];
    }
    const items = children(this.#list, Math.max(ranked.length, 1), () =>
      make("li", {}, make("i", { class: "dot" }), make("span"), make("b")),
    );
    if (!ranked.length) {
      items[0].className = "none";
      setText(items[0].children[1], "nothing recognised yet");
      setText(items[0].children[2], "");
    }
    ranked.forEach(([activity, devices], at) => {
      const [dot, name, figure] = items[at].children;
      items[at].className = "";
      dot.style.background = activity === null ? "var(--line)" : colourOf(activity);
      setText(name, activity === null ? "others" : words(activity));
      setText(figure, count(devices));
    });
    const segments = children(this.#bar, parts.length, () => make("i"));
    parts.forEach(([activity, devices], at) => {
      segments[at].style.background = colourOf(activity);
      segments[at].style.flexGrow = devices;
    });
  }

  #score(summary, models) {
    const model = summary.model === null ? null : models[summary.model];
    const score = model?.rolling_macro_f1 ?? null;
    if (score !== null) {
      setText(byId("score-name"), "Macro-F1, rolling");
      setText(byId("score"), fixed(score, 3));
      const scored = `${count(Math.min(model.windows, 500))} windows`;
      setText(byId("score-note"), `last ${scored}; all ${fixed(model.macro_f1, 3)}`);
      setAttribute(byId("score"), "data-kind", "score");
      return;
    }
    let sum = 0;
    let devices = 0;
    for (const row of store.devices.values()) {
      if (row.streaming && row.probability !== null) {
        sum += row.probability;
        devices += 1;
      }
    }
    setText(byId("score-name"), "Mean confidence");
    setText(byId("score"), devices ? percent(sum / devices) : NONE);
    setText(byId("score-note"), "no labels");
    setAttribute(byId("score"), "data-kind", "confidence");
  }
}
