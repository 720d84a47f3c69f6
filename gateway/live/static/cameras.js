// What cameras see, and what was found in it.

import { byId, make, setAttribute, setText, show } from "./dom.js";
import { ago, bytes, count, fixed, NONE, percent } from "./format.js";
import { store } from "./store.js";

const FOUND = 4; // boxes by name in a card

export class Cameras {
  #cards = new Map();

  draw() {
    const { cameras, camera_scores: scores } = store.state;
    show(byId("cameras-empty"), cameras.length === 0);
    const known = new Set(cameras.map((one) => one.camera));
    for (const [id, card] of this.#cards) {
      if (known.has(id)) continue;
      card.root.remove();
      this.#cards.delete(id);
    }
    for (const camera of cameras) this.#draw(camera);
    const scored = scores.filter((one) => one.ap50 !== null);
    setText(
      byId("camera-scores"),
      scored.map((one) => `${one.model}: AP50 ${fixed(one.ap50, 3)}, recall ${percent(one.recall)}`).join(" · "),
    );
  }

  #draw(camera) {
    let card = this.#cards.get(camera.camera);
    if (card === undefined) {
      card = newCard(camera.camera);
      this.#cards.set(camera.camera, card);
      byId("cameras").append(card.root);
    }
    const online = camera.online === false ? "offline" : ago(camera.last_seen_ms, store.state.time_ms);
    setText(card.seen, `${camera.source ? `${camera.source} · ` : ""}${online}`);
    show(card.error, Boolean(camera.error));
    setText(card.error, camera.error ?? "");
    setText(card.model, camera.model ?? "no model");
    const named = camera.found.slice(0, FOUND).map(([what, score]) => `${what} ${percent(score)}`);
    const more = camera.found.length - FOUND;
    setText(card.found, `${named.join(", ") || "nothing found"}${more > 0 ? `, ${more} more` : ""}`);
    setText(card.frames, `${count(camera.frames)} frames`);
    const { bytes_per_frame: ours, raw12_bytes_per_frame: raw12 } = camera;
    const factor = ours && raw12 ? `, ${fixed(raw12 / ours, 1)}× less` : "";
    setText(card.bytes, `${bytes(ours)} a frame; 12-bit ${bytes(raw12)}${factor}`);
    setText(card.latency, camera.latency_ms === null ? NONE : `${fixed(camera.latency_ms, 0)} ms`);
    this.#picture(card, camera);
  }

  #picture(card, { preview, width, height, camera }) {
    // Only an address on this very server: the policy would refuse another one, and the console would say so.
    const address = preview?.startsWith("/cameras/") ? preview.slice(1) : null;
    show(card.blind, address === null);
    show(card.image, address !== null);
    if (width && height) card.frame.style.aspectRatio = `${width} / ${height}`;
    if (address === null || card.loading || card.address === address) return;
    card.address = address;
    card.loading = true;
    const next = new Image();
    // The old picture stays until the new one is decoded, so that nothing flickers.
    next.src = address;
    next
      .decode()
      .then(
        () => {
          card.image.src = next.src;
          setAttribute(card.image, "alt", `What ${camera} sees, with boxes around what was found`);
        },
        () => {}, // replaced by a newer frame before it was fetched, or the gateway is away: the next one will do
      )
      .finally(() => {
        card.loading = false;
      });
  }
}

function newCard(id) {
  const image = make("img", { alt: "" });
  image.hidden = true;
  const blind = make("p", { class: "faint", text: "no preview" });
  const frame = make("div", { class: "frame" }, image, blind);
  const seen = make("span", { class: "faint" });
  const error = make("p", { class: "banner" });
  const [model, found, frames, sizes, latency] = ["model", "found", "frames", "bytes", "latency"].map((name) =>
    make("dd", { "data-key": name }),
  );
  const pair = (name, value) => make("div", {}, make("dt", { text: name }), value);
  const root = make(
    "article",
    { class: "camera" },
    frame,
    make(
      "div",
      {},
      make("h3", {}, make("span", { text: id }), seen),
      error,
      make(
        "dl",
        {},
        pair("Found", found),
        pair("Sent", sizes),
        pair("Latency", latency),
        pair("Seen", frames),
        pair("Detector", model),
      ),
    ),
  );
  return { root, frame, image, blind, seen, error, model, found, frames, bytes: sizes, latency, address: null, loading: false };
}
