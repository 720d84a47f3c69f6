// uPlot in the page's theme: sized by its host, redrawn when the theme changes.

import { themed } from "./dom.js";

const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const plots = new Set();

/** A plot that fills `host`; `options` as uPlot has them, with `axes` as `{values, size, ...}` or null for none. */
export class Chart {
  #host;
  #observer;

  constructor(host, { axes, ...options }, data) {
    this.#host = host;
    this.plot = new globalThis.uPlot(
      {
        width: Math.max(host.clientWidth, 50),
        height: Math.max(host.clientHeight, 50),
        legend: { show: false },
        cursor: { show: false },
        padding: [8, 8, 0, 0],
        ...options,
        axes: axes.map((axis) => ({
          stroke: () => themed("--faint"),
          font: FONT,
          ticks: { show: false },
          grid: { stroke: () => themed("--line"), width: 1 },
          ...axis,
        })),
      },
      data,
      host,
    );
    this.#observer = new ResizeObserver(() => this.#fit());
    this.#observer.observe(host);
    plots.add(this);
  }

  set(data) {
    this.plot.setData(data);
  }

  end() {
    plots.delete(this);
    this.#observer.disconnect();
    this.plot.destroy();
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#host;
    if (width > 0 && height > 0) this.plot.setSize({ width, height });
  }
}

/** Draw everything again, in the theme as it is now. */
export function redrawAll() {
  for (const chart of plots) chart.plot.redraw(false);
}
