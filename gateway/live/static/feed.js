// The stream of events, and what to do when it ends or falls silent.

const SILENT_MS = 4000; // updates come five times a second
const OPENING_MS = 10_000; // the first state of a large fleet on a slow line
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * Keeps one EventSource open.
 *
 * `on` has `state`, `update`, `device` (each with what the event carries) and `link`, which hears "open", or "lost" and
 * what the gateway says why, if it says anything.
 * A stream that a stalled network keeps open without a word is closed and opened anew, as one that ended is.
 */
export class Feed {
  #on;
  #device = null;
  #source = null;
  #heard = 0;
  #limit = OPENING_MS;
  #failures = 0;
  #retry = null;

  constructor(on) {
    this.#on = on;
    setInterval(() => this.#watch(), 500);
  }

  /** Open the stream, with the signal of `device` unless it is null. */
  open(device) {
    this.#device = device;
    clearTimeout(this.#retry);
    this.#source?.close();
    const query = device === null ? "" : `?device=${encodeURIComponent(device)}`;
    const source = new EventSource(`api/events${query}`);
    this.#source = source;
    this.#heard = performance.now();
    this.#limit = OPENING_MS;
    for (const name of ["state", "update", "device"]) {
      source.addEventListener(name, (event) => {
        if (source !== this.#source) return;
        this.#heard = performance.now();
        this.#limit = SILENT_MS;
        this.#failures = 0;
        this.#on.link("open");
        this.#on[name](JSON.parse(event.data));
      });
    }
    source.addEventListener("error", () => {
      if (source !== this.#source) return;
      const refused = source.readyState === EventSource.CLOSED;
      this.#lose();
      if (refused) refusal(source.url).then((why) => why && this.#source === null && this.#on.link("lost", why));
    });
  }

  #watch() {
    if (this.#source !== null && performance.now() - this.#heard > this.#limit) this.#lose();
  }

  #lose() {
    this.#source.close();
    this.#source = null;
    this.#on.link("lost");
    const wait = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    this.#retry = setTimeout(() => this.open(this.#device), wait);
  }
}

/** An EventSource hides what a refusal says. */
async function refusal(url) {
  const over = new AbortController();
  try {
    const answer = await fetch(url, { signal: over.signal });
    return answer.ok ? null : ((await answer.json()).error ?? null);
  } catch {
    return null; // nobody answers
  } finally {
    over.abort();
  }
}
