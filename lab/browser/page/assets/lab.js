// The page of the lab: connects the event stream, the picture, the lanes and the controls.

import { amountOf, askPrediction, askWhat, isOpen, showHelp, showResult } from "./dialogs.js";
import { LaneView } from "./lanes.js";
import { LaneModel, closes } from "./model.js";
import { Picture } from "./picture.js";
import { Stream, ask } from "./stream.js";
import { NumbersTable } from "./table.js";
import { setText } from "./text.js";

const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const names = Object.keys(facts.subjects);
const titles = Object.fromEntries(Object.values(facts.subjects).flat()); // subject -> words
const experiments = Object.fromEntries(facts.experiments.map((one) => [one.name, one]));
const RATES = [0, 1, 2, 5, 10, 20, 50, 100, 150, 200]; // emails a second and lane
const DIAL = {
  works: {}, slow: { latency_ms: 300 }, refuse: { refuse_rate: 1, refuse_code: 451 }, never: { refuse_rate: 1, refuse_code: 550 }, hang: { hang_rate: 1 }, lose: { lose_reply_rate: 1 },
};
const BETWEEN_WORDS = 150; // ms: ten frames arrive in a second, and the words show every second one
const REASON_SHOWN = 5000; // ms: why the lab has refused something
const PHASES = { prepares: "repairs everything and starts new accounts", sends: "sends the emails", breaks: "injects the fault", waits: "waits until all numbers add up" };

const models = new Map(names.map((name) => [name, new LaneModel()]));
const picture = new Picture(models);
const views = new Map(names.map((name) => [name, new LaneView(name, facts.subjects[name], choose, (lane, subject) => act({ do: "switch", lane, subject }), () => picture.measure())]));
const table = new NumbersTable();
let frame = null; // the one that the words show
let wordsAt = -Infinity;

// The stream

let live = false;
const stream = new Stream((next) => show(next), (now) => {
  live = now;
  showConnection();
});

const showConnection = () => setPill($("connection"), live ? "live" : "no connection, trying again", live ? "good" : "warn");

/** Give the frame to the picture, and to the words if it is their time. */
function show(next, now = performance.now()) {
  for (const lane of next.lanes) models.get(lane.lane).apply(lane, Boolean(next.whole), now);
  picture.wake();
  if (now - wordsAt < BETWEEN_WORDS && !stream.paused) return;
  wordsAt = now;
  showWords(next, now);
}

function showWords(next, now) {
  frame = next;
  for (const lane of next.lanes) views.get(lane.lane).show(lane, next);
  table.show(next.lanes, titles, now);
  showRates(next);
  showDial(next.dial);
  showExperiment(next.experiment);
}

function setPill(pill, text, mood) {
  setText(pill, text);
  pill.className = `pill ${mood}`;
}

// What the user asks for

async function act(body) {
  try {
    await ask(body);
    return true;
  } catch (error) {
    setPill($("connection"), error.message, "warn");
    setTimeout(showConnection, REASON_SHOWN);
    return false;
  }
}

const chosenLanes = () => ($("who").value === "all" ? names : [$("who").value]);
const burst = (count) => act({ do: "burst", lanes: chosenLanes(), count });

function setRate(step) {
  $("rate").value = step;
  act({ do: "load", lanes: chosenLanes(), rate: RATES[$("rate").value] });
}

function showRates({ lanes }) {
  const rates = new Set(lanes.filter(({ lane }) => chosenLanes().includes(lane)).map(({ rate }) => rate));
  const [rate] = rates;
  const text = rates.size > 1 ? "several" : `${rate} per second`;
  setText($("rate-shown"), text);
  $("rate").setAttribute("aria-valuetext", text);
  if (document.activeElement !== $("rate") && RATES.includes(rate)) $("rate").value = RATES.indexOf(rate);
}

function showDial(dial) {
  if (document.activeElement === $("dial")) return;
  const [name] = Object.entries(DIAL).find(([, faults]) => ["latency_ms", "refuse_rate", "hang_rate", "lose_reply_rate"].every((one) => (faults[one] ?? 0) === dial[one]) && (!faults.refuse_code || faults.refuse_code === dial.refuse_code)) ?? [""];
  $("dial").value = name;
}

$("burst").addEventListener("click", () => burst(20));
$("burst-many").addEventListener("click", () => burst(200));
$("rate").addEventListener("input", () => setRate($("rate").value));
$("who").addEventListener("change", () => frame && showRates(frame));
$("dial").addEventListener("change", () => act({ do: "dial", ...DIAL[$("dial").value] }));
$("heal").addEventListener("click", () => act({ do: "heal" }));
$("help").addEventListener("click", showHelp);
for (const name of names) {
  views.get(name).element.querySelector("button.caller").addEventListener("click", () => act({ do: "burst", lanes: [name], count: 1 }));
  views.get(name).element.querySelector("button.mail").addEventListener("click", chooseDial);
}

/** Open the list of what the mail server can do, where the browser has this. */
function chooseDial() {
  $("dial").focus();
  $("dial").showPicker?.();
}

// The picture: pause and step

$("pause").addEventListener("click", () => setPaused(!stream.paused));
$("step").addEventListener("click", step);

function setPaused(paused) {
  picture.paused = paused;
  stream.pause(paused);
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
}

function step() {
  if (!stream.paused) setPaused(true);
  else if (stream.step()) picture.advance(100, performance.now());
}

// Predictions

const score = { right: 0, asked: 0, ...read("lab.score") };
let pending = null; // what this page has predicted: {run, title, predictions, next}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function showScore() {
  $("score").textContent = score.asked ? `${score.right} of ${score.asked} predictions right` : "";
}

const titled = (lanes) => lanes.map((name) => ({ name, title: titles[frame.lanes.find(({ lane }) => lane === name).subject] }));
const order = Object.keys(experiments);
let place = -1; // of the experiment that was opened last
const busy = () => frame?.experiment && !["done", "failed"].includes(frame.experiment.phase);

async function experiment(name) {
  if (!frame || busy() || isOpen()) return;
  place = order.indexOf(name);
  const { title, what, emails } = experiments[name];
  const predictions = await askPrediction(`${place + 1}. ${title}`, what, titled(names), emails);
  if (predictions) begin({ do: "experiment", name }, title, predictions, order[place + 1] ?? order[0], name);
}

async function begin(body, title, predictions, next, name) {
  pending = { run: (frame.experiment?.run ?? 0) + 1, title, predictions, next, name };
  if (!(await act(body))) pending = null;
}

async function choose(lane, role, pid, frozen) {
  if (!frame || busy() || isOpen()) return;
  const { how, predict } = await askWhat(lane, role, pid, frozen, role === "worker" && "456".includes(lane));
  if (how === "add") return act({ do: "worker", lane });
  if (!how) return undefined;
  if (!predict) return act({ do: "signal", lane, role, how, pid: pid || null });
  const lanes = role === "redis" ? frame.lanes.filter((one) => "456".includes(one.lane) && !["5r", "6j"].includes(one.subject)).map((one) => one.lane) : [lane];
  const title = `${how === "kill" ? "kill -9" : how === "term" ? "SIGTERM" : "freeze for 3.5 seconds"}: the ${role} of lane ${lanes.join(", ")}`;
  const what = "Of the emails that are accepted from now on or still on their way, how many will be lost, and how many will arrive twice?";
  const predictions = await askPrediction(title, what, titled(lanes));
  return predictions && begin({ do: "signal", lane, role, how, pid: pid || null, predicted: true }, title, predictions, null, null);
}

function showExperiment(state) {
  const running = Boolean(busy());
  const text = running ? `The lab ${PHASES[state.phase] ?? state.phase} …` : state?.phase === "failed" ? `The experiment was stopped: ${state.problem}.` : "";
  $("running").hidden = !text;
  $("title").hidden = Boolean(text);
  setText($("running").firstElementChild, text);
  setText($("running").lastElementChild, running ? `${Math.round(state.seconds)} s` : ""); // not for a screen reader
  if (pending && state?.run >= pending.run && !running && !isOpen()) finish(state);
}

async function finish(state) {
  const { title, predictions, next, name } = pending;
  pending = null;
  if (state.phase === "failed") return;
  const shown = showResult(title, titled(state.lanes), predictions, state.results, next && experiments[next].title, experiments[name]?.emails);
  score.right += shown.right;
  score.asked += shown.asked;
  localStorage.setItem("lab.score", JSON.stringify(score));
  showScore();
  const answer = await shown.closed;
  if (answer === "next") experiment(next);
  if (answer === "again") experiment(name);
}

order.forEach((name, i) => {
  const button = $("experiments").appendChild(document.createElement("button"));
  button.textContent = `${i + 1} ${experiments[name].title}`;
  button.dataset.name = name;
  button.addEventListener("click", () => experiment(name));
});
showScore();

$("hint-close").addEventListener("click", () => {
  $("hint").hidden = true;
  $("experiments").querySelector("button").focus(); // the closed hint cannot keep the focus
  localStorage.setItem("lab.hint", "closed");
});
$("hint").hidden = localStorage.getItem("lab.hint") === "closed";

// Keys

const KEYS = {
  b: () => burst(20), p: () => setPaused(!stream.paused), ".": step, "?": showHelp, n: () => experiment(order[(place + 1) % order.length]),
  "+": () => setRate(Math.min(RATES.length - 1, Number($("rate").value) + 1)), "-": () => setRate(Math.max(0, Number($("rate").value) - 1)),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isOpen() || ["SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

// For tests and measurements.
window.lab = { get frame() { return frame; }, closes, amountOf, stream, models, picture, show };
