// The dots on the canvas. Each state has a shape of its own, so that colour is not needed to tell them apart. Where a
// zone has no room for all its dots, it shows a band with their number.

const SIZE = 11; // of a dot and the space around it, in CSS pixels
const SIZES = [SIZE, 8, 6]; // the more dots there are in a zone, the smaller they are
const EASE = 9; // per second: how fast a dot follows its place
const STATES = {
  asked: "asked", accepted: "accepted", waiting: "waiting", flight: "in flight", again: "in flight again",
  delivered: "delivered", twice: "delivered twice", failed: "failed (given up)", lost: "lost", refused: "refused, or no answer",
};
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Draw the shape of a state around (0, 0). */
function shape(context, state, radius, colour) {
  const r = radius;
  context.fillStyle = context.strokeStyle = colour;
  context.lineWidth = r * 0.45;
  const path = new Path2D();
  const polygon = (...points) => points.forEach(([x, y], i) => (i ? path.lineTo(x * r, y * r) : path.moveTo(x * r, y * r)));
  switch (state) {
    case "asked":
      path.arc(0, 0, r * 0.75, 0, 7);
      return context.stroke(path);
    case "accepted":
      path.arc(0, 0, r * 0.95, 0, 7);
      return context.fill(path);
    case "waiting":
      path.rect(-0.85 * r, -0.85 * r, 1.7 * r, 1.7 * r);
      return context.fill(path);
    case "flight":
    case "again":
      polygon([-0.8, -1], [1.1, 0], [-0.8, 1]);
      path.closePath();
      return state === "flight" ? context.fill(path) : context.stroke(path);
    case "delivered":
    case "twice":
      polygon([0, -1.15], [1.15, 0], [0, 1.15], [-1.15, 0]);
      path.closePath();
      context.fill(path);
      if (state === "twice") {
        context.beginPath();
        context.arc(0, 0, r * 1.5, 0, 7);
        context.stroke();
      }
      return undefined;
    case "failed":
      path.rect(-r, -0.4 * r, 2 * r, 0.8 * r);
      return context.fill(path);
    default: // lost: a cross; refused: half of one
      polygon([-0.85, -0.85], [0.85, 0.85]);
      if (state === "lost") polygon([0.85, -0.85], [-0.85, 0.85]);
      return context.stroke(path);
  }
}

const COLOUR = { asked: "asked", accepted: "accepted", waiting: "waiting", flight: "flight", again: "flight", delivered: "delivered", twice: "twice", failed: "failed", lost: "lost", refused: "asked" };

export class Picture {
  fps = 0;
  #canvas = document.getElementById("dots");
  #context = this.#canvas.getContext("2d");
  #zones = new Map(); // lane -> name -> {x, y, width, height}
  #sprites = {};
  #colours = {};
  #drawn = new Map(); // lane -> the version that is on the canvas, and whether it has come to rest
  #before = performance.now();
  #frames = [];

  /** `lanes`: name -> LaneModel. */
  constructor(lanes) {
    this.lanes = lanes;
    this.paused = false;
    new ResizeObserver(() => this.measure()).observe(document.getElementById("picture"));
    dark.addEventListener("change", () => this.measure());
    this.measure();
    requestAnimationFrame((now) => this.#frame(now));
  }

  /** Find out where the zones are. Call this when the layout has changed. */
  measure() {
    const origin = this.#canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.width = Math.round(origin.width * ratio);
    this.#canvas.height = Math.round(origin.height * ratio);
    this.#context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const name of this.lanes.keys()) {
      const zones = {};
      for (const element of document.querySelectorAll(`#lane-${name} .zone`)) {
        const { x, y, width, height } = element.getBoundingClientRect();
        zones[element.classList[1]] = { x: x - origin.x, y: y - origin.y, width, height };
      }
      this.#zones.set(name, zones);
    }
    this.#makeSprites(ratio);
    this.#drawn.clear();
  }

  #makeSprites(ratio) {
    const style = getComputedStyle(document.documentElement);
    this.#ink = style.getPropertyValue("--ink");
    for (const state of Object.keys(STATES)) {
      const sprite = document.createElement("canvas");
      sprite.width = sprite.height = 2 * SIZE * ratio;
      const context = sprite.getContext("2d");
      context.scale(ratio, ratio);
      context.translate(SIZE, SIZE);
      this.#colours[state] = style.getPropertyValue(`--${COLOUR[state]}`);
      shape(context, state, 4.2, this.#colours[state]);
      this.#sprites[state] = sprite;
    }
    const legend = document.getElementById("legend");
    legend.replaceChildren(...Object.entries(STATES).map(([state, words]) => {
      const item = document.createElement("span");
      item.append(this.#sprites[state], words);
      return item;
    }));
  }

  #ink = "";

  #frame(now) {
    requestAnimationFrame((next) => this.#frame(next));
    this.#frames.push(now);
    while (now - this.#frames[0] > 1000) this.#frames.shift();
    this.fps = this.#frames.length;
    if (!this.paused) this.advance(now - this.#before, now);
    this.#before = now;
  }

  /** Move the dots by this time (ms) and draw them. A picture at rest is not drawn again. */
  advance(elapsed, now) {
    let changed = false;
    for (const [name, lane] of this.lanes) {
      lane.sweep(now);
      const drawn = this.#drawn.get(name);
      if (!drawn || drawn.version !== lane.version || !drawn.rests) changed = true;
    }
    if (!changed) return;
    const share = still.matches ? 1 : 1 - Math.exp((-EASE * Math.min(elapsed, 100)) / 1000);
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    for (const [name, lane] of this.lanes) {
      const rests = this.#drawLane(this.#zones.get(name), lane, share, now);
      this.#drawn.set(name, { version: lane.version, rests });
    }
  }

  #drawLane(zones, lane, share, now) {
    if (!zones.asked) return true;
    this.#moved = false;
    const places = lane.places();
    const { asked, queue, flight, arriving } = zones;
    const numbers = lane.facts?.numbers;
    this.#fill(asked, places.asked, "asked", share);
    this.#leave(asked, places.refused, "refused", share, now);
    // Lost and failed emails lie at the bottom of the zone where the strategy had them.
    const bottom = places.lost.length || places.failed.length ? SIZE + 2 : 0;
    this.#row(queue, places.lost, "lost", share, numbers?.lost);
    this.#row(queue, places.failed, "failed", share, numbers?.failed, places.lost.length ? 1 : 0);
    const held = { ...queue, height: queue.height - bottom };
    this.#fill(held, [...places.waiting, ...places.accepted], null, share, places.waiting.length);
    this.#fill(flight, [...places.flight, ...places.again], null, share, places.flight.length, ["flight", "again"]);
    this.#leave(arriving, places.delivered, "delivered", share, now);
    this.#leave(arriving, places.twice, "twice", share, now);
    return !this.#moved && !lane.moving;
  }

  #moved = false;

  /** Dots in columns from the right, where the next station is. `split`: the first ones are of the first kind. */
  #fill(zone, emails, state, share, split = 0, kinds = ["waiting", "accepted"]) {
    const fits = (size) => Math.floor(zone.height / size) * Math.floor(zone.width / size) >= emails.length;
    const size = SIZES.find(fits);
    if (!size) return this.#band(zone, emails, state ?? kinds[split > emails.length / 2 ? 0 : 1]);
    const most = Math.max(1, Math.floor(zone.height / size));
    const columns = Math.max(1, Math.floor(zone.width / size));
    const rows = Math.min(most, Math.max(Math.ceil(emails.length / columns), Math.ceil(Math.sqrt((emails.length * zone.height) / zone.width))));
    const top = zone.y + zone.height / 2 - (rows * size) / 2;
    emails.forEach((email, i) => {
      const x = zone.x + zone.width - (Math.floor(i / rows) + 0.5) * size;
      this.#dot(email, state ?? kinds[i < split ? 0 : 1], x, top + ((i % rows) + 0.5) * size, share, size);
    });
    return undefined;
  }

  #row(zone, emails, state, share, count, above = 0) {
    const places = Math.max(1, Math.floor(zone.width / SIZE));
    const room = count > places ? Math.max(1, places - 3) : places;
    const y = zone.y + zone.height - SIZE / 2 - above * SIZE;
    emails.slice(-room).forEach((email, i) => this.#dot(email, state, zone.x + (i + 0.5) * SIZE, y, share));
    if (count > room) this.#text(`${count}`, zone.x + zone.width, y, "right");
  }

  /** Dots that fly through the zone and disappear. */
  #leave(zone, emails, state, share, now) {
    emails.forEach((email) => {
      const lane = (email.number * 7) % Math.max(1, Math.floor(zone.height / SIZE) - 1);
      const x = state === "refused" ? zone.x : zone.x + zone.width - SIZE / 2;
      this.#context.globalAlpha = Math.max(0.15, 1 - (now - email.since) / (state === "twice" ? 2200 : 900));
      this.#dot(email, state, x, zone.y + (lane + 1) * SIZE, share);
      this.#context.globalAlpha = 1;
    });
  }

  #dot(email, state, x, y, share, size = SIZE) {
    email.x = email.x === null ? x - (still.matches ? 0 : 2 * SIZE) : email.x + (x - email.x) * share;
    email.y = email.y === null ? y : email.y + (y - email.y) * share;
    if (Math.abs(email.x - x) + Math.abs(email.y - y) > 0.3) this.#moved = true;
    this.#context.drawImage(this.#sprites[state], email.x - size, email.y - size, 2 * size, 2 * size);
  }

  #band(zone, emails, state) {
    const context = this.#context;
    context.globalAlpha = 0.35;
    context.fillStyle = this.#colours[state];
    const share = Math.min(1, Math.log10(emails.length) / 4);
    const height = Math.max(12, zone.height * share);
    context.fillRect(zone.x + 2, zone.y + (zone.height - height) / 2, zone.width - 4, height);
    context.globalAlpha = 1;
    this.#text(`${emails.length}`, zone.x + zone.width / 2, zone.y + zone.height / 2, "center");
    for (const email of emails) [email.x, email.y] = [zone.x + zone.width / 2, zone.y + zone.height / 2];
  }

  #text(text, x, y, align) {
    const context = this.#context;
    context.fillStyle = this.#ink;
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = align;
    context.textBaseline = "middle";
    context.fillText(text, x, y);
  }
}
