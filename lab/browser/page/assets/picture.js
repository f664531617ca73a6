// The dots, on a canvas for each lane. Where a zone has too many of them, it shows a band with their number. A lane in
// which nothing changes is not drawn, and while this is so for all lanes, no frame is requested.

import { STATES, coloursNow, showLegend, spriteOf } from "./shapes.js";

const SIZES = [11, 8, 6]; // of a dot and the space around it, in CSS pixels: the more dots in a zone, the smaller
const [SIZE] = SIZES;
const EASE = 9; // per second: how fast a dot follows its place
const MOST_DOTS = 120; // of a zone; more are drawn as a band
const MOST_LEAVING = 60; // in the narrow zone before the inbox
const NAMES = { q: "asked", i: "flight", g: "again", d: "delivered", u: "twice", f: "failed", l: "lost", x: "refused", n: "refused" };
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Picture {
  drawn = 0; // frames so far
  moving = 0; // dots of the newest frame that were drawn on the way from one place to another
  paused = false;
  #lanes = new Map(); // name -> {model, canvas, context, zones, version, rests}
  #sprites = {}; // state -> size -> sprite
  #colours = {};
  #ratio = 1;
  #before = 0;
  #now = 0; // of the picture: it stands still while the picture is paused
  #requested = false;

  /** `models`: name -> LaneModel. */
  constructor(models) {
    for (const [name, model] of models) {
      const canvas = document.querySelector(`#lane-${name} canvas`);
      this.#lanes.set(name, { model, canvas, context: canvas.getContext("2d"), zones: {}, version: -1, rests: true });
    }
    new ResizeObserver(() => this.measure()).observe(document.getElementById("picture"));
    dark.addEventListener("change", () => this.measure());
    this.measure();
  }

  /** Find out where the zones are. Call this when the layout has changed. */
  measure() {
    this.#ratio = window.devicePixelRatio || 1;
    this.#colours = coloursNow();
    this.#makeSprites();
    for (const lane of this.#lanes.values()) this.#measureLane(lane);
    showLegend(document.getElementById("legend"), this.#colours);
    this.wake();
  }

  #measureLane(lane) {
    const origin = lane.canvas.getBoundingClientRect();
    lane.canvas.width = Math.round(origin.width * this.#ratio);
    lane.canvas.height = Math.round(origin.height * this.#ratio);
    lane.version = -1;
    for (const element of lane.canvas.parentElement.querySelectorAll(".zone")) {
      const { x, y, width, height } = element.getBoundingClientRect();
      lane.zones[element.classList[1]] = { x: x - origin.x, y: y - origin.y, width, height };
    }
  }

  #makeSprites() {
    for (const state of Object.keys(STATES)) {
      this.#sprites[state] = Object.fromEntries(SIZES.map((size) => [size, spriteOf(state, size * this.#ratio, this.#colours[state])]));
    }
  }

  /** Draw again until everything has come to rest. Call this when a model has changed. */
  wake() {
    if (this.#requested) return;
    this.#requested = true;
    this.#before = performance.now();
    requestAnimationFrame((now) => this.#frame(now));
  }

  #frame(now) {
    const rests = this.paused ? this.advance(0, this.#now) || true : this.advance(now - this.#before, now);
    this.#before = now;
    this.#requested = !rests;
    if (!rests) requestAnimationFrame((next) => this.#frame(next));
  }

  /** Move the dots by this time (ms) and draw them. Returns whether everything has come to rest. */
  advance(elapsed, now) {
    const share = still.matches ? 1 : 1 - Math.exp((-EASE * Math.max(0, Math.min(elapsed, 100))) / 1000);
    this.#now = now;
    this.moving = 0;
    let changed = false;
    for (const lane of this.#lanes.values()) {
      lane.model.sweep(now);
      if (lane.rests && lane.version === lane.model.version) continue;
      lane.version = lane.model.version;
      const moving = this.moving;
      this.#drawLane(lane, share, now);
      lane.rests = this.moving === moving && !lane.model.leaving;
      changed = true;
    }
    if (changed) this.#count();
    return !changed;
  }

  #count() {
    this.drawn += 1;
    if (this.drawn === 1) performance.mark("first picture"); // lab/browser/cost.py prints when that was
  }

  #drawLane({ model, canvas, context, zones }, share, now) {
    const { asked, held, flight, delivered, twice, failed, lost, refused } = model.places;
    const numbers = model.facts?.numbers;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!numbers) return;
    const draw = { model, context, share, now };
    this.#leave(draw, zones.asked, "refused", refused);
    this.#fill(draw, zones.asked, "asked", asked);
    // Lost and failed emails lie at the bottom of the zone where the strategy had them.
    const bottom = lost.size || failed.size ? SIZE + 2 : 0;
    this.#row(draw, zones.queue, lost, numbers.lost, 0);
    this.#row(draw, zones.queue, failed, numbers.failed, lost.size ? 1 : 0);
    this.#fill(draw, { ...zones.queue, height: zones.queue.height - bottom }, "held", held, numbers.waiting);
    this.#fill(draw, zones.flight, "flight", flight);
    this.#leave(draw, zones.arriving, "delivered", delivered);
    this.#leave(draw, zones.arriving, "twice", twice);
  }

  /** Dots in columns from the right, where the next station is. `waiting`: how many of them, from the first on, wait. */
  #fill(draw, zone, place, emails, waiting = 0) {
    const size = emails.size <= MOST_DOTS && SIZES.find((one) => Math.floor(zone.height / one) * Math.floor(zone.width / one) >= emails.size);
    if (!size) return this.#band(draw, zone, place, emails, place !== "held" ? place : 2 * waiting >= emails.size ? "waiting" : "accepted");
    draw.model.bands.delete(place);
    const most = Math.max(1, Math.floor(zone.height / size));
    const columns = Math.max(1, Math.floor(zone.width / size));
    const rows = Math.min(most, Math.max(Math.ceil(emails.size / columns), Math.ceil(Math.sqrt((emails.size * zone.height) / zone.width))));
    const top = zone.y + zone.height / 2 - (rows * size) / 2;
    let i = 0;
    for (const email of emails.values()) {
      const x = zone.x + zone.width - (Math.floor(i / rows) + 0.5) * size;
      this.#dot(draw, email, NAMES[email.state] ?? (i < waiting ? "waiting" : "accepted"), x, top + ((i % rows) + 0.5) * size, size);
      i += 1;
    }
    return undefined;
  }

  /** The newest of these in a row, and their number if there are more. */
  #row(draw, zone, emails, count, above) {
    const places = Math.max(1, Math.floor(zone.width / SIZE));
    const room = count > places ? Math.max(1, places - 3) : places;
    const y = zone.y + zone.height - SIZE / 2 - above * SIZE;
    let i = Math.min(0, room - emails.size);
    for (const email of emails.values()) {
      if (i >= 0) this.#dot(draw, email, NAMES[email.state], zone.x + (i + 0.5) * SIZE, y, SIZE);
      i += 1;
    }
    if (count > room) this.#text(draw, `${count}`, zone.x + zone.width, y, "right");
  }

  /** Dots that fly through the zone and disappear. */
  #leave(draw, zone, place, emails) {
    const { model, context, now } = draw;
    if (emails.size > MOST_LEAVING) return this.#band(draw, zone, place, emails, place, false); // too narrow for text
    model.bands.delete(place);
    const rows = Math.max(1, Math.floor(zone.height / SIZE) - 1);
    const x = place === "refused" ? zone.x : zone.x + zone.width - SIZE / 2;
    for (const [number, email] of emails) {
      if (!still.matches) context.globalAlpha = Math.max(0.15, 1 - (now - email.since) / (place === "twice" ? 2200 : 900));
      this.#dot(draw, email, place, x, zone.y + (((number * 7) % rows) + 1) * SIZE, SIZE);
    }
    context.globalAlpha = 1;
    return undefined;
  }

  #dot({ context, share }, email, state, x, y, size) {
    const isNew = Number.isNaN(email.x);
    email.x = isNew ? x - (share < 1 ? 2 * SIZE : 0) : email.x + (x - email.x) * share;
    email.y = isNew ? y : email.y + (y - email.y) * share;
    if (Math.abs(email.x - x) + Math.abs(email.y - y) > 0.3) this.moving += 1;
    const sprite = this.#sprites[state][size]; // at whole pixels it is copied, not scaled
    context.drawImage(sprite, Math.round(email.x * this.#ratio - sprite.width / 2), Math.round(email.y * this.#ratio - sprite.height / 2));
  }

  /** A band with the number of these emails. The higher it is, the more they are. */
  #band(draw, zone, place, emails, state, withText = true) {
    const { model, context } = draw;
    const scale = this.#ratio;
    const height = Math.max(12, zone.height * Math.min(1, Math.log10(emails.size) / 4));
    model.bands.add(place);
    context.globalAlpha = 0.35;
    context.fillStyle = this.#colours[state];
    context.fillRect((zone.x + 2) * scale, (zone.y + (zone.height - height) / 2) * scale, (zone.width - 4) * scale, height * scale);
    context.globalAlpha = 1;
    if (withText) this.#text(draw, `${emails.size}`, zone.x + zone.width / 2, zone.y + zone.height / 2, "center");
  }

  #text({ context }, text, x, y, align) {
    context.fillStyle = this.#colours.ink;
    context.font = `600 ${13 * this.#ratio}px system-ui, sans-serif`;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.fillText(text, x * this.#ratio, y * this.#ratio);
  }
}
