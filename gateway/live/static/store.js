// What the gateway said last: one `state`, kept up to date by `update` events.

export const UNKNOWN = "unknown";
const CONFIDENCES = 60;

export const store = {
  /** The state without its devices; null before the first. */
  state: null,
  /** Device id to row. */
  devices: new Map(),
  /** Grows when devices come or go. */
  membership: 0,
  /** Ids whose row changed since the list was drawn. */
  changed: new Set(),
};

/** Take a whole state: the old one is forgotten. */
export function takeState(state) {
  const { devices, ...rest } = state;
  store.state = rest;
  store.devices = new Map(devices.map((row) => [row.device, row]));
  store.changed = new Set(store.devices.keys());
  store.membership += 1;
}

/** Take what changed. */
export function takeUpdate(update) {
  if (store.state === null) return;
  const { devices = [], gone = [], bandwidth, models, ...rest } = update;
  Object.assign(store.state, rest);
  if (bandwidth) store.state.bandwidth = withPoint(store.state.bandwidth, bandwidth);
  if (models) store.state.models = { ...store.state.models, ...models };
  for (const row of devices) takeRow(row);
  for (const id of gone) {
    if (store.devices.delete(id)) store.membership += 1;
  }
}

function takeRow(row) {
  const old = store.devices.get(row.device);
  if (old === undefined) store.membership += 1;
  else {
    const confidence = row.confidence?.length ? [...old.confidence, ...row.confidence] : old.confidence;
    row.confidence = confidence.slice(-CONFIDENCES);
  }
  row.confidence ??= [];
  store.devices.set(row.device, row);
  store.changed.add(row.device);
}

function withPoint(old, { point, ...fresh }) {
  const history = old.history;
  if (point && point.ms !== history.end_ms) {
    history.end_ms = point.ms;
    for (const key of ["mqtt", "raw12"]) {
      history[key].push(point[key]);
      if (history[key].length > 300) history[key].shift();
    }
  }
  return { ...old, ...fresh, history };
}
