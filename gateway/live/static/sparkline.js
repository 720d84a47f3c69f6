// A minute of confidence, and at its end the colour of the activity.

import { colourOf } from "./colours.js";

const SPAN_MS = 60_000;
const GAP_MS = 10_000; // nothing was recognised in between
const ROOM = 4; // for the dot

/** Draw `points`, each [ms, probability, activity], so that the right edge is `nowMs`; `[line, wash]` are colours. */
export function drawSparkline(canvas, [width, height], [line, wash], points, nowMs) {
  const scale = globalThis.devicePixelRatio || 1;
  const wanted = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wanted[0]) canvas.width = wanted[0];
  if (canvas.height !== wanted[1]) canvas.height = wanted[1];
  const paint = canvas.getContext("2d");
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  const x = (ms) => (width - ROOM) * (1 - (nowMs - ms) / SPAN_MS);
  const y = (probability) => ROOM + (height - ROOM - 1) * (1 - probability);
  paint.strokeStyle = line;
  paint.fillStyle = wash;
  paint.lineWidth = 1.25;
  paint.lineJoin = "round";
  for (const stretch of stretches(points, nowMs)) {
    paint.beginPath();
    stretch.forEach(([ms, probability]) => paint.lineTo(x(ms), y(probability)));
    paint.stroke();
    paint.lineTo(x(stretch.at(-1)[0]), height);
    paint.lineTo(x(stretch[0][0]), height);
    paint.fill();
  }
  const last = points.at(-1);
  if (last === undefined || nowMs - last[0] > SPAN_MS) return;
  paint.fillStyle = colourOf(last[2]);
  paint.beginPath();
  paint.arc(x(last[0]), y(last[1]), 2.75, 0, 2 * Math.PI);
  paint.fill();
}

/** Points of the last minute without gaps between them. */
function stretches(points, nowMs) {
  const found = [];
  let before = -Infinity;
  for (const point of points) {
    if (nowMs - point[0] > SPAN_MS) continue;
    if (point[0] - before > GAP_MS) found.push([]);
    found.at(-1).push(point);
    [before] = point;
  }
  return found;
}
