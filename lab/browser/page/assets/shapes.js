// The shapes of the dots. Each state has a shape of its own, so that colour is not needed to tell them apart.

export const STATES = {
  asked: "asked", accepted: "accepted", waiting: "waiting", flight: "in flight", again: "in flight again",
  delivered: "delivered", twice: "delivered twice", failed: "failed (given up)", lost: "lost", refused: "refused, or no answer",
};
const COLOUR = { again: "flight", refused: "asked" }; // of the states that have no colour of their own
const RADIUS = 0.38; // of the dot and the space around it
const REACH = 0.62; // what a shape needs

/** The colour of each state, and `ink`, as the style sheet says now. */
export function coloursNow() {
  const style = getComputedStyle(document.documentElement);
  const found = { ink: style.getPropertyValue("--ink") };
  for (const state of Object.keys(STATES)) found[state] = style.getPropertyValue(`--${COLOUR[state] ?? state}`);
  return found;
}

/** The picture of a dot, ready to be copied. `size`: of the dot and the space around it, in the canvas's pixels. */
export function spriteOf(state, size, colour) {
  const sprite = new OffscreenCanvas(2 * Math.ceil(REACH * size), 2 * Math.ceil(REACH * size));
  const context = sprite.getContext("2d");
  context.translate(sprite.width / 2, sprite.height / 2);
  draw(context, state, RADIUS * size, colour);
  return sprite.transferToImageBitmap();
}

/** Draw the shape of a state around (0, 0). */
function draw(context, state, r, colour) {
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
      if (state === "delivered") return undefined;
      context.beginPath();
      context.arc(0, 0, r * 1.5, 0, 7);
      return context.stroke();
    case "failed":
      path.rect(-r, -0.4 * r, 2 * r, 0.8 * r);
      return context.fill(path);
    default: // lost: a cross; refused: half of one
      polygon([-0.85, -0.85], [0.85, 0.85]);
      if (state === "lost") polygon([0.85, -0.85], [-0.85, 0.85]);
      return context.stroke(path);
  }
}

/** Write the legend: each shape and its words. */
export function showLegend(place, colours) {
  const ratio = window.devicePixelRatio || 1;
  place.replaceChildren(...Object.entries(STATES).map(([state, words]) => {
    const sprite = spriteOf(state, 11 * ratio, colours[state]);
    const shown = Object.assign(document.createElement("canvas"), { width: sprite.width, height: sprite.height });
    shown.style.width = `${sprite.width / ratio}px`;
    shown.getContext("2d").drawImage(sprite, 0, 0);
    const item = document.createElement("span");
    item.append(shown, words);
    return item;
  }));
}
