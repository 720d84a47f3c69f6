// The list of devices: only the rows in sight exist, whatever the number of devices.

import { colourOf } from "./colours.js";
import { byId, make, options, setAttribute, setText, show, themed } from "./dom.js";
import { ago, count, current, fixed, percent, whole, words } from "./format.js";
import { drawSparkline } from "./sparkline.js";
import { store, UNKNOWN } from "./store.js";

const SPARE = 4; // rows above and below those in sight
const SORT_AGAIN_MS = 2000; // an order by a figure that moves
const collator = new Intl.Collator(undefined, { numeric: true });
const byText = (key) => (a, b) => collator.compare(a[key] ?? "\uffff", b[key] ?? "\uffff");
/** The largest first, what is not known last. */
const byNumber = (key) => (a, b) => (b[key] ?? -1) - (a[key] ?? -1);

const COLUMNS = [
  { key: "device", name: "Device", order: byText("device"), still: true },
  { key: "activity", name: "Activity", order: byText("activity") },
  { key: "truth", name: "Truth", order: byText("truth") },
  { key: "probability", name: "Confidence", order: byNumber("probability"), falls: true },
  { key: "bits_per_value", name: "Bits/value", order: byNumber("bits_per_value"), falls: true },
  { key: "radio_ua", name: "Radio µA", order: byNumber("radio_ua"), falls: true },
  { key: "whole_ua", name: "Whole µA", order: (a, b) => (whole(b) ?? -1) - (whole(a) ?? -1), falls: true },
  { key: "lost", name: "Lost", order: byNumber("lost"), falls: true },
  { key: "last_seen_ms", name: "Seen", order: byNumber("last_seen_ms"), falls: true },
];

export class DeviceList {
  #open;
  #grid = byId("grid");
  #body = byId("rows");
  #search = byId("search");
  #sort = { column: COLUMNS[0], reverse: false };
  #order = [];
  #orderedFor = "";
  #orderedAt = 0;
  #active = null;
  #lines = new Map(); // device id to its elements
  #spare = [];
  #second = 0;
  #height = 44; // of a row
  #size = [96, 24]; // of a sparkline
  #colours = ["#888", "#ccc"];

  /** `open` is called with the id of the device that was chosen. */
  constructor({ open }) {
    this.#open = open;
    byId("columns").append(...COLUMNS.map((column, at) => this.#heading(column, at)));
    options(byId("sort"), COLUMNS.map(({ key }) => key), (key) => COLUMNS.find((one) => one.key === key).name);
    byId("sort").addEventListener("change", (event) => this.#sortBy(event.target.value));
    this.#search.addEventListener("input", () => this.draw());
    this.#grid.addEventListener("scroll", () => this.#draw(), { passive: true });
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#body.addEventListener("click", (event) => {
      const id = event.target.closest(".line")?.dataset.device;
      if (id !== undefined) this.#choose(id);
    });
    new ResizeObserver(() => this.#measure()).observe(this.#grid);
    this.#headings();
  }

  focus() {
    this.#grid.focus({ preventScroll: true });
  }

  /** Draw all rows in sight, changed or not, in the theme as it is now. */
  redraw() {
    this.#colours = ["--faint", "--line"].map(themed);
    if (store.state === null) return;
    for (const id of this.#lines.keys()) store.changed.add(id);
    this.#draw();
  }

  draw() {
    if (store.state === null) return;
    const wanted = `${store.membership} ${this.#search.value} ${this.#sort.column.key} ${this.#sort.reverse}`;
    const moved = performance.now() - this.#orderedAt > SORT_AGAIN_MS;
    if (wanted !== this.#orderedFor || (moved && (!this.#sort.column.still || this.#search.value))) {
      this.#orderedFor = wanted;
      this.#orderedAt = performance.now();
      this.#arrange();
    }
    // Ages move on by themselves.
    const second = Math.floor(store.state.time_ms / 1000);
    if (second !== this.#second) {
      this.#second = second;
      for (const id of this.#lines.keys()) store.changed.add(id);
    }
    this.#draw();
    store.changed.clear();
  }

  #arrange() {
    const words_ = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    for (const row of store.devices.values()) if (matches(row, words_)) rows.push(row);
    const { column, reverse } = this.#sort;
    const last = COLUMNS[0].order;
    rows.sort((a, b) => (reverse ? -1 : 1) * column.order(a, b) || last(a, b));
    this.#order = rows.map((row) => row.device);
    const all = store.devices.size;
    setText(byId("devices-count"), `${rows.length === all ? "" : `${count(rows.length)} of `}${count(all)} ${all === 1 ? "device" : "devices"}`);
    setAttribute(this.#grid, "aria-rowcount", rows.length + 1);
    this.#empty(all, rows.length);
  }

  #empty(all, found) {
    show(byId("devices-empty"), found === 0);
    const [title, text] = byId("devices-empty").children;
    setText(title, all ? "No device matches" : "No devices yet");
    setText(text, all ? "Search for another name, activity or model." : "Run gammawear device to add one.");
  }

  #draw() {
    const height = this.#height;
    const { scrollTop, clientHeight } = this.#grid;
    const first = Math.max(0, Math.floor(scrollTop / height) - SPARE);
    const end = Math.min(this.#order.length, Math.ceil((scrollTop + clientHeight) / height) + SPARE);
    this.#body.style.height = `${this.#order.length * height}px`;
    const inSight = new Set(this.#order.slice(first, end));
    for (const [id, line] of this.#lines) {
      if (inSight.has(id) && store.devices.has(id)) continue;
      line.root.remove();
      this.#lines.delete(id);
      this.#spare.push(line);
    }
    for (let at = first; at < end; at += 1) this.#place(at, height);
    const active = this.#lines.get(this.#active);
    if (active) setAttribute(this.#grid, "aria-activedescendant", active.root.id);
    else this.#grid.removeAttribute("aria-activedescendant");
  }

  #place(at, height) {
    const id = this.#order[at];
    const row = store.devices.get(id);
    if (row === undefined) return; // gone since the last sorting
    let line = this.#lines.get(id);
    const fresh = line === undefined;
    if (fresh) {
      line = this.#spare.pop() ?? newLine();
      line.root.dataset.device = id;
      this.#lines.set(id, line);
    }
    const { root } = line;
    const top = `translateY(${at * height}px)`;
    if (root.style.transform !== top) root.style.transform = top;
    setAttribute(root, "id", `row-${at}`);
    setAttribute(root, "aria-rowindex", at + 2);
    setAttribute(root, "aria-selected", id === this.#active);
    if (fresh || store.changed.has(id)) fill(line, row);
    if (fresh) this.#body.append(root);
    if (fresh || store.changed.has(id)) drawSparkline(line.canvas, this.#size, this.#colours, row.confidence, store.state.time_ms);
  }

  /** Sizes are the style sheet's; they are asked for only when they may have changed. */
  #measure() {
    const style = getComputedStyle(this.#grid);
    this.#height = Number.parseFloat(style.getPropertyValue("--row"));
    this.#size = ["--spark-width", "--spark-height"].map((name) => Number.parseFloat(style.getPropertyValue(name)));
    this.redraw();
  }

  #heading(column, at) {
    const button = make("button", { type: "button", text: column.name });
    button.addEventListener("click", () => this.#sortBy(column.key));
    return make("div", { role: "columnheader", "data-key": column.key, "aria-colindex": at + 1 }, button);
  }

  #sortBy(key) {
    const column = COLUMNS.find((one) => one.key === key);
    this.#sort = { column, reverse: column === this.#sort.column && !this.#sort.reverse };
    byId("sort").value = key;
    this.#headings();
    this.draw();
  }

  #headings() {
    for (const heading of byId("columns").children) {
      const sorted = heading.dataset.key === this.#sort.column.key;
      const falls = Boolean(this.#sort.column.falls) !== this.#sort.reverse;
      setAttribute(heading, "aria-sort", sorted ? (falls ? "descending" : "ascending") : "none");
    }
  }

  #key(event) {
    if (event.target !== this.#grid) return;
    const at = this.#order.indexOf(this.#active);
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / this.#height) - 2);
    const last = this.#order.length - 1;
    const goals = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last };
    if (event.key === "Enter" || event.key === " ") {
      if (this.#active !== null && store.devices.has(this.#active)) this.#open(this.#active);
    } else if (event.key in goals && last >= 0) {
      this.#active = this.#order[Math.min(last, Math.max(0, goals[event.key]))];
      this.#reveal(this.#order.indexOf(this.#active));
    } else return;
    event.preventDefault();
  }

  #choose(id) {
    this.#active = id;
    this.#draw();
    this.#open(id);
  }

  /** Scroll the row into sight, below the heading. */
  #reveal(at) {
    const height = this.#height;
    const head = byId("columns").offsetHeight;
    const room = this.#grid.clientHeight - head;
    if (at * height < this.#grid.scrollTop) this.#grid.scrollTop = at * height;
    else if ((at + 1) * height > this.#grid.scrollTop + room) this.#grid.scrollTop = (at + 1) * height - room;
    this.#draw();
  }
}

function matches(row, wanted) {
  if (!wanted.length) return true;
  const text = `${row.device} ${words(row.activity)} ${words(row.truth)} ${row.model} ${row.source}`.toLowerCase();
  return wanted.every((word) => text.includes(word));
}

function newLine() {
  const cells = {};
  for (const { key } of COLUMNS) cells[key] = make("div", { role: "gridcell", "data-key": key });
  const dot = make("i", { class: "dot" });
  const activity = make("span");
  cells.activity.append(dot, activity);
  const canvas = make("canvas", { "aria-hidden": "true" });
  const percentage = make("span");
  cells.probability.append(canvas, percentage);
  const root = make("div", { role: "row", class: "line" }, ...Object.values(cells));
  return { root, cells, dot, activity, canvas, percentage };
}

function fill({ root, cells, dot, activity, percentage }, row) {
  const name = row.activity === null ? "waiting" : words(row.activity);
  const judged = row.truth_is_of_answer && row.activity !== null && row.activity !== UNKNOWN;
  root.classList.toggle("silent", !row.streaming);
  setText(cells.device, row.device);
  if (row.error) setAttribute(cells.device, "title", row.error);
  else cells.device.removeAttribute("title");
  cells.device.classList.toggle("failing", Boolean(row.error));
  dot.style.background = colourOf(row.activity);
  setText(activity, name);
  setText(cells.truth, row.truth === null ? "" : words(row.truth));
  setAttribute(cells.truth, "data-judged", judged ? (row.activity === row.truth ? "right" : "wrong") : "no");
  setText(percentage, percent(row.probability));
  setText(cells.bits_per_value, fixed(row.bits_per_value));
  setText(cells.radio_ua, current(row.radio_ua));
  setText(cells.whole_ua, current(whole(row)));
  setText(cells.lost, count(row.lost));
  setText(cells.last_seen_ms, row.online === false ? "offline" : ago(row.last_seen_ms, store.state.time_ms));
}
