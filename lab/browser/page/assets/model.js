// What the picture shows: the newest numbers of each lane, and its emails that are on their way.
//
// The states of an email, as lab/browser/__init__.py describes them:
// q asked   a accepted   i in flight   g in flight again   d delivered   u delivered twice   f failed   l lost
// x refused   n no answer. Of those in state a, the oldest are shown as waiting, as many as the strategy says it holds.

const LEAVING = { d: 900, u: 2200, x: 900, n: 900 }; // ms until the dot of a finished email disappears
const MOST_SHOWN = 60; // lost or failed emails of a lane

export class LaneModel {
  facts = null;
  emails = new Map(); // number -> {state, shown, since, x, y}; x and y are the picture's
  version = 0; // grows with every change
  #epoch = -1;

  apply(facts, whole, now) {
    if (facts.epoch !== this.#epoch || whole) this.emails.clear();
    this.#epoch = facts.epoch;
    const { emails, ...rest } = facts;
    this.facts = rest;
    for (const [number, state] of emails) this.#set(number, state, now);
    this.#limit("l");
    this.#limit("f");
    this.version += 1;
  }

  #set(number, state, now) {
    const email = this.emails.get(number);
    if (email) {
      if (email.state !== state) email.since = now;
      email.state = state;
    } else {
      this.emails.set(number, { number, state, since: now, x: null, y: null });
    }
  }

  /** Keep the newest of those that stay forever. */
  #limit(state) {
    const staying = [...this.emails.values()].filter((email) => email.state === state);
    for (const { number } of staying.slice(0, Math.max(0, staying.length - MOST_SHOWN))) this.emails.delete(number);
  }

  /** Forget the dots that have left the picture. */
  sweep(now) {
    for (const [number, { state, since }] of this.emails) {
      if (now - since > (LEAVING[state] ?? Infinity)) {
        this.emails.delete(number);
        this.version += 1;
      }
    }
  }

  get moving() {
    return [...this.emails.values()].some(({ state }) => state in LEAVING);
  }

  /** The emails by the place where they are drawn, each list oldest first. */
  places() {
    const places = { asked: [], waiting: [], accepted: [], flight: [], again: [], delivered: [], twice: [], failed: [], lost: [], refused: [] };
    const names = { q: "asked", i: "flight", g: "again", d: "delivered", u: "twice", f: "failed", l: "lost", x: "refused", n: "refused" };
    let waiting = this.facts?.numbers.waiting ?? 0;
    for (const email of [...this.emails.values()].sort((one, other) => one.number - other.number)) {
      const name = names[email.state] ?? (waiting-- > 0 ? "waiting" : "accepted");
      places[name].push(email);
    }
    return places;
  }
}

/** Whether the numbers of a lane close. */
export function closes({ accepted, delivered, in_flight, waiting, failed, unknown, lost }) {
  return accepted === delivered + in_flight + waiting + failed + unknown + lost;
}
