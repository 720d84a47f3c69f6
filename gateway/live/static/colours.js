// One colour for each activity, the same everywhere on the page.

import { UNKNOWN } from "./store.js";

// Told apart on white and on black; neighbours differ in lightness, too, for those who see few hues.
const PALETTE = [
  "#4269d0", "#efb118", "#ff725c", "#3ca951", "#ff8ab7", "#8a4fd8",
  "#6cc5b0", "#9c6b4e", "#97bbf5", "#c0392b", "#b5a642", "#2a7f8e",
];
const GREY = "#9498a0";
const given = new Map();

/** Let labels take their colours in their models' order, those of the models at work first. */
export function reserve(models) {
  for (const { labels } of Object.values(models).sort((a, b) => b.windows - a.windows)) labels.forEach(colourOf);
}

export function colourOf(label) {
  if (label == null || label === UNKNOWN) return GREY;
  if (!given.has(label)) {
    if (given.size >= 256) return GREY;
    given.set(label, PALETTE[given.size % PALETTE.length]);
  }
  return given.get(label);
}
