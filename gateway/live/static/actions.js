// What somebody who has the token may do with a device: say what its wearer does, and ask for its raw signal.

import { byId, options, setText, show } from "./dom.js";
import { words } from "./format.js";
import { store } from "./store.js";

const RAW_S = 30;
const KEY = "gammawear-token";
const READ_ONLY = "This page is read-only: start the gateway with --page-token-file to label devices and to see raw signals.";

export class Actions {
  #device = null;
  #waiting = null; // what to send once the token is typed
  #note = byId("actions-note");

  constructor() {
    byId("label-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send("label", { activity: byId("label-activity").value });
    });
    byId("label-end").addEventListener("click", () => this.#send("label", { activity: null }));
    byId("raw").addEventListener("click", () => this.#send("raw", { seconds: RAW_S }));
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      remember(byId("token").value.trim());
      byId("token").value = "";
      show(byId("token-form"), false);
      if (this.#waiting !== null) this.#send(...this.#waiting);
    });
  }

  open(device) {
    this.#device = device;
    this.#waiting = null;
    show(byId("token-form"), false);
    setText(this.#note, "\u00a0");
  }

  draw() {
    const readOnly = store.state.read_only;
    const row = store.devices.get(this.#device);
    const model = store.state.models[row?.model] ?? Object.values(store.state.models)[0];
    options(byId("label-activity"), model?.labels ?? [], words);
    for (const id of ["label-activity", "label-begin", "label-end", "raw"]) byId(id).disabled = readOnly || !row;
    byId("label-end").disabled ||= !row?.label;
    if (readOnly) setText(this.#note, READ_ONLY);
    setText(byId("label-begin"), row?.label ? `Labelling: ${words(row.label)}` : "Label");
  }

  async #send(what, body) {
    const token = remembered();
    if (token === null) {
      this.#ask([what, body], "Type the token of the gateway's --page-token-file; this tab keeps it until it is closed.");
      return;
    }
    this.#waiting = null;
    let answer;
    try {
      answer = await fetch(`api/devices/${encodeURIComponent(this.#device)}/${what}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
        body: JSON.stringify(body),
      });
    } catch {
      setText(this.#note, "The gateway could not be reached: nothing was done.");
      return;
    }
    if (answer.ok) setText(this.#note, done(what, body));
    else if (answer.status === 401) {
      forget();
      this.#ask([what, body], "The gateway refused this token. Type it again.");
    } else setText(this.#note, `Refused: ${await reason(answer)}.`);
  }

  #ask(waiting, text) {
    this.#waiting = waiting;
    setText(this.#note, text);
    show(byId("token-form"), true);
    byId("token").focus();
  }
}

async function reason(answer) {
  try {
    return String((await answer.json()).error);
  } catch {
    return `status ${answer.status}`; // a proxy's answer, not the gateway's
  }
}

function done(what, { activity }) {
  if (what === "raw") return `Asked for ${RAW_S} s of the raw signal; a device that is not emulated may ignore it.`;
  return activity === null ? "The label has ended." : `From now on the truth is “${words(activity)}”, until the label ends.`;
}

function remembered() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function remember(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // storage is off: it is asked for each time
  }
}

function forget() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // there is nothing to forget
  }
}
