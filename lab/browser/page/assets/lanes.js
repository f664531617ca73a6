// The lanes' processes, numbers and words. The processes are buttons over which the canvas draws the dots.

import { closes } from "./model.js";
import { setText } from "./text.js";

const format = new Intl.NumberFormat("en");
const CHOOSING = 700; // ms from the last change of a choice until it counts
const NUMBERS = ["accepted", "delivered", "in_flight", "waiting", "failed", "unknown", "lost", "twice"];
const STORES = { // subject or strategy -> [role, words]
  3: ["master", "master"], 4: ["redis", "Redis pub/sub"], 5: ["redis", "Redis: list"], 6: ["redis", "Redis: log"],
  "6s": ["redis", "Redis: stream"], "5r": ["broker", "RabbitMQ"], "6j": ["nats", "NATS: log"],
};
const WORDS = { server: "web server", worker: "worker", master: "master", scheduler: "scheduler", broker: "RabbitMQ", nats: "NATS", redis: "Redis" };

export const wordsOf = (role) => WORDS[role] ?? role;

export class LaneView {
  #shown = "";
  #numbers = {};

  /** `chosen(lane, role, pid, frozen)` is called when the user clicks on a process, `switched(lane, subject)` on a switch. */
  constructor(name, subjects, chosen, switched, resized) {
    this.name = name;
    this.element = document.getElementById(`lane-${name}`);
    this.chosen = chosen;
    this.resized = resized;
    this.subject = this.element.querySelector(".subject");
    for (const [value, title] of subjects) this.subject.add(new Option(title.replace(/^\d /, ""), value));
    let wait = 0; // with the arrow keys, each option on the way is a change
    this.subject.addEventListener("change", () => {
      clearTimeout(wait);
      wait = setTimeout(() => switched(name, this.subject.value), CHOOSING);
    });
    for (const number of NUMBERS) this.#numbers[number] = this.element.querySelector(`.numbers .${number}`);
  }

  show(facts, frame) {
    if (document.activeElement !== this.subject) this.subject.value = facts.subject;
    this.element.classList.toggle("alone", ["1", "2"].includes(facts.lane));
    this.element.classList.toggle("waits", facts.status !== "runs");
    const page = this.element.querySelector("a.step");
    if (facts.port) page.href = `${location.protocol}//${location.hostname}:${facts.port}/`;
    else page.removeAttribute("href");
    this.#showProcesses(facts, frame.redis);
    this.#showState(facts);
    this.#showNumbers(facts);
    const ill = ["hang_rate", "lose_reply_rate", "refuse_rate", "latency_ms"].some((name) => frame.dial[name]);
    this.element.querySelector(".mail").classList.toggle("ill", ill);
  }

  #showProcesses(facts, redis) {
    const [storeRole, storeWords] = STORES[facts.subject] ?? STORES[facts.lane] ?? ["", ""];
    const wanted = facts.processes.map(({ role, pid, frozen }) => ({ role, pid, frozen, words: role === "server" && "12".includes(facts.lane) ? "web server and sender" : role === storeRole ? storeWords : wordsOf(role) }));
    if (storeRole === "redis") wanted.push({ role: "redis", pid: 0, frozen: redis === "frozen", dead: redis === "dead", words: storeWords });
    for (const role of ["server", ...("12".includes(facts.lane) ? [] : ["worker"]), ...(storeRole && storeRole !== "redis" ? [storeRole] : [])]) {
      if (!wanted.some((one) => one.role === role)) wanted.push({ role, pid: 0, dead: facts.status === "runs", words: role === storeRole ? storeWords : wordsOf(role) });
    }
    const key = JSON.stringify(wanted);
    if (key === this.#shown) return;
    this.#shown = key;
    const places = { server: [], store: [], worker: [] };
    for (const one of wanted) places[one.role === "server" ? "server" : one.role === storeRole ? "store" : "worker"].push(one);
    for (const [place, processes] of Object.entries(places)) this.#arrange(this.element.querySelector(`.processes.${place}`), processes);
    this.resized();
  }

  /** Show these processes. A button that is there already stays, and keeps the focus, also while a dialog is open. */
  #arrange(place, processes) {
    const hadFocus = place.contains(document.activeElement);
    while (place.children.length > processes.length) place.lastElementChild.remove();
    while (place.children.length < processes.length) place.append(document.createElement("button"));
    processes.forEach((one, i) => this.#fill(place.children[i], one));
    place.classList.toggle("crowd", processes.length > 1);
    if (hadFocus && !place.contains(document.activeElement)) place.firstElementChild?.focus();
  }

  #fill(button, { role, pid, frozen, dead, words }) {
    button.dataset.role = role;
    button.dataset.pid = pid;
    button.replaceChildren(words);
    const state = frozen ? "frozen" : dead ? "dead" : pid ? `pid ${pid}` : "";
    if (state) button.appendChild(document.createElement("small")).textContent = state;
    button.classList.toggle("frozen", Boolean(frozen));
    button.classList.toggle("dead", Boolean(dead));
    const now = frozen ? ", frozen" : dead ? ", dead" : "";
    button.title = `${wordsOf(role)}${pid ? `, process ${pid}` : ""}${now}: click to kill or freeze it`;
    button.setAttribute("aria-label", `lane ${this.name}: ${button.title}`);
    button.onclick = () => this.chosen(this.name, role, pid, frozen);
  }

  #showState(facts) {
    const [text, warn] = stateOf(facts);
    const state = this.element.querySelector(".state");
    setText(state, text);
    state.classList.toggle("warn", warn);
  }

  #showNumbers({ numbers, settled, gaps }) {
    for (const name of NUMBERS) {
      const place = this.#numbers[name];
      setText(place.lastElementChild, format.format(numbers[name]));
      place.classList.toggle("zero", numbers[name] === 0);
    }
    setText(this.element.querySelector(".inbox"), format.format(numbers.delivered + numbers.twice + numbers.recovered));
    const [text, warn] = sumOf(numbers, settled, gaps);
    const sum = this.element.querySelector(".sum");
    setText(sum, text);
    sum.classList.toggle("warn", warn);
  }
}

function stateOf({ status, behind, race, answer_ms, inbox_ms }) {
  if (status === "starts") return ["starting", false];
  if (status !== "runs") return [status, status !== "ends"];
  if (behind) return [`falls behind: ${format.format(behind)} emails are due`, true];
  if (race) return [`answers ${race.answered} of ${race.count}, ${seconds(race.answered_ms)}\ninbox ${race.arrived} of ${race.count}, ${seconds(race.arrived_ms)}`, false];
  if (answer_ms !== null) return [`answer ${seconds(answer_ms)}\ninbox ${inbox_ms === null ? "–" : seconds(inbox_ms)}`, false];
  return ["runs", false];
}

const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

function sumOf(numbers, settled, gaps) {
  if (!closes(numbers)) return ["does not add up", true];
  if (gaps.length) return [gaps[0], true];
  if (!numbers.asked) return ["", false];
  const more = [
    [numbers.refused, "not accepted"], [numbers.recovered, "arrived without a 2xx"], [numbers.unexpected, "unexpected"], [numbers.late, "of an earlier account"],
  ].filter(([count]) => count).map(([count, words]) => `${format.format(count)} ${words}`);
  return [[settled ? "✓ adds up" : "in progress", ...more].join(" · "), false];
}
