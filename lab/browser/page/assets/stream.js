// The event stream, and the pause of the picture. While the picture is paused, frames wait here; the processes go on.

const MOST_WAITING = 600; // frames: one minute. After that the oldest are left out.

export class Stream {
  paused = false;
  #waiting = [];

  /** `show(frame)` gets every frame in order, `connected(bool)` the state of the connection. */
  constructor(show, connected) {
    this.show = show;
    const events = new EventSource("/events");
    events.onopen = () => connected(true);
    events.onerror = () => connected(false);
    events.onmessage = (event) => this.#take(JSON.parse(event.data));
  }

  #take(frame) {
    if (!this.paused) return this.show(frame);
    if (frame.whole) this.#waiting = []; // it contains what the others have shown
    this.#waiting.push(frame);
    if (this.#waiting.length > MOST_WAITING) this.#waiting.shift();
  }

  get waiting() {
    return this.#waiting.length;
  }

  pause(paused) {
    this.paused = paused;
    if (!paused) for (const frame of this.#waiting.splice(0)) this.show(frame);
  }

  /** Show the next frame. Returns false if there is none yet. */
  step() {
    const frame = this.#waiting.shift();
    if (frame) this.show(frame);
    return frame !== undefined;
  }
}

const token = document.querySelector("meta[name=token]").content;

/** Ask the lab for something. Throws an Error with the lab's reason. */
export async function ask(body) {
  const response = await fetch("/do", {
    method: "POST", cache: "no-store", headers: { "X-Token": token, "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error((await response.json()).error.reason);
}
