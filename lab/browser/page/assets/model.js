// What the picture shows: the newest numbers of each lane, and its emails that are on their way.
//
// The states of an email, as lab/browser/__init__.py describes them:
// q asked   a accepted   i in flight   g in flight again   d delivered   u delivered twice   f failed   l lost
// x refused   n no answer. Of those in state a, the oldest are shown as waiting, as many as the strategy says it holds.
//
// Hundreds of emails change every second and 60 pictures are drawn, so each email stays in the map of its place. No
// picture sorts, filters or copies them.

const PLACES = { q: "asked", a: "held", i: "flight", g: "flight", d: "delivered", u: "twice", f: "failed", l: "lost", x: "refused", n: "refused" };
const LEAVING = { delivered: 900, twice: 2200, refused: 900 }; // ms until a dot disappears from this place
const MOST_SHOWN = { failed: 60, lost: 60 }; // in a place that emails do not leave

export class LaneModel {
  facts = null;
  places = {}; // name -> the emails there by number, in the order in which they came
  bands = new Set(); // the places that the picture shows as a band, without dots
  version = 0; // grows with every change
  #emails = new Map(); // number -> {state, place, since, x, y}; x and y are the picture's, NaN while it draws no dot
  #epoch = -1;

  constructor() {
    for (const name of Object.values(PLACES)) this.places[name] = new Map();
  }

  apply(facts, whole, now) {
    if (facts.epoch !== this.#epoch || whole) this.#clear();
    this.#epoch = facts.epoch;
    this.facts = facts;
    for (const [number, state] of facts.emails) this.#set(number, state, now);
    for (const [place, most] of Object.entries(MOST_SHOWN)) this.#forget(place, () => this.places[place].size > most);
    this.version += 1;
  }

  #clear() {
    this.#emails.clear();
    for (const place of Object.values(this.places)) place.clear();
  }

  #set(number, state, now) {
    const place = PLACES[state];
    const email = this.#emails.get(number) ?? { state: "", place, since: now, x: NaN, y: NaN };
    if (email.state === state) return;
    this.#emails.set(number, email);
    if (email.place !== place) {
      this.places[email.place].delete(number);
      if (this.bands.has(email.place)) email.x = email.y = NaN;
    }
    email.state = state;
    email.place = place;
    email.since = now;
    this.places[place].set(number, email);
  }

  /** Forget the emails of a place from the first one on, as long as the condition is true. */
  #forget(place, condition) {
    for (const [number, email] of this.places[place]) {
      if (!condition(email)) return;
      this.places[place].delete(number);
      this.#emails.delete(number);
      this.version += 1;
    }
  }

  /** Forget the dots that have left the picture. */
  sweep(now) {
    for (const [place, time] of Object.entries(LEAVING)) this.#forget(place, ({ since }) => now - since > time);
  }

  get leaving() {
    return this.places.delivered.size + this.places.twice.size + this.places.refused.size > 0;
  }
}

/** Whether the numbers of a lane close. */
export function closes({ accepted, delivered, in_flight, waiting, failed, unknown, lost }) {
  return accepted === delivered + in_flight + waiting + failed + unknown + lost;
}
