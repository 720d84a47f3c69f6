// Numbers and words as the page shows them. What is not known is a dash, never a zero.

export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A number with so many decimals. */
export const fixed = (value, decimals = 2) => (known(value) ? value.toFixed(decimals) : NONE);

/** A count with thin spaces between thousands. */
export const count = (value) => (known(value) ? String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f") : NONE);

export const percent = (share, decimals = 0) => (known(share) ? `${(100 * share).toFixed(decimals)}\u202f%` : NONE);

function scaled(value, units, step = 1000) {
  if (!known(value)) return NONE;
  let at = 0;
  while (value >= step && at < units.length - 1) {
    value /= step;
    at += 1;
  }
  const decimals = at === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(decimals)}\u202f${units[at]}`;
}

export const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"]);

/** Bits a second, from bytes a second. */
export const bitRate = (bytesPerSecond) =>
  scaled(known(bytesPerSecond) ? 8 * bytesPerSecond : null, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);

/** Microamperes; below a hundred with one decimal. */
export const current = (microamperes) =>
  known(microamperes) ? (microamperes >= 100 ? microamperes.toFixed(0) : microamperes.toFixed(1)) : NONE;

/** The current of a device as a whole: not known where its sensor's is not. */
export const whole = (row) => (row.ledger?.parts.sensor === undefined ? null : row.whole_ua);

/** How long ago. */
export function ago(ms, nowMs) {
  if (!known(ms)) return "never";
  const seconds = Math.max(0, Math.round((nowMs - ms) / 1000));
  if (seconds < 2) return "now";
  if (seconds < 60) return `${seconds}\u202fs ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}\u202fmin ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}\u202fh ago`;
  return `${Math.floor(seconds / 86_400)}\u202fd ago`;
}

/** The time of day. */
export const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

/** A label as people read it. */
export const words = (label) => (label == null ? NONE : String(label).replaceAll("_", " ").toLowerCase());
