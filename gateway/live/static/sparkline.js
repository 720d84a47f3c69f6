// A minute of confidence in the colours of the activities.

import { colourOf } from "./colours.js";

const SPAN_MS = 60_000;

/** Draw `points`, each [ms, probability, activity], so that the right edge is `nowMs`. */
export function drawSparkline(canvas, [width, height], points, nowMs) {
  const scale = globalThis.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const paint = canvas.getContext("2d");
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  const x = (ms) => width * (1 - (nowMs - ms) / SPAN_MS);
  const y = (probability) => 2 + (height - 4) * (1 - probability);
  paint.lineWidth = 1.75;
  paint.lineJoin = "round";
  for (let at = 1; at < points.length; at += 1) {
    const [ms, probability, activity] = points[at];
    const [before, last] = points[at - 1];
    if (ms - before > 10_000 || x(ms) < 0) continue;
    paint.strokeStyle = paint.fillStyle = colourOf(activity);
    paint.globalAlpha = 0.22;
    paint.fillRect(x(before), 0, x(ms) - x(before), height);
    paint.globalAlpha = 1;
    paint.beginPath();
    paint.moveTo(x(before), y(last));
    paint.lineTo(x(ms), y(probability));
    paint.stroke();
  }
}
