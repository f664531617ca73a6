// For measurements (lab/browser/cost.py): lets the page draw frames of emails that flow at a fixed rate, one for each
// animation frame, as if 60 of them took one second. So the cost of a frame does not depend on the machine's load.

const FRAME = 1000 / 60; // ms
const FEED = 6; // animation frames for each frame of the event stream
const STATES = [["q", 0], ["a", 20], ["i", 60], ["d", 160]]; // ms from the request of an email

function stateAt(age) {
  let state = "";
  for (const [name, from] of STATES) if (age >= from) state = name;
  return state;
}

/** What the event stream would say at this time (ms): `rate` emails a second, and `backlog` emails that wait. */
function lanesAt(template, time, before, rate, backlog) {
  const first = Math.max(0, Math.floor(((before - 200) * rate) / 1000));
  const last = Math.floor((time * rate) / 1000);
  const emails = [];
  if (before < 0) for (let i = 0; i < backlog; i += 1) emails.push([i, "a"]);
  for (let i = first; i < last; i += 1) {
    const state = stateAt(time - (i * 1000) / rate);
    if (state && state !== stateAt(before - (i * 1000) / rate)) emails.push([backlog + i, state]);
  }
  const flying = Math.min(last, Math.round(rate / 10));
  const numbers = { ...template.numbers, asked: last + backlog, accepted: last + backlog, delivered: last - flying, in_flight: flying, waiting: backlog, unknown: 0, lost: 0, failed: 0 };
  return { ...template, epoch: -2, numbers, emails };
}

/** Draw this number of frames. The page must have shown a frame of the event stream. */
export async function replay(rate, backlog, count) {
  const { stream, picture, show, frame } = window.lab;
  stream.pause(true);
  picture.paused = true; // this function draws it instead
  const start = performance.now();
  let before = -1000;
  for (let i = 0; i < count; i += 1) {
    const time = i * FRAME;
    if (i % FEED === 0) {
      const lanes = frame.lanes.map((lane) => lanesAt(lane, time, before, rate, backlog));
      show({ ...frame, whole: i === 0, lanes }, start + time);
      before = time;
    }
    picture.advance(FRAME, start + time);
    await new Promise(requestAnimationFrame);
  }
  stream.pause(false);
  picture.paused = false;
}
