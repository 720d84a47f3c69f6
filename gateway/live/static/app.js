// The page: what came is shown at the next frame, each part only when it has something new.

import { Bandwidth } from "./bandwidth.js";
import { Cameras } from "./cameras.js";
import { redrawAll } from "./chart.js";
import { reserve } from "./colours.js";
import { Detail } from "./detail.js";
import { DeviceList } from "./devices.js";
import { byId, setAttribute, setText, show } from "./dom.js";
import { Feed } from "./feed.js";
import { Figures } from "./figures.js";
import { Scores } from "./scores.js";
import { store, takeState, takeUpdate } from "./store.js";

const figures = new Figures();
const bandwidth = new Bandwidth();
const scores = new Scores();
const cameras = new Cameras();
const list = new DeviceList({ open: (id) => select(id) });
const detail = new Detail({ closed: () => select(null) });
const feed = new Feed({
  state: (state) => {
    takeState(state);
    reserve(state.models);
    bandwidth.restart();
    plan();
  },
  update: (update) => {
    takeUpdate(update);
    plan();
  },
  device: (event) => {
    detail.take(event);
    plan();
  },
  link: showLink,
});

const DEVICE_ID = /^[A-Za-z0-9_-]{1,32}$/;
const parts = [figures, list, bandwidth, scores, cameras, detail];
let begun = 0; // parts that have been drawn before
let planned = false;
let selected = null;
let link = "opening";

/** Draw at the next frame; while the page is hidden there is none. */
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(draw);
}

function draw() {
  planned = false;
  if (store.state === null) return;
  showState();
  // The first time is the dearest: one part a frame, so that none of them takes long.
  if (begun < parts.length) {
    begun += 1;
    plan();
  }
  for (const part of parts.slice(0, begun)) part.draw();
}

function showState() {
  const { state } = store;
  setText(byId("version"), state.version);
  showBroker(state.broker);
  const kinds = new Set();
  for (const row of [...store.devices.values(), ...state.cameras]) if (row.source) kinds.add(row.source);
  show(byId("source"), kinds.has("synthetic") || kinds.has("dataset"));
  const names = [kinds.has("synthetic") && "synthetic", kinds.has("dataset") && "recorded", kinds.has("device") && "real"];
  setText(byId("source"), `${names.filter(Boolean).join(" and ")} sources`);
}

function showBroker(connected) {
  const broker = byId("broker");
  setAttribute(broker, "data-state", connected ? "good" : "bad");
  setText(broker, connected ? "broker connected" : "broker unreachable");
  if (link === "open") {
    showBanner(!connected, "Broker unreachable.", "The gateway is trying to reach it again; nothing new can arrive.");
  }
}

function showLink(now, why = null) {
  if (why !== null) setText(byId("banner-text"), `It says: ${why}.`);
  if (now === link) return;
  link = now;
  document.body.dataset.link = now;
  const open = now === "open";
  setAttribute(byId("link"), "data-state", open ? "good" : "bad");
  setText(byId("link"), open ? "live" : "gateway unreachable, retrying");
  const what = store.state === null ? "Nothing has been received yet." : "The figures below are old.";
  showBanner(!open, "Gateway unreachable, retrying.", what);
  detail.setStale(!open);
  if (!open) setAttribute(byId("broker"), "data-state", "unknown");
}

function showBanner(visible, title, text) {
  show(byId("banner"), visible);
  setText(byId("banner-title"), title);
  setText(byId("banner-text"), text);
}

/** Show one device, or none. */
function select(id) {
  if (id === selected) return;
  selected = id;
  const hash = id === null ? "" : `#device=${encodeURIComponent(id)}`;
  if (location.hash !== hash) history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
  if (id === null) list.focus();
  else detail.open(id);
  feed.open(id !== null && DEVICE_ID.test(id) ? id : null); // an address may name anything
}

/** The device that the address names, or null. */
function addressed() {
  const match = /^#device=(.+)$/.exec(location.hash);
  if (match === null) return null;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return null; // a torn escape
  }
}

function nameTheme() {
  const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setAttribute(byId("theme"), "aria-label", `Switch to the ${other} theme`);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  nameTheme();
  redrawAll();
  list.redraw();
}

byId("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.toggleAttribute("data-chose-theme", true);
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // storage is off: it holds until the page is closed
  }
  setTheme(theme);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (system) => {
  if (!document.documentElement.hasAttribute("data-chose-theme")) setTheme(system.matches ? "dark" : "light");
});
window.addEventListener("hashchange", () => {
  const id = addressed();
  if (id === null) detail.close();
  else select(id);
});

nameTheme();
const first = addressed();
if (first === null) feed.open(null);
else select(first);
